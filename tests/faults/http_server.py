"""An HTTP server that does what a test says, and can misbehave below HTTP as well.

It reads just enough HTTP/1.1 to know one request from the next, and hands each to the test's handler.
What goes back is the handler's business, byte by byte if it likes: a handler that says nothing complete
has its connection closed when it returns.
"""

from __future__ import annotations

import json
import math
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Of 127.0.0.1, signed by itself, with its key."""

GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request as it arrived. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def message(self) -> Any:
        return json.loads(self.body)

    @property
    def rpc_method(self) -> str | None:
        return self.message.get("method") if self.body else None


class Talk:
    """One request, and the means to answer it."""

    def __init__(self, received: Received, stream: ByteStream, server: FaultServer) -> None:
        self.received = received
        self.server = server
        self.complete = False
        self._stream = stream
        # A stream of events may be written to by whoever serves another request.
        self._writing = anyio.Lock()

    @property
    def stream(self) -> ByteStream:
        return self._stream

    @property
    def id(self) -> Any:
        return self.received.message.get("id")

    async def raw(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.send(data)

    async def reply(
        self,
        status: int,
        body: bytes = b"",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A complete response."""
        await self.head(status, {"content-length": str(len(body)), **(headers or {})}, content_type)
        await self.raw(body)
        self.complete = True

    async def result(self, result: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """The answer to this request, as JSON."""
        await self.reply(200, answer(self.id, result), "application/json", headers)

    async def head(
        self, status: int, headers: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> None:
        fields = dict(headers or {})
        if content_type is not None:
            fields["content-type"] = content_type
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in fields.items())]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def begin_events(self, headers: Mapping[str, str] | None = None) -> None:
        await self.head(200, {"transfer-encoding": "chunked", **(headers or {})}, "text/event-stream")

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, data: Any, **fields: str) -> None:
        """One event with a message, or with bytes as they are, in a chunk of its own."""
        lines = "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        await self.chunk(lines + b"data: " + text + b"\n\n")

    async def end_events(self) -> None:
        await self.raw(b"0\r\n\r\n")
        self.complete = True

    async def hang(self) -> None:
        """Say nothing more, until the other side has gone."""
        with suppress(*GONE):
            while True:
                await self._stream.receive()

    async def reset(self) -> None:
        """End the connection by RST."""
        raw = self._stream.extra(SocketAttribute.raw_socket)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self._stream.aclose()

    async def close(self) -> None:
        """End the connection by FIN, wherever in the response it is."""
        await self._stream.aclose()


Handler: TypeAlias = Callable[[Talk], Awaitable[None]]


@dataclass(slots=True, eq=False)
class FaultServer:
    """What has reached the server so far."""

    port: int
    scheme: str = "http"
    requests: list[Received] = field(default_factory=list[Received])
    accepted: int = 0
    open: int = 0
    reads: float = math.inf
    """Bytes of a body that are taken. What announces more is refused by 413 before any of it is read."""
    streams: dict[str, Talk] = field(default_factory=dict[str, Talk])
    """Of HTTP+SSE: what carries the answers, by the query of the address that was named on it."""
    _changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/mcp"

    def of(self, method: str) -> list[Received]:
        """The requests of one HTTP method."""
        return [received for received in self.requests if received.method == method]

    async def until(self, condition: Callable[[FaultServer], bool]) -> None:
        """Wait until `condition` holds of what has reached the server."""
        while not condition(self):
            await self._changed.wait()

    def changed(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


@asynccontextmanager
async def fault_server(
    handler: Handler, *, tls: bool = False, port: int = 0, reads: float = math.inf
) -> AsyncGenerator[FaultServer]:
    """A server on 127.0.0.1 that gives every request to `handler`. What that raises ends the test."""
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    server = FaultServer(plain.extra(SocketAttribute.local_port), "https" if tls else "http", reads=reads)
    listener: Any = plain
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        listener = TLSListener(plain, context, standard_compatible=False)

    async def connection(stream: ByteStream) -> None:
        server.accepted += 1
        server.open += 1
        server.changed()
        number = server.accepted
        try:
            async with stream:
                await _converse(server, stream, number, handler)
        finally:
            server.open -= 1
            server.changed()

    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, connection, tg)
        yield server
        tg.cancel_scope.cancel()


async def _converse(server: FaultServer, stream: ByteStream, number: int, handler: Handler) -> None:
    # One buffer for the whole connection: it may hold the beginning of the next request.
    buffered = BufferedByteReceiveStream(stream)
    with suppress(*GONE):
        while True:
            received = await _read_request(buffered, number, server.reads)
            if received is None:
                refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large"
                await stream.send(refusal)
                # The client is still writing. Closed at once, the connection would be reset.
                await anyio.sleep(0.1)
                while True:
                    await buffered.receive()
            server.requests.append(received)
            server.changed()
            talk = Talk(received, stream, server)
            await handler(talk)
            if not talk.complete:
                return


async def _read_request(stream: BufferedByteReceiveStream, number: int, limit: float) -> Received | None:
    """The next request. None if its body is longer than `limit`, and is left unread."""
    head = (await stream.receive_until(b"\r\n\r\n", 1 << 20)).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    length = int(headers.get("content-length", "0"))
    if length > limit:
        return None
    body = await stream.receive_exactly(length)
    return Received(method=method, target=target, headers=headers, body=body, connection=number)


def answer(request_id: Any, result: Any = None) -> bytes:
    """The JSON text of a result."""
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result or {}}).encode()


def error_answer(request_id: Any, code: int = -32603, message: str = "no") -> bytes:
    """The JSON text of a JSON-RPC error."""
    return json.dumps(
        {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}
    ).encode()


# What a handler can do with any request.

NOTIFICATION = {"jsonrpc": "2.0", "method": "notifications/message"}


async def close(talk: Talk) -> None:
    await talk.close()


async def reset(talk: Talk) -> None:
    await talk.reset()


async def garbage(talk: Talk) -> None:
    await talk.raw(b"SMTP/1.0 what\r\n\r\n")


async def never(talk: Talk) -> None:
    await talk.hang()


def session(inner: Handler, *, get: Handler | None = None, delete: Handler | None = None) -> Handler:
    """A legacy server that gives a session id, and leaves the rest to `inner`."""

    async def handler(talk: Talk) -> None:
        method = talk.received.method
        if method == "GET":
            await (get(talk) if get is not None else talk.reply(405))
        elif method == "DELETE":
            await (delete(talk) if delete is not None else talk.reply(204))
        elif talk.received.rpc_method == "initialize":
            await talk.result({"ok": True}, {"mcp-session-id": "S-1"})
        elif talk.received.rpc_method == "notifications/initialized":
            await talk.reply(202)
        else:
            await inner(talk)

    return handler


async def gone(talk: Talk) -> None:
    await talk.reply(404, error_answer("server-error", -32600, "Session not found"), "application/json")


async def status_500(talk: Talk) -> None:
    await talk.reply(500)


async def no_events(talk: Talk) -> None:
    await talk.begin_events()
    await talk.end_events()


def resuming(get: Handler) -> Handler:
    """A stream that ends after one event with an id, and whose resumption is answered by `get`."""

    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST":
            await talk.begin_events()
            await talk.event(NOTIFICATION, id="1")
            await talk.end_events()
        else:
            await get(talk)

    return handler


async def head_then_silence(talk: Talk) -> None:
    await talk.head(200, {"content-length": "10"}, "application/json")
    await talk.hang()


async def events_then_silence(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(NOTIFICATION)
    await talk.hang()

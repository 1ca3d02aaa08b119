"""Servers over HTTP that answer as a plan says, byte by byte, in this process. Without a plan, rightly.

A response is bytes with places in them: `@ID@` and `@TOKEN@` are filled from the request, `@LEN@` becomes the
length of the body, and a body whose head says `x-fuzz: gzip` is compressed.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.fuzz.traffic import answer, pieces, result_of

GONE: Final = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    OSError,
)


@dataclass(slots=True, eq=False)
class Plan:
    """What is said instead of what is right, by JSON-RPC method, or by HTTP method and path."""

    era: str = "legacy"
    says: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    port: int = 0
    streams: list[ByteStream] = field(default_factory=list[ByteStream])
    """Of HTTP+SSE: what carries the answers; its place here is in the address that was named on it."""
    writing: anyio.Lock = field(default_factory=anyio.Lock)


def reply(status: int, body: bytes = b"", kind: bytes = b"application/json", extra: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n" % (status, kind, len(body))
    return head + extra + b"\r\n" + body


def fill(data: bytes, request: Any, port: int) -> bytes:
    params = request.get("params") if isinstance(request, dict) else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    token = meta.get("progressToken", 0) if isinstance(meta, dict) else 0
    identity = request.get("id") if isinstance(request, dict) else None
    data = data.replace(b'"@ID@"', json.dumps(identity).encode())
    data = data.replace(b'"@TOKEN@"', json.dumps(token).encode()).replace(b"@PORT@", b"%d" % port)
    head, blank, body = data.partition(b"\r\n\r\n")
    if b"x-fuzz: gzip" in head:
        body = gzip.compress(body, 1)
    return head.replace(b"@LEN@", b"%d" % len(body)) + blank + body


async def say(stream: ByteStream, chunks: list[str], request: Any, port: int) -> None:
    for piece in pieces(fill("".join(chunks).encode("latin-1"), request, port), chunks):
        await stream.send(piece)


async def read_request(buffered: BufferedByteReceiveStream) -> tuple[str, str, dict[str, str], bytes]:
    head = (await buffered.receive_until(b"\r\n\r\n", 1 << 20)).decode("latin-1")
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return method, target, headers, await buffered.receive_exactly(int(headers.get("content-length", "0")))


class StreamableServer:
    """Streamable HTTP, in both eras."""

    def __init__(self) -> None:
        self.plan = Plan()

    async def respond(self, stream: ByteStream, method: str, target: str, body: bytes) -> bool:
        """Whether the connection may carry another request."""
        request = json.loads(body) if body else None
        key = request.get("method", "answer") if isinstance(request, dict) else method
        chunks = self.plan.says.get(key)
        if chunks is not None:
            await say(stream, chunks, request, self.plan.port)
            return False
        await stream.send(self.usual(method, request))
        return True

    def usual(self, method: str, request: Any) -> bytes:
        if request is None:
            return reply(405 if method == "GET" else 200)
        if "id" not in request or "method" not in request:
            return reply(202)
        result = result_of(request["method"], self.plan.era)
        if result is None:
            error = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no method"}}
            return reply(404 if self.plan.era == "modern" else 200, json.dumps(error).encode())
        extra = b"mcp-session-id: s1\r\n" if request["method"] == "initialize" else b""
        body = fill(json.dumps(answer(result)).encode(), request, 0)
        return reply(200, body, extra=extra)


class SseServer(StreamableServer):
    """HTTP+SSE: a plan for a JSON-RPC method is what goes onto the stream."""

    async def respond(self, stream: ByteStream, method: str, target: str, body: bytes) -> bool:
        says = self.plan.says
        if method == "GET":
            self.plan.streams.append(stream)
            head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            named = f"event: endpoint\ndata: /{len(self.plan.streams) - 1}\n\n"
            for chunk in says.get("GET", [head + named]):
                await stream.send(chunk.encode("latin-1"))
            with suppress(*GONE):
                while True:
                    await stream.receive()
            return False
        request = json.loads(body)
        if "POST" in says:
            await say(stream, says["POST"], request, self.plan.port)
            return False
        await stream.send(reply(202, b"Accepted", b"text/plain"))
        if "id" not in request or "method" not in request:
            return True
        carrier = self.plan.streams[int(target[1:])]
        chunks = says.get(request["method"])
        if chunks is None:
            message = self.usual("POST", request).partition(b"\r\n\r\n")[2]
            # What was said before may have been cut off in the middle of an event.
            chunks = ["\n\ndata: " + message.decode("latin-1") + "\n\n"]
        with suppress(*GONE):
            async with self.plan.writing:
                await say(carrier, chunks, request, self.plan.port)
        return True


@asynccontextmanager
async def serving(server: Any) -> AsyncGenerator[int]:
    """A server on 127.0.0.1; yields its port. Its tasks are named after this module."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port: int = listener.extra(SocketAttribute.local_port)

    async def connection(stream: ByteStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        with suppress(*GONE):
            async with stream:
                while True:
                    method, target, headers, body = await read_request(buffered)
                    if hasattr(server, "headers"):
                        server.headers = headers
                    if not await server.respond(stream, method, target, body):
                        return

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, connection, tasks, name="tests.fuzz.servers")
        yield port
        tasks.cancel_scope.cancel()

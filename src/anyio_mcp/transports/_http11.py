"""One HTTP/1.1 connection: a request out, its response in, on an anyio byte stream, parsed by h11.

This file owns the framing, the bounds of what a server may send around a body, and whether a connection may
be used again. It must not know of JSON-RPC, of sessions, or where a connection comes from (`_httppool.py`).

What breaks is raised as the error of httpx2 that says so: callers meet the same types whichever client made
the request.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import anyio
import h11
import httpx2
from anyio.abc import ByteStream, SocketAttribute

MAX_HEAD_BYTES: Final = 100 * 1024
"""Status line and headers of one response, or the trailers or one chunk's size line. More is refused."""

MAX_INFORMATIONAL: Final = 32
"""Responses of the 1xx kind before the response itself. More are refused: each is a head of its own."""

READ_BYTES: Final = 256 * 1024
"""As much as asyncio reads from a socket at once, so that nothing is left in a buffer between."""

WRITE_BYTES: Final = 64 * 1024
"""A longer request is written in pieces of this size, with the response being read meanwhile."""

_BREAKS: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError)

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@final
@dataclass(frozen=True, slots=True, eq=False)
class ResponseHead:
    """Status line and headers, as they came."""

    http_version: bytes
    status: int
    reason: bytes
    headers: Headers


@final
class Http11Connection:
    """One connection, used by one exchange at a time."""

    __slots__ = ("_h11", "_head", "_stream", "_unsent", "idle_since", "origin")

    def __init__(self, stream: ByteStream, origin: object) -> None:
        self.origin = origin
        """What the connection leads to. Compared by its pool, never looked into here."""
        self.idle_since = 0.0
        self._stream = stream
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head: h11.Response | None = None
        """The head of a response that came while its request was still being written."""
        self._unsent = False

    async def request(self, method: bytes, target: bytes, headers: Headers, content: bytes) -> ResponseHead:
        """Write one request and wait for the head of its response. Responses of the 1xx kind are skipped.

        A response that comes before the request is written completely is read all the same: a server that
        refuses a large request answers and closes (RFC 9112, section 9.5).

        Raises `httpx2.LocalProtocolError` for what cannot be sent, `httpx2.RemoteProtocolError` for what is
        no HTTP, and `httpx2.ReadError` when the connection breaks. It is of no further use then, nor after
        a cancellation.
        """
        try:
            data = bytearray(self._h11.send(h11.Request(method=method, target=target, headers=list(headers))))
            if content:
                data += self._h11.send(h11.Data(data=content))
            data += self._h11.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise httpx2.LocalProtocolError(str(error)) from error
        if len(data) <= WRITE_BYTES:
            await self._write(bytes(data))
        else:
            await self._write_and_read(memoryview(data))
        head, self._head = self._head, None
        if head is None:
            head = await self._next_head()
        return ResponseHead(
            b"HTTP/" + head.http_version, head.status_code, head.reason, head.headers.raw_items()
        )

    async def read(self) -> bytes | None:
        """The next piece of the body, None behind its end. Raises as `request` does."""
        event = await self._next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        return None

    @property
    def is_reusable(self) -> bool:
        """Whether the exchange is over and nothing came behind it."""
        return (
            not self._unsent
            and self._h11.our_state is h11.DONE
            and self._h11.their_state is h11.DONE
            and not self._h11.trailing_data[0]
        )

    def start_next(self) -> None:
        """Make a reusable connection ready for the next exchange."""
        self._h11.start_next_cycle()

    def is_readable(self) -> bool:
        """Whether the server has closed the idle connection, or says something unasked."""
        descriptor: int = self._stream.extra(SocketAttribute.raw_socket).fileno()
        if descriptor < 0:
            return True
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([descriptor], [], [], 0)[0])

    async def aclose(self) -> None:
        """Close the socket. Waits for no peer."""
        await self._stream.aclose()

    async def _write(self, data: bytes) -> None:
        try:
            await self._stream.send(data)
        except _BREAKS:
            # The server reads no more. It may have said why before it closed.
            self._unsent = True

    async def _write_and_read(self, data: memoryview) -> None:
        # Until all of it is written: an early response ends the writing.
        self._unsent = True
        over = anyio.Event()
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._read_early, over, tg.cancel_scope, name="anyio_mcp early response")
            try:
                for start in range(0, len(data), WRITE_BYTES):
                    await self._stream.send(bytes(data[start : start + WRITE_BYTES]))
            except _BREAKS:
                # The server reads no more. What it has said before is still read: a head, or the end.
                await over.wait()
            else:
                self._unsent = False
            tg.cancel_scope.cancel()

    async def _read_early(self, over: anyio.Event, writing: anyio.CancelScope) -> None:
        """Read while the request is being written, and end the writing when that has become pointless."""
        try:
            head = await self._next_head()
        except httpx2.TransportError:
            # Raised again by whoever reads next: h11 remembers the error, and the stream its end.
            writing.cancel()
        else:
            self._head = head
            over.set()
            if head.status_code >= 400:
                writing.cancel()

    async def _next_head(self) -> h11.Response:
        for _ in range(MAX_INFORMATIONAL + 1):
            event = await self._next_event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise httpx2.RemoteProtocolError("the server switched to another protocol unasked")
        raise httpx2.RemoteProtocolError(f"more than {MAX_INFORMATIONAL} responses of the 1xx kind")

    async def _next_event(self) -> object:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise httpx2.RemoteProtocolError(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            data = await self._receive()
            if not data and self._h11.their_state is h11.SEND_RESPONSE and not self._h11.trailing_data[0]:
                raise httpx2.RemoteProtocolError("Server disconnected without sending a response.")
            self._h11.receive_data(data)

    async def _receive(self) -> bytes:
        try:
            return await self._stream.receive(READ_BYTES)
        except anyio.EndOfStream:
            return b""
        except _BREAKS as error:
            raise httpx2.ReadError(str(error.__cause__ or "the connection is closed")) from error

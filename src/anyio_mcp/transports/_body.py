"""The body of a response: its first bytes can be looked at before it is read, and its events taken from it.

What a body is, is told by its content-type, and where that is wrong or missing by how it begins. Must not
know what the messages in it mean.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias, final

import anyio
import httpx2

from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._budget import BarrenBudget, Pace
from anyio_mcp.transports._headers import EVENT_STREAM, JSON, media_type
from anyio_mcp.transports._httpclient import HttpRequester, announced_bytes
from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser

Kind: TypeAlias = Literal["json", "events", "other"]

_BLANK: Final = b" \t\r\n\xef\xbb\xbf"
# A field of an event ends with a colon or with its line; no JSON text begins like one.
_FIELDS: Final = (b":", b"data:", b"event:", b"id:", b"retry:")
_LONGEST_FIELD: Final = len(b"event:")
# A body that begins with more blanks than this is what its content-type says.
_LONGEST_LEAD: Final = 1024

# A chunk of more lines is handled in small parts: each line takes as long as thousands of bytes.
_MANY_LINES: Final = 256
_PART: Final = 2048


@final
class Body:
    """A body that is read once. To be used as a context, like everything that holds a connection."""

    __slots__ = ("_broken", "_budget", "_chunks", "_head", "_http", "_limit", "_response", "left")

    def __init__(self, http: HttpRequester, response: httpx2.Response, limit: int) -> None:
        self.left = math.inf
        """How many decoded bytes of events are read at most; for the rest the connection is closed."""
        self._http = http
        self._response = response
        self._limit = limit
        self._budget = BarrenBudget()
        self._chunks = http.chunks(response, self._budget.receive)
        self._head = b""
        self._broken: RequestFailedError | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self._chunks.aclose()

    async def kind(self) -> Kind:
        """Wait for the first bytes, if they are needed to tell.

        What breaks in the meantime is raised when the body is read.
        """
        declared = media_type(self._response.headers.get("content-type", ""))
        if declared == JSON and announced_bytes(self._response) > self._limit:
            return "json"  # it will not be read
        # A body that nobody declared to be an answer is waited for only briefly: it is an error page.
        patience = math.inf if declared in (JSON, EVENT_STREAM) else self._http.policy.error_body_seconds
        begins: Kind | None = None
        with anyio.move_on_after(patience):
            begins = await self._begins()
        if begins is not None:
            return begins
        return "json" if declared == JSON else "events" if declared == EVENT_STREAM else "other"

    async def _begins(self) -> Kind | None:
        try:
            while True:
                begin = self._head.lstrip(_BLANK)
                if begin.startswith((b"{", b"[")):
                    return "json"
                if begin.startswith(_FIELDS):
                    return "events"
                if len(begin) >= _LONGEST_FIELD or len(self._head) > _LONGEST_LEAD:
                    return None
                self._head += await anext(self._chunks)
        except RequestFailedError as error:
            self._broken = error
        except StopAsyncIteration:
            pass
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece as it arrives. Raises `RequestFailedError` where the body breaks off."""
        head, self._head = self._head, b""
        if head:
            return head
        if self._broken is not None:
            raise self._broken
        return await anext(self._chunks)

    async def read(self) -> bytearray:
        """All of it. Raises `RequestFailedError(reason="oversized")` as soon as it exceeds the limit."""
        return await self._http.collect(self._response, self, self._limit)

    async def events(self, parser: SseParser) -> AsyncGenerator[SseEvent | SseOverflow]:
        """The events of the body. Raises `RequestFailedError` where it breaks off, and for a body that
        is decoded to next to no events."""
        pace = Pace()
        async for chunk in self:
            for part, lines in _parts(chunk):
                self.left -= len(part)
                barren = len(part) + parser.held
                for event in parser.feed(part):
                    # An event that was too large for us was one all the same.
                    barren -= len(event.data) if isinstance(event, SseEvent) else parser.limit
                    yield event
                if self.left < 0:
                    return
                if not self._budget.spend(barren - parser.held):
                    raise RequestFailedError(
                        f"{self._http.describe} sent a compressed stream of next to no events",
                        reason="violation",
                    )
                await pace.spend(0, lines)


def _parts(chunk: bytes) -> Iterator[tuple[bytes, int]]:
    """`chunk` in parts that are handled in a few milliseconds each, and how many lines each has."""
    lines = _lines(chunk)
    if lines <= _MANY_LINES:
        yield chunk, lines
        return
    for start in range(0, len(chunk), _PART):
        part = chunk[start : start + _PART]
        yield part, _lines(part)


def _lines(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r")

"""JSON-RPC as lines in a stream of bytes, without I/O: framing, and what a line means.

The work is linear in the bytes and the memory bounded by the limit, however the bytes are cut into
chunks. Must not know where the bytes come from or who waits for an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias, final

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._attribution import HEAD_BYTES, TAIL_BYTES, answered_request, ends_of
from anyio_mcp.transports._reading import Received, read_messages
from anyio_mcp.transports.base import RequestFault, Violation

_BOM: Final = b"\xef\xbb\xbf"
_DETAIL: Final = 200
_OPENINGS: Final = frozenset(b"{[\xef")
"""What a message begins with; the last is the first byte of a byte order mark."""


@final
@dataclass(frozen=True, slots=True)
class Oversized:
    """Both ends of a line that was longer than the limit."""

    head: bytes
    tail: bytes


Line: TypeAlias = bytearray | Oversized


@final
class LineFramer:
    """Cuts a stream into lines. Ends of line are LF or CRLF; blank lines are left out.

    A line of more than `limit` bytes is discarded while it arrives. A byte order mark is accepted
    where a stream begins.
    """

    __slots__ = ("_at_start", "_limit", "_line", "_size", "_tail")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._at_start = True
        # At most `limit` bytes and one, then HEAD_BYTES: the rest of the line is dropped.
        self._line = bytearray()
        self._size = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[Line]:
        """The lines that `data` completes. Only `data` is searched, never what came before."""
        lines: list[Line] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if end == start and not self._size:
                # A line with nothing in it. A chunk may be nothing else: each must cost next to nothing.
                self._at_start = False
            else:
                self._add(data[start:end])
                lines += self._end_line()
            start = end + 1
        self._add(data[start:])
        return lines

    def finish(self) -> list[Line]:
        """The line the stream ended in, if it was in one."""
        return self._end_line()

    def _add(self, piece: bytes) -> None:
        if not piece:
            return
        self._size += len(piece)
        # One byte more than the limit is kept: it may be the CR of the line's end.
        if self._size <= self._limit + 1:
            self._line += piece
            return
        self._tail = (bytes(self._tail or self._line[-TAIL_BYTES:]) + piece[-TAIL_BYTES:])[-TAIL_BYTES:]
        self._line += piece[:HEAD_BYTES]
        del self._line[HEAD_BYTES:]

    def _end_line(self) -> list[Line]:
        line, size, tail, at_start = self._line, self._size, self._tail, self._at_start
        self._line, self._size, self._tail, self._at_start = bytearray(), 0, b"", False
        if size > self._limit + 1:
            return [Oversized(bytes(line), tail)]
        if line.endswith(b"\r"):
            del line[-1:]
        if len(line) > self._limit:
            return [Oversized(*ends_of(line))]
        if at_start and line.startswith(_BOM):
            del line[: len(_BOM)]
        return [line] if line and not line.isspace() else []


def read_line(line: Line, limits: Limits) -> list[Received]:
    """What one line means: a message or those of a batch, or what is wrong with it."""
    if not isinstance(line, Oversized):
        beginning = line[:_DETAIL].lstrip()
        if beginning and beginning[0] not in _OPENINGS:
            # No parser has to find that out, a hundred thousand times.
            return [Violation(f"a line that is no JSON object: {bytes(beginning[:100])!r}"[:_DETAIL])]
        return [
            Violation(f"{item.detail[:100]}: {bytes(line[:100])!r}"[:_DETAIL])
            if isinstance(item, Violation)
            else item
            for item in read_messages(line, limits)
        ]
    request_id = answered_request(line.head, line.tail)
    what = f"exceeds Limits.max_message_bytes ({limits.max_message_bytes})"
    if request_id is None:
        return [Violation(f"a line {what}: {line.head[:80]!r}"[:_DETAIL])]
    return [RequestFault(request_id, RequestFailedError(f"the answer {what}", reason="oversized"))]

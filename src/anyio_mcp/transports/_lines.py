"""JSON-RPC as lines in a stream of bytes, without I/O: framing, and what a line means.

The work is linear in the bytes and the memory bounded by the limit, however the bytes are cut into
chunks. Must not know where the bytes come from or who waits for an answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any, Final, TypeAlias, final

from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports.base import RequestFault, Violation, parse_message

HEAD_BYTES: Final = 4096
TAIL_BYTES: Final = 512
"""What is kept of both ends of a line over the limit, to find out whose answer it was."""

_BOM: Final = b"\xef\xbb\xbf"
_DETAIL: Final = 200
_SPACE: Final = re.compile(r"[ \t\r]*")
_LAST_MEMBER_IS_ID: Final = re.compile(rb',\s*"id"\s*:\s*(-?\d{1,18}|"[^"\\]{1,200}")\s*\}\s*\Z')


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
            return [Oversized(bytes(line[:HEAD_BYTES]), bytes(line[-TAIL_BYTES:]))]
        if at_start and line.startswith(_BOM):
            del line[: len(_BOM)]
        return [line] if line and not line.isspace() else []


def read_line(
    line: Line, limit: int
) -> JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError | RequestFault | Violation:
    """What one line means: a message, or what is wrong with it."""
    if isinstance(line, Oversized):
        request_id = answered_request(line)
        what = f"exceeds Limits.max_message_bytes ({limit})"
        if request_id is None:
            return Violation(f"a line {what}: {line.head[:80]!r}"[:_DETAIL])
        return RequestFault(request_id, RequestFailedError(f"the answer {what}", reason="oversized"))
    try:
        return parse_message(line)
    except ValueError as error:
        return Violation(f"{str(error)[:100]}: {bytes(line[:100])!r}"[:_DETAIL])


def answered_request(line: Oversized) -> RequestId | None:
    """The id of the request that a line over the limit answers, as far as its ends tell.

    Only an answer has one: the id in a request of the server is the server's own, and taking it for
    ours would fail a call that has nothing to do with it.
    """
    text = line.head.removeprefix(_BOM).decode("utf-8", "replace")
    decode = JSONDecoder().raw_decode
    request_id: RequestId | None = None
    position = _skip(text, 0)
    try:
        if text[position] != "{":
            return None
        # Members are read until one says what the message is. All before it must be scalars: nothing
        # else belongs there, and what is nested could be deep.
        while True:
            position = _skip(text, position + 1)
            if text[position] != '"':
                return None
            name, position = decode(text, position)
            position = _skip(text, position)
            if text[position] != ":" or name in ("method", "params"):
                return None
            if name in ("result", "error"):
                return _id_at_end(line.tail) if request_id is None else request_id
            position = _skip(text, position + 1)
            if text[position] in "[{":
                return None
            value, position = decode(text, position)
            if name == "id":
                request_id = _as_id(value)
            position = _skip(text, position)
            if text[position] != ",":
                return None
    except (ValueError, IndexError):
        # The kept part ended, or it is no JSON.
        return None


def _id_at_end(tail: bytes) -> RequestId | None:
    """The id when it is the last member of the object that the line is: some servers write it there.

    The last brace of a line closes its outermost object, so the member before it is the message's own.
    """
    match = _LAST_MEMBER_IS_ID.search(tail)
    if match is None:
        return None
    try:
        return _as_id(JSONDecoder().decode(match[1].decode()))
    except ValueError:
        return None


def _as_id(value: Any) -> RequestId | None:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _skip(text: str, position: int) -> int:
    """Where the next token begins."""
    match = _SPACE.match(text, position)
    return position if match is None else match.end()

"""Server-sent events from bytes, without I/O: bounded, linear in the input, whatever the chunking.

Follows the parsing rules of the HTML standard (section "Server-sent events"), except that `data` stays
bytes: a JSON parser then sees invalid UTF-8 as the error it is. Must not know about JSON-RPC or HTTP.

Own code, since classic httpx has no parser and the one of httpx2 ends the whole stream at an event over
its limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, final

_LINE_END: Final = re.compile(rb"\r\n|[\r\n]")
_SPACE: Final = 0x20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_LONGEST_NAME: Final = len(b"event")
# What a line of data may be longer than its data: the mark, the field's name, a colon and a space.
_LINE_OVERHEAD: Final = len(_BYTE_ORDER_MARK + b"data: ")
_HEAD_BYTES: Final = 512


@final
@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event. `data` is empty for an event that only carries an id."""

    event: str
    data: bytes | bytearray


@final
@dataclass(frozen=True, slots=True)
class SseOverflow:
    """An event exceeded the limit. Its rest is skipped; the stream goes on behind it."""

    head: bytes = field(default=b"", compare=False)
    """How its data began: enough to find out whose answer it was."""


@final
class SseParser:
    """The state of one event stream.

    `last_event_id` is the id of the last complete event ("" when there was none) and `retry` the
    server's reconnection time in milliseconds; both are what a reconnection needs. `limit` is how many
    bytes an event may have.
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_event",
        "_id",
        "_line",
        "_skipping",
        "_started",
        "last_event_id",
        "limit",
        "retry",
    )

    def __init__(self, limit: int, *, last_event_id: str = "", retry: int | None = None) -> None:
        self.last_event_id = last_event_id
        self.retry = retry
        self.limit = limit
        # Both together never exceed the limit by more than a chunk: beyond it the event is skipped.
        self._line = bytearray()
        self._data = bytearray()
        self._event = ""
        self._id: str | None = None
        self._after_cr = False
        self._started = False
        self._skipping = False

    @property
    def held(self) -> int:
        """Bytes of the event that is not complete yet."""
        return len(self._line) + len(self._data)

    def feed(self, chunk: bytes) -> Iterator[SseEvent | SseOverflow]:
        """The events that `chunk` completes. To be exhausted before the next chunk is fed."""
        if not chunk:
            return
        # The line ended with the CR; this LF is the second half of the same line ending.
        start = 1 if self._after_cr and chunk.startswith(b"\n") else 0
        for end in _LINE_END.finditer(chunk, start):
            overflow = self._extend(chunk, start, end.start())
            if overflow is not None:
                yield overflow
            start = end.end()
            event = self._end_line()
            if event is not None:
                yield event
        overflow = self._extend(chunk, start, len(chunk))
        if overflow is not None:
            yield overflow
        self._after_cr = chunk.endswith(b"\r")

    def _extend(self, chunk: bytes, start: int, end: int) -> SseOverflow | None:
        """Add to the current line; what the event became if that made it too large."""
        if self._skipping:
            # All that matters of a skipped line is whether it is the blank one that ends the event.
            if end > start:
                self._line[:] = b":"
            return None
        self._line += memoryview(chunk)[start:end]
        if len(self._line) + len(self._data) <= self.limit + _LINE_OVERHEAD:
            return None
        overflow = self._skip()
        self._line += b":"
        return overflow

    def _skip(self) -> SseOverflow:
        head = self._data[:_HEAD_BYTES] or self._line[:_HEAD_BYTES].removeprefix(b"data:")
        self._skipping = True
        self._line = bytearray()
        self._data = bytearray()
        return SseOverflow(bytes(head))

    def _end_line(self) -> SseEvent | SseOverflow | None:
        line, self._line = self._line, bytearray()
        if not self._started:
            self._started = True
            if line.startswith(_BYTE_ORDER_MARK):
                del line[: len(_BYTE_ORDER_MARK)]
        if not line:
            return self._dispatch()
        if self._skipping:
            return None
        # Only the few bytes that can hold a known name are searched: a line may be megabytes long.
        colon = line.find(b":", 0, _LONGEST_NAME + 1)
        if colon < 0:
            name, value = bytes(line[: _LONGEST_NAME + 1]), memoryview(b"")
        else:
            name, value = bytes(line[:colon]), memoryview(line)[colon + 1 :]
        if value and value[0] == _SPACE:
            value = value[1:]
        return self._field(name, value)

    def _field(self, name: bytes, value: memoryview) -> SseOverflow | None:
        match name:
            case b"data":
                self._data += value
                if len(self._data) > self.limit:
                    return self._skip()
                self._data += b"\n"
            case b"event":
                self._event = str(value, "utf-8", "replace")
            case b"id":
                if b"\0" not in bytes(value):
                    self._id = str(value, "utf-8", "replace")
            case b"retry":
                digits = bytes(value)
                if digits.isdigit():
                    # Ten digits are longer than any reconnection time; int() refuses thousands of them.
                    self.retry = int(digits.lstrip(b"0")[:10] or b"0")
            case _:
                pass  # a comment, or a field the standard says to ignore
        return None

    def _dispatch(self) -> SseEvent | None:
        skipped, self._skipping = self._skipping, False
        name, self._event = self._event, ""
        data, self._data = self._data, bytearray()
        event_id, self._id = self._id, None
        if event_id is not None:
            self.last_event_id = event_id
        if skipped or (not data and event_id is None):
            return None
        del data[-1:]  # the newline behind the last line of data
        return SseEvent(event=name or "message", data=data)


def carries_data(event: SseEvent | SseOverflow) -> bool:
    """Whether a stream that brought this event got further by it. The same id again is no progress."""
    return isinstance(event, SseOverflow) or bool(event.data)

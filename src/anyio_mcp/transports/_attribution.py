"""Which request a message answers that was not parsed: too large for it, or no JSON.

Only the two ends of such a message are looked at. Must not know how it was framed.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import Any, Final

from mcp.types import RequestId

HEAD_BYTES: Final = 4096
TAIL_BYTES: Final = 512
"""What is kept of both ends of such a message, to find out whose answer it was."""

LONGEST_ID: Final = 1024
"""Characters of an id. Ours are small numbers, and what is kept of an answer nobody waits for is its id."""

_BOM: Final = b"\xef\xbb\xbf"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_LAST_MEMBER_IS_ID: Final = re.compile(rb',\s*"id"\s*:\s*(-?\d{1,18}(?:\.0{1,9})?|"[^"\\]{1,200}")\s*\}\s*\Z')
_LARGEST_FLOAT_ID: Final = 2.0**53


def as_request_id(value: object) -> RequestId | None:
    """The id that a member `id` holds; None for what can be none. 3.0 is 3, as it is in JavaScript."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if abs(value) <= _LARGEST_FLOAT_ID and value.is_integer() else None
    if isinstance(value, str):
        return value if len(value) <= LONGEST_ID else None
    return value if isinstance(value, int) else None


def ends_of(message: bytes | bytearray) -> tuple[bytes, bytes]:
    """What is kept of a message that is not."""
    return bytes(message[:HEAD_BYTES]), bytes(message[-TAIL_BYTES:])


def answered_request(head: bytes, tail: bytes) -> RequestId | None:
    """The id of the request that a message answers, as far as its first and last bytes tell.

    Only an answer has one: the id in a request of the server is the server's own, and taking it for
    ours would fail a call that has nothing to do with it.
    """
    text = head.removeprefix(_BOM).decode("utf-8", "replace")
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
            if text[position] != ":":
                return None
            position = _skip(text, position + 1)
            # A member that is null is not there.
            if not text.startswith("null", position):
                if name in ("method", "params"):
                    return None
                if name in ("result", "error"):
                    return _id_at_end(tail) if request_id is None else request_id
            if text[position] in "[{":
                return None
            value, position = decode(text, position)
            if name == "id":
                request_id = as_request_id(value)
            position = _skip(text, position)
            if text[position] != ",":
                return None
    except (ValueError, IndexError):
        # The kept part ended, or it is no JSON.
        return None


def _id_at_end(tail: bytes) -> RequestId | None:
    """The id when it is the last member of the object that the message is: some servers write it there.

    The last brace of a message closes its outermost object, so the member before it is the message's own.
    """
    match = _LAST_MEMBER_IS_ID.search(tail)
    if match is None:
        return None
    try:
        value: Any = JSONDecoder().decode(match[1].decode())
    except ValueError:
        return None
    return as_request_id(value)


def _skip(text: str, position: int) -> int:
    """Where the next token begins."""
    match = _SPACE.match(text, position)
    return position if match is None else match.end()

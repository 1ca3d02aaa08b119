"""The most expensive messages a server can send, by name: what stands between the braces of an answer.

Each is made from a number of bytes, and none is larger than that. Which of them a client may take, and what
it may cost, is `test_largest.py`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

ID: Final = b"@ID@"
"""Where the id of the request goes, as JSON."""

MIB: Final = 1024 * 1024


def _filled(begin: bytes, piece: bytes, end: bytes, size: int) -> bytes:
    """`begin`, as many of `piece` as fit, and `end`."""
    return begin + piece * ((size - len(begin) - len(end)) // len(piece)) + end


def _result(member: bytes, opened: bytes, piece: bytes, closed: bytes) -> Callable[[int], bytes]:
    begin = b'{"jsonrpc":"2.0","id":@ID@,"result":{"resultType":"complete",' + member
    return lambda size: _filled(begin + opened, piece, closed + b"}}", size - 100)


_CONTENT: Final = b'"content":[],"structuredContent":{"v":'
_BLOCK: Final = b'{"type":"text","text":""}'
_TEXT: Final = b'"content":[{"type":"text","text":"'


def _keys(size: int) -> bytes:
    members = b",".join(b'"%d":0' % number for number in range(size // 12))
    return b'{"jsonrpc":"2.0","id":@ID@,"result":{' + _CONTENT + b"{" + members + b"}}}}"


def _nested(opens: bytes, closes: bytes) -> Callable[[int], bytes]:
    def message(size: int) -> bytes:
        depth = (size - 200) // (len(opens) + len(closes))
        begin = b'{"jsonrpc":"2.0","id":@ID@,"result":{' + _CONTENT
        return begin + opens * depth + b"0" + closes * depth + b"}}}"

    return message


def _error(begin: bytes, piece: bytes, end: bytes) -> Callable[[int], bytes]:
    opened = b'{"jsonrpc":"2.0","id":@ID@,"error":{"code":-32000,' + begin
    return lambda size: _filled(opened, piece, end + b"}}", size - 100)


ANSWERS: Final[dict[str, Callable[[int], bytes]]] = {
    "one text": _result(_TEXT, b"", b"x", b'"}]'),
    "one text of two-byte characters": _result(_TEXT, b"", "é".encode(), b'"}]'),
    "one text of escapes": _result(_TEXT, b"", rb"\u00e9", b'"}]'),
    "one text of halves of surrogates": _result(_TEXT, b"", rb"\ud800", b'"}]'),
    "one text of terminal escapes": _result(_TEXT, b"", rb"\u001b[2J", b'"}]'),
    "a text per block": _result(
        b"", b'"content":[', b'{"type":"text","text":""},', b'{"type":"text","text":""}]'
    ),
    "an odd block each": _result(b"", b'"content":[', b'{"type":"x"},', b'{"type":"x"}]'),
    "integers": _result(_CONTENT, b"[", b"1,", b"1]}"),
    "numbers with an exponent": _result(_CONTENT, b"[", b"1e9,", b"1]}"),
    "empty lists": _result(_CONTENT, b"[", b"[],", b"[]]}"),
    "empty objects": _result(_CONTENT, b"[", b"{},", b"{}]}"),
    "empty strings": _result(_CONTENT, b"[", b'"",', b'""]}'),
    "nulls in _meta": _result(b'"content":[],"_meta":{"v":', b"[", b"null,", b"null]}"),
    "members": _keys,
    "one member again and again": _result(_CONTENT, b"{", b'"a":0,', b'"a":0}}'),
    "lists in lists": _nested(b"[", b"]"),
    "objects in objects": _nested(b'{"a":', b"}"),
    "one integer of many digits": _result(_CONTENT, b"", b"1", b"}"),
    "one fraction of many digits": _result(_CONTENT, b"0.", b"1", b"}"),
    "blanks": _result(_CONTENT, b"0", b" ", b"}"),
    "members nobody knows": _result(b'"content":[],', b"", b'"x":[],', b'"y":0'),
    "an error of one text": _error(b'"message":"', b"x", b'"'),
    "an error with lists": _error(b'"message":"","data":[', b"[],", b"[]]"),
    "a list that is never closed": _result(_CONTENT, b"", b"[", b"}"),
    "no JSON": lambda size: b"x" * (size - 100),
    "bytes that are no text": lambda size: b'{"a":"' + b"\xff" * (size - 100),
    "a batch": lambda size: _filled(
        b"[", b'{"jsonrpc":"2.0","method":"notifications/x"},', b"{}]", size - 100
    ),
}
"""The text of one answer of at most so many bytes."""

NAMELESS: Final = frozenset(("no JSON", "bytes that are no text", "a batch"))
"""Those that do not say which request they answer: over a stream, its call ends by its deadline."""

LOG: Final = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":%s}}'

FLOODS: Final[dict[str, Callable[[int], bytes]]] = {
    "notifications": lambda size: (LOG % b'""' + b"\n") * (size // 100),
    "notifications of no known method": lambda size: b'{"jsonrpc":"2.0","method":"x"}\n' * (size // 31),
    "notifications that are none": lambda size: b'{"jsonrpc":"2.0","method":5}\n' * (size // 30),
    "empty objects by line": lambda size: b"{}\n" * (size // 3),
    "blank lines": lambda size: b"\n" * size,
    "lines of a blank": lambda size: b" \n" * (size // 2),
    "lines of a carriage return": lambda size: b"\r\n" * (size // 2),
    "answers nobody waits for": lambda size: b'{"jsonrpc":"2.0","id":-5,"result":{}}\n' * (size // 40),
    "requests": lambda size: b'{"jsonrpc":"2.0","id":5,"method":"ping"}\n' * (size // 41),
}
"""Lines that come before an answer, so many bytes of them."""

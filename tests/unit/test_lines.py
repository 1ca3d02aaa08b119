"""Framing and reading of lines: no process, no loop."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._attribution import HEAD_BYTES, TAIL_BYTES, answered_request
from anyio_mcp.transports._lines import Line, LineFramer, Oversized, read_line
from anyio_mcp.transports._reading import Received
from anyio_mcp.transports.base import RequestFault, Violation

BOM = b"\xef\xbb\xbf"


def frame(data: bytes, limit: int = 1000, cuts: list[int] | None = None) -> list[bytes | Oversized]:
    framer = LineFramer(limit)
    edges = [0, *sorted(cut for cut in cuts or [] if cut < len(data)), len(data)]
    lines = [line for start, end in pairwise(edges) for line in framer.feed(data[start:end])]
    lines += framer.finish()
    return [line if isinstance(line, Oversized) else bytes(line) for line in lines]


def one(line: Line, limit: int) -> Received:
    [item] = read_line(line, Limits(max_message_bytes=limit))
    return item


def answered(line: Oversized) -> object:
    return answered_request(line.head, line.tail)


def oversized(data: bytes) -> Oversized:
    [line] = frame(data, limit=len(data) // 2)
    assert isinstance(line, Oversized)
    return line


# Few different bytes, so that ends of line, marks and blanks meet in every way.
streams = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b" ", b"a", b"bc", b"{}", BOM, b"\xff", b"x" * 700]), max_size=40
).map(b"".join)


@given(data=streams, cuts=st.lists(st.integers(0, 400), max_size=40), limit=st.integers(1, 40))
def test_any_chunking_of_the_same_bytes_gives_the_same_lines(data: bytes, cuts: list[int], limit: int):
    assert frame(data, limit, cuts) == frame(data, limit)
    assert frame(data, limit, list(range(len(data)))) == frame(data, limit)


@given(data=streams, limit=st.integers(1, 40))
def test_lines_are_what_splitting_the_whole_stream_gives(data: bytes, limit: int):
    expected: list[bytes | Oversized] = []
    for number, part in enumerate(data.split(b"\n")):
        line = part.removesuffix(b"\r")
        if len(line) > limit:
            # The CR of a line that was discarded is not told apart any more; nobody looks at it.
            kept = line if len(part) == limit + 1 else part
            expected.append(Oversized(kept[:HEAD_BYTES], kept[-TAIL_BYTES:]))
            continue
        line = line.removeprefix(BOM) if number == 0 else line
        if line.strip():
            expected.append(line)
    assert frame(data, limit) == expected


def test_lines_may_end_in_lf_or_crlf_and_blank_ones_are_skipped():
    assert frame(b"a\nb\r\n\n \t\r\n\r\nc") == [b"a", b"b", b"c"]


def test_a_byte_order_mark_is_accepted_at_the_start_and_nowhere_else():
    assert frame(BOM + b"a\n" + BOM + b"b\n") == [b"a", BOM + b"b"]
    assert frame(BOM + b"\na\n") == [b"a"]


def test_a_line_of_exactly_the_limit_passes_whatever_its_end():
    assert frame(b"1234\n1234\r\n1234", limit=4) == [b"1234"] * 3
    assert frame(b"12345\n", limit=4) == [Oversized(b"12345", b"12345")]


def test_the_line_behind_one_over_the_limit_is_read_as_usual():
    assert frame(b"x" * 5000 + b"\nok\n", limit=100)[1:] == [b"ok"]


def test_a_line_over_the_limit_holds_no_more_than_its_ends():
    framer = LineFramer(1000)
    for _ in range(1000):
        assert framer.feed(b"x" * 65536) == []
    [line] = framer.feed(b"y\n")
    assert line == Oversized(b"x" * HEAD_BYTES, b"x" * (TAIL_BYTES - 1) + b"y")


def test_a_message_of_50_mb_in_small_chunks_is_one_line():
    data = b'{"jsonrpc":"2.0","id":1,"result":{"text":"' + b"x" * 50_000_000 + b'"}}\n'
    framer = LineFramer(64_000_000)
    lines = [line for at in range(0, len(data), 65536) for line in framer.feed(data[at : at + 65536])]
    assert [bytes(line) for line in lines if not isinstance(line, Oversized)] == [data[:-1]]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"jsonrpc":"2.0","id":1,"result":{}}', JSONRPCResponse),
        (b'{"jsonrpc":"2.0","method":"m"}', JSONRPCNotification),
        (b' {"jsonrpc":"2.0","id":"a","method":"m"} ', JSONRPCRequest),
    ],
)
def test_a_line_that_is_a_message_is_read_as_one(line: bytes, kind: type):
    assert isinstance(one(bytearray(line), 100), kind)


@pytest.mark.parametrize(
    "line",
    [
        b"INFO: ready",
        b"\xff\xfe{}",
        b'{"jsonrpc":"2.0","id":1,"res',
        b"[]",
        b"{}",
        b"42",
        b"[" * 5000,
        b"x" * 5000,
    ],
)
def test_a_line_that_is_no_message_is_a_short_violation_that_quotes_it(line: bytes):
    item = one(bytearray(line), 10_000)
    assert isinstance(item, Violation)
    assert repr(line[:5])[2:-1] in item.detail
    assert len(item.detail) <= 200
    assert "\n" not in item.detail


BIG = "x" * 10_000


@pytest.mark.parametrize(
    ("message", "request_id"),
    [
        ({"jsonrpc": "2.0", "id": 7, "result": {"text": BIG}}, 7),
        ({"id": "seven", "jsonrpc": "2.0", "result": {"text": BIG}}, "seven"),
        ({"id": 7, "error": {"code": 1, "message": BIG}}, 7),
        ({"id": 'qu"ote', "extra": None, "result": BIG}, 'qu"ote'),
        ({"result": {"text": BIG}, "jsonrpc": "2.0", "id": 7}, 7),
        ({"result": {"text": BIG, "id": 8}, "jsonrpc": "2.0", "id": "seven"}, "seven"),
        ({"jsonrpc": "2.0", "error": {"message": BIG}, "id": -7}, -7),
    ],
)
def test_the_request_that_a_line_over_the_limit_answers_is_found(message: object, request_id: object):
    for data in (
        json.dumps(message),
        json.dumps(message, separators=(",", ":")),
        json.dumps(message, indent=1),
    ):
        line = oversized(BOM * (data[1] != " ") + data.replace("\n", " \t").encode())
        assert answered(line) == request_id
        item = one(line, 5)
        assert isinstance(item, RequestFault)
        assert item.request_id == request_id
        assert isinstance(item.error, RequestFailedError)
        assert item.error.reason == "oversized"


@pytest.mark.parametrize(
    "message",
    [
        # The id of a request of the server is the server's own.
        {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {"text": BIG}},
        {"id": 7, "params": {"text": BIG}, "method": "sampling/createMessage"},
        {"params": {"text": BIG}, "method": "m", "id": 7},
        {"result": {"text": BIG}, "id": 7, "jsonrpc": "2.0"},
        {"result": {"text": BIG, "id": 7}},
        {"jsonrpc": "2.0", "id": None, "error": {"message": BIG}},
        {"jsonrpc": "2.0", "id": True, "result": {"text": BIG}},
        {"jsonrpc": "2.0", "id": 1.5, "result": {"text": BIG}},
        {"jsonrpc": "2.0", "result": {"text": BIG}, "id": 1.5},
        {"_meta": {"id": 7}, "id": 7, "result": BIG},
        {"pad": BIG, "id": 7, "result": {}},
        [{"id": 7, "result": BIG}],
        BIG,
    ],
)
def test_a_line_over_the_limit_that_may_not_be_an_answer_fails_nobodys_call(message: object):
    line = oversized(json.dumps(message).encode())
    assert answered(line) is None
    item = one(line, 5)
    assert isinstance(item, Violation)
    assert len(item.detail) <= 200


@pytest.mark.parametrize(
    "data",
    [
        b" ",
        b"{",
        b'{"id"',
        b'{"id" 7, "result": 1',
        b'{"id": 7',
        b"{" + b"\xff" * 50,
        b'{1: 2, "result"',
        b'{"id": 7} ',
        b"{" + b"[" * 4000,
    ],
)
def test_a_line_over_the_limit_that_is_no_json_fails_nobodys_call(data: bytes):
    assert answered(Oversized(data, data)) is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whose_answer_it_was_can_be_asked_of_any_bytes(head: bytes, tail: bytes):
    assert answered(Oversized(b'{"id":1,' + head, tail)) in (None, 1)
    answered(Oversized(b'{"result":' + head, b',"id":' + tail + b"}"))


def test_an_id_at_the_end_that_cannot_be_read_is_none():
    assert answered(Oversized(b'{"result":', b',"id":"\xff"}')) is None
    assert answered(Oversized(b'{"result":', b',"id":"a\tb"}')) is None

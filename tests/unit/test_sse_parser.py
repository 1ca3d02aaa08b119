"""The parser of event streams against a plain reading of the standard, whatever the chunks."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser

FRAGMENTS = [
    b"data",
    b"data: one",
    b"data:two",
    b"data:  three",
    b"data:",
    b"dat",
    b"datatypes: x",
    b"event: other",
    b"event",
    b"id: 1",
    b"id:",
    b"id: a\0b",
    b"id: \xc3\xa4",
    b"retry: 10",
    b"retry: 0010",
    b"retry: 1x",
    b"retry: -1",
    b"retry:",
    b"retry: " + b"9" * 5000,
    b": a comment",
    b"unknown: field",
    b" data: x",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r",
    b"\n",
    b"\r\n",
    b"\n\n",
    b"\r\r",
    b"\r\n\r\n",
]


def parse(parser: SseParser, chunks: Iterable[bytes]) -> list[SseEvent | SseOverflow]:
    return [event for chunk in chunks for event in parser.feed(chunk)]


def standard(stream: bytes) -> tuple[list[tuple[str, bytes]], str, int | None]:
    """The events of a whole stream, its last event id and its retry: the standard's steps, one by one."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    *lines, _incomplete = re.split(rb"\r\n|\n|\r", stream)
    events: list[tuple[str, bytes]] = []
    data: list[bytes] = []
    name = last_id = ""
    pending: str | None = None
    retry: int | None = None
    for line in lines:
        if not line:
            if pending is not None:
                last_id = pending
            if data or pending is not None:
                events.append((name or "message", b"\n".join(data)))
            data, name, pending = [], "", None
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode(errors="replace")
        elif field == b"id" and b"\0" not in value:
            pending = value.decode(errors="replace")
        elif field == b"retry" and re.fullmatch(rb"[0-9]+", value):
            retry = int(value.lstrip(b"0")[:10] or b"0")
    return events, last_id, retry


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """A stream of likely and unlikely lines, cut anywhere."""
    stream = b"".join(draw(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=5), max_size=40)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(chunked())
@example([b"data: a\r", b"\n\r", b"\ndata: b\r\r"])
@example([b"\xef", b"\xbb", b"\xbfdata: a\n\n"])
@example([b"data: a\r", b"", b"\n", b"\n"])
def test_the_events_do_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    parser = SseParser(1_000_000)
    events = [
        (event.event, bytes(event.data)) for event in parse(parser, chunks) if isinstance(event, SseEvent)
    ]
    assert (events, parser.last_event_id, parser.retry) == standard(b"".join(chunks))


@given(chunked(), st.integers(1, 12))
def test_a_limit_only_takes_out_the_events_over_it(chunks: list[bytes], limit: int) -> None:
    stream = b"".join(chunks)
    whole = [
        event
        for event in parse(SseParser(1_000_000), [stream])
        if isinstance(event, SseEvent) and len(event.data) <= limit
    ]
    parser = SseParser(limit)
    limited = parse(parser, chunks)
    kept = [event for event in limited if isinstance(event, SseEvent)]
    assert all(len(event.data) <= limit for event in kept)
    # A comment or an unknown field that is too long takes its event out as well, so some may be missing.
    remaining = iter(whole)
    assert all(any(event == other for other in remaining) for event in kept)
    if SseOverflow() not in limited:
        assert kept == whole


def test_an_event_is_delivered_with_its_blank_line_and_not_later() -> None:
    parser = SseParser(100)
    assert parse(parser, [b"data: a\r"]) == []
    assert parse(parser, [b"\n\r"]) == [SseEvent("message", b"a")]
    assert parse(parser, [b"\n"]) == []


def test_an_id_counts_only_with_its_blank_line() -> None:
    parser = SseParser(100, last_event_id="before")
    parse(parser, [b"id: 1\ndata: a\n"])
    assert parser.last_event_id == "before"
    parse(parser, [b"\n"])
    assert parser.last_event_id == "1"


def test_an_event_without_data_is_told_if_it_has_an_id() -> None:
    assert parse(SseParser(100), [b"id: 1\n\nid: 2\ndata:\n\nevent: x\n\n"]) == [
        SseEvent("message", b""),
        SseEvent("message", b""),
    ]


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 11,
        b"data: 12345\ndata: 67890",
        b":" + b"x" * 100,
        b"x" * 100,
        b"data: 12345\n" + b"x" * 100,
        b"data:\n" * 11 + b"data:",
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_too_much_is_told_once_and_at_once_and_the_stream_goes_on(stream: bytes, size: int) -> None:
    parser = SseParser(10)
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert parse(parser, [*chunks, b"\n"]) == [SseOverflow()]
    assert parse(parser, [b"data: more of it\nid: 5\n\n"]) == []
    assert parse(parser, [b"data: 0123456789\n\n"]) == [SseEvent("message", b"0123456789")]


def test_a_skipped_event_holds_no_memory() -> None:
    parser = SseParser(10)
    for _ in range(1000):
        parse(parser, [b"x" * 10_000])
    assert len(parser._line) + len(parser._data) < 100


def test_the_id_of_a_skipped_event_counts_so_that_it_is_not_sent_again() -> None:
    parser = SseParser(10)
    assert parse(parser, [b"id: 1\ndata: " + b"x" * 100 + b"\n\n"]) == [SseOverflow()]
    assert parser.last_event_id == "1"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_how_an_event_over_the_limit_began_is_kept(size: int) -> None:
    text = b'event: message\ndata: {"id": 7,\ndata: ' + b"x" * 100 + b"\n\ndata: next\n\n"
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    overflow, behind = parse(SseParser(50), chunks)
    assert isinstance(overflow, SseOverflow)
    assert overflow.head.strip().startswith(b'{"id": 7,')
    assert behind == SseEvent("message", b"next")
    one_line = b'data: {"id": 7, ' + b"x" * 100
    (overflow,) = parse(SseParser(50), [one_line[start : start + size] for start in range(0, 116, size)])
    assert isinstance(overflow, SseOverflow)
    assert overflow.head.strip().startswith(b'{"id": 7,')

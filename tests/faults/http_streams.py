"""Streams of events that answer a request: what is skipped, what breaks, and how they are resumed."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio

from anyio_mcp import Limits
from tests.faults.http_answers import LIMIT, SMALL, add_silence
from tests.faults.http_outcomes import (
    WORKS,
    Cells,
    answered,
    failed,
    not_connected,
)
from tests.faults.http_server import (
    NOTIFICATION,
    Handler,
    Talk,
    answer,
    close,
    error_answer,
    events_then_silence,
    garbage,
    no_events,
    reset,
)
from tests.faults.http_stage import BEGINNING, ECHO, Scene, Stage, call
from tests.faults.matrix import Outcome

CELLS: Final = Cells("HTTP: an answer as a stream of events")


def counts(**numbers: int) -> Callable[[Stage], None]:
    def check(stage: Stage) -> None:
        stats = stage.client.stats()
        for name, number in numbers.items():
            assert getattr(stats, name) == number, f"{name} is {getattr(stats, name)}"

    return check


# --- streams that end or break off -------------------------------------------------------------------


def breaks(begin: bytes, end: Callable[[Talk], Awaitable[None]]) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        if begin:
            await talk.chunk(begin)
        await end(talk)

    return handler


async def end_events(talk: Talk) -> None:
    await talk.end_events()


async def _answer_without_a_blank_line(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"data: " + answer(talk.id, ECHO) + b"\n")
    await talk.end_events()


LOG: Final = {**NOTIFICATION, "params": {"level": "info", "data": "busy"}}
MESSAGE: Final = b"data: " + json.dumps(LOG).encode() + b"\n\n"
HALF: Final = b'data: {"jsonrpc": "2.0", "id"'

for _fault, _handler in (
    ("ends without an event", no_events),
    ("ends behind a notification, without an event id", breaks(MESSAGE, end_events)),
    ("ends in the middle of an event", breaks(HALF, end_events)),
    ("is cut off by FIN", breaks(MESSAGE, close)),
    ("is cut off by RST", breaks(MESSAGE, reset)),
    ("is cut off by FIN in the middle of an event", breaks(HALF, close)),
    ("is cut off by RST in the middle of an event", breaks(HALF, reset)),
    ("goes on in garbage", breaks(MESSAGE, garbage)),
    ("has an answer without the final blank line", _answer_without_a_blank_line),
    ("ends with an event id that cannot be sent back", breaks(b"id: a\x01b\n" + MESSAGE, end_events)),
):
    CELLS.add(_fault, "in flight", failed("transport"), Scene(fault=_handler))
    CELLS.add(_fault, "connecting", not_connected("transport"), Scene(fault=_handler, meets=BEGINNING))

# --- silence, and what is no silence -----------------------------------------------------------------


async def _half_an_event_then_silence(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(HALF)
    await talk.hang()


async def _a_stream_then_silence(talk: Talk) -> None:
    await talk.begin_events()
    await talk.hang()


def for_ever(chunk: bytes) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        while True:
            await talk.chunk(chunk)
            await anyio.sleep(0.01)

    return handler


add_silence(CELLS, "silence", _a_stream_then_silence)
add_silence(CELLS, "a notification, then silence", events_then_silence)
add_silence(CELLS, "half an event, then silence", _half_an_event_then_silence)
add_silence(CELLS, "comments for ever", for_ever(b": still here\n\n"), traffic=True)
add_silence(CELLS, "notifications for ever", for_ever(MESSAGE), traffic=True)
add_silence(CELLS, "events without data for ever", for_ever(b"event: ping\n\n"), traffic=True)


# --- events that are none, and events behind the answer ----------------------------------------------


def events(*data: bytes, then_answer: bool = True, behind: tuple[bytes, ...] = ()) -> Handler:
    """Lines as they are, then the answer, then more lines."""

    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        for each in data:
            await talk.chunk(each)
        if then_answer:
            await talk.event(answer(talk.id, ECHO))
        for each in behind:
            await talk.chunk(each)
        await talk.end_events()

    return handler


def data(text: bytes) -> bytes:
    return b"data: " + text + b"\n\n"


SKIPPED: Final[Mapping[str, tuple[bytes, int]]] = {
    "invalid JSON": (data(b"{not json"), 1),
    "invalid UTF-8": (data(b'"\xff"'), 1),
    "a batch": (data(b"[]"), 1),
    "neither result nor error": (data(b'{"jsonrpc": "2.0", "id": 4711}'), 1),
    "a line of a log": (data(b'{"level": "info", "id": 1, "error": "refused"}'), 1),
    "an answer with a wrong id": (data(answer(4711)), 1),
    "an error with a wrong id": (data(error_answer(4711)), 1),
    "a malformed notification": (data(b'{"jsonrpc": "2.0", "method": 7}'), 1),
    "a notification with params that are none": (
        data(b'{"jsonrpc": "2.0", "method": "notifications/x", "params": [1]}'),
        1,
    ),
    "another event name": (b"event: ping\n" + data(b"ignored"), 0),
    "an event without data": (b"event: message\n\n", 0),
    "a field nobody knows": (b"what: ever\n\n", 0),
    "a `retry` that is no number": (b"retry: soon\n\n", 0),
    "a byte order mark": (b"\xef\xbb\xbf: hello\n\n", 0),
}
for _fault, (_line, _violations) in SKIPPED.items():
    CELLS.add(
        f"{_fault}; before the answer",
        "in flight",
        Outcome(note="skipped and counted" if _violations else "skipped, as the specification says"),
        Scene(fault=events(_line), check=counts(violations=_violations)),
    )
    CELLS.add(
        f"{_fault}; instead of the answer",
        "in flight",
        failed("transport"),
        Scene(fault=events(_line, then_answer=False), check=counts(violations=_violations)),
    )
CELLS.add(
    "an error with id null",
    "in flight",
    answered(-32700),
    Scene(fault=events(data(error_answer(None, -32700)), then_answer=False)),
)


async def _call_and_see_the_rest(stage: Stage) -> None:
    """The answer is there before what follows it."""
    await call(stage)
    while not stage.client.stats().violations:
        await anyio.sleep(0.001)


async def _two_answers(talk: Talk) -> None:
    await events(behind=(data(answer(talk.id, {"content": []})),))(talk)


CELLS.add(
    "two answers",
    "in flight",
    Outcome(note="the first one wins, the second is counted"),
    Scene(fault=_two_answers, act=_call_and_see_the_rest, check=counts(violations=1)),
)
CELLS.add(
    "an oversized event behind the answer",
    "in flight",
    Outcome(note="counted"),
    Scene(
        fault=events(behind=(data(b"x" * (LIMIT + 1)),)),
        act=_call_and_see_the_rest,
        check=counts(violations=1),
        limits=SMALL,
    ),
)


async def _left_open(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(answer(talk.id, ECHO))
    await talk.hang()


async def _goes_on_and_on(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(answer(talk.id, ECHO))
    while True:
        await talk.chunk(b": more\n" * 1000)


CELLS.add("left open behind the answer", "in flight", WORKS, Scene(fault=_left_open))
CELLS.add("goes on for ever behind the answer", "in flight", WORKS, Scene(fault=_goes_on_and_on))


# --- too much ----------------------------------------------------------------------------------------


async def _a_line_without_an_end(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b"x" * 1000)


async def _an_event_without_an_end(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b"data: x\n" * 100)


LARGE: Final = 2_000_000


async def _a_large_event(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(large_answer(talk))
    await talk.end_events()


def large_answer(talk: Talk) -> bytes:
    """The answer, with two megabytes and more in it."""
    return answer(talk.id, {**ECHO, "_meta": {"ballast": "x" * LARGE}})


for _fault, _handler in (
    ("an event larger than `Limits.max_message_bytes`", events(data(b"x" * (LIMIT + 1)))),
    ("a line without an end", _a_line_without_an_end),
    ("an event without an end", _an_event_without_an_end),
):
    CELLS.add(_fault, "in flight", failed("oversized"), Scene(fault=_handler, limits=SMALL))
    CELLS.add(
        _fault, "connecting", not_connected("oversized"), Scene(fault=_handler, meets=BEGINNING, limits=SMALL)
    )
CELLS.add("an event of 2 MB", "in flight", WORKS, Scene(fault=_a_large_event))
CELLS.add(
    "an event of 2 MB; over the limit",
    "in flight",
    failed("oversized"),
    Scene(fault=_a_large_event, limits=Limits(max_message_bytes=LARGE)),
)


def _flood(number: int) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        for _ in range(number // 1000):
            await talk.chunk(MESSAGE * 1000)
        await talk.event(answer(talk.id, ECHO))
        await talk.end_events()

    return handler


CELLS.add("5,000 notifications before the answer", "in flight", WORKS, Scene(fault=_flood(5_000)))
CELLS.add(
    "100,000 notifications before the answer",
    "in flight",
    WORKS,
    Scene(fault=_flood(100_000), call=120.0),
    within=30.0,
    eras=("modern",),
)

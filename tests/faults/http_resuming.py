"""Streams of events that end before the answer and can be resumed: how often, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import httpx2

from anyio_mcp.transports._policy import HttpPolicy
from tests.faults.http_answers import LIMIT, SMALL
from tests.faults.http_driver import QUICK
from tests.faults.http_outcomes import (
    BEAT,
    CALL,
    LIVELY,
    TOO_LATE,
    Cells,
    expired,
    failed,
    refused,
)
from tests.faults.http_server import (
    Handler,
    Received,
    Talk,
    close,
    events_then_silence,
    garbage,
    never,
    no_events,
    reset,
)
from tests.faults.http_stage import CALLS, Scene, Stage
from tests.faults.http_streams import LOG, MESSAGE, breaks, end_events
from tests.faults.matrix import Outcome

CELLS: Final = Cells("HTTP: an answer as a stream of events that is resumed")


def gets(count: int) -> Callable[[Stage], None]:
    """The stream was asked for again this often. The session's own GET stream is one more."""

    def check(stage: Stage) -> None:
        resumed = [get for get in stage.server.of("GET") if "last-event-id" in get.headers]
        assert len(resumed) == count, f"{len(resumed)} attempts to resume"

    return check


def resumed_by(get: Handler, begin: bytes = b"id: 1\n" + MESSAGE) -> Handler:
    """A stream that ends without an answer behind an event with an id, and is asked for again."""

    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST":
            await breaks(begin, end_events)(talk)
        else:
            await get(talk)

    return handler


def _call_or_resume(received: Received) -> bool:
    return CALLS(received) or "last-event-id" in received.headers


async def _get_the_same(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"id: 1\nretry: 0\ndata:\n\n")
    await talk.end_events()


async def _get_the_next(talk: Talk) -> None:
    number = int(talk.received.headers["last-event-id"])
    await talk.begin_events()
    await talk.event(LOG, id=str(number + 1))
    await talk.end_events()


async def _get_json(talk: Talk) -> None:
    await talk.reply(200, b"{}", "application/json")


async def _get_oversized(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(b"x" * (LIMIT + 1))
    await talk.end_events()


async def _get_redirect(talk: Talk) -> None:
    await talk.reply(302, headers={"location": "http://other.example/mcp"})


def _get_status(status: int) -> Handler:
    return lambda talk: talk.reply(status)


RESUME_TOTAL: Final = 20
MANY: Final = replace(QUICK, resume_total=RESUME_TOTAL)
ATTEMPTS: Final = "5 attempts, at least 0.1 s apart"


def _add_resumption(
    fault: str, get: Handler, outcome: Outcome, attempts: int, *, policy: HttpPolicy = QUICK, bound: str = ""
) -> None:
    CELLS.add(
        f"ends with event ids; the GET that resumes it {fault}",
        "in flight",
        outcome,
        Scene(
            fault=resumed_by(get), meets=_call_or_resume, check=gets(attempts), policy=policy, limits=SMALL
        ),
        bound=bound,
        eras=("legacy",),
    )


for _status in (400, 401, 403, 405):
    _add_resumption(f"answers {_status}", _get_status(_status), refused(_status), 1)
for _status in (500, 503):
    _add_resumption(
        f"answers {_status}",
        _get_status(_status),
        failed("transport", httpx2.HTTPStatusError),
        5,
        bound=ATTEMPTS,
    )
_add_resumption("answers 404", _get_status(404), expired(refused=False), 1)
_add_resumption("answers in JSON", _get_json, failed("violation"), 1)
_add_resumption("brings too large an event", _get_oversized, failed("oversized"), 1)
_add_resumption("is redirected to another origin", _get_redirect, failed("redirect"), 1)
for _fault, _get in (
    ("ends at once, for ever", no_events),
    ("brings the same id for ever, with `retry: 0`", _get_the_same),
    ("is closed, for ever", close),
    ("is reset, for ever", reset),
    ("answers garbage, for ever", garbage),
):
    _add_resumption(_fault, _get, failed("transport"), 5, bound=ATTEMPTS)
_add_resumption(
    "brings one more event and ends, for ever",
    _get_the_next,
    failed("transport"),
    RESUME_TOTAL,
    policy=MANY,
    bound="100 attempts, at least 0.1 s apart",
)
for _fault, _get in (("hangs", never), ("streams nothing", events_then_silence)):
    CELLS.add(
        f"ends with event ids; the GET that resumes it {_fault}; the server lives",
        "in flight",
        TOO_LATE,
        Scene(fault=resumed_by(_get), meets=_call_or_resume, call=CALL, heartbeat=LIVELY, check=gets(1)),
        within=CALL,
        eras=("legacy",),
    )
CELLS.add(
    "ends with event ids; the GET that resumes it hangs; the server is dead",
    "in flight",
    TOO_LATE,
    Scene(fault=resumed_by(never), call=CALL, heartbeat=BEAT, dead=True),
    within=CALL,
    eras=("legacy",),
)

CELLS.add(
    "ends with event ids; nothing is resumed",
    "in flight",
    failed("transport"),
    Scene(fault=breaks(b"id: 1\n" + MESSAGE, end_events), check=gets(0)),
    eras=("modern",),
)

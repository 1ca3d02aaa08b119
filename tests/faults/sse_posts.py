"""HTTP+SSE, the POST of a message: its own affair, whatever becomes of it."""

from __future__ import annotations

from typing import Final

import anyio
import httpx2

from anyio_mcp import SessionLostError
from tests.faults.http_answers import (
    BREAKS,
    SILENCES,
    add_silence,
)
from tests.faults.http_connecting import Impatient
from tests.faults.http_notices import (
    call_and_answer,
    call_or_answer,
    notify_and_call,
)
from tests.faults.http_outcomes import (
    CALL,
    SENT_AGAIN,
    TOO_LATE,
    WORKS,
    Cells,
    connecting,
    expired,
    failed,
    not_connected,
)
from tests.faults.http_server import (
    Handler,
    Talk,
    answer,
    garbage,
    never,
    reset,
    status_500,
)
from tests.faults.http_stage import (
    CALLS,
    ECHO,
    HANDSHAKE,
    INITIALIZED,
    NOTIFICATIONS,
    Stage,
    call,
    notify,
)
from tests.faults.http_statuses import BODIES, GONE, STATUSES, of_status, status
from tests.faults.http_streams import (
    counts,
)
from tests.faults.matrix import Outcome
from tests.faults.sse_stage import (
    WHOLE,
    SseScene,
    acknowledge,
    answered_first,
    answered_last,
    say_answer,
    stream_of,
)

CELLS: Final = Cells("HTTP+SSE", eras=("legacy",))


for _code in STATUSES:
    _gone = _code in GONE
    for _name, _body in BODIES.items():
        if _gone:
            CELLS.add(
                f"to a POST, status {_code}; body: {_name}; once",
                "in flight",
                SENT_AGAIN,
                SseScene(fault=status(_code, _body), times=1),
            )
        CELLS.add(
            f"to a POST, status {_code}; body: {_name}{'; in every session' if _gone else ''}",
            "in flight",
            expired(refused=True, status=_code) if _gone else of_status(_code, _name),
            SseScene(fault=status(_code, _body)),
        )
    _refused = status(_code, BODIES["empty"])
    for _fault, _meets in (("`initialize`", HANDSHAKE), ("`notifications/initialized`", INITIALIZED)):
        # A session that has yet to begin cannot be gone.
        _lost = _gone and _meets is INITIALIZED
        CELLS.add(
            f"to {_fault}; status {_code}",
            "connecting",
            not_connected("expired", SessionLostError) if _lost else connecting(of_status(_code, "empty")),
            SseScene(fault=_refused, meets=_meets),
        )
    CELLS.add(
        f"to a notification; status {_code}",
        "idle",
        expired(refused=False, status=_code) if _gone else of_status(_code, "empty"),
        SseScene(fault=_refused, meets=NOTIFICATIONS, act=notify),
    )


async def _call_and_be_answered_late(stage: Stage) -> None:
    """The answer comes when the call has failed."""
    try:
        await call(stage)
    finally:
        (stream,) = stage.server.streams.values()
        (posted,) = filter(CALLS, stage.server.requests)
        await stream.event(answer(posted.message["id"], ECHO), event="message")
        while not stage.client.stats().late_replies:
            await anyio.sleep(0.001)


for _fault, _handler in BREAKS.items():
    if _fault in WHOLE:
        CELLS.add(
            f"to a POST; {_fault}",
            "in flight",
            failed("transport", httpx2.RequestError),
            SseScene(fault=_handler),
        )
        CELLS.add(
            f"to a POST; {_fault}",
            "connecting",
            not_connected("transport"),
            SseScene(fault=_handler, meets=HANDSHAKE),
        )
        CELLS.add(
            f"to a POST, answered on the stream afterwards; {_fault}",
            "in flight",
            failed("transport", httpx2.RequestError),
            SseScene(fault=_handler, act=_call_and_be_answered_late, check=counts(late_replies=1)),
        )
    else:
        # Whoever has read the head of it knows that the message was taken.
        CELLS.add(
            f"to a POST, answered on the stream afterwards; {_fault}",
            "in flight",
            WORKS,
            SseScene(fault=answered_last(_handler)),
        )
    CELLS.add(
        f"to a POST, already answered on the stream; {_fault}",
        "in flight",
        WORKS,
        SseScene(fault=answered_first(_handler)),
    )
    CELLS.add(
        f"to `notifications/initialized`; {_fault}",
        "connecting",
        WORKS,
        SseScene(fault=_handler, meets=INITIALIZED),
    )
    CELLS.add(
        f"to a notification; {_fault}",
        "idle",
        failed("transport") if _fault in WHOLE else WORKS,
        SseScene(fault=_handler, meets=NOTIFICATIONS, act=notify),
    )
CELLS.add(
    "to a POST, already answered on the stream; status 500",
    "in flight",
    WORKS,
    SseScene(fault=answered_first(status_500)),
)
CELLS.add(
    "to a POST, answered on the stream afterwards; status 500",
    "in flight",
    of_status(500, "empty"),
    SseScene(
        fault=status(500, BODIES["empty"]), act=_call_and_be_answered_late, check=counts(late_replies=1)
    ),
)
for _fault, _handler in SILENCES.items():
    CELLS.add(
        f"to a POST, answered on the stream; {_fault}",
        "in flight",
        WORKS,
        SseScene(fault=answered_first(_handler)),
    )
    add_silence(CELLS, f"to a POST; {_fault}", _handler, scene=SseScene)
CELLS.add(
    "to `notifications/initialized`; never acknowledged",
    "connecting",
    WORKS,
    Impatient(scene=SseScene(fault=never, meets=INITIALIZED)),
    within=0.1,
    bound="5 s, then the session goes on",
)
CELLS.add(
    "to a notification; never acknowledged",
    "idle",
    Outcome(raises=TOO_LATE.raises, attributes=TOO_LATE.attributes, note="calls made meanwhile are answered"),
    SseScene(fault=never, meets=NOTIFICATIONS, act=notify, call=CALL),
    within=CALL,
)
CELLS.add(
    "a call behind a notification that is never acknowledged",
    "in flight",
    WORKS,
    SseScene(fault=never, meets=NOTIFICATIONS, act=notify_and_call),
)


def _asks_then(refuses: Handler) -> Handler:
    """A question on the stream, and the answer to the call behind it."""

    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method is None:
            await refuses(talk)
            return
        await acknowledge(talk)
        await stream_of(talk).event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}, event="message")
        await say_answer(talk)

    return handler


for _fault, _handler in (
    ("never acknowledged", never),
    ("reset", reset),
    ("status 500", status_500),
    ("a garbage status line", garbage),
):
    CELLS.add(
        f"to the answer to a question of the server; {_fault}",
        "in flight",
        Outcome(note="logged; calls are not affected"),
        SseScene(fault=_asks_then(_handler), meets=call_or_answer, act=call_and_answer),
    )

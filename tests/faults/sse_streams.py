"""HTTP+SSE, the stream: what is said on it that is no answer, and its end, which is the session's."""

from __future__ import annotations

from typing import Any, Final

from anyio_mcp import Limits, RequestFailedError, SessionLostError, SSETransport
from tests.faults.http_answers import (
    SLOW,
    add_silence,
    call_beside_slow_ones,
)
from tests.faults.http_connecting import Absent
from tests.faults.http_outcomes import (
    CALL,
    CONNECT,
    REPLACED,
    TOO_LATE,
    TOO_SLOW,
    WORKS,
    Cells,
    failed,
    not_connected,
)
from tests.faults.http_server import (
    Handler,
    Talk,
    close,
    error_answer,
    garbage,
    never,
    reset,
)
from tests.faults.http_stage import (
    CALLS,
    HANDSHAKE,
    NOTIFICATIONS,
    Act,
    Stage,
    call,
    error_of,
    notify,
    when_lost,
)
from tests.faults.http_streams import (
    HALF,
    LARGE,
    MESSAGE,
    SKIPPED,
    counts,
    data,
    end_events,
    large_answer,
)
from tests.faults.matrix import Outcome
from tests.faults.sse_stage import (
    STREAM,
    SseScene,
    acknowledge,
    and_counted,
    for_ever_on_the_stream,
    name_endpoint,
    on_the_stream,
    said,
    say_answer,
    says,
    serve,
    stream_of,
    the_answer,
)

CELLS: Final = Cells("HTTP+SSE", eras=("legacy",))


def _lost(cause: type[BaseException] | None = None) -> Outcome:
    attributes: dict[str, Any] = {"reason": "eof"}
    return Outcome(raises=SessionLostError, attributes=attributes, cause=cause, survives=False)


add_silence(CELLS, "acknowledged and never answered", says(), scene=SseScene)
for _fault, _line in (
    ("comments for ever", b": still here\n\n"),
    ("notifications for ever", MESSAGE),
    ("events without data for ever", b"event: ping\n\n"),
):
    add_silence(CELLS, _fault, for_ever_on_the_stream(_line), traffic=True, scene=SseScene)
CELLS.add(
    f"{SLOW} calls that are never answered, and one that is",
    "in flight",
    Outcome(note="that one is answered; the others keep waiting, each with its own deadline"),
    SseScene(fault=says(), times=SLOW, act=call_beside_slow_ones),
)

_TO_NOBODY: Final = ("an answer with a wrong id", "an error with a wrong id")
_NOISE: Final[dict[str, tuple[bytes, dict[str, int]]]] = {
    **{
        fault: (line, {"unknown_replies" if fault in _TO_NOBODY else "violations": number})
        for fault, (line, number) in SKIPPED.items()
    },
    "a result with id null": (data(b'{"jsonrpc": "2.0", "id": null, "result": {}}'), {"violations": 1}),
    "an error with id null": (data(error_answer(None)), {"violations": 1}),
    "a second endpoint": (b"event: endpoint\n" + data(b"/elsewhere"), {"violations": 1}),
}


for _fault, (_line, _counted) in _NOISE.items():
    CELLS.add(
        f"{_fault}; before the answer",
        "in flight",
        Outcome(note="skipped and counted" if any(_counted.values()) else "skipped"),
        SseScene(fault=says(said(_line), the_answer), check=counts(**_counted)),
    )
    CELLS.add(
        f"{_fault}; instead of the answer",
        "in flight",
        TOO_LATE,
        SseScene(fault=says(said(_line)), call=CALL, act=and_counted(**_counted), check=counts(**_counted)),
        within=CALL,
    )
    CELLS.add(
        f"{_fault}; instead of the answer",
        "connecting",
        TOO_SLOW,
        SseScene(fault=says(said(_line)), meets=HANDSHAKE, connect=CONNECT),
        within=CONNECT,
    )


async def _notify_and_call_when_counted(stage: Stage) -> None:
    await notify(stage)
    await and_counted(violations=1)(stage)


CELLS.add(
    "a second endpoint",
    "idle",
    Outcome(note="counted; messages go where they went"),
    SseScene(
        fault=says(said(b"event: endpoint\n" + data(b"/elsewhere"))),
        meets=NOTIFICATIONS,
        act=_notify_and_call_when_counted,
        check=counts(violations=1),
    ),
)
CELLS.add(
    "the answer by another event name",
    "in flight",
    TOO_LATE,
    SseScene(fault=says(lambda talk: b"event: answer\n" + the_answer(talk)), call=CALL),
    within=CALL,
)
CELLS.add(
    "two answers",
    "in flight",
    Outcome(note="the first one wins, the second is counted"),
    SseScene(
        fault=says(the_answer, the_answer),
        act=and_counted(late_replies=1),
        check=counts(late_replies=1),
    ),
)


async def _half_an_event_until_given_up(talk: Talk) -> None:
    await talk.reply(202, headers={"connection": "close"})
    await stream_of(talk).chunk(HALF)
    await talk.server.until(
        lambda server: any(each.rpc_method == "notifications/cancelled" for each in server.of("POST"))
    )
    await stream_of(talk).chunk(b"\n\n")


CELLS.add(
    "half an event, and its end when the call is given up",
    "in flight",
    TOO_LATE,
    SseScene(
        fault=_half_an_event_until_given_up,
        call=CALL,
        act=and_counted(violations=1),
        check=counts(violations=1),
    ),
    within=CALL,
)
CELLS.add(
    "half an event, then silence",
    "connecting",
    TOO_SLOW,
    SseScene(fault=says(said(HALF)), meets=HANDSHAKE, connect=CONNECT),
    within=CONNECT,
)


def _large(talk: Talk) -> bytes:
    return data(large_answer(talk))


for _fault, _text in (
    ("an answer larger than `Limits.max_message_bytes`", _large),
    ("an event that names nobody, larger than `Limits.max_message_bytes`", said(data(b"x" * (LARGE + 1)))),
):
    _huge = says(_text)
    CELLS.add(
        _fault,
        "in flight",
        failed("oversized"),
        SseScene(fault=_huge, limits=Limits(max_message_bytes=LARGE)),
    )
    CELLS.add(
        _fault,
        "connecting",
        not_connected("oversized"),
        SseScene(fault=_huge, meets=HANDSHAKE, limits=Limits(max_message_bytes=LARGE)),
    )
CELLS.add("an event of 2 MB", "in flight", WORKS, SseScene(fault=says(_large)))

FLOOD: Final = 5_000

CELLS.add(
    f"{FLOOD:,} notifications before the answer",
    "in flight",
    WORKS,
    SseScene(fault=says(said(MESSAGE * FLOOD), the_answer)),
)


# --- the end of the stream ---------------------------------------------------------------------------


def _behind(line: bytes, end: Handler) -> Handler:
    async def handler(stream: Talk) -> None:
        await stream.chunk(line)
        await end(stream)

    return handler


_BREAKS_OFF: Final[dict[str, Handler]] = {
    "is cut off by FIN": close,
    "is cut off by RST": reset,
    "is cut off by FIN in the middle of an event": _behind(HALF, close),
    "is cut off by RST in the middle of an event": _behind(HALF, reset),
    "goes on in garbage": garbage,
}
_ENDS: Final[dict[str, Handler]] = {
    "ends": end_events,
    "ends in the middle of an event": _behind(HALF, end_events),
}


async def _notify_and_call_when_lost(stage: Stage) -> None:
    # Whether it was acknowledged before the end of the session was seen is of no interest.
    await error_of(notify, stage)
    await when_lost(stage)


async def _answer_and_end(talk: Talk) -> None:
    await acknowledge(talk)
    await say_answer(talk)
    await stream_of(talk).end_events()


async def _call_and_call_when_lost(stage: Stage) -> None:
    await call(stage)
    await when_lost(stage)


for _fault, _handler in {**_ENDS, **_BREAKS_OFF}.items():
    _ended = on_the_stream(_handler)
    CELLS.add(
        f"the stream {_fault}",
        "in flight",
        _lost(RequestFailedError if _fault in _BREAKS_OFF else None),
        SseScene(fault=_ended),
    )
    CELLS.add(
        f"the stream {_fault}",
        "idle",
        REPLACED,
        SseScene(fault=_ended, meets=NOTIFICATIONS, act=_notify_and_call_when_lost),
    )
    CELLS.add(
        f"the stream {_fault}",
        "connecting",
        not_connected("eof", SessionLostError),
        SseScene(fault=_ended, meets=HANDSHAKE),
    )
CELLS.add(
    "the stream ends behind the answer",
    "in flight",
    Outcome(survives=False, note="answered; the next call is made in a new session"),
    SseScene(fault=_answer_and_end, times=1, act=_call_and_call_when_lost),
)
CELLS.add(
    "a call after the server is stopped and before it is started again",
    "idle",
    not_connected("transport"),
    Absent(serves=serve, transport=SSETransport, ends_session=True),
)


# --- closing -----------------------------------------------------------------------------------------


async def _never_closed(talk: Talk) -> None:
    """A stream that the server keeps open when the client has left, until the client is back."""
    await name_endpoint(talk)
    await talk.hang()
    await talk.server.until(lambda server: len(server.of("GET")) > 1)


CELLS.add(
    "the server never closes its side",
    "closing",
    REPLACED,
    SseScene(fault=_never_closed, meets=STREAM, times=1),
)


def _left_behind(act: Act) -> Act:
    """Leave while another task waits for what is never answered."""

    async def leave(stage: Stage) -> None:
        async def other() -> None:
            error = await error_of(act, stage)
            assert isinstance(error, SessionLostError)
            assert error.reason == "closed"

        stage.tg.start_soon(other)
        await stage.server.until(lambda _: stage.met > 0)

    return leave


for _fault, _handler, _meets, _act in (
    ("a POST that is never acknowledged", never, CALLS, call),
    ("a POST that is acknowledged and never answered", says(), CALLS, call),
    ("a notification that is never acknowledged", never, NOTIFICATIONS, notify),
    ("notifications without a pause", for_ever_on_the_stream(MESSAGE * 100, pause=0), CALLS, call),
):
    CELLS.add(
        _fault,
        "closing",
        REPLACED,
        SseScene(fault=_handler, meets=_meets, act=_left_behind(_act)),
    )

"""Beside the calls: notifications, the session's GET stream, DELETE, redirects, and a connection at rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import anyio

from tests.faults.http_answers import BREAKS
from tests.faults.http_outcomes import (
    CALL,
    CLOSE,
    REPLACED,
    TOO_LATE,
    WORKS,
    Cells,
    failed,
    not_connected,
)
from tests.faults.http_server import (
    Handler,
    Received,
    Talk,
    answer,
    close,
    error_answer,
    events_then_silence,
    garbage,
    head_then_silence,
    never,
    no_events,
    reset,
    status_500,
)
from tests.faults.http_stage import (
    BEGINNING,
    CALLS,
    ECHO,
    NOTIFICATIONS,
    Scene,
    Stage,
    call,
    got,
    http,
    notify,
)
from tests.faults.http_streams import counts, data, for_ever
from tests.faults.matrix import Outcome

CELLS: Final = Cells("HTTP: notifications, the GET stream, DELETE")

# --- a notification ----------------------------------------------------------------------------------

AFTER_THE_HEADERS: Final = ("body", "chunk")
"""What is wrong behind the headers of an acknowledgement does not matter: nobody reads it."""

for _fault, _handler in BREAKS.items():
    _acknowledged = any(part in _fault for part in AFTER_THE_HEADERS)
    CELLS.add(
        f"to a notification; {_fault}",
        "idle",
        WORKS if _acknowledged else failed("transport"),
        Scene(fault=_handler, meets=NOTIFICATIONS, act=notify),
    )
CELLS.add(
    "to a notification; never acknowledged",
    "idle",
    Outcome(raises=TOO_LATE.raises, attributes=TOO_LATE.attributes, note="calls made meanwhile are answered"),
    Scene(fault=never, meets=NOTIFICATIONS, act=notify, call=CALL),
    within=CALL,
)


async def notify_and_call(stage: Stage) -> None:
    """A call behind a notification that nobody acknowledges."""
    async with anyio.create_task_group() as tg:
        tg.start_soon(notify, stage)
        await stage.server.until(lambda _: stage.met > 0)
        await call(stage)
        tg.cancel_scope.cancel()


CELLS.add(
    "a call behind a notification that is never acknowledged",
    "in flight",
    WORKS,
    Scene(fault=never, meets=NOTIFICATIONS, act=notify_and_call),
)


async def _flood(talk: Talk) -> None:
    await talk.head(202, {"transfer-encoding": "chunked"})
    while True:
        await talk.chunk(b"x" * 1000)


async def _acknowledged_and_open(talk: Talk) -> None:
    await talk.head(202, {"content-length": "10"})
    await talk.hang()


for _fault, _handler in (
    ("acknowledged with a body without an end", _flood),
    ("acknowledged with a body that never comes", _acknowledged_and_open),
):
    CELLS.add(
        f"to a notification; {_fault}", "idle", WORKS, Scene(fault=_handler, meets=NOTIFICATIONS, act=notify)
    )


# --- the answer to a request of the server (up to 2025-11-25) ----------------------------------------


def asks_then(refuses: Handler) -> Handler:
    """A question on the stream of a call, which is answered before the answer to the question arrives."""

    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method is None:
            await refuses(talk)
            return
        await talk.begin_events()
        await talk.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
        await talk.event(answer(talk.id, ECHO))
        await talk.end_events()

    return handler


def call_or_answer(received: Received) -> bool:
    return CALLS(received) or (received.method == "POST" and received.rpc_method is None)


async def call_and_answer(stage: Stage) -> None:
    await call(stage)
    await stage.server.until(lambda _: stage.met > 1)
    await call(stage)


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
        Scene(fault=asks_then(_handler), meets=call_or_answer, act=call_and_answer),
        eras=("legacy",),
    )


# --- the GET stream of a session (up to 2025-11-25) --------------------------------------------------


async def _json(talk: Talk) -> None:
    await talk.reply(200, b"{}", "application/json")


async def _strays(talk: Talk) -> None:
    await talk.begin_events()
    for each in (answer(1), error_answer(None), b"garbage", b"[]"):
        await talk.chunk(data(each))
    await talk.hang()


async def _call_when_counted(stage: Stage) -> None:
    while stage.client.stats().violations < 4:
        await anyio.sleep(0.001)
    await call(stage)


def _redirect(location: str, status: int = 307) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.reply(status, headers={"location": location})

    return handler


def _asked(count: int) -> Callable[[Stage], None]:
    def check(stage: Stage) -> None:
        assert len(stage.server.of("GET")) == count, f"asked {len(stage.server.of('GET'))} times"

    return check


LISTEN: Final = "5 attempts, 0.1 s to 30 s apart"
UNAFFECTED: Final = Outcome(note="logged; calls are not affected")

for _fault, _handler, _times in (
    ("closed", close, 5),
    ("reset", reset, 5),
    ("a garbage status line", garbage, 5),
    ("ends at once", no_events, 5),
    ("no stream of events", _json, 1),
    ("a redirect to another origin", _redirect("http://other.example/mcp"), 1),
    ("never answered", never, 1),
    ("headers, then silence", head_then_silence, 1),
    ("a notification, then silence", events_then_silence, 1),
    ("comments for ever", for_ever(b": still here\n\n"), 1),
):
    CELLS.add(
        f"to the GET stream; {_fault}",
        "idle",
        UNAFFECTED if _times > 1 or _fault.startswith(("no", "a r")) else WORKS,
        Scene(fault=_handler, meets=http("GET"), act=got(_times), check=_asked(_times)),
        bound=LISTEN if _times > 1 else "",
        eras=("legacy",),
    )
CELLS.add(
    "to the GET stream; answers and nonsense",
    "idle",
    Outcome(note="counted"),
    Scene(fault=_strays, meets=http("GET"), act=_call_when_counted, check=counts(violations=4)),
    eras=("legacy",),
)


# --- DELETE ------------------------------------------------------------------------------------------


async def _drips(talk: Talk) -> None:
    await talk.head(200, {"content-length": "1000"})
    while True:
        await talk.raw(b"x")
        await anyio.sleep(0.01)


for _fault, _handler in BREAKS.items():
    CELLS.add(
        f"to DELETE; {_fault}",
        "closing",
        REPLACED,
        Scene(fault=_handler, meets=http("DELETE"), act=call),
        eras=("legacy",),
    )
for _fault, _handler in (
    ("never answered", never),
    ("headers, then silence", head_then_silence),
    ("one byte at a time, for ever", _drips),
    ("a body without an end", _flood),
):
    CELLS.add(
        f"to DELETE; {_fault}",
        "closing",
        REPLACED,
        Scene(fault=_handler, meets=http("DELETE"), act=call),
        within=CLOSE,
        bound="close",
        eras=("legacy",),
    )
for _status in (302, 307):
    CELLS.add(
        f"to DELETE; a redirect to another origin ({_status})",
        "closing",
        REPLACED,
        Scene(fault=_redirect("http://other.example/mcp", _status), meets=http("DELETE"), act=call),
        eras=("legacy",),
    )


# --- redirects ---------------------------------------------------------------------------------------


async def _loop(talk: Talk) -> None:
    await talk.reply(307, headers={"location": f"{talk.received.target}x"})


async def _to_itself(talk: Talk) -> None:
    await talk.reply(308, headers={"location": talk.received.target})


REDIRECTS: Final[Mapping[str, tuple[Handler, str]]] = {
    "for ever": (_loop, "/mcpxxxxxx"),
    "to itself": (_to_itself, "/mcp"),
    "to another origin": (_redirect("http://localhost:1/mcp?token=hush"), "http://localhost:1/mcp"),
    "to https": (_redirect("https://127.0.0.1/mcp"), "https://127.0.0.1:443/mcp"),
    "to another scheme": (_redirect("ftp://127.0.0.1/"), "ftp://127.0.0.1"),
    "with credentials": (_redirect("http://user:hush@127.0.0.1:1/"), "http://127.0.0.1:1"),
    "to what is no URL": (_redirect("http://127.0.0.1:port/mcp"), "http://127.0.0.1:port/mcp"),
    "that turns the POST into a GET (301)": (_redirect("/elsewhere", 301), "/elsewhere"),
    "that turns the POST into a GET (302)": (_redirect("/elsewhere", 302), "/elsewhere"),
    "that turns the POST into a GET (303)": (_redirect("/elsewhere", 303), "/elsewhere"),
}
for _fault, (_handler, _named) in REDIRECTS.items():
    _refusal = failed("redirect", says=_named)
    CELLS.add(f"a redirect {_fault}", "in flight", _refusal, Scene(fault=_handler))
    CELLS.add(
        f"a redirect {_fault}", "idle", _refusal, Scene(fault=_handler, meets=NOTIFICATIONS, act=notify)
    )
    CELLS.add(
        f"a redirect {_fault}",
        "connecting",
        not_connected("redirect", says=_named),
        Scene(fault=_handler, meets=BEGINNING),
    )


async def _without_tls(talk: Talk) -> None:
    await talk.reply(307, headers={"location": talk.server.url.replace("https:", "http:")})


_REFUSED: Final = "http://127.0.0.1:"
CELLS.add(
    "a redirect from https to http",
    "in flight",
    failed("redirect", says=_REFUSED),
    Scene(fault=_without_tls, tls=True),
)
CELLS.add(
    "a redirect from https to http",
    "idle",
    failed("redirect", says=_REFUSED),
    Scene(fault=_without_tls, tls=True, meets=NOTIFICATIONS, act=notify),
)
CELLS.add(
    "a redirect from https to http",
    "connecting",
    not_connected("redirect", says=_REFUSED),
    Scene(fault=_without_tls, tls=True, meets=BEGINNING),
)


async def _moved(talk: Talk) -> None:
    await talk.reply(307, headers={"location": "/elsewhere"})


CELLS.add(
    "a redirect within the origin",
    "in flight",
    Outcome(note="followed"),
    Scene(fault=_moved, times=1),
)


# --- a connection at rest ----------------------------------------------------------------------------


async def _answer_and_close(talk: Talk) -> None:
    """The answer is whole; that its connection is closed behind it shows in the next call."""
    await talk.result(ECHO)
    await talk.close()


async def _call_and_call_again(stage: Stage) -> None:
    await call(stage)
    await call(stage)


CELLS.add(
    "the server closes the connection between two calls",
    "idle",
    WORKS,
    Scene(fault=_answer_and_close, times=1, act=_call_and_call_again),
)

"""Every error status, with every kind of body, in every phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from anyio_mcp import SessionLostError
from tests.faults.http_driver import QUICK
from tests.faults.http_outcomes import (
    AMPLE,
    REPLACED,
    SENT_AGAIN,
    Cells,
    answered,
    connecting,
    expired,
    not_connected,
    refused,
)
from tests.faults.http_server import Handler, Talk, error_answer
from tests.faults.http_stage import (
    BEGINNING,
    HANDSHAKE,
    INITIALIZED,
    NOTIFICATIONS,
    PROBE,
    Scene,
    call,
    got,
    http,
    nothing,
    notify,
    when_lost,
)
from tests.faults.matrix import Outcome

CELLS: Final = Cells("HTTP: error statuses")

STATUSES: Final = (400, 401, 403, 404, 405, 406, 410, 429, 500, 503)
GONE: Final = frozenset({404, 410})
"""Statuses that say by themselves that the session is gone."""
NO_ERA: Final = frozenset({401, 403, 429, 500, 503})
"""Statuses that say nothing about the protocol: no reason to take a server for an old one."""

_Body = Callable[[Talk], tuple[bytes, str | None]]

BODIES: Final[dict[str, _Body]] = {
    "empty": lambda talk: (b"", None),
    "HTML": lambda talk: (b"<h1>no</h1>", "text/html"),
    "JSON": lambda talk: (b'{"error": "no"}', "application/json"),
    "a JSON-RPC error for another request": lambda talk: (error_answer("else", -32022), "application/json"),
    "a JSON-RPC error": lambda talk: (error_answer(talk.id, -32603), "application/json"),
    "a JSON-RPC error without an id": lambda talk: (error_answer(None, -32603), "application/json"),
}


def status(code: int, body: _Body) -> Handler:
    async def handler(talk: Talk) -> None:
        content, kind = body(talk)
        await talk.reply(code, content, kind, {"retry-after": "7"})

    return handler


def of_status(code: int, name: str) -> Outcome:
    if name.startswith("a JSON-RPC error") and "another" not in name:
        return answered(-32603, code)
    expected = {"empty": b"", "HTML": b"<h1>no</h1>", "JSON": b'{"error": "no"}'}.get(name)
    attributes: dict[str, Any] = {"response.headers": lambda headers: headers["retry-after"] == "7"}
    if expected is not None:
        attributes["response.content"] = expected
    return refused(code, **attributes)


_LISTENED: Final = ("normal: the server has no such stream", "logged; calls are not affected")

for _code in STATUSES:
    for _name, _body in BODIES.items():
        _fault = f"status {_code}; body: {_name}"
        _handler = status(_code, _body)
        _outcome = of_status(_code, _name)

        CELLS.add(
            _fault,
            "connecting",
            connecting(_outcome),
            Scene(fault=_handler, meets=HANDSHAKE),
            eras=("legacy",),
        )
        if _code in NO_ERA:
            CELLS.add(
                _fault,
                "connecting",
                connecting(_outcome),
                Scene(fault=_handler, meets=BEGINNING),
                eras=("modern",),
            )
        else:
            CELLS.add(
                _fault,
                "connecting",
                Outcome(note="connects by the handshake, as the servers before did"),
                Scene(fault=_handler, meets=PROBE, speaks="2025-11-25", act=nothing),
                eras=("modern",),
            )
        CELLS.add(_fault, "in flight", _outcome, Scene(fault=_handler), eras=("modern",))
        if _code in GONE:
            CELLS.add(
                f"{_fault}; once",
                "in flight",
                SENT_AGAIN,
                Scene(fault=_handler, times=1),
                eras=("legacy",),
            )
            CELLS.add(
                f"{_fault}; in every session",
                "in flight",
                expired(refused=True, status=_code),
                Scene(fault=_handler),
                eras=("legacy",),
            )
        else:
            CELLS.add(_fault, "in flight", _outcome, Scene(fault=_handler), eras=("legacy",))

        # A notification has no id that an error in a body could name.
        _told = _outcome if _name != "a JSON-RPC error" else None
        if _told is not None:
            CELLS.add(
                f"{_fault}; to a notification",
                "idle",
                _told if _code not in GONE else expired(refused=False, status=_code),
                Scene(fault=_handler, meets=NOTIFICATIONS, act=notify),
                eras=("legacy",),
            )
            CELLS.add(
                f"{_fault}; to a notification",
                "idle",
                _told,
                Scene(fault=_handler, meets=NOTIFICATIONS, act=notify),
                eras=("modern",),
            )

    # The body of these decides nothing: nobody waits for what it says.
    _empty = status(_code, BODIES["empty"])
    _lost = _code in GONE
    CELLS.add(
        f"status {_code}; to notifications/initialized",
        "connecting",
        not_connected("expired", SessionLostError) if _lost else connecting(of_status(_code, "empty")),
        Scene(fault=_empty, meets=INITIALIZED),
        eras=("legacy",),
    )
    CELLS.add(
        f"status {_code}; to the GET stream",
        "idle",
        REPLACED if _lost else Outcome(note=_LISTENED[_code != 405]),
        Scene(
            fault=_empty,
            meets=http("GET"),
            times=1 if _lost else None,
            act=when_lost if _lost else got(5 if _code >= 500 else 1),
        ),
        eras=("legacy",),
    )
    CELLS.add(
        f"status {_code}; to DELETE",
        "closing",
        REPLACED,
        Scene(fault=_empty, meets=http("DELETE"), act=call),
        eras=("legacy",),
    )


# A status is raised at once; its body is waited for only briefly.


async def _then_silence(talk: Talk) -> None:
    await talk.head(503, {"content-length": "100", "retry-after": "1"}, "text/plain")
    await talk.raw(b"half")
    await talk.hang()


async def _then_more_and_more(talk: Talk) -> None:
    await talk.head(503, {"transfer-encoding": "chunked"})
    while True:
        await talk.chunk(b"x" * 65536)


async def _then_cut_off(talk: Talk) -> None:
    await talk.head(503, {"content-length": "100"}, "text/plain")
    await talk.raw(b"half")


async def _not_decompressed(talk: Talk) -> None:
    await talk.reply(503, b"this is not gzip", "text/plain", {"content-encoding": "gzip"})


for _name, _handler, _content in (
    ("half of it, then silence", _then_silence, b"half"),
    ("endless", _then_more_and_more, b"x" * QUICK.error_body_bytes),
    ("cut off", _then_cut_off, b"half"),
    ("impossible to decompress", _not_decompressed, b""),
):
    _policy = replace(QUICK, error_body_seconds=AMPLE) if _handler is _then_more_and_more else QUICK
    _outcome = refused(503, **{"response.content": _content})
    CELLS.add(
        f"a status (503) and its body; {_name}",
        "in flight",
        _outcome,
        Scene(fault=_handler, policy=_policy),
        within=QUICK.error_body_seconds,
        bound="2 s for the body",
    )
    CELLS.add(
        f"a status (503) and its body; {_name}",
        "connecting",
        connecting(_outcome),
        Scene(fault=_handler, meets=BEGINNING, policy=_policy),
        within=QUICK.error_body_seconds,
        bound="2 s for the body",
    )

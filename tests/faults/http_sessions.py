"""A session that a restarted server does not know any more, by the words in which servers say so."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tests.faults.http_outcomes import SENT_AGAIN, Cells, answered, refused
from tests.faults.http_server import Handler, Talk, error_answer
from tests.faults.http_stage import Scene
from tests.faults.sse_stage import SseScene, acknowledge, stream_of

CELLS: Final = Cells("HTTP: sessions forgotten", eras=("legacy",))

REFUSED: Final[tuple[tuple[int, int | None, str], ...]] = (
    (404, None, "Could not find session"),
    (404, -32600, "Session not found"),
    (410, None, ""),
    (400, None, "Invalid or missing session ID"),
    (400, None, "No transport found for sessionId"),
    (400, -32000, "Bad Request: No valid session ID provided"),
    (400, -32600, "Missing session ID"),
    (400, -32000, "Bad Request: Server not initialized"),
    (409, None, "unknown session"),
    (422, -32600, "the session has expired"),
)
"""What is refused in these words has not run."""

DOUBTFUL: Final[tuple[tuple[int, int | None, str], ...]] = (
    (200, -32002, "Server not initialized"),
    (200, -32001, "Session not found"),
    (200, -32000, "No active session"),
    (200, -32600, "Session terminated"),
    (400, -32602, "Invalid session ID"),
    (401, None, "your session has expired"),
    (500, None, "session not found"),
)
"""What is answered in these words may have run."""


def saying(status: int, code: int | None, text: str) -> Handler:
    async def handler(talk: Talk) -> None:
        if code is None:
            await talk.reply(status, text.encode(), "text/plain")
        else:
            await talk.reply(status, error_answer(talk.id, code, text), "application/json")

    return handler


def saying_on_the_stream(code: int, text: str) -> Handler:
    async def handler(talk: Talk) -> None:
        await acknowledge(talk)
        await stream_of(talk).event(error_answer(talk.id, code, text), event="message")

    return handler


for _transport, _scene in (("Streamable HTTP", Scene), ("HTTP+SSE", SseScene)):
    for _status, _code, _text in REFUSED:
        CELLS.add(
            f"{_transport}: status {_status}, {'text' if _code is None else _code}: {_text!r}",
            "in flight",
            SENT_AGAIN,
            _scene(fault=saying(_status, _code, _text), times=1),
        )
    for _status, _code, _text in DOUBTFUL:
        _outcome = refused(_status) if _code is None else answered(_code, None if _status == 200 else _status)
        _handler = saying(_status, _code, _text)
        if _status == 200 and _scene is SseScene and _code is not None:
            _handler = saying_on_the_stream(_code, _text)
        CELLS.add(
            f"{_transport}: status {_status}, {'text' if _code is None else _code}: {_text!r}",
            "in flight",
            replace(_outcome, survives=False, note="the next call is made in a new session"),
            _scene(fault=_handler, times=1),
        )

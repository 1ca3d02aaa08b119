"""Answers that are none: wrong bodies, bodies that break off, silence, and too much of everything."""

from __future__ import annotations

import gzip
import json
import resource
from collections.abc import Callable, Mapping
from typing import Final

import anyio
import httpx2

from anyio_mcp import Limits
from tests.faults.http_outcomes import (
    BEAT,
    CALL,
    CONNECT,
    LIVELY,
    TOO_LATE,
    TOO_SLOW,
    WORKS,
    Cells,
    answered,
    connecting,
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
    garbage,
    head_then_silence,
    never,
    reset,
)
from tests.faults.http_stage import BEGINNING, CALLS, ECHO, HANDSHAKE, PROBE, Scene, Stage, call, nothing
from tests.faults.matrix import Outcome

CELLS: Final = Cells("HTTP: the answer to a request")

LIMIT: Final = 10_000

BY_HANDSHAKE: Final = Outcome(note="connects by the handshake, as the servers before did")
"""What the modern question is answered with nonsense, or not at all: that is no modern server."""


# --- bodies that are no answer ----------------------------------------------------------------------

_Body = Callable[[Talk], bytes]
JSON: Final = "application/json"


def _message(**members: object) -> _Body:
    return lambda talk: json.dumps({"jsonrpc": "2.0", "id": talk.id, **members}).encode()


NO_ANSWERS: Final[Mapping[str, tuple[_Body, str | None]]] = {
    "an empty body": (lambda talk: b"", JSON),
    "no content type": (lambda talk: answer(talk.id), None),
    "a wrong content type": (lambda talk: answer(talk.id), "text/html"),
    "invalid JSON": (lambda talk: answer(talk.id)[:-1], JSON),
    "invalid UTF-8": (lambda talk: answer(talk.id, {"a": "?"}).replace(b"?", b"\xff"), JSON),
    "an empty batch": (lambda talk: b"[]", JSON),
    "a bare null": (lambda talk: b"null", JSON),
    "`result` is null": (_message(result=None), JSON),
    "`result` is a list": (_message(result=[]), JSON),
    "neither result nor error": (_message(), JSON),
    "both result and error": (_message(result={"a": 1}, error={"code": 1, "message": "no"}), JSON),
    "a wrong id": (lambda talk: answer(4711), JSON),
    "an id that can be none": (lambda talk: answer([talk.id]), JSON),
    "an error with a wrong id": (lambda talk: error_answer(4711), JSON),
    "a result with id null": (lambda talk: answer(None), JSON),
    "a notification": (lambda talk: json.dumps(NOTIFICATION).encode(), JSON),
    "a request": (lambda talk: b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', JSON),
    "an echo of the request": (lambda talk: talk.received.body, JSON),
    "nesting without an end": (lambda talk: b'{"jsonrpc": "2.0", "result": ' + b"[" * 9999, JSON),
}


def body(content: _Body, kind: str | None, status: int = 200) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.reply(status, content(talk), kind)

    return handler


def _add_violation(fault: str, handler: Handler) -> None:
    CELLS.add(fault, "in flight", failed("violation"), Scene(fault=handler))
    CELLS.add(
        fault,
        "connecting",
        not_connected("violation"),
        Scene(fault=handler, meets=HANDSHAKE),
        eras=("legacy",),
    )
    CELLS.add(
        fault,
        "connecting",
        BY_HANDSHAKE,
        Scene(fault=handler, meets=PROBE, speaks="2025-11-25", act=nothing),
        eras=("modern",),
    )


for _status in (202, 204):
    _add_violation(f"status {_status} and no answer", body(lambda talk: b"", None, _status))
for _fault, (_content, _kind) in NO_ANSWERS.items():
    _add_violation(_fault, body(_content, _kind))


def _echo(**members: object) -> _Body:
    return lambda talk: _message(**{"result": ECHO, **members})(talk)


PLAIN: Final[Mapping[str, _Body]] = {
    "a batch": lambda talk: b"[" + answer(talk.id, ECHO) + b"]",
    "no `jsonrpc`": lambda talk: json.dumps({"id": talk.id, "result": ECHO}).encode(),
    "`error` is null": _echo(error=None),
    "all members written out": _echo(error=None, method=None, params=None),
    "an id of another type": lambda talk: answer(str(talk.id), ECHO),
    "an id that is a float": lambda talk: answer(float(talk.id), ECHO),
    "a byte order mark": lambda talk: b"\xef\xbb\xbf" + answer(talk.id, ECHO),
    "half a surrogate pair": _echo(more="\ud83d"),
}
for _fault, _content in PLAIN.items():
    CELLS.add(
        _fault,
        "in flight",
        Outcome(note="the result: what it means is plain"),
        Scene(fault=body(_content, JSON)),
    )
for _fault, _error in (
    ("an error without a code", {"message": "no"}),
    ("an error that is a text", "no"),
    ("an error whose code is a word", {"code": "NOT_FOUND", "message": "no"}),
):
    CELLS.add(
        _fault,
        "in flight",
        answered(-32603),
        Scene(fault=body(_message(error=_error, result=None), JSON)),
    )

_nobody = body(lambda talk: error_answer(None, -32603), JSON)
CELLS.add("an error with id null", "in flight", answered(-32603), Scene(fault=_nobody))
CELLS.add(
    "an error with id null",
    "connecting",
    connecting(answered(-32603)),
    Scene(fault=_nobody, meets=BEGINNING),
)
CELLS.add(
    "a result that is none of this method",
    "in flight",
    failed("violation"),
    Scene(fault=body(_message(result={"content": 17}), JSON)),
)


# --- below HTTP --------------------------------------------------------------------------------------


async def _half_a_body(talk: Talk) -> None:
    await talk.head(200, {"content-length": "1000"}, JSON)
    await talk.raw(b'{"jsonrpc": "2.0", ')


async def _half_a_body_reset(talk: Talk) -> None:
    await _half_a_body(talk)
    await talk.reset()


async def _chunked_cut_off(talk: Talk) -> None:
    await talk.head(200, {"transfer-encoding": "chunked"}, JSON)
    await talk.chunk(b'{"jsonrpc": "2.0", ')


async def _chunked_reset(talk: Talk) -> None:
    await _chunked_cut_off(talk)
    await talk.reset()


async def _chunks_of_no_size(talk: Talk) -> None:
    await talk.head(200, {"transfer-encoding": "chunked"}, JSON)
    await talk.raw(b"many\r\n")


async def _half_a_head(talk: Talk) -> None:
    await talk.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")


async def _half_a_head_reset(talk: Talk) -> None:
    await _half_a_head(talk)
    await talk.reset()


async def _garbage_header(talk: Talk) -> None:
    await talk.raw(b"HTTP/1.1 200 OK\r\nwithout a colon\r\n\r\n")


async def _broken_gzip(talk: Talk) -> None:
    await talk.reply(200, b"this is not gzip", JSON, {"content-encoding": "gzip"})


async def _unasked_coding(talk: Talk) -> None:
    await talk.reply(200, answer(talk.id), JSON, {"content-encoding": "gzip, gzip"})


async def _endless_head(talk: Talk) -> None:
    await talk.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await talk.raw(b"x-more: " + b"x" * 8000 + b"\r\n")


BREAKS: Final[Mapping[str, Handler]] = {
    "closed before the headers": close,
    "reset before the headers": reset,
    "a garbage status line": garbage,
    "a garbage header": _garbage_header,
    "headers cut off by FIN": _half_a_head,
    "headers cut off by RST": _half_a_head_reset,
    "headers without an end": _endless_head,
    "a body cut off by FIN": _half_a_body,
    "a body cut off by RST": _half_a_body_reset,
    "a chunked body cut off by FIN": _chunked_cut_off,
    "a chunked body cut off by RST": _chunked_reset,
    "a chunk without a size": _chunks_of_no_size,
}
for _fault, _handler in BREAKS.items():
    CELLS.add(_fault, "in flight", failed("transport", httpx2.RequestError), Scene(fault=_handler))
    CELLS.add(_fault, "connecting", not_connected("transport"), Scene(fault=_handler, meets=BEGINNING))
for _fault, _handler in (
    ("a body that cannot be decompressed", _broken_gzip),
    ("a content coding nobody asked for", _unasked_coding),
):
    CELLS.add(_fault, "in flight", failed("transport", ValueError), Scene(fault=_handler))
    CELLS.add(_fault, "connecting", not_connected("transport"), Scene(fault=_handler, meets=BEGINNING))


# --- silence -----------------------------------------------------------------------------------------


async def _drips(talk: Talk) -> None:
    await talk.head(200, {"content-length": "1000"}, JSON)
    while True:
        await talk.raw(b" ")
        await anyio.sleep(0.01)


async def _half_a_head_then_silence(talk: Talk) -> None:
    await _half_a_head(talk)
    await talk.hang()


async def _half_a_body_then_silence(talk: Talk) -> None:
    await _half_a_body(talk)
    await talk.hang()


SILENCES: Final[Mapping[str, Handler]] = {
    "accepted and never answered": never,
    "half of the headers, then silence": _half_a_head_then_silence,
    "headers, then silence": head_then_silence,
    "half of the body, then silence": _half_a_body_then_silence,
}


def add_silence(
    cells: Cells,
    fault: str,
    handler: Handler,
    *,
    traffic: bool = False,
    scene: Callable[..., Scene] = Scene,
) -> None:
    """A fault that only time can tell: of one call, and of a server that is dead to everything.

    `traffic`: bytes go on coming, so that the server counts as alive.
    """
    cells.add(
        f"{fault}; the server lives",
        "in flight",
        TOO_LATE,
        scene(fault=handler, meets=CALLS, call=CALL, heartbeat=LIVELY),
        within=CALL,
    )
    if not traffic:
        cells.add(
            f"{fault}; the server is dead",
            "in flight",
            TOO_LATE,
            scene(fault=handler, call=CALL, heartbeat=BEAT, dead=True),
            within=CALL,
        )
    cells.add(
        fault,
        "connecting",
        TOO_SLOW,
        scene(fault=handler, meets=BEGINNING, connect=CONNECT),
        within=CONNECT,
    )


for _fault, _handler in SILENCES.items():
    add_silence(CELLS, _fault, _handler)
add_silence(CELLS, "one byte at a time, for ever", _drips, traffic=True)


SLOW: Final = 1000
"""More than any pool of connections holds by default."""


async def call_beside_slow_ones(stage: Stage) -> None:
    _allow_descriptors(3 * SLOW)
    async with anyio.create_task_group() as tg:
        for _ in range(SLOW):
            tg.start_soon(call, stage)
        await stage.server.until(lambda _: stage.met == SLOW)
        await call(stage)
        assert stage.client.stats().calls_in_flight == SLOW
        tg.cancel_scope.cancel()


def _allow_descriptors(number: int) -> None:
    """Each of these calls has two sockets here, its client's and its server's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


CELLS.add(
    f"{SLOW} calls that are never answered, and one that is",
    "in flight",
    Outcome(note="that one is answered; the others keep waiting, each with its own deadline"),
    Scene(fault=never, times=SLOW, act=call_beside_slow_ones),
)


# --- too much ----------------------------------------------------------------------------------------


async def _a_long_body(talk: Talk) -> None:
    await talk.result({"text": "x" * LIMIT})


async def _a_body_without_an_end(talk: Talk) -> None:
    await talk.head(200, {"transfer-encoding": "chunked"}, JSON)
    while True:
        await talk.chunk(b" " * 1000)


async def _a_long_announcement(talk: Talk) -> None:
    await talk.head(200, {"content-length": str(LIMIT + 1)}, JSON)
    await talk.hang()


async def _a_bomb(talk: Talk) -> None:
    bomb = gzip.compress(b" " * 1_000_000)
    assert len(bomb) < LIMIT
    await talk.reply(200, bomb, JSON, {"content-encoding": "gzip"})


SMALL: Final = Limits(max_message_bytes=LIMIT)

for _fault, _handler in (
    ("larger than `Limits.max_message_bytes`", _a_long_body),
    ("a body without an end", _a_body_without_an_end),
    ("a larger body announced than allowed", _a_long_announcement),
    ("compressed, and larger than allowed", _a_bomb),
):
    CELLS.add(_fault, "in flight", failed("oversized"), Scene(fault=_handler, limits=SMALL))
    CELLS.add(
        _fault,
        "connecting",
        not_connected("oversized"),
        Scene(fault=_handler, meets=BEGINNING, limits=SMALL),
    )

LARGE: Final = 50_000_000


async def _large_but_allowed(talk: Talk) -> None:
    await talk.result({**ECHO, "_meta": {"ballast": "x" * LARGE}})


CELLS.add("a body of 50 MB", "in flight", WORKS, Scene(fault=_large_but_allowed), largest=True)
CELLS.add(
    "a body of 50 MB; over the limit",
    "in flight",
    failed("oversized"),
    Scene(fault=_large_but_allowed, limits=Limits(max_message_bytes=LARGE)),
    largest=True,
)

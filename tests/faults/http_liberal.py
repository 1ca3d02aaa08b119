"""Forms, codings and headers that are odd and readable all the same, or that mean harm."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults.http_answers import LIMIT, SMALL
from tests.faults.http_outcomes import WORKS, Cells, connecting, failed, not_connected, refused
from tests.faults.http_server import Handler, Talk, answer, never
from tests.faults.http_stage import (
    ECHO,
    NOTIFICATIONS,
    Scene,
    Stage,
    call,
    got,
    http,
    notify,
)
from tests.faults.matrix import Outcome
from tests.faults.sse_stage import STREAM, SseScene, answered_last, name_endpoint

CELLS: Final = Cells("HTTP: forms, codings and headers")

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
BOM: Final = b"\xef\xbb\xbf"


def members(data: bytes, *sizes: int) -> bytes:
    """`data` in gzip, a member ended after each of `sizes`."""
    whole, start = b"", 0
    for size in (*sizes, len(data)):
        whole += gzip.compress(data[start : start + size])
        start += size
    return whole


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a JSON text is sent."""

    kind: str | None
    coding: str | None = None
    write: Callable[[bytes], bytes] = bytes

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.coding is None else {"content-encoding": self.coding}


def events(text: bytes) -> bytes:
    return b": working\n\ndata: " + text + b"\n\n"


FORMS: Final[Mapping[str, Form]] = {
    "coding UTF-8": Form(JSON, "UTF-8"),
    "coding none": Form(JSON, "none"),
    "coding identity": Form(JSON, "identity"),
    "coding null": Form(JSON, "null"),
    "coding x-gzip": Form(JSON, "x-gzip", gzip.compress),
    "coding twice of which one is none": Form(JSON, "identity, gzip", gzip.compress),
    "coding undone by a proxy": Form(JSON, "gzip"),
    "events of a coding undone by a proxy": Form(EVENTS, "gzip", events),
    "deflate without its format": Form(JSON, "deflate", lambda text: zlib.compress(text)[2:-4]),
    "gzip of members": Form(JSON, "gzip", lambda text: members(text, 5, 1)),
    "events in gzip of members": Form(EVENTS, "gzip", lambda text: members(events(text), 12, 3)),
    "gzip with junk behind it": Form(JSON, "gzip", lambda text: gzip.compress(text) + b"\0" * 100),
    "type json-rpc": Form("application/json-rpc"),
    "type with a suffix": Form("application/vnd.mcp+json"),
    "type text/json": Form("text/json"),
    "type text/plain": Form("text/plain"),
    "type twice": Form("application/json, application/json"),
    "type in capitals": Form("Application/JSON; Charset=UTF-8"),
    "events, type twice": Form("text/event-stream, text/event-stream", None, events),
    "no type": Form(None),
    "events without a type": Form(None, None, events),
    "JSON called events": Form(EVENTS),
    "events called JSON": Form(JSON, None, events),
    "a byte order mark": Form(JSON, None, lambda text: BOM + text),
    "events behind a byte order mark": Form(EVENTS, None, lambda text: BOM + events(text)),
    "blank lines before JSON": Form(JSON, None, lambda text: b"\r\n\r\n " + text),
    "events behind blank lines called JSON": Form(JSON, None, lambda text: b"\n\ndata:" + text + b"\n\n"),
}


def in_form(form: Form) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.reply(200, form.write(answer(talk.id, ECHO)), form.kind, form.headers)

    return handler


for _fault, _form in FORMS.items():
    CELLS.add(f"to a POST; {_fault}", "in flight", WORKS, Scene(fault=in_form(_form)))


# --- streams that are opened by a GET ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamForm:
    """In which form a stream of events is sent, piece by piece."""

    kind: str | None = EVENTS
    coding: str | None = None
    first: bytes = b""
    write: Callable[[bytes], bytes] = bytes


STREAM_FORMS: Final[Mapping[str, StreamForm]] = {
    "coding UTF-8": StreamForm(coding="UTF-8"),
    "coding none": StreamForm(coding="none"),
    "coding undone by a proxy": StreamForm(coding="gzip"),
    "gzip of many members": StreamForm(coding="gzip", write=gzip.compress),
    "gzip of many members, called x-gzip": StreamForm(coding="x-gzip", write=gzip.compress),
    "type twice": StreamForm("text/event-stream, text/event-stream"),
    "type in capitals": StreamForm("Text/Event-Stream; Charset=UTF-8"),
    "no type": StreamForm(None),
    "events called JSON": StreamForm(JSON),
    "a byte order mark": StreamForm(first=BOM),
}


class Coded(Talk):
    """What is said is written in a form."""

    def __init__(self, talk: Talk, form: StreamForm) -> None:
        super().__init__(talk.received, talk.stream, talk.server)
        self._form = form

    async def begin_events(self, headers: Mapping[str, str] | None = None) -> None:
        coding = {} if self._form.coding is None else {"content-encoding": self._form.coding}
        await self.head(200, {"transfer-encoding": "chunked", **coding}, self._form.kind)
        if self._form.first:
            await super().chunk(self._form.first)

    async def chunk(self, data: bytes) -> None:
        await super().chunk(self._form.write(data))


def listened_to_in(form: StreamForm) -> Handler:
    """A question on the stream, which is read if it is answered."""

    async def handler(talk: Talk) -> None:
        coded = Coded(talk, form)
        await coded.begin_events()
        await coded.event({"jsonrpc": "2.0", "id": "seen?", "method": "ping"})
        await coded.hang()

    return handler


async def until_seen(stage: Stage) -> None:
    await stage.server.until(lambda server: any(b'"seen?"' in each.body for each in server.requests))
    await call(stage)


def session_in(form: StreamForm) -> Handler:
    async def handler(talk: Talk) -> None:
        coded = Coded(talk, form)
        await name_endpoint(coded)
        await coded.hang()

    return handler


for _fault, _stream in STREAM_FORMS.items():
    CELLS.add(
        f"to the GET; {_fault}",
        "idle",
        WORKS,
        Scene(fault=listened_to_in(_stream), meets=http("GET"), act=until_seen),
        eras=("legacy",),
    )
    CELLS.add(
        f"HTTP+SSE, to the GET; {_fault}",
        "connecting",
        WORKS,
        SseScene(fault=session_in(_stream), meets=STREAM, act=call),
        eras=("legacy",),
    )


# --- codings that mean harm --------------------------------------------------------------------------

MIB: Final = 1 << 20
BARREN: Final[Mapping[str, bytes]] = {
    "blank lines": gzip.compress(b"\n" * (2 * MIB), 9),
    "comments": gzip.compress(b": x\n\n" * (MIB // 2), 9),
    "data without an event": gzip.compress(b"data:\n" * (MIB // 2), 9),
}
"""Megabytes that make no event, in kilobytes."""
BOMB: Final = gzip.compress(b"data: " + b"x" * (2 * MIB) + b"\n\n", 9)
assert len(BOMB) < LIMIT
GZIP: Final = {"content-encoding": "gzip"}
IN_VAIN: Final = "next to no events"


def swollen(data: bytes) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.begin_events(GZIP)
        await talk.chunk(data)
        await talk.hang()

    return handler


for _fault, _data in BARREN.items():
    _name = f"megabytes of {_fault} in kilobytes of gzip"
    CELLS.add(
        f"to a POST; {_name}", "in flight", failed("violation", says=IN_VAIN), Scene(fault=swollen(_data))
    )
    CELLS.add(
        f"to the GET; {_name}",
        "idle",
        Outcome(note="closed and opened again; calls are not affected"),
        Scene(fault=swollen(_data), meets=http("GET"), act=got(2)),
        eras=("legacy",),
    )
    CELLS.add(
        f"HTTP+SSE, to the GET; {_name}",
        "connecting",
        not_connected("violation", says=IN_VAIN),
        SseScene(fault=swollen(_data), meets=STREAM),
        eras=("legacy",),
    )
CELLS.add(
    "to a POST; an event that gzip makes larger than allowed",
    "in flight",
    failed("oversized"),
    Scene(fault=swollen(BOMB), limits=SMALL),
)
CELLS.add(
    "to the GET; an event that gzip makes larger than allowed",
    "idle",
    Outcome(note="counted; calls are not affected"),
    Scene(
        fault=swollen(BOMB),
        meets=http("GET"),
        act=got(1),
        limits=SMALL,
    ),
    eras=("legacy",),
)


# --- bytes past ASCII in headers ---------------------------------------------------------------------


def cafe(status: int, *, encoding: str, body: Callable[[Talk], bytes] = lambda talk: b"") -> Handler:
    async def handler(talk: Talk) -> None:
        content = body(talk)
        lines = [
            f"HTTP/1.1 {status} Whatever",
            "x-note: caf\xe9 \xfc",
            f"content-length: {len(content)}",
            f"content-type: {JSON}",
            "location: /caf\xe9",
        ]
        await talk.raw("\r\n".join([*lines, "", ""]).encode(encoding) + content)
        talk.complete = True

    return handler


def _result(talk: Talk) -> bytes:
    return answer(talk.id, ECHO)


for _encoding in ("latin-1", "utf-8"):
    _said = f"bytes past ASCII in the headers, in {_encoding.upper()}"
    CELLS.add(
        f"to a POST, status 200; {_said}",
        "in flight",
        WORKS,
        Scene(fault=cafe(200, encoding=_encoding, body=_result)),
    )
    CELLS.add(
        f"to a notification, status 202; {_said}",
        "idle",
        WORKS,
        Scene(fault=cafe(202, encoding=_encoding), meets=NOTIFICATIONS, act=notify),
    )
    CELLS.add(
        f"to a POST, status 303; {_said}",
        "in flight",
        failed("redirect"),
        Scene(fault=cafe(303, encoding=_encoding)),
    )
    for _status in (400, 403, 500):
        _handler = cafe(_status, encoding=_encoding)
        CELLS.add(
            f"to a POST, status {_status}; {_said}", "in flight", refused(_status), Scene(fault=_handler)
        )
        CELLS.add(
            f"to a notification, status {_status}; {_said}",
            "idle",
            refused(_status),
            Scene(fault=_handler, meets=NOTIFICATIONS, act=notify),
        )
        CELLS.add(
            f"HTTP+SSE, to a POST, status {_status}; {_said}",
            "in flight",
            refused(_status),
            SseScene(fault=_handler),
            eras=("legacy",),
        )
        CELLS.add(
            f"HTTP+SSE, to the GET, status {_status}; {_said}",
            "connecting",
            connecting(refused(_status)),
            SseScene(fault=_handler, meets=STREAM),
            eras=("legacy",),
        )
        CELLS.add(
            f"to the GET, status {_status}; {_said}",
            "idle",
            Outcome(note="logged; calls are not affected"),
            Scene(fault=_handler, meets=http("GET"), act=got(1)),
            eras=("legacy",),
        )
        CELLS.add(
            f"to DELETE, status {_status}; {_said}",
            "closing",
            Outcome(survives=False),
            Scene(fault=_handler, meets=http("DELETE"), act=call),
            eras=("legacy",),
        )
    CELLS.add(
        f"HTTP+SSE, to a POST, status 202; {_said}",
        "in flight",
        WORKS,
        SseScene(fault=answered_last(cafe(202, encoding=_encoding))),
        eras=("legacy",),
    )


# --- a refusal that comes before the request is written ----------------------------------------------

LARGE_ARGUMENT: Final = "x" * (8 * MIB)


async def call_with_much(stage: Stage) -> None:
    stage.met += 1
    await stage.client.call_tool("echo", {"text": LARGE_ARGUMENT})


for _name, _scene in (("", Scene), ("HTTP+SSE, ", SseScene)):
    CELLS.add(
        f"{_name}to a POST of 8 MB; status 413 before it is read",
        "in flight",
        refused(413, **{"response.content": b"too large"}),
        _scene(fault=never, act=call_with_much, reads=MIB),
        eras=("legacy",) if _name else None,
    )

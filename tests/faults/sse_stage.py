"""A server of HTTP+SSE, and what it can do wrong: on the stream that carries every answer, and to a POST.

Like the server of Streamable HTTP it behaves except where a scene says otherwise. What the client makes of
it is the business of the files that list the cells (`sse_*.py`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import anyio

from anyio_mcp import SSETransport
from tests.faults.http_answers import BREAKS
from tests.faults.http_notices import AFTER_THE_HEADERS
from tests.faults.http_server import Handler, Talk, answer, error_answer
from tests.faults.http_stage import ECHO, Act, Scene, Stage, call, http, result_of
from tests.faults.matrix import Era


async def serve(era: Era, talk: Talk) -> None:
    if talk.received.method == "GET":
        await name_endpoint(talk)
        await talk.hang()
    else:
        await acknowledge(talk)
        await say_answer(talk)


SseScene: Final = functools.partial(Scene, serves=serve, transport=SSETransport)
STREAM: Final = http("GET")


def and_counted(**numbers: int) -> Act:
    """The call, and what came of it. It may be given up before what was said instead has arrived."""

    async def act(stage: Stage) -> None:
        try:
            await call(stage)
        finally:
            while any(getattr(stage.client.stats(), name) < number for name, number in numbers.items()):
                await anyio.sleep(0.001)

    return act


# --- the parts of a server that makes no mistake -----------------------------------------------------


async def name_endpoint(talk: Talk) -> None:
    """Begin the stream of a session, and say where its messages go."""
    session = f"session={len(talk.server.streams) + 1}"
    talk.server.streams[session] = talk
    await talk.begin_events()
    await talk.event(f"/messages?{session}".encode(), event="endpoint")


def stream_of(talk: Talk) -> Talk:
    """What answers the messages POSTed to this address."""
    return talk.server.streams[urlsplit(talk.received.target).query]


async def acknowledge(talk: Talk) -> None:
    await talk.reply(202, b"Accepted")


async def say_answer(talk: Talk) -> None:
    """The right answer on the stream, if the message is a request."""
    method = talk.received.rpc_method
    if method is None or talk.id is None:
        return
    result = result_of("legacy", method)
    text = error_answer(talk.id, -32601, "unknown method") if result is None else answer(talk.id, result)
    await stream_of(talk).event(text, event="message")


async def say_answer_and_see_it_read(talk: Talk) -> None:
    """What is said next comes behind it. That it was read shows in the answer to a question."""
    stream = stream_of(talk)
    await say_answer(talk)
    await stream.event({"jsonrpc": "2.0", "id": "seen?", "method": "ping"}, event="message")
    await talk.server.until(lambda server: any(_id_of(each.body) == "seen?" for each in server.requests))


def _id_of(body: bytes) -> Any:
    return json.loads(body).get("id") if body else None


# --- what it can do wrong ----------------------------------------------------------------------------

WHOLE: Final = {
    fault: handler
    for fault, handler in BREAKS.items()
    if not any(part in fault for part in AFTER_THE_HEADERS)
}
"""What breaks in the head of a response, so that there is none."""

Text: TypeAlias = Callable[[Talk], bytes]


def the_answer(talk: Talk) -> bytes:
    """The lines of the event that answers a call."""
    return b"data: " + answer(talk.id, ECHO) + b"\n\n"


def said(line: bytes) -> Text:
    return lambda talk: line


def says(*texts: Text) -> Handler:
    """A POST is acknowledged; then there are these lines on the stream, as they are."""

    async def handler(talk: Talk) -> None:
        await acknowledge(talk)
        for text in texts:
            await stream_of(talk).chunk(text(talk))

    return handler


def answered_first(then: Handler) -> Handler:
    """The answer is there before the POST meets its fault."""

    async def handler(talk: Talk) -> None:
        await say_answer_and_see_it_read(talk)
        await then(talk)

    return handler


def answered_last(first: Handler) -> Handler:
    """The POST meets its fault, and is answered all the same."""

    async def handler(talk: Talk) -> None:
        await first(talk)
        await say_answer(talk)

    return handler


def on_the_stream(fault: Handler) -> Handler:
    """A POST is acknowledged; then the stream it belongs to meets the fault."""

    async def handler(talk: Talk) -> None:
        await acknowledge(talk)
        await fault(stream_of(talk))

    return handler


def begins_with(*events: bytes) -> Handler:
    """A stream that says this, and nothing more."""

    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        for each in events:
            await talk.chunk(each)
        await talk.hang()

    return handler


def for_ever_on_the_stream(chunk: bytes, *, pause: float = 0.01) -> Handler:
    async def handler(talk: Talk) -> None:
        # Nobody will read another request from this connection.
        await talk.reply(202, headers={"connection": "close"})
        while True:
            await stream_of(talk).chunk(chunk)
            await anyio.sleep(pause)

    return handler


def endpoint(address: bytes) -> Handler:
    return begins_with(b"event: endpoint\ndata: " + address + b"\n\n")

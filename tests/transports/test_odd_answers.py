"""One table of odd answers, and what each of them means, the same over every transport, era and backend.

An answer whose meaning is plain is the result; one that names its request and cannot be taken is a typed
error of that request, at once; what names nobody is somebody else's, and the right answer behind it is the
result. Never does the session end, and never does a call wait for its deadline.

Not in the table is an error without an id: over Streamable HTTP the POST says whose it is, and over a shared
stream nothing does. The fault matrix shows both.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import pytest
from mcp.server import Server
from mcp.shared.message import SessionMessage
from mcp.types import (
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from anyio_mcp import (
    Client,
    Limits,
    MCPError,
    MemoryTransport,
    RequestFailedError,
    SSETransport,
    StreamableHttpTransport,
)
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.streams import StreamsTransport
from tests.faults.http_server import Talk, fault_server
from tests.faults.http_stage import MODES, behave, result_of
from tests.faults.matrix import Era
from tests.faults.sse_stage import acknowledge, serve, stream_of
from tests.faults.stdio_cells import stdio_transport

pytestmark = pytest.mark.anyio

LIMITS: Final = Limits(max_message_bytes=20_000, max_message_values=2_000)

RIGHT: Final = '{"content": [{"type": "text", "text": "right"}], "isError": false, "resultType": "complete"}'
WRONG: Final = RIGHT.replace("right", "wrong")
ANSWER: Final = '{"jsonrpc": "2.0", "id": @id, "result": @right}'


# --- the table ---------------------------------------------------------------------------------------

Seen: TypeAlias = Any
"""The result of a call, or its error."""


@dataclass(frozen=True, slots=True)
class Odd:
    """What a server says to one call, and what that call ends in."""

    says: tuple[str | bytes, ...]
    """One message each. `@id` is the id of the call."""
    raises: type[Exception] | None = None
    facts: Callable[[Seen], bool] = lambda seen: True

    @property
    def messages(self) -> tuple[bytes, ...]:
        return tuple(
            (text.encode() if isinstance(text, str) else text)
            .replace(b"@right", RIGHT.encode())
            .replace(b"@wrong", WRONG.encode())
            for text in self.says
        )


def means(*says: str | bytes, facts: Callable[[Seen], bool] = lambda seen: True) -> Odd:
    return Odd(says, None, lambda seen: seen.content[0].text == "right" and facts(seen))


def nobodys(*says: str | bytes) -> Odd:
    """What is no affair of the call, which is answered behind it."""
    return means(*says, ANSWER)


def refusal(error: str, *, code: int = -32603, words: str = "gone") -> Odd:
    text = '{"jsonrpc": "2.0", "id": @id, ' + error + "}"
    return Odd((text,), MCPError, lambda seen: (seen.code, seen.message) == (code, words))


def unusable(*says: str | bytes, reason: str = "violation", keeps: object = ...) -> Odd:
    return Odd(
        says,
        RequestFailedError,
        lambda seen: seen.reason == reason and (keeps is ... or seen.result == keeps),
    )


def member(value: str) -> str:
    """An answer with a value in it that is odd in itself."""
    return ANSWER.replace("@right", RIGHT[:-1] + ', "_meta": {"odd": ' + value + "}}")


def texts_are(text: str) -> Callable[[Seen], bool]:
    return lambda seen: seen.meta["odd"] == text


DEEP: Final = 900

ODD: Final[dict[str, Odd]] = {
    # The envelope
    "an id as a text": means('{"jsonrpc": "2.0", "id": "@id", "result": @right}'),
    "an id that is a float": means('{"jsonrpc": "2.0", "id": @id.0, "result": @right}'),
    "an id with an exponent": means('{"jsonrpc": "2.0", "id": @ide0, "result": @right}'),
    "the id at the end": means('{"result": @right, "jsonrpc": "2.0", "id": @id}'),
    "all members written out": means(
        '{"jsonrpc": "2.0", "id": @id, "method": null, "params": null, "result": @right, "error": null}'
    ),
    "members nobody knows": means(
        '{"jsonrpc": "2.0", "id": @id, "result": @right, "x": [], "trace": {"a": 1}}'
    ),
    "error null beside a result": means('{"jsonrpc": "2.0", "id": @id, "result": @right, "error": null}'),
    "error empty beside a result": means('{"jsonrpc": "2.0", "id": @id, "result": @right, "error": {}}'),
    "error false beside a result": means('{"jsonrpc": "2.0", "id": @id, "result": @right, "error": false}'),
    "no jsonrpc": means('{"id": @id, "result": @right}'),
    "jsonrpc null": means('{"jsonrpc": null, "id": @id, "result": @right}'),
    "jsonrpc of another version": means('{"jsonrpc": "1.0", "id": @id, "result": @right}'),
    "jsonrpc as a number": means('{"jsonrpc": 2.0, "id": @id, "result": @right}'),
    "duplicate results": means('{"jsonrpc": "2.0", "id": @id, "result": @wrong, "result": @right}'),
    "duplicate ids": means('{"jsonrpc": "2.0", "id": 4711, "id": @id, "result": @right}'),
    "blanks around it": means("  \t" + ANSWER + "  "),
    "a byte order mark": means("\ufeff" + ANSWER),
    "a batch": means("[" + ANSWER + "]"),
    "a batch with other things in it": means(
        '[null, {"jsonrpc": "2.0", "method": "notifications/x"}, ' + ANSWER + ", 17]"
    ),
    # Errors
    "an error": refusal('"error": {"code": -32001, "message": "gone"}', code=-32001),
    "an error beside result null": refusal(
        '"result": null, "error": {"code": -32001, "message": "gone"}', code=-32001
    ),
    "an error as a text": refusal('"error": "gone"'),
    "an error as a number": refusal('"error": 17', words="17"),
    "an error as a list": refusal('"error": ["gone"]', words='["gone"]'),
    "an error without a code": refusal('"error": {"message": "gone"}'),
    "a code that is a word": refusal('"error": {"code": "NOT_FOUND", "message": "gone"}'),
    "a code that is a float": refusal('"error": {"code": -32001.0, "message": "gone"}', code=-32001),
    "a code as a text": refusal('"error": {"code": "-32001", "message": "gone"}', code=-32001),
    "a code that is null": refusal('"error": {"code": null, "message": "gone"}'),
    "an error without a message": refusal('"error": {"code": -32001}', code=-32001, words='{"code":-32001}'),
    "a message that is none": refusal(
        '"error": {"code": -32001, "message": {"en": "gone"}}', code=-32001, words='{"en":"gone"}'
    ),
    "an error with an id as a text": Odd(
        ('{"jsonrpc": "2.0", "id": "@id", "error": {"code": -32001, "message": "gone"}}',),
        MCPError,
        lambda seen: seen.code == -32001,
    ),
    "an error without jsonrpc": Odd(
        ('{"id": @id, "error": {"code": -32001, "message": "gone"}}',),
        MCPError,
        lambda seen: seen.code == -32001,
    ),
    # Results
    "result null": unusable('{"jsonrpc": "2.0", "id": @id, "result": null}'),
    "an empty result": unusable('{"jsonrpc": "2.0", "id": @id, "result": {}}'),
    "a result that is a list": unusable('{"jsonrpc": "2.0", "id": @id, "result": ["done"]}', keeps=["done"]),
    "a result that is a text": unusable('{"jsonrpc": "2.0", "id": @id, "result": "done"}', keeps="done"),
    "a result that is a number": unusable('{"jsonrpc": "2.0", "id": "@id", "result": 17}', keeps=17),
    "neither result nor error": unusable('{"jsonrpc": "2.0", "id": @id}'),
    "error null and no result": unusable('{"jsonrpc": "2.0", "id": @id, "error": null}'),
    "both result and error": unusable(
        '{"jsonrpc": "2.0", "id": @id, "result": {"a": 1}, "error": {"code": 1, "message": "no"}}',
        keeps={"a": 1},
    ),
    # Values
    "half a surrogate pair": means(member(r'"cut \ud83d"'), facts=texts_are("cut \ufffd")),
    "a name with half a surrogate pair": means(
        member(r'{"\ud83d": 1}'), facts=lambda seen: seen.meta["odd"] == {"\ufffd": 1}
    ),
    "the last half of a pair": means(member(r'"\ude00 cut"'), facts=texts_are("\ufffd cut")),
    "NaN": means(member("NaN"), facts=lambda seen: math.isnan(seen.meta["odd"])),
    "infinities": means(
        member("[Infinity, -Infinity]"), facts=lambda seen: seen.meta["odd"] == [math.inf, -math.inf]
    ),
    "an integer beyond all measure": means(
        member("1" + "0" * 400), facts=lambda seen: seen.meta["odd"] == 10**400
    ),
    "lines of another kind in a text": means(
        member('"a\u2028b\u2029c\x7f"'), facts=texts_are("a\u2028b\u2029c\x7f")
    ),
    "a NUL in a text": means(member(r'"a\u0000b"'), facts=texts_are("a\0b")),
    "nesting within the bound": means(member("[" * 150 + "]" * 150)),
    "nesting without an end": unusable(member("[" * DEEP + "]" * DEEP)),
    "nesting and half a surrogate pair": unusable(member("[" * DEEP + r'"\ud83d"' + "]" * DEEP)),
    "more values than allowed": unusable(member("[" + "0," * 3_000 + "0]"), reason="oversized"),
    "more bytes than allowed": unusable(member('"' + "x" * 30_000 + '"'), reason="oversized"),
    "more bytes than allowed, and the id at the end": unusable(
        '{"jsonrpc": "2.0", "result": {"content": "' + "x" * 30_000 + '"}, "id": @id}', reason="oversized"
    ),
    # What is no JSON, and still names its request
    "half an answer": unusable('{"jsonrpc": "2.0", "id": @id, "result": {"content": ['),
    "an answer and more": unusable(ANSWER + " trailing"),
    "bytes that are no UTF-8": unusable(
        b'{"jsonrpc": "2.0", "id": @id, "result": {"text": "caf\xe9"}}', keeps={"text": "caf\ufffd"}
    ),
    "a surrogate in UTF-8": unusable(b'{"jsonrpc": "2.0", "id": @id, "result": {"text": "\xed\xa0\xbd"}}'),
    "a number of another language": unusable(member("007")),
    "a tab in a text": unusable(member('"a\tb"')),
    # What is nobody's
    "two answers": means(ANSWER, ANSWER),
    "two answers of which the second is another": means(ANSWER, ANSWER.replace("@right", "@wrong")),
    "an answer, then an error": means(
        ANSWER, '{"jsonrpc": "2.0", "id": @id, "error": {"code": -32001, "message": "gone"}}'
    ),
    "an answer to an unknown id": nobodys('{"jsonrpc": "2.0", "id": 4711, "result": @wrong}'),
    "an error to an unknown id": nobodys(
        '{"jsonrpc": "2.0", "id": 4711, "error": {"code": -32001, "message": "gone"}}'
    ),
    "half an answer to an unknown id": nobodys('{"jsonrpc": "2.0", "id": 4711, "result": [1]}'),
    "an answer with id null": nobodys('{"jsonrpc": "2.0", "id": null, "result": @wrong}'),
    "an answer without an id": nobodys('{"jsonrpc": "2.0", "result": @wrong}'),
    "an id that can be none": nobodys('{"jsonrpc": "2.0", "id": [@id], "result": @wrong}'),
    "an id that is true": nobodys('{"jsonrpc": "2.0", "id": true, "result": @wrong}'),
    "an id between two": nobodys('{"jsonrpc": "2.0", "id": @id.5, "result": @wrong}'),
    "an echo of the request": nobodys(
        '{"jsonrpc": "2.0", "id": @id, "method": "tools/call", "params": {"name": "fault", "arguments": {}}}'
    ),
    "a request without an id that can be one": nobodys('{"jsonrpc": "2.0", "id": {}, "method": "ping"}'),
    "a line of a log": nobodys('{"level": "info", "id": @id, "error": "refused"}'),
    "an empty batch": nobodys("[]"),
    "a batch in a batch": nobodys("[[" + ANSWER.replace("@right", "@wrong") + "]]"),
    "a bare null": nobodys("null"),
    "a bare text": nobodys('"text"'),
    "a bare number": nobodys("17"),
    "an empty object": nobodys("{}"),
    "a method that is none": nobodys('{"jsonrpc": "2.0", "method": 7}'),
    "params that are none": nobodys('{"jsonrpc": "2.0", "method": "notifications/message", "params": [1]}'),
    "malformed progress": nobodys(
        '{"jsonrpc": "2.0", "method": "notifications/progress", '
        '"params": {"progressToken": @id, "progress": "x"}}'
    ),
}


# --- the ways ----------------------------------------------------------------------------------------

# Each way is one session with a server whose tool `fault` is answered by the messages that it is called with.


def asked_for(arguments: dict[str, Any], request_id: object) -> list[bytes]:
    """The messages that a call asks for. Not all of them are text, so that they go as Latin-1."""
    texts = arguments["messages"]
    return [text.encode("latin-1").replace(b"@id", json.dumps(request_id).encode()) for text in texts]


def asks(message: dict[str, Any]) -> bool:
    return message.get("method") == "tools/call" and message["params"]["name"] == "fault"


@asynccontextmanager
async def over_stdio(era: Era, directory: Path) -> AsyncGenerator[Transport]:
    yield stdio_transport(directory, "says_what_it_is_asked_for", era=era)


@asynccontextmanager
async def over_http(era: Era, *, in_events: bool) -> AsyncGenerator[Transport]:
    async def handler(talk: Talk) -> None:
        if talk.received.method != "POST" or not asks(talk.received.message):
            await behave(era, talk)
            return
        messages = asked_for(talk.received.message["params"]["arguments"], talk.id)
        if in_events:
            await talk.begin_events()
            for message in messages:
                await talk.event(message)
            await talk.end_events()
        else:
            # One body is one message, or a batch of them.
            body = messages[0] if len(messages) == 1 else b"[" + b", ".join(messages) + b"]"
            await talk.reply(200, body, "application/json")

    async with fault_server(handler) as server:
        yield StreamableHttpTransport(server.url)


@asynccontextmanager
async def over_sse(era: Era) -> AsyncGenerator[Transport]:
    async def handler(talk: Talk) -> None:
        if talk.received.method != "POST" or not asks(talk.received.message):
            await serve(era, talk)
            return
        await acknowledge(talk)
        for message in asked_for(talk.received.message["params"]["arguments"], talk.id):
            await stream_of(talk).event(message, event="message")

    async with fault_server(handler) as server:
        yield SSETransport(server.url)


Parse: TypeAlias = Callable[[bytes], list[SessionMessage | Exception]]
"""What a transport of another make puts on its stream for a message that has come."""


def as_the_sdk_parses(message: bytes) -> list[SessionMessage | Exception]:
    try:
        return [SessionMessage(jsonrpc_message_adapter.validate_json(message, by_name=False))]
    except ValidationError as error:
        return [error]


def unchecked(message: bytes) -> list[SessionMessage | Exception]:
    """By models that check nothing, where the message could be one; else as the SDK does."""
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return as_the_sdk_parses(message)
    batch = value if isinstance(value, list) and all(isinstance(each, dict) for each in value) else [value]
    items: list[SessionMessage | Exception] = []
    for each in batch:
        if not isinstance(each, dict) or not each.keys() & {"result", "error", "method"}:
            return as_the_sdk_parses(message)
        kind: Any = JSONRPCNotification
        if "result" in each or "error" in each:
            kind = JSONRPCResponse if "result" in each else JSONRPCError
        elif "id" in each:
            kind = JSONRPCRequest
        made = kind.model_construct(**each)
        made.__dict__.update(each)
        items.append(SessionMessage(made))
    return items or as_the_sdk_parses(message)


async def serve_messages(era: Era, parse: Parse, receive: Any, send: Any) -> None:
    async for each in receive:
        request = each.message
        if not isinstance(request, JSONRPCRequest):
            continue
        params = request.params or {}
        if asks({"method": request.method, "params": params}):
            for message in asked_for(params["arguments"], request.id):
                for item in parse(message):
                    await send.send(item)
        elif (result := result_of(era, request.method)) is not None:
            await send.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=request.id, result=result)))
        else:
            error = ErrorData(code=-32601, message="unknown method")
            await send.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=request.id, error=error)))


@asynccontextmanager
async def over_streams(era: Era, parse: Parse) -> AsyncGenerator[Transport]:
    @asynccontextmanager
    async def opened() -> AsyncGenerator[tuple[Any, Any]]:
        to_client, reads = anyio.create_memory_object_stream[Any](100)
        writes, from_client = anyio.create_memory_object_stream[Any](100)
        async with to_client, reads, writes, from_client, anyio.create_task_group() as tg:
            tg.start_soon(serve_messages, era, parse, from_client, to_client)
            yield reads, writes
            tg.cancel_scope.cancel()

    yield StreamsTransport(opened)


class OddServer(Server[Any]):
    """A server of this process that says what the SDK's would not."""

    era: Era

    async def run(self, read_stream: Any, write_stream: Any, *args: Any, **kwargs: Any) -> None:
        await serve_messages(self.era, unchecked, read_stream, write_stream)


@asynccontextmanager
async def in_memory(era: Era) -> AsyncGenerator[Transport]:
    server = OddServer("odd")
    server.era = era
    yield MemoryTransport(server)


BOTH: Final[tuple[Era, ...]] = ("legacy", "modern")

WAYS: Final[
    dict[str, tuple[Callable[[Era, Path], AbstractAsyncContextManager[Transport]], tuple[Era, ...]]]
] = {
    "stdio": (over_stdio, BOTH),
    "HTTP, JSON": (lambda era, _: over_http(era, in_events=False), BOTH),
    "HTTP, events": (lambda era, _: over_http(era, in_events=True), BOTH),
    "HTTP+SSE": (lambda era, _: over_sse(era), ("legacy",)),
    "streams that the SDK has parsed": (lambda era, _: over_streams(era, as_the_sdk_parses), BOTH),
    "streams of what nobody has checked": (lambda era, _: over_streams(era, unchecked), BOTH),
    "memory": (lambda era, _: in_memory(era), BOTH),
}


PARSED: Final = tuple(way for way in WAYS if way.startswith("streams") or way == "memory")

NOT_COMPARABLE: Final = {
    # Nothing is framed there.
    "more bytes than allowed": PARSED,
    "more bytes than allowed, and the id at the end": PARSED,
    # The SDK's models keep one of the two, and do not say that there was another.
    "both result and error": ("streams that the SDK has parsed",),
}


async def outcome(client: Client, odd: Odd) -> Any:
    messages = [message.decode("latin-1") for message in odd.messages]
    try:
        return await client.call_tool("fault", {"messages": messages}, timeout=5)
    except Exception as error:
        return error


def is_right(odd: Odd, seen: Any) -> bool:
    if odd.raises is None:
        return not isinstance(seen, Exception) and odd.facts(seen)
    return isinstance(seen, odd.raises) and odd.facts(seen)


@pytest.mark.parametrize(
    ("way", "era"), [(way, era) for way, (_, eras) in WAYS.items() for era in eras], ids=lambda value: value
)
async def test_an_odd_answer_means_the_same_on_every_way(way: str, era: Era, tmp_path: Path) -> None:
    wrong: dict[str, str] = {}
    async with (
        WAYS[way][0](era, tmp_path) as transport,
        Client(transport, mode=MODES[era], limits=LIMITS) as client,
    ):
        for case, odd in ODD.items():
            if way in NOT_COMPARABLE.get(case, ()):
                continue
            seen = await outcome(client, odd)
            if not is_right(odd, seen):
                wrong[case] = f"{seen!r:.300}"
        assert (await client.call_tool("echo")).content[0].text == "echo"
        assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(f"{case}: {seen}" for case, seen in wrong.items())

"""Silence, and too much: what a server holds is freed at once, and what it sends is bounded."""

from __future__ import annotations

import gzip
import json
import zlib

import anyio
import pytest

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports.base import INBOX_SIZE
from tests.faults.http_driver import LEGACY, MODERN, connected, the_fault
from tests.faults.http_server import (
    NOTIFICATION,
    Handler,
    Talk,
    answer,
    events_then_silence,
    fault_server,
    head_then_silence,
    never,
)

pytestmark = pytest.mark.anyio


async def _half_an_event_then_silence(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b'data: {"jso')
    await talk.hang()


async def _comments_for_ever(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b": still here\n")
        await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "handler",
    [never, head_then_silence, events_then_silence, _half_an_event_then_silence, _comments_for_ever],
)
@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
async def test_abandoning_a_request_frees_its_connection_at_once(
    handler: Handler, era: dict[str, str]
) -> None:
    async with fault_server(handler) as server, connected(server.url) as driver:
        request = await driver.request(era=era)
        await server.until(lambda s: len(s.requests) == 1)
        assert driver.connection.abandon(request) is (era is MODERN)
        await server.until(lambda s: s.open == 0)
        assert driver.connection.abandon(request) is (era is MODERN)


async def test_a_request_abandoned_before_it_was_sent_is_never_sent() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result({"method": talk.received.rpc_method})

    async with fault_server(handler) as server, connected(server.url) as driver:
        request = await driver.request("unwanted")
        driver.connection.abandon(request)
        assert await driver.result("wanted") == {"method": "wanted"}
        assert [received.rpc_method for received in server.requests] == ["wanted"]


async def test_a_hundred_stalled_calls_do_not_stop_another() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "slow":
            await talk.hang()
        await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        for _ in range(100):
            await driver.request("slow")
        await server.until(lambda s: s.open == 100)
        assert await driver.result("quick") == {}


async def test_every_byte_from_the_server_counts_as_traffic() -> None:
    proceed = anyio.Event()

    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await proceed.wait()
        await talk.chunk(b": ping\n\n")
        await talk.hang()

    async with fault_server(handler) as server, connected(server.url) as driver:
        connection = driver.connection
        before = connection.last_traffic
        request = await driver.request()
        while connection.last_traffic == before:
            await anyio.sleep(0.001)
        at_head = connection.last_traffic
        proceed.set()
        while connection.last_traffic == at_head:
            await anyio.sleep(0.001)
        assert anyio.current_time() - connection.last_traffic < 1.0
        connection.abandon(request)


LIMIT = 10_000


async def _a_long_body(talk: Talk) -> None:
    await talk.result({"text": "x" * LIMIT})


async def _a_long_body_in_chunks(talk: Talk) -> None:
    await talk.head(200, {"transfer-encoding": "chunked"}, "application/json")
    while True:
        await talk.chunk(b" " * 1000)


async def _a_long_announcement(talk: Talk) -> None:
    await talk.head(200, {"content-length": str(LIMIT + 1)}, "application/json")
    await talk.hang()


async def _a_bomb(talk: Talk) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < LIMIT
    await talk.reply(200, bomb, "application/json", {"content-encoding": "gzip"})


async def _a_bomb_in_an_event(talk: Talk) -> None:
    bomb = zlib.compress(b"data: " + b" " * 10_000_000)
    assert len(bomb) < LIMIT
    await talk.reply(200, bomb, "text/event-stream", {"content-encoding": "deflate"})


async def _a_long_event(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(json.loads(answer(talk.id, {"text": "x" * LIMIT})))
    await talk.end_events()


async def _an_endless_line(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b"x" * 1000)


async def _many_lines_of_one_event(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b"data: x\n" * 100)


@pytest.mark.parametrize(
    "handler",
    [
        _a_long_body,
        _a_long_body_in_chunks,
        _a_long_announcement,
        _a_bomb,
        _a_bomb_in_an_event,
        _a_long_event,
        _an_endless_line,
        _many_lines_of_one_event,
    ],
)
async def test_an_answer_over_the_limit_fails_one_call(handler: Handler) -> None:
    error = await the_fault(handler, limits=Limits(max_message_bytes=LIMIT))
    assert isinstance(error, RequestFailedError)
    assert error.reason == "oversized"


@pytest.mark.parametrize("framing", ["json", "events"])
async def test_an_answer_of_exactly_the_limit_is_delivered(framing: str) -> None:
    async def handler(talk: Talk) -> None:
        body = answer(talk.id, {"text": ""})
        body = body.replace(b'""', b'"%s"' % (b"x" * (LIMIT - len(body))))
        assert len(body) == LIMIT
        if framing == "json":
            await talk.reply(200, body, "application/json; charset=utf-8")
        else:
            await talk.begin_events()
            await talk.event(body)
            await talk.end_events()

    async with (
        fault_server(handler) as server,
        connected(server.url, limits=Limits(max_message_bytes=LIMIT)) as driver,
    ):
        assert len((await driver.result())["text"]) > LIMIT - 100


async def test_a_large_event_arrives_in_time_that_is_linear_in_it() -> None:
    size = 8_000_000

    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id, {"text": "x" * size}))
        await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert len((await driver.result())["text"]) == size


async def test_a_reader_that_stops_reading_slows_the_server_down() -> None:
    sent = 0

    async def handler(talk: Talk) -> None:
        nonlocal sent
        await talk.begin_events()
        if talk.received.rpc_method == "fill":
            await talk.chunk(b"data: %b\n\n" % json.dumps(NOTIFICATION).encode() * INBOX_SIZE)
            await talk.hang()
        for _ in range(50):
            await talk.event({**NOTIFICATION, "params": {"text": "x" * 1_000_000}})
            sent += 1

    async with fault_server(handler) as server, connected(server.url) as driver:
        # The inbox is filled by another stream, and the notifications of this one wait for room.
        await driver.request("fill")
        while driver.connection.incoming.statistics().current_buffer_used < INBOX_SIZE:
            await anyio.sleep(0.001)
        await driver.request()
        await server.until(lambda s: len(s.requests) == 2)
        while driver.connection.incoming.statistics().tasks_waiting_send == 0:
            await anyio.sleep(0.001)
        # Time in which all fifty would arrive, if they were read.
        await anyio.sleep(0.2)
        assert sent < 50
    # and leaving did not wait for a reader


async def test_a_flood_of_notifications_arrives_before_the_answer() -> None:
    count = 5_000

    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        one = b"data: " + json.dumps(NOTIFICATION).encode() + b"\n\n"
        for _ in range(count // 100):
            await talk.chunk(one * 100)
        await talk.event(answer(talk.id))
        await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert await driver.result() == {}
        assert len(driver.seen) == count

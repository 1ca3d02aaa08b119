"""Streams of events: what is skipped, what is told, and how a stream that ends is resumed."""

from __future__ import annotations

from dataclasses import replace

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.types import JSONRPCNotification

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports.base import Violation
from tests.faults.http_driver import LEGACY, MODERN, QUICK, connected, the_fault
from tests.faults.http_server import (
    NOTIFICATION,
    Handler,
    Talk,
    answer,
    close,
    error_answer,
    fault_server,
    never,
    no_events,
    reset,
    resuming,
    status_500,
)

pytestmark = pytest.mark.anyio

LIMIT = 10_000


# --- events ----------------------------------------------------------------------------------------


async def test_malformed_events_are_violations_and_the_call_goes_on() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(b"{not json")
        await talk.event(b'{"jsonrpc": "2.0"}')
        await talk.event(b'{"jsonrpc": "2.0", "method": 7}')
        await talk.event(b'{"jsonrpc": "2.0", "method": "notifications/x", "params": []}')
        await talk.event(b'["a batch"]')
        await talk.event(b'"\xff"')
        await talk.event(answer("another id"))
        await talk.event(b"ignored", event="ping")
        await talk.event(b"")
        await talk.event(NOTIFICATION)
        await talk.event(answer(talk.id, {"ok": True}))
        await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert await driver.result() == {"ok": True}
        assert len(driver.violations) == 6
        # An empty array where an object belongs is not there: PHP writes no other.
        assert [item.method for item in driver.seen if isinstance(item, JSONRPCNotification)] == [
            "notifications/x",
            "notifications/message",
        ]


async def test_an_error_without_an_id_on_the_stream_means_this_request() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(error_answer(None, -32700, "cannot read it"))
        await talk.end_events()

    error = await the_fault(handler)
    assert isinstance(error, MCPError)
    assert error.code == -32700


async def test_of_two_answers_the_first_wins_and_the_second_is_a_violation() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id, {"first": True}))
        await talk.event(answer(talk.id, {"second": True}))
        await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert await driver.result() == {"first": True}
        assert "second answer" in (await driver.arrived(Violation)).detail


async def test_an_oversized_event_behind_the_answer_is_a_violation() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id))
        await talk.event(b"x" * (LIMIT + 1))
        await talk.end_events()

    limits = Limits(max_message_bytes=LIMIT)
    async with fault_server(handler) as server, connected(server.url, limits=limits) as driver:
        assert await driver.result() == {}
        await driver.arrived(Violation)


async def test_a_stream_left_open_behind_its_answer_is_closed() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id))
        await talk.hang()

    async with fault_server(handler) as server, connected(server.url) as driver:
        started = anyio.current_time()
        assert await driver.result() == {}
        assert anyio.current_time() - started < QUICK.drain_seconds
        await server.until(lambda s: s.open == 0)


async def test_a_stream_that_floods_behind_its_answer_is_closed() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id))
        while True:
            await talk.chunk(b": more\n" * 1000)

    async with (
        fault_server(handler) as server,
        connected(server.url, policy=replace(QUICK, drain_seconds=60.0)) as driver,
    ):
        assert await driver.result() == {}
        await server.until(lambda s: s.open == 0)


async def test_connections_are_reused_after_streams_that_end() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(NOTIFICATION)
        await talk.event(answer(talk.id))
        await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        for _ in range(20):
            assert await driver.result() == {}
        # Two, since the next call may be on its way before the end of the stream has arrived.
        assert server.accepted <= 2


# --- resuming --------------------------------------------------------------------------------------


async def test_a_stream_that_ends_is_resumed_behind_its_last_event() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST":
            handler.request_id = talk.id
            await talk.begin_events()
            await talk.chunk(b"id: 1-\xc3\xa4\ndata: \n\n")
            await talk.event(NOTIFICATION, id="2")
            await talk.chunk(b"id: not complete\ndata: {")
            await talk.close()
        elif talk.received.headers["last-event-id"] == "2":
            await talk.begin_events()
            await talk.event(NOTIFICATION, id="3")
            await talk.end_events()
        else:
            assert talk.received.headers["last-event-id"] == "3"
            await talk.begin_events()
            await talk.event(answer(handler.request_id, {"resumed": True}))
            await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert await driver.result() == {"resumed": True}
        assert len(driver.seen) == 2
        assert [received.method for received in server.requests] == ["POST", "GET", "GET"]
        assert server.requests[1].headers["accept"] == "text/event-stream"
        assert server.requests[1].headers["mcp-protocol-version"] == "2025-11-25"


async def test_an_event_that_only_carries_an_id_makes_a_stream_resumable() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST":
            handler.request_id = talk.id
            await talk.begin_events()
            await talk.chunk(b"id: \xc3\xa4\nretry: 0\ndata: \n\n")
            await talk.end_events()
        else:
            handler.resumed_behind = talk.received.headers["last-event-id"]
            await talk.begin_events()
            await talk.event(answer(handler.request_id))
            await talk.end_events()

    async with fault_server(handler) as server, connected(server.url) as driver:
        assert await driver.result() == {}
        # UTF-8, as the standard says; the test server reads Latin-1.
        assert handler.resumed_behind.encode("latin-1") == "ä".encode()


@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
@pytest.mark.parametrize(
    "identity", ["", " ", "a\x01b", "x" * 5000], ids=["none", "blank", "control", "long"]
)
async def test_a_stream_that_cannot_be_resumed_is_not(era: dict[str, str], identity: str) -> None:
    async def handler(talk: Talk) -> None:
        assert talk.received.method == "POST"
        await talk.begin_events()
        await talk.event(NOTIFICATION, id=identity if era is LEGACY else "1")
        await talk.end_events()

    error = await the_fault(handler, era=era)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"
    assert "ended without an answer" in str(error)


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_resumption_that_is_refused_ends_the_call_with_the_status(status: int) -> None:
    async def get(talk: Talk) -> None:
        await talk.reply(status)

    error = await the_fault(resuming(get))
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.status_code == status


async def test_a_resumption_that_is_no_stream_is_a_violation() -> None:
    async def get(talk: Talk) -> None:
        await talk.reply(200, b"{}", "application/json")

    error = await the_fault(resuming(get))
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"


async def _get_the_same(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"id: 1\nretry: 0\ndata:\n\n")
    await talk.end_events()


@pytest.mark.parametrize("get", [status_500, no_events, _get_the_same, close, reset])
async def test_resuming_without_progress_ends_after_five_attempts(get: Handler) -> None:
    async with fault_server(resuming(get)) as server, connected(server.url) as driver:
        error = await driver.fault()
        assert isinstance(error, RequestFailedError)
        assert error.reason == "transport"
        assert len(server.of("GET")) == 5


async def test_resuming_with_progress_ends_as_well() -> None:
    async def get(talk: Talk) -> None:
        number = int(talk.received.headers["last-event-id"])
        await talk.begin_events()
        await talk.event(NOTIFICATION, id=str(number + 1))
        await talk.end_events()

    policy = replace(QUICK, resume_total=20)
    async with fault_server(resuming(get)) as server, connected(server.url, policy=policy) as driver:
        error = await driver.fault()
        assert isinstance(error, RequestFailedError)
        assert len(server.of("GET")) == 20


async def test_a_resumption_that_hangs_can_be_abandoned() -> None:
    async with fault_server(resuming(never)) as server, connected(server.url) as driver:
        request = await driver.request()
        await server.until(lambda s: len(s.of("GET")) == 1)
        assert driver.connection.abandon(request) is False
        await server.until(lambda s: s.open <= 1)


async def test_the_wait_before_resuming_is_the_servers_within_bounds() -> None:
    delay = QUICK.retry_delay
    assert delay(None) == QUICK.retry_default
    assert delay(0) == QUICK.retry_floor
    assert delay(20) == 0.02
    assert delay(10**9) == QUICK.retry_ceiling
    assert delay(None, 1) == 2 * QUICK.retry_default
    assert delay(None, 10**6) == QUICK.retry_ceiling

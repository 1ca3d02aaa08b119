"""What is not a call: notifications, the session's end, the GET stream, the goodbye."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports.base import INBOX_SIZE, Outgoing, RequestFault
from tests.faults.http_driver import MODERN, QUICK, Receipt, connected, the_fault
from tests.faults.http_server import (
    NOTIFICATION,
    Handler,
    Talk,
    answer,
    close,
    error_answer,
    events_then_silence,
    fault_server,
    garbage,
    gone,
    head_then_silence,
    never,
    reset,
    session,
    status_500,
)

pytestmark = pytest.mark.anyio

LIMIT = 10_000


# --- notifications, and answers to the server ------------------------------------------------------


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refused_notification_tells_its_receipt(status: int) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(status, b"because")

    async with fault_server(handler) as server, connected(server.url) as driver:
        receipt = await driver.notify()
        error = await receipt.wait()
        assert isinstance(error, httpx2.HTTPStatusError)
        assert error.response.text == "because"
    assert receipt.given == [error]


async def test_a_notification_refused_by_a_json_rpc_error_tells_its_receipt() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(400, error_answer(None, -32600, "not now"), "application/json")

    async with fault_server(handler) as server, connected(server.url) as driver:
        error = await (await driver.notify()).wait()
        assert isinstance(error, MCPError)
        assert error.message == "not now"


@pytest.mark.parametrize("handler", [close, reset, garbage])
async def test_a_notification_whose_post_breaks_tells_its_receipt(handler: Handler) -> None:
    async with fault_server(handler) as server, connected(server.url) as driver:
        error = await (await driver.notify()).wait()
        assert isinstance(error, RequestFailedError)
        assert error.reason == "transport"


async def test_a_stalled_notification_holds_up_nothing_and_learns_of_the_end() -> None:
    async def handler(talk: Talk) -> None:
        if talk.id is None or talk.received.rpc_method is None:
            await talk.hang()
        else:
            await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        notification = await driver.notify()
        reply = Receipt()
        response = JSONRPCResponse(jsonrpc="2.0", id="theirs", result={})
        await driver.connection.send(Outgoing(response, receipt=reply))
        assert await driver.result() == {}
        assert notification.given == reply.given == []
    for receipt in (notification, reply):
        assert len(receipt.given) == 1
        assert isinstance(receipt.given[0], SessionLostError)
        assert receipt.given[0].reason == "closed"
    assert notification.given[0] is not reply.given[0]


async def test_a_notification_that_is_never_acknowledged_gives_its_connection_back() -> None:
    async with (
        fault_server(never) as server,
        connected(server.url, policy=replace(QUICK, delivery_seconds=0.05)) as driver,
    ):
        receipt = await driver.notify()
        assert isinstance(await receipt.wait(), RequestFailedError)
        await server.until(lambda s: s.open == 0)
    assert len(receipt.given) == 1


async def test_a_receipt_does_not_wait_for_the_body_of_the_acknowledgement() -> None:
    async def handler(talk: Talk) -> None:
        await talk.head(202, {"content-length": "10"})
        await talk.hang()

    async with fault_server(handler) as server, connected(server.url) as driver:
        started = anyio.current_time()
        assert await (await driver.notify()).wait() is None
        assert anyio.current_time() - started < QUICK.drain_seconds
        await server.until(lambda s: s.open == 0)


async def _flood(talk: Talk) -> None:
    await talk.head(202, {"transfer-encoding": "chunked"})
    while True:
        await talk.chunk(b"x" * 1000)


async def _broken_off(talk: Talk) -> None:
    await talk.head(202, {"content-length": "10"})
    await talk.raw(b"12345")


@pytest.mark.parametrize("handler", [_flood, _broken_off])
async def test_what_an_acknowledgement_carries_does_not_matter(handler: Handler) -> None:
    policy = replace(QUICK, drain_seconds=60.0)
    async with fault_server(handler) as server, connected(server.url, policy=policy) as driver:
        assert await (await driver.notify()).wait() is None
        await server.until(lambda s: s.open == 0)


async def test_what_cannot_be_written_as_json_fails_the_call() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        for value in ("\ud800", object()):
            item = await driver.call(params={"value": value})
            assert isinstance(item, RequestFault)
            assert isinstance(item.error, RequestFailedError)
            assert isinstance(item.error.cause, ValueError)
        assert await driver.result() == {}
        assert len(server.requests) == 1


# --- the session -----------------------------------------------------------------------------------


async def test_404_to_a_session_id_is_the_loss_of_the_session_for_everybody() -> None:
    async def inner(talk: Talk) -> None:
        if talk.received.rpc_method == "gone":
            await gone(talk)
        else:
            await talk.hang()

    async with fault_server(session(inner)) as server, connected(server.url) as driver:
        await driver.initialize()
        for _ in range(3):
            await driver.request("slow")
        receipt = await driver.notify("notifications/slow")
        await server.until(lambda s: len(s.requests) >= 6)
        await driver.request("gone")
        await driver.request("gone")
        loss = (await driver.lost()).error
        assert loss.reason == "expired"
        assert isinstance(loss.cause, httpx2.HTTPStatusError)
        assert loss.cause.response.status_code == 404
        assert isinstance(receipt.given[0], SessionLostError)
        assert receipt.given[0].reason == "expired"
        faults = [item.error for item in driver.seen if isinstance(item, RequestFault)]
        # Only the requests that were turned away have a fault of their own: they may be sent again.
        assert len(faults) == 2
        assert all(isinstance(error, SessionLostError) and error.refused for error in faults)
        assert not loss.refused
        await server.until(lambda s: s.open <= 2)

        late = await driver.notify()
        assert isinstance(late.given[0], SessionLostError)
        await driver.request("after the end")
    assert server.of("DELETE") == []
    assert len(receipt.given) == len(late.given) == 1
    assert "after the end" not in {received.rpc_method for received in server.requests}


@pytest.mark.parametrize("status", [404, 410])
async def test_a_notification_can_be_the_one_to_learn_that_the_session_expired(status: int) -> None:
    async def refuse(talk: Talk) -> None:
        await talk.reply(status)

    async with fault_server(session(refuse)) as server, connected(server.url) as driver:
        await driver.initialize()
        receipt = await driver.notify()
        assert (await driver.lost()).error.reason == "expired"
        assert len(receipt.given) == 1
        assert isinstance(receipt.given[0], SessionLostError)


async def test_the_loss_is_told_even_when_nobody_waits_for_the_request_that_found_out() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method != "fill":
            await gone(talk)
            return
        await talk.begin_events()
        await talk.chunk(b"data: %b\n\n" % json.dumps(NOTIFICATION).encode() * INBOX_SIZE)
        await talk.hang()

    async with fault_server(session(handler)) as server, connected(server.url) as driver:
        await driver.initialize()
        await driver.request("fill")
        incoming = driver.connection.incoming
        while incoming.statistics().current_buffer_used < INBOX_SIZE:
            await anyio.sleep(0.001)
        for _ in range(10):
            await driver.request(era={"mcp-name": "not\nsendable"})
        while incoming.statistics().tasks_waiting_send < 10:
            await anyio.sleep(0.001)
        request = await driver.request()
        # Ten that wait for room, then the loss in their place.
        while incoming.statistics().tasks_waiting_send != 1:
            await anyio.sleep(0.001)
        driver.connection.abandon(request)
        assert (await driver.lost()).error.reason == "expired"
        assert len(driver.seen) == INBOX_SIZE


async def test_404_without_a_session_id_is_only_a_status() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(404)

    assert isinstance(await the_fault(handler), httpx2.HTTPStatusError)


async def test_404_to_a_modern_request_is_only_a_status() -> None:
    async with fault_server(session(gone)) as server, connected(server.url) as driver:
        await driver.initialize()
        assert isinstance(await driver.fault(era=MODERN), httpx2.HTTPStatusError)
        assert "mcp-session-id" not in server.of("POST")[-1].headers


@pytest.mark.parametrize("session_id", ["with blank", "ümlaut", "x" * 5000])
async def test_a_session_id_that_cannot_be_sent_back_is_a_violation(session_id: str) -> None:
    async def handler(talk: Talk) -> None:
        assert "mcp-session-id" not in talk.received.headers
        await talk.result({}, {"mcp-session-id": session_id})

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.result("initialize", era=None)
        assert len(driver.violations) == 1
        assert await driver.result() == {}
    assert server.of("DELETE") == []


# --- the GET stream --------------------------------------------------------------------------------


async def _result(talk: Talk) -> None:
    await talk.result()


async def test_a_get_stream_that_is_not_offered_is_normal(caplog: pytest.LogCaptureFixture) -> None:
    async with fault_server(session(_result)) as server, connected(server.url) as driver:
        await driver.initialize()
        await server.until(lambda s: len(s.of("GET")) == 1)
        assert await driver.result() == {}
    assert not [record for record in caplog.records if record.name.startswith("anyio_mcp")]


async def _get_403(talk: Talk) -> None:
    await talk.reply(403)


async def _get_json(talk: Talk) -> None:
    await talk.reply(200, b"{}", "application/json")


async def _get_redirect(talk: Talk) -> None:
    await talk.reply(302, headers={"location": "http://other.example/mcp"})


@pytest.mark.parametrize("get", [_get_403, _get_json, _get_redirect])
async def test_a_get_stream_that_is_refused_is_logged_and_not_asked_for_again(
    get: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "anyio_mcp"):
        async with fault_server(session(_result, get=get)) as server, connected(server.url) as driver:
            await driver.initialize()
            await server.until(lambda s: len(s.of("GET")) == 1)
            while not caplog.records:
                await anyio.sleep(0.001)
            assert await driver.result() == {}
            assert len(server.of("GET")) == 1
    assert "calls are not affected" in caplog.text


@pytest.mark.parametrize("get", [status_500, close, reset, garbage])
async def test_a_get_stream_that_keeps_failing_is_given_up_and_calls_go_on(
    get: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "anyio_mcp"):
        async with fault_server(session(_result, get=get)) as server, connected(server.url) as driver:
            await driver.initialize()
            while not caplog.records:
                await anyio.sleep(0.001)
            assert await driver.result() == {}
            assert len(server.of("GET")) == 5


async def test_a_get_stream_is_reconnected_behind_its_last_event() -> None:
    async def get(talk: Talk) -> None:
        number = len(get.last_event_ids)
        get.last_event_ids.append(talk.received.headers.get("last-event-id"))
        assert talk.received.headers["mcp-session-id"] == "S-1"
        if number > 10:
            await talk.hang()
        await talk.begin_events()
        await talk.event({**NOTIFICATION, "params": {"number": number}}, id=str(number), retry="0")
        await (talk.end_events() if number % 2 else talk.reset())

    get.last_event_ids = []
    async with fault_server(session(_result, get=get)) as server, connected(server.url) as driver:
        await driver.initialize()
        for number in range(11):
            item = await driver.arrived(JSONRPCNotification)
            assert item.params == {"number": number}
        await server.until(lambda s: len(s.of("GET")) == 12)
    assert get.last_event_ids == [None, *(str(number) for number in range(11))]


async def test_what_the_get_stream_may_not_carry_is_a_violation_and_skipped() -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(1))
        await talk.event(error_answer(None))
        await talk.event(b"garbage")
        await talk.event(b"x" * (LIMIT + 1))
        await talk.event(NOTIFICATION)
        await talk.hang()

    limits = Limits(max_message_bytes=LIMIT)
    async with (
        fault_server(session(_result, get=get)) as server,
        connected(server.url, limits=limits) as driver,
    ):
        await driver.initialize()
        await driver.arrived(JSONRPCNotification)
        assert len(driver.violations) == 4
        assert len(server.of("GET")) == 1


@pytest.mark.parametrize("status", [404, 410])
async def test_404_or_410_to_the_get_stream_is_the_loss_of_the_session(status: int) -> None:
    async def refuse(talk: Talk) -> None:
        await talk.reply(status)

    async with fault_server(session(_result, get=refuse)) as server, connected(server.url) as driver:
        await driver.initialize()
        assert (await driver.lost()).error.reason == "expired"
    assert server.of("DELETE") == []


async def test_there_is_no_get_stream_before_the_session_is_initialized_or_without_a_session() -> None:
    async def handler(talk: Talk) -> None:
        assert talk.received.method == "POST"
        await (talk.reply(202) if talk.id is None else talk.result())

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.initialize()
        assert await driver.result() == {}
    assert {received.method for received in server.requests} == {"POST"}


async def test_a_refused_initialized_notification_opens_no_get_stream() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "notifications/initialized":
            await talk.reply(500)
        else:
            assert talk.received.method != "GET"
            await talk.result({}, {"mcp-session-id": "S-1"}) if talk.received.body else await talk.reply(200)

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.result("initialize", era=None)
        receipt = await driver.notify("notifications/initialized")
        assert isinstance(await receipt.wait(), httpx2.HTTPStatusError)
        assert await driver.result() == {}
    assert server.of("GET") == []


# --- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("delete", [never, reset, close, garbage, status_500, _get_403, head_then_silence])
async def test_a_delete_that_fails_or_hangs_is_bounded_and_quiet(
    delete: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts = Timeouts(close=0.1)
    async with (
        fault_server(session(_result, delete=delete)) as server,
        connected(server.url, timeouts=timeouts) as driver,
    ):
        await driver.initialize()
        started = anyio.current_time()
    assert anyio.current_time() - started < 1.0
    assert len(server.of("DELETE")) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_leaving_with_exchanges_in_flight_aborts_them() -> None:
    async with fault_server(session(never, get=events_then_silence)) as server:
        async with connected(server.url) as driver:
            await driver.initialize()
            for _ in range(5):
                await driver.request()
            receipt = await driver.notify()
            await server.until(lambda s: len(s.requests) == 9)
        await server.until(lambda s: s.open == 0)
        assert len(receipt.given) == 1
        assert len(server.of("DELETE")) == 1
        assert server.of("DELETE")[0].headers["mcp-session-id"] == "S-1"
        assert server.of("DELETE")[0].headers["mcp-protocol-version"] == "2025-11-25"


async def test_leaving_does_not_wait_for_somebody_to_read() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        one = b"data: " + json.dumps(NOTIFICATION).encode() + b"\n\n"
        while True:
            await talk.chunk(one * 100)

    async with fault_server(handler) as server:
        async with connected(server.url) as driver:
            await driver.request()
            while driver.connection.incoming.statistics().tasks_waiting_send == 0:
                await anyio.sleep(0.001)
        await server.until(lambda s: s.open == 0)


async def test_a_session_that_closed_its_inbox_is_not_written_to() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.connection.incoming.aclose()
        await driver.request()
        receipt = await driver.notify()
        assert await receipt.wait() is None
        await server.until(lambda s: len(s.requests) == 2)


async def test_an_error_answer_with_our_id_is_an_answer_not_a_fault() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(200, error_answer(talk.id, -32602, "unknown tool"), "application/json")

    async with fault_server(handler) as server, connected(server.url) as driver:
        item = await driver.call()
        assert isinstance(item, JSONRPCError)
        assert item.error.code == -32602

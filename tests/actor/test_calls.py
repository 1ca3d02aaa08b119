"""One call: who answers it, who leaves it, and what the server is told."""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from anyio_mcp._session.courtesies import MAX_CANCELLATIONS
from anyio_mcp._session.dispatcher import OUTBOX_SIZE
from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError, RequestFailedError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest, silence
from tests.actor.support import in_flight, in_time, outcome, passes, silent_peer

pytestmark = pytest.mark.anyio


@in_time
async def test_a_cancelled_caller_returns_at_once_and_the_server_is_told() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.call_tool, "echo")
                (request,) = await peer.received("tools/call")
                began = anyio.current_time()
                scope.cancel()
        assert anyio.current_time() == began
        assert peer.abandoned == [request.id]
        assert client.stats().calls_in_flight == client.stats().waiters == 0
        await peer.until(lambda: bool(peer.notifications))
        assert peer.notifications_of("notifications/cancelled") == [{"requestId": request.id}]


@in_time
async def test_no_notification_when_abandoning_tells_the_peer_already() -> None:
    peer = silent_peer(abandoning_tells=True)
    async with Client(peer.transport) as client:
        with anyio.move_on_after(1):
            await client.call_tool("echo")
        assert await client.ping()
        assert peer.abandoned == [peer.requests_of("tools/call")[0].id]
        assert peer.notifications == []


@in_time
async def test_a_request_that_was_never_written_is_neither_sent_nor_cancelled_later() -> None:
    peer = silent_peer()
    async with Client(peer.transport, heartbeat=None) as client:
        peer.connection.wedge()
        with anyio.move_on_after(1):
            await client.call_tool("first")
        for _ in range(10):
            with anyio.move_on_after(1):
                await client.call_tool("never")
        peer.connection.unwedge()
        assert await client.ping()
        await passes(10)
        assert {request.params["name"] for request in peer.requests_of("tools/call")} <= {"first"}
        assert len(peer.abandoned) == 1
        assert len(peer.notifications_of("notifications/cancelled")) == 1


@in_time
async def test_a_wedged_send_keeps_no_cancelled_caller() -> None:
    peer = silent_peer()
    async with Client(peer.transport, heartbeat=None) as client:
        peer.connection.wedge()
        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for _ in range(OUTBOX_SIZE + 100):
                tg.start_soon(client.call_tool, "echo")
            await in_flight(client, OUTBOX_SIZE + 100)
            tg.cancel_scope.cancel()
        assert anyio.current_time() == began
        assert client.stats().calls_in_flight == client.stats().waiters == 0


@in_time
async def test_cancellations_that_do_not_fit_are_counted() -> None:
    peer = silent_peer()
    async with Client(peer.transport, heartbeat=None) as client:
        async with anyio.create_task_group() as calls:
            for _ in range(MAX_CANCELLATIONS + 50):
                calls.start_soon(client.call_tool, "echo")
            await peer.received("tools/call", MAX_CANCELLATIONS + 50)
            peer.connection.wedge()
            calls.cancel_scope.cancel()
        assert 0 < client.stats().unsent_cancellations <= 50
        assert client.stats().calls_in_flight == 0


@in_time
async def test_answers_nobody_waits_for_are_dropped_and_counted() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        with anyio.move_on_after(1):
            await client.call_tool("echo")
        (request,) = peer.requests_of("tools/call")
        request.answer({"content": []})
        peer.connection.answer(999, {})
        peer.connection.answer("nonsense", {})
        peer.connection.refuse(998, -1, "what?")
        peer.connection.fault(997, ValueError())
        peer.connection.refuse(None, -1, "something is wrong")
        peer.connection.violate()
        assert await client.ping()
        stats = client.stats()
        assert (stats.late_replies, stats.unknown_replies, stats.violations) == (1, 4, 2)


@in_time
async def test_a_second_answer_is_dropped() -> None:
    peer = ScriptedPeer()

    def twice(request: PeerRequest) -> None:
        request.answer({"content": [{"type": "text", "text": "first"}]})
        request.answer({"content": [{"type": "text", "text": "second"}]})

    peer.on("tools/call", twice)
    async with Client(peer.transport) as client:
        result = await client.call_tool("echo")
        assert result.content[0].text == "first"
        assert await client.ping()
        assert client.stats().late_replies == 1


@in_time
async def test_an_echoed_id_may_be_a_string() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("tools/call", lambda request: request.connection.answer(str(request.id), {"content": []}))
    async with Client(peer.transport) as client:
        assert (await client.call_tool_mcp("echo")).content == []


@pytest.mark.parametrize(
    "error",
    [
        RequestFailedError("refused", reason="transport", cause=OSError(111, "refused")),
        MCPError(-32000, "no", {"some": "data"}),
        httpx2.HTTPStatusError(
            "no", request=httpx2.Request("POST", "http://x"), response=httpx2.Response(500)
        ),
    ],
    ids=lambda error: type(error).__name__,
)
@in_time
async def test_a_fault_of_one_request_is_raised_by_its_call_and_hurts_no_other(error: Exception) -> None:
    peer = silent_peer()
    peer.on("tools/list", lambda request: request.fault(error))
    others: list[object] = []
    async with Client(peer.transport) as client:

        async def other() -> None:
            others.append(await client.call_tool_mcp("echo"))

        async with anyio.create_task_group() as tg:
            tg.start_soon(other)
            (request,) = await peer.received("tools/call")
            with pytest.raises(type(error)) as caught:
                await client.list_tools()
            assert caught.value is error
            request.answer({"content": []})
        assert len(others) == 1
        assert client.is_connected()
    assert peer.attempts == 1


@in_time
async def test_a_result_that_does_not_conform_is_a_violation_of_this_request() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"content": "not a list"})
    async with Client(peer.transport) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("echo")
        assert caught.value.reason == "violation"
        assert caught.value.result["content"] == "not a list", "what a tool did is not lost"
        assert await client.ping()


@pytest.mark.parametrize("era", ["modern", "legacy"])
@in_time
async def test_five_hundred_calls_with_cancellations_at_any_time(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    answered = 0

    async def in_its_time(request: PeerRequest) -> dict[str, Any]:
        await anyio.sleep(request.params["arguments"]["takes"])
        return {"content": []}

    peer.on("tools/call", in_its_time)
    async with Client(peer.transport) as client:

        async def call(number: int) -> None:
            nonlocal answered
            await anyio.sleep(number % 7)
            with anyio.move_on_after(number % 13):
                await client.call_tool_mcp("echo", {"takes": number % 11})
                answered += 1

        async with anyio.create_task_group() as tg:
            for number in range(500):
                tg.start_soon(call, number)
        assert 100 < answered < 400
        await anyio.sleep(60)
        stats = client.stats()
        assert stats.calls_in_flight == stats.waiters == 0
    check_at_rest(client)


@in_time
async def test_a_notification_that_is_not_delivered_raises_in_its_caller() -> None:
    peer = ScriptedPeer(era="legacy")
    error = RequestFailedError("refused", reason="transport")
    peer.on_delivery("notifications/roots/list_changed", error)
    async with Client(peer.transport) as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.send_roots_list_changed()
        assert caught.value is error
        assert await client.ping()


@in_time
async def test_a_notification_that_is_never_acknowledged_holds_up_nobody_else() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on_delivery("notifications/roots/list_changed", None)
    async with Client(peer.transport) as client, anyio.create_task_group() as tg:
        tg.start_soon(client.send_roots_list_changed)
        await peer.until(lambda: len(peer.notifications) == 2)
        began = anyio.current_time()
        assert await client.ping()
        assert anyio.current_time() == began
        tg.cancel_scope.cancel()


@in_time
async def test_initialized_that_is_never_acknowledged_delays_the_session_only_for_a_while() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on_delivery("notifications/initialized", None)
    began = anyio.current_time()
    async with Client(peer.transport) as client:
        assert anyio.current_time() - began <= 5
        assert await client.ping()


@in_time
async def test_initialized_that_fails_does_not_cost_the_session() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on_delivery("notifications/initialized", RequestFailedError("reset", reason="transport"))
    async with Client(peer.transport) as client:
        assert await client.ping()


@in_time
async def test_without_auto_initialize_the_session_begins_when_asked_to() -> None:
    for era in ("modern", "legacy"):
        peer = ScriptedPeer(era=era)
        async with Client(peer.transport, auto_initialize=False) as client:
            assert peer.requests == []
            assert client.protocol_version is None
            with pytest.raises(NotConnectedError):
                _ = client.initialize_result
            result = await client.initialize()
            assert client.protocol_version == result.protocol_version
            asked = len(peer.requests)
            assert (await client.initialize()).protocol_version == result.protocol_version
            assert len(peer.requests) == asked
            assert await client.ping()


@in_time
async def test_initialize_has_a_deadline_too() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", silence)
    peer.on("initialize", silence)
    async with Client(peer.transport, auto_initialize=False, heartbeat=None) as client:
        began = anyio.current_time()
        assert isinstance(await outcome(lambda: client.initialize(timeout=4)), TimeoutError)
        assert anyio.current_time() - began == pytest.approx(4)

"""What the server asks and tells: progress, requests, notifications."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest
from mcp.types import JSONRPCError, JSONRPCResponse

from anyio_mcp._session.notifications import NOTIFICATION_QUEUE
from anyio_mcp._session.slots import MAX_REQUESTS
from anyio_mcp.client import Client
from anyio_mcp.errors import SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest
from tests.actor.support import in_time, outcome, passes, silent_peer

pytestmark = pytest.mark.anyio

# --- progress -------------------------------------------------------------------------------------


def chatty(count: int, *, pause: float = 0.0) -> Any:
    async def handler(request: PeerRequest) -> dict[str, Any]:
        for number in range(count):
            request.progress(number, count, f"step {number}")
            if pause:
                await anyio.sleep(pause)
        return {"content": []}

    return handler


@pytest.mark.parametrize("pause", [0.0, 0.1])
@in_time
async def test_progress_arrives_in_order_and_is_handled_before_the_result(pause: float) -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", chatty(50, pause=pause))
    seen: list[float] = []

    async def slow(progress: float, total: float | None, message: str | None) -> None:
        await anyio.sleep(0.3)
        assert (total, message) == (50, f"step {progress:g}")
        seen.append(progress)

    async with Client(peer.transport) as client:
        await client.call_tool("echo", progress_handler=slow)
        assert seen == list(range(50))


@in_time
async def test_a_slow_progress_handler_delays_only_its_call() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", chatty(3))
    finished: dict[str, float] = {}

    async def slow(*_: object) -> None:
        await anyio.sleep(10)

    async with Client(peer.transport) as client:

        async def call(name: str, handler: Any) -> None:
            began = anyio.current_time()
            await client.call_tool("echo", progress_handler=handler)
            finished[name] = anyio.current_time() - began

        async with anyio.create_task_group() as tg:
            tg.start_soon(call, "slow", slow)
            for number in range(10):
                tg.start_soon(call, f"fast {number}", None)
    assert finished.pop("slow") == pytest.approx(30)
    assert set(finished.values()) == {0.0}


@in_time
async def test_a_progress_handler_that_raises_does_not_fail_its_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", chatty(3))
    seen: list[float] = []

    async def broken(progress: float, *_: object) -> None:
        seen.append(progress)
        raise ValueError("mine")

    async with Client(peer.transport) as client:
        await client.call_tool("echo", progress_handler=broken)
    assert seen == [0, 1, 2]
    assert "progress handler raised" in caplog.text


@in_time
async def test_progress_for_nobody_and_malformed_progress_are_dropped() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        for token, progress in [(77, 1), (True, 1), (None, 1), ("x", "half"), ("x", None), ([], 1)]:
            params = {"progressToken": token, "progress": progress}
            peer.connection.notify("notifications/progress", params)
        peer.connection.notify("notifications/progress")
        assert await client.ping()
        assert client.stats().violations >= 4


@in_time
async def test_progress_beyond_the_backlog_drops_the_oldest() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", chatty(3000))
    seen: list[float] = []

    async def note(progress: float, *_: object) -> None:
        seen.append(progress)

    async with Client(peer.transport) as client:
        await client.call_tool("echo", progress_handler=note)
        dropped = client.stats().dropped_progress
    assert seen == sorted(seen)
    assert seen[-1] == 2999
    assert len(seen) + dropped == 3000


@in_time
async def test_a_progress_handler_may_call_the_same_client() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", chatty(2))
    answers: list[bool] = []
    async with Client(peer.transport) as client:

        async def ask(*_: object) -> None:
            answers.append(await client.ping())

        await client.call_tool("echo", progress_handler=ask)
    assert answers == [True, True]


# --- requests -------------------------------------------------------------------------------------


def sampling(text: str = "hello") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}], "maxTokens": 5}


@in_time
async def test_requests_of_the_server_are_handled_concurrently() -> None:
    peer = ScriptedPeer(era="legacy")

    async def sample(messages: Any, *_: object) -> str:
        await anyio.sleep(10)
        return messages[0].content.text

    async with Client(peer.transport, sampling_handler=sample) as client:
        began = anyio.current_time()
        asked = [peer.ask("sampling/createMessage", sampling(str(number))) for number in range(20)]
        assert await client.ping()
        for number, request_id in enumerate(asked):
            answer = await peer.answer_to(request_id)
            assert isinstance(answer, JSONRPCResponse)
            assert answer.result["content"]["text"] == str(number)
        assert anyio.current_time() - began == pytest.approx(10)


@in_time
async def test_a_handler_that_raises_answers_with_an_error_and_harms_nothing() -> None:
    peer = ScriptedPeer(era="legacy")

    async def sample(*_: object) -> str:
        raise ValueError("mine")

    async with Client(peer.transport, sampling_handler=sample) as client:
        answer = await peer.answer_to(peer.ask("sampling/createMessage", sampling()))
        assert isinstance(answer, JSONRPCError)
        assert await client.ping()
        answer = await peer.answer_to(peer.ask("elicitation/create", {"message": "?"}))
        assert isinstance(answer, JSONRPCError)
        answer = await peer.answer_to(peer.ask("no/such/method"))
        assert isinstance(answer, JSONRPCError)
        assert answer.error.code == -32601
        answer = await peer.answer_to(peer.ask("sampling/createMessage", {"messages": 5}))
        assert isinstance(answer, JSONRPCError)
        assert answer.error.code == -32602
        assert await client.ping()


@in_time
async def test_a_handler_that_lets_a_foreign_cancellation_escape_costs_at_most_the_session() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("tools/call", lambda request: {"content": []})

    async def sample(*_: object) -> str:
        # On asyncio that is what a future raises which somebody has cancelled. On trio it cannot be made.
        raise anyio.get_cancelled_exc_class()("not of this task")

    async with Client(peer.transport, sampling_handler=sample) as client:
        peer.ask("sampling/createMessage", sampling())
        await passes(1)
        with suppress(SessionLostError):
            await client.call_tool("echo", timeout=5)
        assert (await client.call_tool("echo", timeout=5)).content == []


@in_time
async def test_requests_beyond_the_bound_are_refused_and_counted() -> None:
    peer = ScriptedPeer(era="legacy")
    go_on = anyio.Event()

    async def sample(*_: object) -> str:
        await go_on.wait()
        return "ok"

    async with Client(peer.transport, sampling_handler=sample) as client:
        asked = [peer.ask("sampling/createMessage", sampling()) for _ in range(MAX_REQUESTS + 7)]
        assert await client.ping()
        for request_id in asked[MAX_REQUESTS:]:
            answer = await peer.answer_to(request_id)
            assert isinstance(answer, JSONRPCError)
        assert client.stats().refused_requests == 7
        go_on.set()
        for request_id in asked[:MAX_REQUESTS]:
            assert isinstance(await peer.answer_to(request_id), JSONRPCResponse)
        again = peer.ask("sampling/createMessage", sampling())
        assert isinstance(await peer.answer_to(again), JSONRPCResponse)


@in_time
async def test_an_id_in_use_is_refused() -> None:
    peer = ScriptedPeer(era="legacy")
    go_on = anyio.Event()

    async def sample(*_: object) -> str:
        await go_on.wait()
        return "ok"

    async with Client(peer.transport, sampling_handler=sample) as client:
        peer.connection.request(7, "sampling/createMessage", sampling())
        peer.connection.request("7", "sampling/createMessage", sampling())
        assert await client.ping()
        await peer.until(lambda: bool(peer.answers))
        assert isinstance(peer.answers[0], JSONRPCError)
        go_on.set()
        await peer.until(lambda: len(peer.answers) == 2)
        assert isinstance(peer.answers[1], JSONRPCResponse)


@in_time
async def test_a_request_the_server_cancels_is_stopped_and_not_answered() -> None:
    peer = ScriptedPeer(era="legacy")
    started, stopped = anyio.Event(), anyio.Event()

    async def sample(*_: object) -> str:
        started.set()
        try:
            await anyio.sleep(1000)
        finally:
            stopped.set()
        return "too late"

    async with Client(peer.transport, sampling_handler=sample) as client:
        asked = peer.ask("sampling/createMessage", sampling())
        await started.wait()
        peer.connection.notify("notifications/cancelled", {"requestId": asked})
        await stopped.wait()
        assert await client.ping()
        await passes(10)
        assert peer.answers == []
        peer.connection.notify("notifications/cancelled", {"requestId": "unknown"})
        peer.connection.notify("notifications/cancelled", {"requestId": None})
        peer.connection.notify("notifications/cancelled")
        assert await client.ping()


@in_time
async def test_a_handler_that_never_returns_does_not_outlive_the_session() -> None:
    peer = ScriptedPeer(era="legacy")
    started, stopped = anyio.Event(), anyio.Event()

    async def sample(*_: object) -> str:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()
        return ""

    async with Client(peer.transport, sampling_handler=sample):
        peer.ask("sampling/createMessage", sampling())
        await started.wait()
        began = anyio.current_time()
    assert stopped.is_set()
    assert anyio.current_time() == began


@in_time
async def test_a_handler_may_call_the_same_client() -> None:
    peer = ScriptedPeer(era="legacy")
    async with anyio.create_task_group() as tg:

        async def sample(*_: object) -> str:
            result = await client.call_tool("inner")
            return result.content[0].text

        client = Client(peer.transport, task_group=tg, sampling_handler=sample)
        async with client:
            answer = await peer.answer_to(peer.ask("sampling/createMessage", sampling()))
            assert isinstance(answer, JSONRPCResponse)
            assert answer.result["content"]["text"] == "inner"


@in_time
async def test_a_handler_may_close_the_client() -> None:
    peer = silent_peer(era="legacy")
    async with anyio.create_task_group() as tg:

        async def sample(*_: object) -> str:
            await client.close()
            return ""

        client = Client(peer.transport, task_group=tg, sampling_handler=sample)
        async with client, anyio.create_task_group() as calls:

            async def call() -> None:
                error = await outcome(lambda: client.call_tool("echo"))
                assert isinstance(error, SessionLostError)
                assert error.reason == "closed"

            calls.start_soon(call)
            await peer.received("tools/call")
            peer.ask("sampling/createMessage", sampling())
        check_at_rest(client)


# --- notifications --------------------------------------------------------------------------------


def log(text: str) -> tuple[str, dict[str, Any]]:
    return "notifications/message", {"level": "info", "data": text}


@in_time
async def test_notifications_are_handled_in_order() -> None:
    peer = ScriptedPeer()
    seen: list[str] = []

    async def handler(message: Any) -> None:
        await anyio.sleep(0.1)
        seen.append(message.data)

    async with Client(peer.transport, log_handler=handler) as client:
        for number in range(50):
            peer.connection.notify(*log(str(number)))
        await client.ping()
        assert len(seen) < 50
        await anyio.sleep(10)
    assert seen == [str(number) for number in range(50)]


@in_time
async def test_a_handler_that_hangs_holds_up_the_next_notification_for_a_moment_only() -> None:
    peer = ScriptedPeer()
    seen: dict[str, float] = {}

    async def handler(message: Any) -> None:
        seen[message.data] = anyio.current_time()
        if message.data == "hang":
            await anyio.sleep_forever()

    async with Client(peer.transport, log_handler=handler) as client:
        began = anyio.current_time()
        peer.connection.notify(*log("hang"))
        peer.connection.notify(*log("next"))
        assert await client.ping()
        assert anyio.current_time() == began
        await anyio.sleep(5)
        assert seen["next"] - began == pytest.approx(1)


@in_time
async def test_a_handler_that_raises_is_contained() -> None:
    peer = ScriptedPeer()
    seen: list[str] = []

    async def handler(message: Any) -> None:
        seen.append(message.data)
        raise ValueError("mine")

    async with Client(peer.transport, log_handler=handler) as client:
        for number in range(3):
            peer.connection.notify(*log(str(number)))
        peer.connection.notify("notifications/message", {"level": "nonsense"})
        peer.connection.notify("notifications/unknown", {})
        await anyio.sleep(1)
        assert await client.ping()
    assert seen == ["0", "1", "2"]


@in_time
async def test_a_flood_of_notifications_is_bounded_and_counted_and_calls_are_answered() -> None:
    peer = ScriptedPeer()
    handled = 0

    async def handler(message: Any) -> None:
        nonlocal handled
        handled += 1
        await anyio.sleep_forever()

    flood = 20_000
    async with Client(peer.transport, log_handler=handler) as client:
        for _ in range(flood):
            peer.connection.notify(*log("x"))
        result = await client.call_tool("echo")
        assert result.content[0].text == "echo"
        await anyio.sleep(1000)
        stats = client.stats()
        assert handled <= 101
        assert flood - stats.dropped_notifications <= NOTIFICATION_QUEUE + 2 * 101
        assert await client.ping()
        # One for the watchdogs of this test, the rest the session's: its tasks are bounded.
        assert len(anyio.get_running_tasks()) < 130

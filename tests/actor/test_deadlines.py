"""One deadline per call, covering all of it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import anyio
import pytest

from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import DeadlineExceededError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest
from tests.actor.support import in_flight, in_time, outcome, silent_peer

pytestmark = pytest.mark.anyio


async def ignore(*_: object) -> None:
    """A progress handler."""


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("timeout", [0, 0.25, 2, 5000])
@in_time
async def test_a_call_ends_after_its_timeout(timeout: float, era: Any) -> None:
    peer = silent_peer(era=era)
    async with Client(peer.transport, heartbeat=None) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", timeout=timeout)
        assert anyio.current_time() - began == pytest.approx(timeout)
        assert (caught.value.phase, caught.value.seconds) == ("call", timeout)
        assert client.stats().calls_in_flight == client.stats().waiters == 0
        assert len(peer.requests_of("tools/call")) == (0 if timeout == 0 else 1)


@pytest.mark.parametrize("timeout", [None, math.inf])
@in_time
async def test_without_a_limit_only_the_answer_ends_a_call(timeout: float | None) -> None:
    async def after_two_hours(request: PeerRequest) -> dict[str, Any]:
        await anyio.sleep(7200)
        return {"content": []}

    peer = ScriptedPeer()
    peer.on("tools/call", after_two_hours)
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        await client.call_tool("echo", timeout=timeout)
        assert anyio.current_time() - began == pytest.approx(7200)


@in_time
async def test_without_a_timeout_the_clients_applies() -> None:
    peer = silent_peer()
    async with Client(peer.transport, heartbeat=None) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo")
        assert caught.value.seconds == 300
        assert anyio.current_time() - began == pytest.approx(300)


@pytest.mark.parametrize(
    "verb",
    [
        lambda client, seconds: client.list_tools(timeout=seconds),
        lambda client, seconds: client.list_resources_mcp(timeout=seconds),
        lambda client, seconds: client.get_prompt("x", timeout=seconds),
        lambda client, seconds: client.read_resource("x://y", timeout=seconds),
        lambda client, seconds: client.set_logging_level("info", timeout=seconds),
        lambda client, seconds: client.cancel(5, timeout=seconds),
        lambda client, seconds: client.progress("t", 0.5, timeout=seconds),
        lambda client, seconds: client.send_roots_list_changed(timeout=seconds),
        lambda client, seconds: client.ping(timeout=seconds),
    ],
)
@pytest.mark.parametrize("seconds", [0, 3])
@in_time
async def test_every_verb_ends_after_its_timeout_even_if_nothing_can_be_written(
    verb: Any, seconds: float
) -> None:
    peer = ScriptedPeer(era="legacy")
    async with Client(peer.transport) as client:
        peer.connection.wedge()
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await verb(client, seconds)
        assert anyio.current_time() - began == pytest.approx(seconds)
        assert (caught.value.phase, caught.value.seconds) == ("call", seconds)
        assert client.stats().calls_in_flight == client.stats().waiters == 0
    check_at_rest(client)


@in_time
async def test_the_deadline_covers_waiting_for_room_in_the_outbox() -> None:
    peer = silent_peer()
    async with Client(peer.transport, heartbeat=None) as client:
        peer.connection.wedge()
        errors: list[object] = []

        async def call() -> None:
            errors.append(await outcome(lambda: client.call_tool("echo", timeout=5)))

        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for _ in range(500):
                tg.start_soon(call)
            await in_flight(client, 500)
        assert anyio.current_time() - began == pytest.approx(5)
        assert len(errors) == 500
        assert all(isinstance(error, DeadlineExceededError) for error in errors)
        # What was given up before it was written is never written.
        peer.connection.unwedge()
        assert await client.ping()
        assert len(peer.requests_of("tools/call")) <= 1


@in_time
async def test_a_wedged_send_does_not_outlive_the_session() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        peer.connection.wedge()
        await outcome(lambda: client.call_tool("echo", timeout=1))
        began = anyio.current_time()
    assert anyio.current_time() == began


def progressing(*, every: float, count: int, answer: bool = True) -> Any:
    async def handler(request: PeerRequest) -> dict[str, Any] | None:
        for number in range(count):
            await anyio.sleep(every)
            request.progress(number)
        return {"content": []} if answer else None

    return handler


@in_time
async def test_progress_extends_the_idle_deadline() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", progressing(every=200, count=10))
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        await client.call_tool("echo", progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(2000)


@in_time
async def test_progress_does_not_extend_the_total() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", progressing(every=200, count=1000))
    async with Client(peer.transport, timeouts=Timeouts(total=1000)) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(1000)
        assert caught.value.seconds == pytest.approx(1000)


@in_time
async def test_after_the_last_progress_the_idle_deadline_runs() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", progressing(every=200, count=2, answer=False))
    async with Client(peer.transport, heartbeat=None) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(700)


@in_time
async def test_progress_does_not_extend_a_timeout_of_the_call() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", progressing(every=1, count=1000))
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", timeout=10, progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(10)
        assert caught.value.seconds == 10


@in_time
async def test_the_deadline_covers_the_progress_handler() -> None:
    async def slow(*_: object) -> None:
        await anyio.sleep(1000)

    peer = ScriptedPeer()
    peer.on("tools/call", progressing(every=1, count=1, answer=False))
    async with Client(peer.transport, heartbeat=None) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=10, progress_handler=slow)
        assert anyio.current_time() - began == pytest.approx(10)


@in_time
async def test_one_deadline_covers_all_pages_of_a_listing() -> None:
    pages = 0

    async def page(request: PeerRequest) -> dict[str, Any]:
        nonlocal pages
        await anyio.sleep(4)
        pages += 1
        return {"tools": [], "nextCursor": str(pages)}

    peer = ScriptedPeer()
    peer.on("tools/list", page)
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.list_tools(timeout=10)
        assert anyio.current_time() - began == pytest.approx(10)
    assert pages == 2


@in_time
async def test_a_call_that_is_late_is_given_up_and_the_server_told() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        await outcome(lambda: client.call_tool("echo", timeout=1))
        (request,) = peer.requests_of("tools/call")
        assert peer.abandoned == [request.id]
        await peer.until(lambda: bool(peer.notifications))
        assert peer.notifications_of("notifications/cancelled")[0]["requestId"] == request.id
        request.answer({"content": []})
        assert await client.ping()
        assert client.stats().late_replies == 1


@in_time
async def test_a_calls_timeout_may_be_a_timedelta() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", timeout=timedelta(minutes=2))
        assert anyio.current_time() - began == pytest.approx(120)
        assert caught.value.seconds == 120

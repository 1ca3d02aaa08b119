"""asyncio's own cancellation, which knows no scopes and no shields: `cancel()`, `timeout`, `wait_for`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.errors import SessionLostError
from anyio_mcp.testing import ScriptedPeer, VirtualTime, check_at_rest, silence
from tests.actor.support import in_time, outcome, silent_peer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, Mapping[str, Any]]:
    return "asyncio", VirtualTime("asyncio").options


async def never(attempt: int) -> None:
    await anyio.sleep_forever()


async def cancelled(task: asyncio.Task[Any], *, times: int = 1) -> None:
    """Cancel a task, and again before it has ended."""
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 3])
@in_time
async def test_a_cancelled_call_returns_at_once_and_the_server_is_told(times: int) -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        task = asyncio.create_task(client.call_tool("echo"))
        (request,) = await peer.received("tools/call")
        began = anyio.current_time()
        await cancelled(task, times=times)
        assert anyio.current_time() == began
        await peer.until(lambda: bool(peer.notifications))
        assert peer.notifications_of("notifications/cancelled") == [{"requestId": request.id}]
        assert client.stats().calls_in_flight == client.stats().waiters == 0
        assert await client.ping()


@in_time
async def test_timeout_and_wait_for_end_a_call() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        began = anyio.current_time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await client.call_tool("echo")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.call_tool("echo"), 3)
        assert anyio.current_time() - began == pytest.approx(6)
        assert client.stats().calls_in_flight == 0
        assert asyncio.current_task().cancelling() == 0
        assert await client.ping()


@pytest.mark.parametrize("times", [1, 2, 5])
@in_time
async def test_cancelling_an_owner_that_connects(times: int) -> None:
    peer = ScriptedPeer(on_connect=never)
    client = Client(peer.transport)

    async def own() -> None:
        async with client:
            raise AssertionError

    task = asyncio.create_task(own())
    await peer.until(lambda: peer.attempts == 1)
    await cancelled(task, times=times)
    check_at_rest(client)
    peer.on_connect = None
    async with client:
        assert await client.ping()


@pytest.mark.parametrize("times", [1, 2, 5])
@in_time
async def test_cancelling_an_owner_in_its_body(times: int) -> None:
    peer = silent_peer(farewell=2.0)
    client = Client(peer.transport)

    async def own() -> None:
        async with client:
            await client.call_tool("echo")

    task = asyncio.create_task(own())
    await peer.received("tools/call")
    began = anyio.current_time()
    await cancelled(task, times=times)
    assert anyio.current_time() - began <= 5
    assert peer.open_connections == 0
    check_at_rest(client)


@pytest.mark.parametrize("times", [1, 2, 5])
@in_time
async def test_cancelling_an_owner_that_says_goodbye(times: int) -> None:
    peer = ScriptedPeer(farewell=float("inf"))
    client = Client(peer.transport)

    async def own() -> None:
        async with client:
            pass

    task = asyncio.create_task(own())
    await peer.until(lambda: bool(peer.requests))
    while client.state is not SessionState.CLOSING:
        await asyncio.sleep(0)
    began = anyio.current_time()
    await cancelled(task, times=times)
    assert anyio.current_time() - began <= 5
    assert peer.open_connections == 0
    check_at_rest(client)


@in_time
async def test_cancelling_an_owner_that_waits_for_a_guest() -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    errors: list[object] = []

    async def own() -> None:
        async with client:
            pass

    async def visit() -> None:
        async with client:
            errors.append(await outcome(lambda: client.call_tool("echo")))

    owner = asyncio.create_task(own())
    await peer.until(lambda: bool(peer.requests))
    guest = asyncio.create_task(visit())
    await peer.received("tools/call")
    await cancelled(owner)
    await guest
    (error,) = errors
    assert isinstance(error, SessionLostError)
    assert "CancelledError" in str(error)
    check_at_rest(client)


@pytest.mark.parametrize("where", ["connect", "body", "close"])
@in_time
async def test_timeout_around_the_block(where: str) -> None:
    peer = ScriptedPeer(
        on_connect=never if where == "connect" else None, farewell=float("inf") if where == "close" else 0
    )
    peer.on("tools/call", silence)
    client = Client(peer.transport)
    began = anyio.current_time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            async with client:
                if where == "body":
                    await client.call_tool("echo")
    assert anyio.current_time() - began <= 3 + 5
    assert asyncio.current_task().cancelling() == 0
    assert peer.open_connections == 0
    check_at_rest(client)


@pytest.mark.parametrize("where", ["connect", "body", "close"])
@in_time
async def test_wait_for_around_a_function_with_the_block(where: str) -> None:
    peer = ScriptedPeer(
        on_connect=never if where == "connect" else None, farewell=float("inf") if where == "close" else 0
    )
    peer.on("tools/call", silence)
    client = Client(peer.transport)

    async def use() -> None:
        async with client:
            if where == "body":
                await client.call_tool("echo")

    began = anyio.current_time()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(use(), 3)
    assert anyio.current_time() - began <= 3 + 5
    assert peer.open_connections == 0
    check_at_rest(client)


@pytest.mark.parametrize("times", [1, 3])
@in_time
async def test_a_cancelled_close_goes_on_without_its_caller(times: int) -> None:
    peer = ScriptedPeer(farewell=3.0)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            task = asyncio.create_task(client.close())
            while client.state is not SessionState.CLOSING:
                await asyncio.sleep(0)
            began = anyio.current_time()
            await cancelled(task, times=times)
            assert anyio.current_time() == began
            await client.close()
            assert anyio.current_time() - began == pytest.approx(3)
    assert peer.open_connections == 0


@pytest.mark.parametrize("step", ["enter", "leave"])
@in_time
async def test_cancelling_a_lease_holder_hurts_nobody_else(step: str) -> None:
    async def slowly(attempt: int) -> None:
        await anyio.sleep(2)

    peer = ScriptedPeer(on_connect=slowly, farewell=2.0)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        task = asyncio.create_task(client.__aenter__())
        await asyncio.sleep(1)
        if step == "enter":
            other = asyncio.create_task(client.__aenter__())
            await asyncio.sleep(0)
            await cancelled(task, times=3)
            await other
            assert await client.ping()
            await client.__aexit__(None, None, None)
        else:
            await task
            leaving = asyncio.create_task(client.__aexit__(None, None, None))
            await asyncio.sleep(1)
            await cancelled(leaving, times=3)
            async with client:
                assert await client.ping()
    assert peer.attempts == (1 if step == "enter" else 2)
    assert peer.open_connections == 0
    check_at_rest(client)


@in_time
async def test_cancelling_the_service_task() -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    task = asyncio.create_task(client.run())
    await peer.until(lambda: bool(peer.requests))
    while not client.is_connected():
        await asyncio.sleep(0)
    call = asyncio.create_task(outcome(lambda: client.call_tool("echo")))
    await peer.received("tools/call")
    await cancelled(task, times=2)
    error = await call
    assert isinstance(error, SessionLostError)
    assert error.reason == "closed"
    check_at_rest(client)


def ends_at_shutdown(main: Callable[[], Awaitable[None]]) -> None:
    """`asyncio.run` itself, in real time, whose shutdown cancels every task natively."""
    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_client_that_is_never_left_does_not_keep_the_loop_from_ending() -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    finished: list[object] = []

    async def main() -> None:
        async def use() -> None:
            async with client:
                finished.append(await outcome(lambda: client.call_tool("echo")))

        task = asyncio.create_task(use())
        await peer.received("tools/call")
        finished.append(task)

    ends_at_shutdown(main)
    assert len(finished) == 1
    assert peer.open_connections == 0
    check_at_rest(client)


def test_a_bare_aenter_does_not_keep_the_loop_from_ending() -> None:
    peer = silent_peer()

    async def main() -> None:
        client = Client(peer.transport)
        await client.__aenter__()
        assert await client.ping()

    ends_at_shutdown(main)
    assert peer.open_connections == 0

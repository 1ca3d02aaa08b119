"""Cancelled at every checkpoint of connecting, calling and closing, through each door: nothing hangs,
nothing is left, and the next use works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.server.mcpserver import Context, MCPServer

from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import SessionLostError
from anyio_mcp.testing import Interruption, PeerRequest, ScriptedPeer, cancel_everywhere, check_at_rest
from tests.actor.support import outcome

# Every wait of a scenario is shorter than this, whatever is cancelled where.
SECONDS = 60.0


async def never_hangs(attempt: int) -> None:
    """Connecting takes a few turns and a while."""
    await anyio.lowlevel.checkpoint()
    await anyio.sleep(0.5)


def real_peer(era: str) -> ScriptedPeer:
    """A peer at which everything takes some time: more places to be cancelled at."""
    peer = ScriptedPeer(era=era, on_connect=never_hangs, farewell=0.5)

    async def call(request: PeerRequest) -> dict[str, Any]:
        request.progress(1, 2)
        await anyio.sleep(0.5)
        request.progress(2, 2)
        return {"content": []}

    peer.on("tools/call", call)
    return peer


async def slow_progress(*_: object) -> None:
    await anyio.sleep(0.1)


async def one_call(client: Client) -> None:
    await client.call_tool_mcp("echo", {}, slow_progress, timeout=30)


async def still_works(client: Client, peer: ScriptedPeer) -> None:
    """Afterwards: nothing is held or waited for, and the client can be used."""
    check_at_rest(client)
    async with client:
        await one_call(client)
        stats = client.stats()
        assert (stats.calls_in_flight, stats.waiters, stats.leases) == (0, 0, 1)
    check_at_rest(client)
    assert peer.open_connections == 0
    assert peer.most_open_connections == 1


Scenario = Callable[[Interruption, str], Awaitable[None]]


async def owner_door(interrupt: Interruption, era: str) -> None:
    """Enter, call and leave, in the task that owns the session."""
    peer = real_peer(era)
    client = Client(peer.transport)

    async def use() -> None:
        async with client:
            await one_call(client)

    await interrupt(use)
    assert peer.open_connections == 0
    await still_works(client, peer)


async def nested_owner_door(interrupt: Interruption, era: str) -> None:
    peer = real_peer(era)
    client = Client(peer.transport)

    async def use() -> None:
        async with client:
            async with client:
                await one_call(client)
            await one_call(client)

    await interrupt(use)
    await still_works(client, peer)


async def lease_door(interrupt: Interruption, era: str) -> None:
    """Enter, call and leave, with a task group of somebody else."""
    peer = real_peer(era)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            async with client:
                await one_call(client)

        await interrupt(use)
        await still_works(client, peer)
        assert not tg.cancel_scope.cancel_called


async def lease_beside_another(interrupt: Interruption, era: str) -> None:
    """The same, while another task enters, calls and leaves at the same times, undisturbed."""
    peer = real_peer(era)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        undisturbed: list[bool] = []

        async def use() -> None:
            async with client:
                await one_call(client)

        async def other() -> None:
            async with client:
                await one_call(client)
                undisturbed.append(True)

        async with anyio.create_task_group() as others:
            others.start_soon(other)
            await interrupt(use)
        assert undisturbed == [True]
        await still_works(client, peer)


async def guest_of_an_owner(interrupt: Interruption, era: str) -> None:
    """A guest is cancelled; the owner is undisturbed."""
    peer = real_peer(era)
    client = Client(peer.transport)
    undisturbed: list[bool] = []

    async def own() -> None:
        async with client:
            await one_call(client)
            await anyio.sleep(3)
            await one_call(client)
            undisturbed.append(True)

    async def visit() -> None:
        async with client:
            await one_call(client)

    async with anyio.create_task_group() as tg:
        tg.start_soon(own)
        while not client.stats().leases:
            await anyio.lowlevel.checkpoint()
        await interrupt(visit)
    assert undisturbed == [True]
    await still_works(client, peer)


async def owner_with_a_guest(interrupt: Interruption, era: str) -> None:
    """The owner is cancelled; the guest's calls either succeed or say that the session was closed."""
    peer = real_peer(era)
    client = Client(peer.transport)
    results: list[object] = []

    async def own() -> None:
        async with client:
            await one_call(client)

    async def visit() -> None:
        while not client.is_connected():
            await anyio.sleep(0.1)
        async with client:
            results.extend([await outcome(lambda: one_call(client)) for _ in range(3)])

    async with anyio.create_task_group() as tg:
        tg.start_soon(outcome, visit)
        await interrupt(own)
        tg.cancel_scope.cancel()
    for result in results:
        assert result is None or isinstance(result, RuntimeError), result
        if isinstance(result, SessionLostError):
            assert result.reason == "closed"
    check_at_rest(client)
    assert peer.open_connections == 0


async def run_door(interrupt: Interruption, era: str) -> None:
    """`client.run` is cancelled at any time, with a call in flight."""
    peer = real_peer(era)
    client = Client(peer.transport)

    async def serve() -> None:
        async with anyio.create_task_group() as tg:
            await tg.start(client.run)
            await one_call(client)
            await client.close()

    await interrupt(serve)
    await still_works(client, peer)


async def the_service_itself(interrupt: Interruption, era: str) -> None:
    """The task of `client.run` is cancelled; its users are told."""
    peer = real_peer(era)
    client = Client(peer.transport)
    results: list[object] = []

    async def use() -> None:
        while not client.is_connected():
            await anyio.sleep(0.1)
        results.extend([await outcome(lambda: one_call(client)) for _ in range(3)])
        await client.close()

    async with anyio.create_task_group() as tg:
        tg.start_soon(use)
        await interrupt(client.run)
        tg.cancel_scope.cancel()
    assert all(result is None or isinstance(result, RuntimeError) for result in results)
    await still_works(client, peer)


async def close(interrupt: Interruption, era: str) -> None:
    """A cancelled `close()` goes on without its caller."""
    peer = real_peer(era)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        await client.__aenter__()
        await interrupt(client.close)
        await client.close()
        await client.__aexit__(None, None, None)
        await still_works(client, peer)


async def restart(interrupt: Interruption, era: str) -> None:
    """A call that has to replace a dead session is cancelled; the next one gets a session."""
    peer = real_peer(era)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            await interrupt(lambda: one_call(client))
            await anyio.sleep(5)
            await one_call(client)
            assert client.stats().calls_in_flight == 0
        await still_works(client, peer)


async def stubborn_farewell(interrupt: Interruption, era: str) -> None:
    """A server that never lets go, and a caller that does not want to wait for that."""
    peer = real_peer(era)
    peer.farewell = float("inf")
    client = Client(peer.transport, timeouts=Timeouts(close=2))

    async def use() -> None:
        async with client:
            pass

    began = anyio.current_time()
    await interrupt(use)
    assert anyio.current_time() - began < 10
    await still_works(client, peer)


def real_server() -> MCPServer:
    """A server of the SDK, whose own task groups and shields are cancelled as well."""
    server = MCPServer("real")

    @server.tool()
    async def work(context: Context) -> str:
        for number in range(3):
            await context.report_progress(number)
            await anyio.sleep(0.5)
        return "done"

    _ = work
    return server


async def a_real_server_in_memory(interrupt: Interruption, era: str) -> None:
    client = Client(real_server(), mode="auto" if era == "modern" else "legacy")

    async def use() -> None:
        async with client:
            await client.call_tool("work", progress_handler=slow_progress)

    await interrupt(use)
    check_at_rest(client)
    async with client:
        assert (await client.call_tool("work")).content[0].text == "done"
    check_at_rest(client)


SCENARIOS: list[Scenario] = [
    owner_door,
    nested_owner_door,
    lease_door,
    lease_beside_another,
    guest_of_an_owner,
    owner_with_a_guest,
    run_door,
    the_service_itself,
    close,
    restart,
    stubborn_farewell,
    a_real_server_in_memory,
]


def named(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", "")


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_cancel_scope_at_every_checkpoint(scenario: Scenario, era: str, backend: str) -> None:
    checkpoints = cancel_everywhere(
        lambda interrupt: scenario(interrupt, era), backend=backend, seconds=SECONDS
    )
    assert checkpoints >= (1 if scenario is close else 2)


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=named)
def test_a_native_cancel_at_every_checkpoint_once_and_again(scenario: Scenario, times: int) -> None:
    async def survive(interrupt: Interruption) -> None:
        task = asyncio.current_task()
        assert task is not None

        async def interrupted(function: Any) -> Any:
            try:
                return await interrupt(function)
            except asyncio.CancelledError:
                while task.uncancel():
                    pass
            return None

        await scenario(interrupted, "legacy")

    def cancel(scope: anyio.CancelScope) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    cancel_everywhere(survive, backend="asyncio", seconds=SECONDS, cancel=cancel, times=times)

"""Entering and leaving a group: the doors of a client, for many sessions at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest

from anyio_mcp.config import Timeouts
from anyio_mcp.errors import ConnectError, NotConnectedError, SessionLostError
from anyio_mcp.testing import Interruption, ScriptedPeer, cancel_everywhere
from anyio_mcp.testing.peer import Era
from tests.group.support import (
    at_rest,
    cancel_after_every_pass,
    cancelled_after,
    group_of,
    holds_calls,
    in_time,
    peers,
    refuses_connections,
)

pytestmark = pytest.mark.anyio


@in_time
async def test_all_servers_are_connected_at_the_same_time() -> None:
    servers = peers("a b c")
    everybody = anyio.Event()

    async def meet(attempt: int) -> None:
        if sum(peer.attempts for peer in servers.values()) == len(servers):
            everybody.set()
        await everybody.wait()

    for peer in servers.values():
        peer.on_connect = meet
    async with group_of(servers, timeouts=Timeouts(connect=2)) as group:
        assert all(client.is_connected() for client in group.servers.values())
    at_rest(group, servers)


@pytest.mark.parametrize("supplied", [False, True])
@pytest.mark.parametrize("error", [KeyError("body"), ConnectError("mine"), anyio.EndOfStream()], ids=repr)
@in_time
async def test_the_bodys_exception_leaves_as_it_was_raised(error: Exception, supplied: bool) -> None:
    servers = peers("a b")
    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg if supplied else None)
        with pytest.raises(type(error)) as caught:
            async with group:
                raise error
        assert caught.value is error
        assert error.__context__ is None
    at_rest(group, servers)


@in_time
async def test_an_entry_is_a_lease_that_any_task_returns_in_any_order() -> None:
    servers = peers("a b")
    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg)
        async with anyio.create_task_group() as entering:
            for _ in range(3):
                entering.start_soon(group.__aenter__)
        assert [peer.attempts for peer in servers.values()] == [1, 1]
        async with anyio.create_task_group() as leaving:
            for _ in range(2):
                leaving.start_soon(group.__aexit__, None, None, None)
        assert await group.ping() == {"a": True, "b": True}
        async with group:
            pass
        assert await group.ping() == {"a": True, "b": True}
        await group.__aexit__(None, None, None)
        at_rest(group, servers)
        with pytest.raises(NotConnectedError, match="is not open"):
            await group.ping()
        async with group:
            assert await group.ping() == {"a": True, "b": True}
    assert [peer.attempts for peer in servers.values()] == [2, 2]


@in_time
async def test_a_group_can_be_run_as_a_service() -> None:
    for supplied in (False, True):
        servers = peers("a b")
        async with anyio.create_task_group() as tg:
            group = group_of(servers, task_group=tg if supplied else None)
            await tg.start(group.run)
            assert await group.ping() == {"a": True, "b": True}
            async with group:
                await group.call_tool("a_echo")
            assert await group.ping() == {"a": True, "b": True}
            await group.close()
            at_rest(group, servers)


@in_time
async def test_a_service_that_cannot_start_raises_why_as_it_is() -> None:
    for supplied in (False, True):
        servers = peers("a b")
        refuses_connections(servers["b"])
        async with anyio.create_task_group() as tg:
            group = group_of(servers, task_group=tg if supplied else None)
            with pytest.raises(ConnectError) as caught:
                await tg.start(group.run)
            assert caught.value.__notes__ == ["server 'b'"]
        at_rest(group, servers)


@in_time
async def test_an_owned_group_must_be_left_by_the_task_that_entered_it() -> None:
    servers = peers("a")
    group = group_of(servers)
    async with group:
        async with anyio.create_task_group() as tg:

            async def leave() -> None:
                with pytest.raises(RuntimeError, match="must be left by the task that entered it"):
                    await group.__aexit__(None, None, None)

            tg.start_soon(leave)
        assert servers["a"].open_connections == 0, "ended by the time that it is refused"
        with pytest.raises(NotConnectedError):
            await group.ping()
    at_rest(group, servers)


@in_time
async def test_an_owner_waits_for_the_blocks_of_other_tasks() -> None:
    servers = peers("a b")
    group = group_of(servers)
    entered, go_on = anyio.Event(), anyio.Event()
    order: list[str] = []

    async def guest() -> None:
        async with group:
            entered.set()
            await go_on.wait()
            assert await group.ping() == {"a": True, "b": True}
            order.append("guest")

    async with anyio.create_task_group() as tg:
        async with group:
            tg.start_soon(guest)
            await entered.wait()
            tg.start_soon(_set_later, go_on)
        order.append("owner")
    assert order == ["guest", "owner"]
    at_rest(group, servers)


async def _set_later(event: anyio.Event) -> None:
    await anyio.sleep(1)
    event.set()


@in_time
async def test_closing_ends_calls_in_flight_with_the_reason() -> None:
    servers = peers("a b")
    for peer in servers.values():
        holds_calls(peer)
    reasons: list[str] = []

    async def call(name: str) -> None:
        with pytest.raises(SessionLostError) as caught:
            await group.call_tool(name, timeout=None)
        reasons.append(caught.value.reason)

    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg)
        async with group:
            for name in servers:
                tg.start_soon(call, f"{name}_echo")
                await servers[name].received("tools/call")
            await group.close()
            await group.close()
            with pytest.raises(NotConnectedError, match="is not open"):
                await group.list_tools()
        assert group.failures == {}
    assert reasons == ["closed", "closed"]
    at_rest(group, servers)


@in_time
async def test_an_empty_group_closed_while_it_is_entered_says_so() -> None:
    async with anyio.create_task_group() as tg:
        group = group_of({}, task_group=tg)
        # At its first checkpoint, so that on trio too it is closed before it goes on.
        closed = Interruption(1, cancel=lambda _: group._keeper.close())

        async def enter() -> None:
            await group.__aenter__()

        with pytest.raises(NotConnectedError, match="was closed"):
            await closed(enter)


@in_time
async def test_one_client_of_a_group_can_be_held_beyond_the_group() -> None:
    servers = peers("a b")
    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg)
        async with group:
            a = await group["a"].__aenter__()
        assert [peer.open_connections for peer in servers.values()] == [1, 0]
        await a.ping()
        async with group:
            assert [peer.attempts for peer in servers.values()] == [1, 2]
        await a.__aexit__(None, None, None)
        at_rest(group, servers)


@in_time
async def test_holding_one_client_of_an_owned_group_ends_with_the_group() -> None:
    servers = peers("a b")
    async with group_of(servers) as group:
        a = await group["a"].__aenter__()
        async with a:
            await a.ping()
        await a.ping()
    with pytest.raises(NotConnectedError):
        await a.ping()
    await a.__aexit__(None, None, None)
    at_rest(group, servers)


@in_time
async def test_one_client_of_a_group_can_be_run_as_a_service() -> None:
    servers = peers("a b")
    async with group_of(servers) as group, anyio.create_task_group() as tg:
        await tg.start(group["a"].run)
        await group["a"].close()


@in_time
async def test_a_dead_task_group_is_named() -> None:
    servers = peers("a b")
    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg)
        async with group:
            pass
    for _ in range(2):
        with pytest.raises(NotConnectedError, match="the task group of a is"):
            async with group:
                pytest.fail("entered")
    at_rest(group, servers)


@in_time
async def test_a_cancelled_body_leaves_nothing_behind() -> None:
    servers = peers("a b")
    holds_calls(servers["a"])
    with anyio.move_on_after(1) as scope:
        async with group_of(servers) as group:
            await group.call_tool("a_echo")
    assert scope.cancelled_caught
    at_rest(group, servers)


@in_time
async def test_a_task_group_cancelled_under_an_open_group_ends_its_calls() -> None:
    servers = peers("a b")
    holds_calls(servers["a"])
    async with anyio.create_task_group() as tg:
        group = group_of(servers, task_group=tg)
        async with group:
            tg.cancel_scope.cancel()
    at_rest(group, servers)


async def refused_by_one(
    interrupt: Callable[[Callable[[], Coroutine[Any, Any, None]]], Awaitable[object]],
    *,
    supplied: bool,
    policy: str,
    era: Era,
) -> None:
    """One of three servers cannot be reached, and whatever `interrupt` does happens meanwhile."""
    servers = {name: ScriptedPeer(era=era) for name in "abc"}
    refuses_connections(servers["c"])
    async with anyio.create_task_group() as tg:
        group = group_of(servers, on_failure=policy, task_group=tg if supplied else None, restart=None)

        async def use() -> None:
            try:
                async with group:
                    await group.list_tools(timeout=1)
                    await group.call_tool("a_echo")
            except ConnectError:
                assert policy == "raise"

        await interrupt(use)
        if supplied:
            await group.close()
        at_rest(group, servers)
        servers["c"].on_connect = None
        async with group:
            assert await group.ping() == {"a": True, "b": True, "c": True}
    at_rest(group, servers)


@pytest.mark.parametrize("supplied", [False, True])
@pytest.mark.parametrize("policy", ["raise", "report"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_entering_calling_and_leaving_can_be_cancelled_anywhere(
    backend: str, supplied: bool, policy: str, era: Era
) -> None:
    async def at_a_checkpoint(interruption: Interruption) -> None:
        await refused_by_one(interruption, supplied=supplied, policy=policy, era=era)

    assert cancel_everywhere(at_a_checkpoint, backend=backend) >= 1

    async def after_passes(passes: int) -> bool:
        cut = False

        async def interrupt(use: Callable[[], Awaitable[None]]) -> None:
            nonlocal cut
            cut = await cancelled_after(passes, use)

        await refused_by_one(interrupt, supplied=supplied, policy=policy, era=era)
        return cut

    assert cancel_after_every_pass(after_passes, backend=backend) > 5

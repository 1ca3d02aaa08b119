"""Leases: who holds the session, in a task group of the caller's."""

from __future__ import annotations

import math

import anyio
import pytest

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import ConnectError, DeadlineExceededError, NotConnectedError, SessionLostError
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from tests.actor.support import in_time, leases, outcome, passes, silent_peer

pytestmark = pytest.mark.anyio


@in_time
async def test_nested_contexts_share_one_session() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client, client:
            async with client:
                assert client.stats().leases == 3
                await client.call_tool("echo")
            await client.call_tool("echo")
            assert peer.open_connections == 1
        assert client.state is SessionState.CLOSED
    assert peer.attempts == 1
    check_at_rest(client)


@in_time
async def test_concurrent_contexts_share_one_session() -> None:
    peer = ScriptedPeer()

    async def use(client: Client, seconds: float) -> None:
        async with client:
            await client.call_tool("echo")
            await anyio.sleep(seconds)
            await client.call_tool("echo")

    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with anyio.create_task_group() as users:
            for number in range(20):
                users.start_soon(use, client, float(number))
        assert peer.attempts == 1
        assert peer.open_connections == 0
    check_at_rest(client)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
@in_time
async def test_overlapping_contexts_may_be_left_in_any_order(order: tuple[int, ...]) -> None:
    peer = ScriptedPeer()
    may_leave = [anyio.Event() for _ in order]
    left: list[int] = []

    async def use(client: Client, number: int) -> None:
        async with client:
            await may_leave[number].wait()
            await client.call_tool("echo")
        left.append(number)

    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with anyio.create_task_group() as users:
            for number in range(len(order)):
                users.start_soon(use, client, number)
            await leases(client, len(order))
            for remaining, number in zip(reversed(range(len(order))), order, strict=True):
                may_leave[number].set()
                await leases(client, remaining)
                assert (peer.open_connections == 1) or remaining == 0
    assert left == list(order)
    assert peer.attempts == 1


@in_time
async def test_a_context_may_be_entered_in_one_task_and_left_in_another() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def enter() -> None:
            await client.__aenter__()

        async def leave() -> None:
            await client.__aexit__(None, None, None)

        for step in (enter, enter, leave):
            async with anyio.create_task_group() as task:
                task.start_soon(step)
        assert client.stats().leases == 1
        await client.call_tool("echo")
        async with anyio.create_task_group() as task:
            task.start_soon(leave)
        assert client.state is SessionState.CLOSED
        with pytest.raises(RuntimeError, match="left more often than it was entered"):
            await leave()
    assert peer.attempts == 1


@in_time
async def test_two_tasks_entering_at_once_start_one_session() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            async with client:
                await client.call_tool("echo")

        async with anyio.create_task_group() as users:
            users.start_soon(use)
            users.start_soon(use)
    assert peer.attempts == 1
    assert client.stats().sessions_started == 1


@pytest.mark.parametrize("which", [0, 1])
@in_time
async def test_cancelling_one_of_two_that_connect_does_not_hurt_the_other(which: int) -> None:
    async def slowly(attempt: int) -> None:
        await anyio.sleep(10)

    peer = ScriptedPeer(on_connect=slowly)
    scopes = [anyio.CancelScope(), anyio.CancelScope()]
    results: dict[int, bool] = {}
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use(number: int) -> None:
            with scopes[number]:
                async with client:
                    results[number] = await client.ping()

        async with anyio.create_task_group() as users:
            for number in range(2):
                users.start_soon(use, number)
                await leases(client, number + 1)
            await anyio.sleep(5)
            scopes[which].cancel()
        assert results == {1 - which: True}
    assert peer.attempts == 1
    check_at_rest(client)


@in_time
async def test_cancelling_the_only_one_that_connects_ends_the_attempt() -> None:
    async def never(attempt: int) -> None:
        await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=never)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        with anyio.move_on_after(5) as scope:
            async with client:
                pass
        assert scope.cancelled_caught
        await passes(10)
        assert client.state is SessionState.CLOSED
        check_at_rest(client)
        peer.on_connect = None
        async with client:
            assert await client.ping()
    assert peer.attempts == 2


@in_time
async def test_a_failed_connect_is_the_same_error_for_all_who_waited_and_the_next_entry_starts_afresh() -> (
    None
):
    cause = OSError(111, "Connection refused")

    async def refuse_the_first(attempt: int) -> None:
        await anyio.sleep(1)
        if attempt == 1:
            raise cause

    peer = ScriptedPeer(on_connect=refuse_the_first)
    errors: list[object] = []
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            errors.append(await outcome(client.__aenter__))

        async with anyio.create_task_group() as users:
            for _ in range(10):
                users.start_soon(use)
        assert len(errors) == 10
        assert all(isinstance(error, ConnectError) and error.__cause__ is cause for error in errors)
        assert len({id(error) for error in errors}) == 10
        assert {str(error) for error in errors} == {
            "could not connect to a scripted peer: [Errno 111] Connection refused"
        }
        check_at_rest(client)
        async with client:
            assert await client.ping()
    assert peer.attempts == 2


@in_time
async def test_a_connect_that_takes_too_long_says_so() -> None:
    async def never(attempt: int) -> None:
        await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=never)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            async with client:
                pass
    assert anyio.current_time() - began == pytest.approx(30.0)
    assert (caught.value.phase, caught.value.seconds) == ("connect", 30.0)


@pytest.mark.parametrize("connect", [0, 0.5, None, math.inf])
@in_time
async def test_the_connect_deadline_is_what_was_asked_for(connect: float | None) -> None:
    async def slowly(attempt: int) -> None:
        await anyio.sleep(1000)

    peer = ScriptedPeer(on_connect=slowly)
    client = Client(peer.transport, timeouts=Timeouts(connect=connect))
    began = anyio.current_time()
    if connect in (None, math.inf):
        async with client:
            assert await client.ping()
        return
    with pytest.raises(DeadlineExceededError):
        await client.__aenter__()
    assert anyio.current_time() - began == pytest.approx(connect)
    check_at_rest(client)


@in_time
async def test_closing_is_immediate_for_all_and_may_be_repeated() -> None:
    peer = silent_peer(farewell=2.0)
    errors: list[object] = []
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            async with client:
                began = anyio.current_time()
                errors.append(await outcome(lambda: client.call_tool("echo")))
                assert anyio.current_time() == began + 3

        async with anyio.create_task_group() as users:
            for _ in range(5):
                users.start_soon(use)
            await peer.received("tools/call", 5)
            await anyio.sleep(3)
            began = anyio.current_time()
            async with anyio.create_task_group() as closers:
                closers.start_soon(client.close)
                closers.start_soon(client.close)
            assert anyio.current_time() - began == pytest.approx(2.0)
        assert [getattr(error, "reason", None) for error in errors] == ["closed"] * 5
        await client.close()
        check_at_rest(client)
        assert anyio.current_time() - began == pytest.approx(2.0)


@in_time
async def test_closing_what_was_never_open_is_harmless() -> None:
    client = Client(ScriptedPeer().transport)
    await client.close()
    assert client.state is SessionState.NEW


@in_time
async def test_a_farewell_that_never_ends_is_bounded() -> None:
    peer = ScriptedPeer(farewell=math.inf)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg, timeouts=Timeouts(close=7))
        async with client:
            began = anyio.current_time()
            await client.close()
            assert anyio.current_time() - began == pytest.approx(7.0)
    assert peer.open_connections == 0


@in_time
async def test_a_cancelled_close_goes_on_without_its_caller() -> None:
    peer = ScriptedPeer(farewell=3.0)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            began = anyio.current_time()
            with anyio.move_on_after(1):
                await client.close()
            assert anyio.current_time() - began == pytest.approx(1.0)
            assert client.state is SessionState.CLOSING
            await peer.until(lambda: peer.open_connections == 0)
            assert anyio.current_time() - began == pytest.approx(3.0)


@in_time
async def test_a_client_can_be_used_again_after_it_was_closed() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        for number in range(1, 4):
            async with client:
                await client.call_tool("echo")
                await client.close()
                with pytest.raises(NotConnectedError):
                    await client.call_tool("echo")
            assert client.stats().sessions_started == number
    assert peer.attempts == 3
    assert peer.most_open_connections == 1


@in_time
async def test_entering_while_the_last_session_says_goodbye_waits_for_it() -> None:
    peer = ScriptedPeer(farewell=2.0)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            async with client:
                await client.ping()

        async with anyio.create_task_group() as users:
            users.start_soon(use)
            await peer.until(lambda: len(peer.requests) == 2)
            await anyio.sleep(1)
            assert client.state is SessionState.CLOSING
            users.start_soon(use)
    assert peer.attempts == 2
    assert peer.most_open_connections == 1


@in_time
async def test_close_while_connecting_ends_the_attempt_for_all() -> None:
    async def never(attempt: int) -> None:
        await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=never)
    errors: list[object] = []
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)

        async def use() -> None:
            errors.append(await outcome(client.__aenter__))

        async with anyio.create_task_group() as users:
            users.start_soon(use)
            users.start_soon(use)
            await leases(client, 2)
            await anyio.sleep(1)
            await client.close()
    assert [getattr(error, "reason", error) for error in errors] == ["closed", "closed"]
    check_at_rest(client)


@in_time
async def test_a_new_client_has_the_configuration_and_a_session_of_its_own() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg, name="one", timeouts=Timeouts(call=17))
        async with client:
            other = client.new()
            assert (other.name, other.transport) == (client.name, client.transport)
            async with other:
                assert peer.open_connections == 2
                await other.call_tool("echo")
                await client.close()
                assert await other.ping()
            peer.on("tools/call", lambda request: None)
            async with other:
                with pytest.raises(DeadlineExceededError) as caught:
                    await other.call_tool("echo")
                assert caught.value.seconds == 17


@in_time
async def test_a_new_client_may_live_in_another_task_group() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as first, anyio.create_task_group() as second:
        client = Client(peer.transport, task_group=first)
        other = client.new(task_group=second)
        async with client, other:
            second.cancel_scope.cancel()
    assert client.state is SessionState.CLOSED


@in_time
async def test_a_closed_task_group_is_said_by_the_next_entry() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            await client.ping()
    with pytest.raises(NotConnectedError, match="task group"):
        await client.__aenter__()
    check_at_rest(client)


@in_time
async def test_a_cancelled_task_group_is_said_by_calls_and_entries() -> None:
    peer = silent_peer()
    results: dict[str, object] = {}
    entered, cancelled = anyio.Event(), anyio.Event()
    async with anyio.create_task_group() as outside:
        async with anyio.create_task_group() as tg:
            client = Client(peer.transport, task_group=tg)

            async def use() -> None:
                async with client:
                    entered.set()
                    results["in flight"] = await outcome(lambda: client.call_tool("echo"))
                    await cancelled.wait()
                    results["next call"] = await outcome(client.ping)
                    results["entry"] = await outcome(client.__aenter__)

            outside.start_soon(use)
            await entered.wait()
            await peer.received("tools/call")
            tg.cancel_scope.cancel()
        cancelled.set()
    lost = results["in flight"]
    assert isinstance(lost, SessionLostError)
    assert (lost.reason, str(lost)) == ("closed", "the task group of the session was cancelled")
    assert isinstance(results["next call"], NotConnectedError)
    assert isinstance(results["entry"], NotConnectedError)
    check_at_rest(client)


@in_time
async def test_the_bodys_exception_leaves_as_it_was_raised() -> None:
    class MineError(Exception): ...

    async with anyio.create_task_group() as tg:
        with pytest.raises(MineError):
            async with Client(ScriptedPeer().transport, task_group=tg):
                raise MineError
        assert not tg.cancel_scope.cancel_called

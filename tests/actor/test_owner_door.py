"""`async with Client(source)`: the outermost block owns the session, and its task must leave it."""

from __future__ import annotations

import contextlib
import itertools
import logging

import anyio
import anyio.lowlevel
import pytest

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import ConnectError, NotConnectedError, SessionLostError
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from tests.actor.support import in_time, leases, outcome, silent_peer

pytestmark = pytest.mark.anyio


@in_time
async def test_the_outermost_block_owns_the_session_and_inner_ones_share_it() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)
    async with client:
        async with client:
            assert await client.ping()
        assert await client.ping()
        assert client.stats().leases == 1
    assert client.state is SessionState.CLOSED
    assert (peer.attempts, peer.open_connections) == (1, 0)
    async with client:
        assert await client.ping()
    assert peer.attempts == 2
    check_at_rest(client)


@in_time
async def test_another_task_cannot_leave_for_the_owner_and_ends_the_session() -> None:
    peer = ScriptedPeer(farewell=2.0)
    client = Client(peer.transport)
    errors: list[object] = []

    async def leave() -> None:
        errors.append(await outcome(lambda: client.__aexit__(None, None, None)))

    async with client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(leave)
        assert peer.open_connections == 0, "ended by the time that it is refused"
        with pytest.raises(NotConnectedError):
            await client.ping()
    (error,) = errors
    assert isinstance(error, RuntimeError)
    assert "must be left by the task that entered it" in str(error)
    assert "task_group=" in str(error)
    check_at_rest(client)


@in_time
async def test_leaving_waits_for_the_others_and_logs_who_after_the_close_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport, name="the client", timeouts=Timeouts(close=5))
    done: list[bool] = []

    async def other() -> None:
        async with client:
            await anyio.sleep(20)
            done.append(await client.ping())

    async with anyio.create_task_group() as tg:
        async with client:
            tg.start_soon(other, name="a guest")
            await leases(client, 2)
            began = anyio.current_time()
        assert done == [True]
        assert anyio.current_time() - began == pytest.approx(20)
    (record,) = [record for record in caplog.records if record.name.startswith("anyio_mcp")]
    assert record.levelno == logging.WARNING
    assert "the client waits to be left by: a guest" in record.getMessage()
    assert "task_group=" in record.getMessage()


@in_time
async def test_leaving_says_nothing_if_the_others_leave_in_time(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(ScriptedPeer().transport)

    async def other() -> None:
        async with client:
            await anyio.sleep(3)

    async with anyio.create_task_group() as tg, client:
        tg.start_soon(other)
        await leases(client, 2)
    assert caplog.records == []


@in_time
async def test_when_the_waiting_owner_is_cancelled_the_others_calls_say_why() -> None:
    peer = silent_peer()
    client = Client(peer.transport, name="the client")
    results: list[object] = []

    async def other() -> None:
        async with client:
            results.append(await outcome(lambda: client.call_tool("echo")))
            results.append(await outcome(client.ping))

    async with anyio.create_task_group() as tg:
        with anyio.move_on_after(3) as scope:
            async with client:
                tg.start_soon(other)
                await leases(client, 2)
        assert scope.cancelled_caught
    in_flight, after = results
    assert isinstance(in_flight, SessionLostError)
    assert in_flight.reason == "closed"
    assert "the task that owns the client has left it (Cancelled" in str(in_flight)
    assert "task_group=" in str(in_flight)
    assert isinstance(after, NotConnectedError)
    check_at_rest(client)


@in_time
async def test_when_the_owners_body_raises_the_others_calls_say_why_and_it_leaves_unwrapped() -> None:
    peer = silent_peer()
    client = Client(peer.transport, name="the client")
    results: list[object] = []

    async def other() -> None:
        async with client:
            results.append(await outcome(lambda: client.call_tool("echo")))

    async with anyio.create_task_group() as tg:
        with pytest.raises(KeyError, match="mine"):
            async with client:
                tg.start_soon(other)
                await peer.received("tools/call")
                raise KeyError("mine")
    (error,) = results
    assert isinstance(error, SessionLostError)
    assert "(KeyError)" in str(error)


@pytest.mark.parametrize("error", [KeyError("x"), ExceptionGroup("g", [ValueError()]), TimeoutError()])
@in_time
async def test_the_bodys_exception_leaves_as_it_was_raised(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with Client(ScriptedPeer().transport):
            raise error
    assert caught.value is error


@in_time
async def test_a_failed_connect_raises_unwrapped_and_leaves_nothing() -> None:
    cause = OSError(111, "Connection refused")

    async def refuse(attempt: int) -> None:
        if attempt == 1:
            raise cause

    peer = ScriptedPeer(on_connect=refuse)
    client = Client(peer.transport)
    with pytest.raises(ConnectError) as caught:
        await client.__aenter__()
    assert caught.value.__cause__ is cause
    check_at_rest(client)
    async with client:
        assert await client.ping()


@in_time
async def test_a_loss_leaves_the_body_alone_and_the_next_call_gets_a_new_session() -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        peer.connection.lose()
        await anyio.sleep(60)
        assert await client.ping()
    assert peer.attempts == 2


@in_time
async def test_closing_in_the_body_ends_the_session_and_the_block_can_still_be_left() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)
    async with client:
        await client.close()
        with pytest.raises(NotConnectedError):
            await client.ping()
        async with client:
            assert await client.ping()
        with pytest.raises(NotConnectedError):
            await client.ping()
    assert (peer.attempts, peer.open_connections) == (2, 0)
    check_at_rest(client)


@in_time
async def test_a_farewell_that_never_ends_does_not_hold_the_owner_for_longer_than_the_deadline() -> None:
    peer = ScriptedPeer(farewell=float("inf"))
    async with Client(peer.transport, timeouts=Timeouts(close=4)):
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(4)


@in_time
async def test_move_on_after_around_the_block_ends_it_at_any_time() -> None:
    for seconds in (0, 1, 3, 5, 7, 9):

        async def slowly(attempt: int) -> None:
            await anyio.sleep(2)

        peer = silent_peer(on_connect=slowly, farewell=2.0)
        client = Client(peer.transport)
        began = anyio.current_time()
        with anyio.move_on_after(seconds) as scope:
            async with client:
                await client.call_tool("echo")
        assert scope.cancelled_caught
        assert anyio.current_time() - began <= seconds + 2.0
        assert peer.open_connections == 0
        check_at_rest(client)


@in_time
async def test_guests_may_come_while_the_owner_waits() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)

    async def guest(after: float) -> None:
        await anyio.sleep(after)
        async with client:
            await anyio.sleep(2)
            assert await client.ping()

    async with anyio.create_task_group() as tg:
        for after in (0, 1, 2.5, 4):
            tg.start_soon(guest, after)
        async with client:
            pass
        assert client.state is SessionState.CLOSED
    assert peer.attempts == 1
    assert peer.open_connections == 0


# Left by the wrong task, or in another order than that of entering


@in_time
async def test_the_calls_of_a_session_that_another_task_has_left_say_why() -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    results: list[object] = []

    async def leave() -> None:
        await peer.received("tools/call")
        results.append(await outcome(lambda: client.__aexit__(None, None, None)))

    async with client, anyio.create_task_group() as tg:
        tg.start_soon(leave)
        results.append(await outcome(lambda: client.call_tool("echo")))
    lost, refused = sorted(results, key=lambda each: not isinstance(each, SessionLostError))
    assert isinstance(lost, SessionLostError)
    assert "left by a task that had not entered it" in str(lost)
    assert isinstance(refused, RuntimeError)
    check_at_rest(client)


@in_time
async def test_a_client_whose_owner_is_gone_can_be_entered_anew() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)
    entered, left = anyio.Event(), anyio.Event()

    async def owner() -> None:
        async with client:
            entered.set()
            await left.wait()

    async with anyio.create_task_group() as tg:
        tg.start_soon(owner)
        await entered.wait()
        assert isinstance(await outcome(lambda: client.__aexit__(None, None, None)), RuntimeError)
        async with client:
            assert await client.ping()
            left.set()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert await client.ping(), "the old owner has left its own task group, not this one"
        assert isinstance(await outcome(lambda: client.__aexit__(None, None, None)), RuntimeError)
    assert (peer.attempts, peer.open_connections) == (2, 0)
    check_at_rest(client)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@in_time
async def test_the_clients_of_one_task_are_left_in_any_order(order: tuple[int, ...]) -> None:
    peers = [ScriptedPeer(farewell=1.0) for _ in order]
    clients = [Client(peer.transport) for peer in peers]
    stacks = [contextlib.AsyncExitStack() for _ in order]
    for client, stack in zip(clients, stacks, strict=True):
        await stack.enter_async_context(client)
    open_ones = set(order)
    for each in order:
        began = anyio.current_time()
        await stacks[each].aclose()
        assert anyio.current_time() - began == pytest.approx(1.0)
        open_ones.remove(each)
        assert [peer.open_connections for peer in peers] == [
            int(number in open_ones) for number in range(len(order))
        ]
        for number in open_ones:
            assert await clients[number].ping()
    for client in clients:
        check_at_rest(client)


@in_time
async def test_a_client_left_out_of_order_can_be_entered_again_before_the_other_is_left() -> None:
    peers = [ScriptedPeer(), ScriptedPeer()]
    first, second = (Client(peer.transport) for peer in peers)
    await first.__aenter__()
    await second.__aenter__()
    for _ in range(3):
        await first.__aexit__(None, None, None)
        await first.__aenter__()
        assert await first.ping()
        assert await second.ping()
    await second.__aexit__(None, None, None)
    assert await first.ping()
    await first.__aexit__(None, None, None)
    assert [(peer.attempts, peer.open_connections) for peer in peers] == [(4, 0), (1, 0)]
    with anyio.move_on_after(1) as scope:
        await anyio.sleep(2)
    assert scope.cancelled_caught, "the scopes of the task are whole"


@in_time
async def test_what_the_body_raises_leaves_clients_in_any_order_as_it_is() -> None:
    peers = [ScriptedPeer(), ScriptedPeer()]
    first, second = (Client(peer.transport) for peer in peers)
    error = KeyError("mine")
    await first.__aenter__()
    await second.__aenter__()
    assert not await first.__aexit__(KeyError, error, None)
    assert await second.ping()
    assert not await second.__aexit__(KeyError, error, None)
    assert [peer.open_connections for peer in peers] == [0, 0]


@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
@in_time
async def test_cancelled_while_leaving_out_of_order_nothing_is_left(after: float) -> None:
    peers = [ScriptedPeer(farewell=1.0), ScriptedPeer(farewell=1.0)]
    first, second = (Client(peer.transport) for peer in peers)
    with anyio.move_on_after(after):
        first_stack, second_stack = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
        async with second_stack, first_stack:
            await first_stack.enter_async_context(first)
            await second_stack.enter_async_context(second)
            await first_stack.aclose()
    assert [peer.open_connections for peer in peers] == [0, 0]
    for client in (first, second):
        check_at_rest(client)


@in_time
async def test_clients_with_a_task_group_of_the_callers_have_no_order() -> None:
    peers = [ScriptedPeer(), ScriptedPeer()]
    async with anyio.create_task_group() as tg:
        supplied, own = Client(peers[0].transport, task_group=tg), Client(peers[1].transport)
        for first, second in ((supplied, own), (own, supplied)):
            await first.__aenter__()
            await second.__aenter__()
            await first.__aexit__(None, None, None)
            assert await second.ping()
            await second.__aexit__(None, None, None)
    assert [peer.open_connections for peer in peers] == [0, 0]

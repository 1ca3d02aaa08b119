"""The end of a session while calls are in flight: each learns why, at once."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError, SessionLostError
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from tests.actor.support import Passes, in_flight, in_time, silent_peer

pytestmark = pytest.mark.anyio

CALLS = 100
CAUSE = OSError(104, "Connection reset by peer")


def eof(peer: ScriptedPeer, client: Client) -> None:
    peer.connection.lose("eof")


def end_of_stream(peer: ScriptedPeer, client: Client) -> None:
    peer.connection.end()


def failure(peer: ScriptedPeer, client: Client) -> None:
    peer.connection.lose("eof", cause=CAUSE)


def exited(peer: ScriptedPeer, client: Client) -> None:
    peer.connection.lose("exited", cause=CAUSE, exit_code=-9, stderr_tail=("out of memory",))


def violation(peer: ScriptedPeer, client: Client) -> None:
    peer.connection.lose("violation", cause=CAUSE)


ENDS = [
    pytest.param(eof, "eof", None, id="eof"),
    pytest.param(end_of_stream, "eof", None, id="end-of-stream"),
    pytest.param(failure, "eof", CAUSE, id="failure"),
    pytest.param(exited, "exited", CAUSE, id="exited"),
    pytest.param(violation, "violation", CAUSE, id="violation"),
]


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(("end", "reason", "cause"), ENDS)
@in_time
async def test_a_hundred_calls_in_flight_raise_in_one_pass(
    end: Callable[[ScriptedPeer, Client], None], reason: str, cause: Exception | None, era: str
) -> None:
    peer = silent_peer(era=era)
    errors: list[SessionLostError] = []
    when: list[tuple[int, float]] = []
    passes = Passes()
    async with anyio.create_task_group() as sessions:
        client = Client(peer.transport, task_group=sessions)

        async def call() -> None:
            with pytest.raises(SessionLostError) as caught:
                await client.call_tool("echo", timeout=None)
            when.append((passes.count, anyio.current_time()))
            errors.append(caught.value)

        async with client:
            async with anyio.create_task_group() as calls:
                for _ in range(CALLS):
                    calls.start_soon(call)
                await peer.received("tools/call", CALLS)
                await in_flight(client, CALLS)
                end(peer, client)
                calls.start_soon(passes.watch)
                told = passes.count, anyio.current_time()
            assert client.state in (SessionState.CLOSING, SessionState.CLOSED)
            assert client.stats().calls_in_flight == 0
            assert client.stats().waiters == 0
    assert len(errors) == CALLS
    assert len({id(error) for error in errors}) == CALLS
    assert {error.reason for error in errors} == {reason}
    assert {str(error) for error in errors} == {str(errors[0])}
    assert all(error.__cause__ is cause and error.cause is cause for error in errors)
    assert {error.exit_code for error in errors} == {-9 if reason == "exited" else None}
    # One pass to read of the loss and cancel everybody, one for everybody to wake in, and one more
    # either way, because trio shuffles who goes first in a pass, the counter included.
    seen, times = {count for count, _ in when}, {time for _, time in when}
    assert max(seen) - min(seen) <= 1
    assert max(seen) - told[0] <= 4
    assert times == {told[1]}
    check_at_rest(client)


@in_time
async def test_closing_fails_a_hundred_calls_in_flight_in_one_pass() -> None:
    peer = silent_peer(farewell=1.0)
    errors: list[SessionLostError] = []
    when: list[tuple[int, float]] = []
    passes = Passes()
    async with anyio.create_task_group() as sessions:
        client = Client(peer.transport, task_group=sessions)

        async def call() -> None:
            with pytest.raises(SessionLostError) as caught:
                await client.call_tool("echo", timeout=None)
            when.append((passes.count, anyio.current_time()))
            errors.append(caught.value)

        async with client, anyio.create_task_group() as calls:
            for _ in range(CALLS):
                calls.start_soon(call)
            await peer.received("tools/call", CALLS)
            calls.start_soon(passes.watch)
            started = passes.count, anyio.current_time()
            await client.close()
            # The goodbye took its second, and nobody has waited for it.
            assert anyio.current_time() - started[1] == pytest.approx(1.0)
            assert len(errors) == CALLS
    assert {error.reason for error in errors} == {"closed"}
    assert len({id(error) for error in errors}) == CALLS
    seen, times = {count for count, _ in when}, {time for _, time in when}
    assert max(seen) - min(seen) <= 1
    assert max(seen) - started[0] <= 3
    assert times == {started[1]}
    check_at_rest(client)


@in_time
async def test_the_callers_task_group_is_not_cancelled_by_a_loss() -> None:
    peer = silent_peer()
    async with anyio.create_task_group() as mine:
        client = Client(peer.transport, task_group=mine)
        async with client:
            async with anyio.create_task_group() as calls:
                calls.start_soon(expect_loss, client)
                await peer.received("tools/call")
                peer.connection.lose(cause=CAUSE)
            await anyio.sleep(10)
        assert not mine.cancel_scope.cancel_called


async def expect_loss(client: Client) -> None:
    with pytest.raises(SessionLostError):
        await client.call_tool("echo")


@in_time
async def test_a_call_that_was_never_written_learns_of_the_loss_as_well() -> None:
    peer = silent_peer()
    async with Client(peer.transport) as client:
        peer.connection.wedge()
        async with anyio.create_task_group() as calls:
            # More than the outbox holds: some wait in it, some for it.
            for _ in range(400):
                calls.start_soon(expect_loss, client)
            await in_flight(client, 400)
            peer.connection.lose()
        assert peer.requests_of("tools/call") == []
        assert client.stats().calls_in_flight == client.stats().waiters == 0


@in_time
async def test_an_answer_that_came_before_the_loss_is_delivered() -> None:
    peer = silent_peer()
    results: list[object] = []
    async with Client(peer.transport) as client, anyio.create_task_group() as calls:

        async def call() -> None:
            results.append(await client.call_tool_mcp("echo"))

        calls.start_soon(call)
        (request,) = await peer.received("tools/call")
        request.answer({"content": []})
        peer.connection.lose()
    assert len(results) == 1


@in_time
async def test_the_raw_session_is_guarded_too() -> None:
    peer = silent_peer(era="legacy")
    async with Client(peer.transport) as client, anyio.create_task_group() as calls:
        session = client.session

        async def call() -> None:
            with pytest.raises(SessionLostError):
                await session.call_tool("echo")

        calls.start_soon(call)
        await peer.received("tools/call")
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        with pytest.raises(SessionLostError):
            await session.send_ping()
        with pytest.raises(SessionLostError):
            _ = client.session


@in_time
async def test_after_the_context_calls_say_not_connected() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)
    with pytest.raises(NotConnectedError):
        await client.ping()
    async with client:
        await client.ping()
    with pytest.raises(NotConnectedError):
        await client.ping()
    with pytest.raises(NotConnectedError):
        _ = client.session
    assert peer.open_connections == 0

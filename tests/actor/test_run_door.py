"""`await tg.start(client.run)`: a session as a service."""

from __future__ import annotations

import anyio
import pytest

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.errors import ConnectError, NotConnectedError, SessionLostError
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from tests.actor.support import in_time, leases, outcome, silent_peer

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["owned", "supplied"])
def supplied(request: pytest.FixtureRequest) -> bool:
    return request.param == "supplied"


@in_time
async def test_start_returns_when_requests_succeed_and_close_ends_it(supplied: bool) -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)
        await tg.start(client.run)
        assert client.is_connected()
        assert await client.ping()
        await client.close()
        assert client.state is SessionState.CLOSED
    assert (peer.attempts, peer.open_connections) == (1, 0)
    check_at_rest(client)


@in_time
async def test_a_failed_connect_is_raised_by_start_as_it_is(supplied: bool) -> None:
    cause = OSError(111, "Connection refused")

    async def refuse(attempt: int) -> None:
        await anyio.sleep(1)
        raise cause

    peer = ScriptedPeer(on_connect=refuse)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)
        with pytest.raises(ConnectError) as caught:
            await tg.start(client.run)
        assert caught.value.__cause__ is cause
        check_at_rest(client)
        peer.on_connect = None
        await tg.start(client.run)
        assert await client.ping()
        await client.close()


@in_time
async def test_it_ends_when_its_task_is_cancelled_and_calls_say_why(supplied: bool) -> None:
    peer = silent_peer()
    errors: list[object] = []
    async with anyio.create_task_group() as outside:
        client = Client(peer.transport, task_group=outside if supplied else None)

        async def call() -> None:
            errors.append(await outcome(lambda: client.call_tool("echo")))

        async with anyio.create_task_group() as tg:
            await tg.start(client.run)
            outside.start_soon(call)
            await peer.received("tools/call")
            tg.cancel_scope.cancel()
    (error,) = errors
    assert isinstance(error, SessionLostError)
    assert error.reason == "closed"
    assert peer.open_connections == 0
    check_at_rest(client)


@in_time
async def test_contexts_share_its_session(supplied: bool) -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)
        await tg.start(client.run)
        async with client, client:
            assert client.stats().leases == 3
            assert await client.ping()
        assert await client.ping()
        await client.close()
    assert peer.attempts == 1


@in_time
async def test_it_outlives_a_loss(supplied: bool) -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)
        await tg.start(client.run)
        for number in range(1, 4):
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            assert await client.ping()
            assert peer.attempts == number + 1
        await client.close()


@in_time
async def test_running_what_is_run_already_is_an_error() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport)
        await tg.start(client.run)
        with pytest.raises(RuntimeError, match="run a second time"):
            await tg.start(client.run)
        assert await client.ping()
        await client.close()
    async with client:
        with pytest.raises(RuntimeError, match="run a second time"):
            await client.run()


@in_time
async def test_close_while_it_connects_ends_the_attempt(supplied: bool) -> None:
    async def never(attempt: int) -> None:
        await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=never)
    errors: list[object] = []
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)

        async def start() -> None:
            errors.append(await outcome(lambda: tg.start(client.run)))

        async with anyio.create_task_group() as starting:
            starting.start_soon(start)
            await leases(client, 1)
            await anyio.sleep(1)
            await client.close()
    (error,) = errors
    assert isinstance(error, SessionLostError)
    assert error.reason == "closed"


@in_time
async def test_after_its_end_calls_say_not_connected(supplied: bool) -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if supplied else None)
        await tg.start(client.run)
        await client.close()
        with pytest.raises(NotConnectedError):
            await client.ping()

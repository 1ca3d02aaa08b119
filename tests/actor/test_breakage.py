"""A bug in the library, an interrupt, and a client that strays into another event loop."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from anyio_mcp._session.correlation import Correlation
from anyio_mcp.client import Client
from anyio_mcp.errors import MCPClientError, NotConnectedError, SessionLostError
from anyio_mcp.testing import ScriptedPeer, check_at_rest, check_never_hangs, never_hang
from tests.actor.support import LONG, in_time, outcome, silent_peer

pytestmark = pytest.mark.anyio


class BugError(Exception):
    """What a bug raises."""


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, the session breaks at the next answer."""

    def broken(*_: object) -> bool:
        raise BugError("in the dispatcher")

    return lambda: monkeypatch.setattr(Correlation, "resolve", broken)


def flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in flat(each)]
    return [error]


@in_time
async def test_a_bug_reaches_the_supplied_task_group_and_everybody_is_told(bug: Callable[[], None]) -> None:
    peer = silent_peer()
    errors: list[object] = []
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as outside:
            with pytest.raises(ExceptionGroup) as inner:
                async with anyio.create_task_group() as tg:
                    client = Client(peer.transport, task_group=tg)

                    async def call() -> None:
                        errors.append(await outcome(lambda: client.call_tool("echo")))

                    await client.__aenter__()
                    for _ in range(10):
                        outside.start_soon(call)
                    requests = await peer.received("tools/call", 10)
                    bug()
                    requests[0].answer({})
                    await anyio.sleep_forever()
            raise inner.value
    assert any(isinstance(error, BugError) for error in flat(caught.value))
    assert len(errors) == 10
    assert all(isinstance(error, SessionLostError) for error in errors)
    check_at_rest_but_for_leases(client)


def check_at_rest_but_for_leases(client: Client) -> None:
    stats = client.stats()
    assert stats.calls_in_flight == stats.waiters == 0


@in_time
async def test_a_bug_leaves_the_owners_block(bug: Callable[[], None]) -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    with pytest.raises(ExceptionGroup) as caught:
        async with client, anyio.create_task_group() as tg:
            tg.start_soon(outcome, lambda: client.call_tool("echo"))
            (request,) = await peer.received("tools/call")
            bug()
            request.answer({})
    assert any(isinstance(error, BugError) for error in flat(caught.value))
    check_at_rest(client)


@in_time
async def test_a_bug_leaves_run(bug: Callable[[], None]) -> None:
    peer = silent_peer()
    client = Client(peer.transport)
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as tg:
            await tg.start(client.run)
            tg.start_soon(outcome, lambda: client.call_tool("echo"))
            (request,) = await peer.received("tools/call")
            bug()
            request.answer({})
    assert any(isinstance(error, BugError) for error in flat(caught.value))
    check_at_rest(client)


def test_an_interrupt_ends_everything(backend: str) -> None:
    async def main() -> None:
        peer = silent_peer()
        async with Client(peer.transport) as client, anyio.create_task_group() as tg:
            tg.start_soon(client.call_tool, "echo")
            await peer.received("tools/call")
            raise KeyboardInterrupt

    with pytest.raises(BaseException) as caught:
        check_never_hangs(main, backend=backend)
    assert any(isinstance(error, KeyboardInterrupt) for error in flat(caught.value))


def test_a_client_left_in_one_event_loop_works_in_the_next(backend: str) -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)

    async def use() -> None:
        async with client:
            assert await client.ping()
        async with anyio.create_task_group() as tg:
            await tg.start(client.run)
            assert await client.ping()
            await client.close()

    for each in (backend, "asyncio", "trio", "asyncio"):
        check_never_hangs(use, backend=each)
    check_at_rest(client)


def test_a_client_made_in_one_event_loop_works_in_the_next(backend: str) -> None:
    made: list[Client] = []

    async def make() -> None:
        made.append(Client(ScriptedPeer().transport))

    async def use() -> None:
        async with made[0] as client:
            assert await client.ping()
        async with anyio.create_task_group() as tg:
            await tg.start(client.run)
            assert await client.ping()
            await client.close()

    other = "trio" if backend == "asyncio" else "asyncio"
    for first, second in ((backend, backend), (backend, other)):
        made.clear()
        check_never_hangs(make, backend=first)
        check_never_hangs(use, backend=second)


def test_the_task_group_of_a_finished_event_loop_is_a_clear_error(backend: str) -> None:
    made: list[Client] = []

    async def first() -> None:
        async with anyio.create_task_group() as tg:
            client = Client(ScriptedPeer().transport, task_group=tg)
            made.append(client)
            async with client:
                assert await client.ping()

    async def second() -> None:
        for use in (made[0].__aenter__, made[0].run, made[0].ping):
            error = await outcome(use)
            assert isinstance(error, NotConnectedError), repr(error)

    other = "trio" if backend == "asyncio" else "asyncio"
    for loop in (backend, other):
        made.clear()
        check_never_hangs(first, backend=backend)
        check_never_hangs(second, backend=loop)


def test_a_client_that_was_never_left_is_a_clear_error_in_the_next_event_loop(backend: str) -> None:
    """The first loop ends with the client entered: its tasks are cancelled, its context never left."""
    made: list[Client] = []

    async def first() -> None:
        with anyio.move_on_after(5):
            async with anyio.create_task_group() as tg:
                client = Client(ScriptedPeer().transport, task_group=tg)
                made.append(client)
                await client.__aenter__()
                await anyio.sleep_forever()

    async def second() -> None:
        for use in (made[0].ping, made[0].__aenter__, made[0].close):
            error = await outcome(use)
            assert error is None or isinstance(error, MCPClientError), repr(error)

    check_never_hangs(first, backend=backend)
    check_never_hangs(second, backend=backend)


@in_time
async def test_never_hang_is_what_these_tests_stand_on() -> None:
    with pytest.raises(AssertionError, match="still running after 5 seconds"):
        await never_hang(anyio.sleep_forever, seconds=5)
    assert LONG > 3600

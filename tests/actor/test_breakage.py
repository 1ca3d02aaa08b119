"""A bug in the library, an interrupt, and a client that strays into another event loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import NoReturn

import anyio
import anyio.lowlevel
import pytest

from anyio_mcp._session.actor import SessionActor
from anyio_mcp._session.correlation import Correlation
from anyio_mcp.client import Client
from anyio_mcp.errors import MCPClientError, NotConnectedError, RequestFailedError, SessionLostError
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
async def test_a_bug_in_taking_an_answer_is_the_fault_of_that_call_alone(
    bug: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    peer = silent_peer()
    errors: list[object] = []
    async with Client(peer.transport) as client, anyio.create_task_group() as tg:

        async def call() -> None:
            errors.append(await outcome(lambda: client.call_tool("echo")))

        for _ in range(10):
            tg.start_soon(call)
        requests = await peer.received("tools/call", 10)
        bug()
        requests[0].answer({})
        while not errors:
            await anyio.lowlevel.checkpoint()
        (error,) = errors
        assert isinstance(error, RequestFailedError)
        assert isinstance(error.cause, BugError)
        assert client.stats().calls_in_flight == 9
        assert client.is_connected()
        tg.cancel_scope.cancel()
    assert "please report it" in caplog.text
    check_at_rest(client)


def session_group(_: object) -> NoReturn:
    raise BugError("in the session's own task")


@pytest.mark.parametrize("door", ["owned", "supplied", "run"])
@in_time
async def test_a_bug_that_ends_the_session_leaves_the_caller_alone(
    door: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peer = silent_peer()
    finished = False
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg if door == "supplied" else None, restart=None)
        async with AsyncExitStack() as stack:
            if door == "run":
                await tg.start(client.run)
            else:
                await stack.enter_async_context(client)
            monkeypatch.setattr(SessionActor, "_record", session_group)
            peer.connection.lose()
            with pytest.raises(SessionLostError):
                await client.call_tool("echo")
            finished = True
            monkeypatch.undo()
            await client.close()
    assert finished
    assert "please report it" in caplog.text


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

"""The smallest tests of faults found in the session."""

from __future__ import annotations

import functools
import threading
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from anyio_mcp._session import actor
from anyio_mcp._session.correlation import Correlation
from anyio_mcp.client import Client
from anyio_mcp.errors import DeadlineExceededError, NotConnectedError, SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest, check_never_hangs
from tests.actor.support import in_time, outcome, passes, silent_peer

pytestmark = pytest.mark.anyio


@in_time
async def test_a_task_group_that_was_never_entered_is_said_by_the_entry() -> None:
    client = Client(ScriptedPeer().transport, task_group=anyio.create_task_group())
    with pytest.raises(NotConnectedError, match="task group"):
        await client.__aenter__()
    check_at_rest(client)


# --- a bug in the session is not the reason its users are given ----------------------------------


@in_time
async def test_everybody_is_told_of_a_bug_that_even_its_call_cannot_be_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peer = silent_peer()
    bug = KeyError("a bug in the dispatcher")

    def broken(*_: object) -> bool:
        raise bug

    async with Client(peer.transport) as client, anyio.create_task_group() as tg:
        told: list[object] = []

        async def call() -> None:
            told.append(await outcome(lambda: client.call_tool("echo")))

        tg.start_soon(call)
        (request,) = await peer.received("tools/call")
        monkeypatch.setattr(Correlation, "resolve", broken)
        monkeypatch.setattr(Correlation, "reject", broken)
        request.answer({})
    (error,) = told
    assert isinstance(error, SessionLostError)
    assert error.__cause__ is bug


# --- a client in a second event loop --------------------------------------------------------------


def test_a_client_never_left_in_an_event_loop_of_the_other_backend_is_a_clear_error(backend: str) -> None:
    made: list[Client] = []

    async def first() -> None:
        with anyio.move_on_after(5):
            async with anyio.create_task_group() as tg:
                client = Client(ScriptedPeer().transport, task_group=tg)
                made.append(client)
                await client.__aenter__()
                await anyio.sleep_forever()

    async def second() -> None:
        for use in (made[0].ping, made[0].__aenter__):
            assert isinstance(await outcome(use), NotConnectedError)
        await made[0].close()

    check_never_hangs(first, backend=backend)
    check_never_hangs(second, backend="trio" if backend == "asyncio" else "asyncio")


@pytest.mark.parametrize("other", ["asyncio", "trio"])
def test_a_client_that_is_open_in_another_event_loop_is_a_clear_error(backend: str, other: str) -> None:
    made: list[Client] = []
    entered, done = threading.Event(), threading.Event()

    async def hold() -> None:
        async with Client(ScriptedPeer().transport) as client:
            made.append(client)
            entered.set()
            await anyio.to_thread.run_sync(done.wait)

    async def stray() -> None:
        client = made[0]
        uses = (client.ping, client.__aenter__, client.close, lambda: client.session.send_ping())
        for use in uses:
            with anyio.fail_after(1):
                assert isinstance(await outcome(use), RuntimeError), use

    # Two event loops at once, in real time.
    thread = threading.Thread(target=anyio.run, args=(hold,), kwargs={"backend": backend})
    thread.start()
    try:
        assert entered.wait(10)
        anyio.run(stray, backend=other)
    finally:
        done.set()
        thread.join(10)
    assert not thread.is_alive()


# --- closing while somebody waits for the goodbye of the session before ---------------------------


@in_time
async def test_an_entry_that_was_closed_while_it_waited_starts_no_session_without_a_lease() -> None:
    peer = ScriptedPeer(farewell=2.0)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        errors: list[object] = []

        async def use() -> None:
            async with client:
                pass

        async def use_and_tell() -> None:
            errors.append(await outcome(use))

        async with anyio.create_task_group() as users:
            users.start_soon(use_and_tell)
            await peer.until(lambda: bool(peer.requests))
            await anyio.sleep(1)  # the session says goodbye for another second
            users.start_soon(use_and_tell)
            await anyio.sleep(0.5)
            await client.close()
        # The first to enter was leaving, and left; the second was closed while it waited for that.
        assert sorted(type(error).__name__ for error in errors) == ["NoneType", "NotConnectedError"]
        check_at_rest(client)
        assert (peer.attempts, peer.open_connections) == (1, 0)


# --- entering while the owner leaves --------------------------------------------------------------


@pytest.mark.parametrize("farewell", [0.0, 2.0])
def test_whoever_enters_while_the_owner_leaves_gets_a_session(backend: str, farewell: float) -> None:
    async def scenario(moment: int) -> None:
        peer = ScriptedPeer(farewell=farewell)
        client = Client(peer.transport)
        leaving = anyio.Event()

        async def late() -> None:
            await leaving.wait()
            if moment:
                await anyio.sleep(farewell)
                await passes(moment - 1)
            # As a guest, or once the owner is gone as the next owner, but not turned away.
            async with client:
                assert await client.ping()
                await anyio.sleep(1)
                assert await client.ping()

        async with anyio.create_task_group() as tg:
            tg.start_soon(late)
            async with client:
                await anyio.sleep(1)
                leaving.set()
        check_at_rest(client)
        assert peer.most_open_connections == 1
        assert peer.open_connections == 0

    for moment in range(12):
        for _ in range(5):  # trio shuffles
            check_never_hangs(functools.partial(scenario, moment), backend=backend)


# --- the answers to the server are as many as it likes --------------------------------------------


@in_time
async def test_answers_that_cannot_be_written_do_not_pile_up_without_bound() -> None:
    peer = ScriptedPeer(era="legacy")
    async with Client(peer.transport) as client:
        peer.connection.wedge()
        for number in range(5000):
            peer.connection.request(number, "ping")
        await anyio.sleep(1)
        # Requests being handled are bounded; so must be answers that wait to be written.
        assert len(anyio.get_running_tasks()) < 500
        assert client.stats().refused_requests > 4000


# --- the user's timeout of a ping -----------------------------------------------------------------


@pytest.mark.parametrize("timeout", [60, None])
@in_time
async def test_a_ping_waits_as_long_as_it_was_told_to(timeout: float | None) -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport, heartbeat=None) as client:

        async def slowly(request: PeerRequest) -> dict[str, Any]:
            await anyio.sleep(30)
            return {"supportedVersions": ["2026-07-28"], "capabilities": {}}

        peer.on("server/discover", slowly)
        assert await client.ping(timeout=timeout)


# --- a bug outside the dispatcher -----------------------------------------------------------------


@in_time
async def test_a_session_lives_on_without_a_heartbeat_that_broke(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> float:
        await anyio.sleep(1)
        raise KeyError("a bug in the heartbeat")

    monkeypatch.setattr(actor, "watch_for_silence", broken)
    async with Client(ScriptedPeer().transport) as client:
        await anyio.sleep(10)
        assert await client.ping()
    assert "please report it: the heartbeat raised" in caplog.text


# --- the connect deadline is not extended by the transport's cleaning up --------------------------


@in_time
async def test_who_waits_for_a_connection_is_told_before_the_transport_has_cleaned_up() -> None:
    async def stubborn(attempt: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(4)  # a child process that has to be ended

    peer = ScriptedPeer(on_connect=stubborn)
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.__aenter__()
        assert anyio.current_time() - began == pytest.approx(30)


# --- two tasks initialize at once -----------------------------------------------------------------


@pytest.mark.parametrize("era", ["modern", "legacy"])
@in_time
async def test_initializing_in_two_tasks_at_once_negotiates_once(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    async with Client(peer.transport, auto_initialize=False) as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.initialize)
            tg.start_soon(client.initialize)
        assert len(peer.requests) == (1 if era == "modern" else 2)


# --- a call in the very pass in which the task group is cancelled ---------------------------------


@in_time
async def test_a_call_made_while_the_cancellation_spreads_raises_a_typed_error() -> None:
    for _ in range(30):  # trio shuffles
        peer = ScriptedPeer(era="legacy")
        errors: list[object] = []
        async with anyio.create_task_group() as outside, anyio.create_task_group() as tg:
            client = Client(peer.transport, task_group=tg)
            await client.__aenter__()

            async def call(client: Client = client, errors: list[object] = errors) -> None:
                while not isinstance(error := await outcome(client.ping), Exception):
                    pass
                errors.append(error)

            for _ in range(8):
                outside.start_soon(call)
            await peer.received("ping", 50)
            tg.cancel_scope.cancel()
        assert {type(error) for error in errors} <= {SessionLostError, NotConnectedError}

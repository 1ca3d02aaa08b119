"""A dead session is replaced by the next call that needs one."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.types import JSONRPCResponse

from anyio_mcp.client import Client
from anyio_mcp.config import Restart, Timeouts
from anyio_mcp.errors import ConnectError, DeadlineExceededError, NotConnectedError, SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest, silence
from tests.actor.support import in_time, outcome

pytestmark = pytest.mark.anyio

EVEN = Restart(max_attempts=3, backoff=2.0, jitter=0.0)


class Outage:
    """Lets the first connection be made and refuses others until it is over."""

    def __init__(self) -> None:
        self.over = False
        self.refused: list[float] = []

    async def __call__(self, attempt: int) -> None:
        if attempt > 1 and not self.over:
            self.refused.append(anyio.current_time())
            raise OSError(111, "Connection refused")


@in_time
async def test_the_next_call_replaces_a_lost_session_and_calls_in_flight_fail() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", silence)
    async with Client(peer.transport) as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(expect_loss, client)
            await peer.received("tools/call")
            peer.connection.lose()
        assert not client.is_connected()
        assert peer.attempts == 1
        assert await client.ping()
        assert (peer.attempts, peer.most_open_connections) == (2, 1)


async def expect_loss(client: Client) -> None:
    with pytest.raises(SessionLostError):
        await client.call_tool("echo")


@in_time
async def test_many_calls_at_once_share_one_new_session() -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        async with anyio.create_task_group() as tg:
            for _ in range(50):
                tg.start_soon(client.ping)
        assert client.stats().sessions_started == 2


@in_time
async def test_attempts_back_off_and_stop_at_the_most_consecutive_failures() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    async with Client(peer.transport, restart=EVEN) as client:
        peer.connection.lose()
        await anyio.sleep(100)
        began = anyio.current_time()
        with pytest.raises(ConnectError) as caught:
            await client.ping()
        assert isinstance(caught.value.__cause__, OSError)
        assert [time - began for time in outage.refused] == pytest.approx([0, 2, 6])


@in_time
async def test_past_the_last_attempt_each_call_makes_one_of_its_own_after_the_backoff() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    async with Client(peer.transport, restart=EVEN) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        await outcome(client.ping)
        assert len(outage.refused) == 3
        for number in (4, 5):
            last = outage.refused[-1]
            assert isinstance(await outcome(client.ping), ConnectError)
            assert len(outage.refused) == number
            assert outage.refused[-1] - last == pytest.approx(8)


@in_time
async def test_calls_that_wait_together_share_the_attempts() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    errors: list[object] = []
    async with Client(peer.transport, restart=EVEN) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)

        async def call() -> None:
            errors.append(await outcome(client.ping))

        async with anyio.create_task_group() as tg:
            for _ in range(20):
                tg.start_soon(call)
        assert len(outage.refused) == 3
        assert all(isinstance(error, ConnectError) for error in errors)
        assert len({id(error) for error in errors}) == 20


@in_time
async def test_success_resets_the_count_and_the_backoff() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    async with Client(peer.transport, restart=EVEN) as client:
        for _ in range(3):
            outage.over = False
            outage.refused.clear()
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            began = anyio.current_time()
            with anyio.move_on_after(3):
                await client.ping()
            assert [time - began for time in outage.refused] == pytest.approx([0, 2])
            outage.over = True
            assert await client.ping()
            began = anyio.current_time()
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            assert await client.ping()
            assert anyio.current_time() == began


@in_time
async def test_the_calls_deadline_covers_the_backoff_and_the_attempts() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    async with Client(peer.transport, restart=EVEN) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", timeout=5)
        assert (caught.value.phase, caught.value.seconds) == ("call", 5)
        assert anyio.current_time() - began == pytest.approx(5)


@in_time
async def test_the_calls_deadline_covers_a_connect_that_hangs_which_goes_on_for_others() -> None:
    async def hang(attempt: int) -> None:
        if attempt > 1:
            await anyio.sleep(20)

    peer = ScriptedPeer(on_connect=hang)
    async with Client(peer.transport) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo", timeout=5)
        assert caught.value.phase == "call"
        assert anyio.current_time() - began == pytest.approx(5)
        assert await client.ping()
        assert anyio.current_time() - began == pytest.approx(20)
    assert peer.attempts == 2


@in_time
async def test_an_attempt_that_takes_too_long_counts_as_a_failure() -> None:
    async def hang(attempt: int) -> None:
        if attempt > 1:
            await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=hang)
    restart = Restart(max_attempts=2, backoff=1, jitter=0)
    async with Client(peer.transport, restart=restart, timeouts=Timeouts(connect=10)) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.ping()
        assert (caught.value.phase, caught.value.seconds) == ("connect", 10)
        assert anyio.current_time() - began == pytest.approx(21)
    assert peer.attempts == 3


@pytest.mark.parametrize("error", [MCPError(-32603, "broken"), "status"])
@in_time
async def test_a_server_that_refuses_is_not_asked_again(error: Exception | str) -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        if error == "status":
            request = httpx2.Request("POST", "http://x/mcp")
            error = httpx2.HTTPStatusError("no", request=request, response=httpx2.Response(401))

        def refuse(request: PeerRequest) -> None:
            raise error if isinstance(error, Exception) else AssertionError

        peer.on("server/discover", refuse)
        peer.on("initialize", refuse)
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        with pytest.raises(type(error)):
            await client.ping()
    assert peer.attempts == 2


@in_time
async def test_without_restart_every_later_call_says_why_the_session_ended() -> None:
    cause = OSError(104, "Connection reset by peer")
    peer = ScriptedPeer()
    async with Client(peer.transport, restart=None) as client:
        peer.connection.lose("exited", cause=cause, exit_code=3)
        await peer.until(lambda: peer.open_connections == 0)
        errors: list[SessionLostError] = []
        for _ in range(3):
            with pytest.raises(SessionLostError) as caught:
                await client.ping()
            errors.append(caught.value)
        assert len({id(error) for error in errors}) == 3
        assert {(error.reason, error.exit_code, error.__cause__) for error in errors} == {
            ("exited", 3, cause)
        }
    assert peer.attempts == 1


@in_time
async def test_without_restart_a_new_entry_starts_afresh() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, restart=None, task_group=tg)
        async with client:
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            async with client:
                assert await client.ping()
    assert peer.attempts == 2


@in_time
async def test_a_call_outside_a_context_starts_nothing() -> None:
    peer = ScriptedPeer()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            peer.connection.lose()
        with pytest.raises(NotConnectedError):
            await client.ping()
    assert peer.attempts == 1


@in_time
async def test_leaving_while_a_call_waits_for_a_new_session_ends_the_wait() -> None:
    outage = Outage()
    peer = ScriptedPeer(on_connect=outage)
    errors: list[object] = []
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, restart=Restart(max_attempts=50, backoff=10, jitter=0), task_group=tg)

        async def call() -> None:
            errors.append(await outcome(client.ping))

        async with client:
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            tg.start_soon(call)
            await anyio.sleep(15)
    assert isinstance(errors[0], NotConnectedError | ConnectError | SessionLostError)
    check_at_rest(client)


@pytest.mark.parametrize("replayed", [True, False])
@in_time
async def test_after_an_expired_session_only_what_changes_nothing_is_sent_again(replayed: bool) -> None:
    peer = ScriptedPeer()

    def expire_once(request: PeerRequest) -> dict[str, object] | None:
        if request.connection.number == 1:
            request.connection.lose("expired")
            return None
        return {"tools": []} if request.method == "tools/list" else {"content": []}

    peer.on("tools/list", expire_once)
    peer.on("tools/call", expire_once)
    async with Client(peer.transport) as client:
        if replayed:
            assert await client.list_tools() == []
        else:
            with pytest.raises(SessionLostError) as caught:
                await client.call_tool("echo")
            assert caught.value.reason == "expired"
    assert peer.attempts == (2 if replayed else 1)


@in_time
async def test_a_session_started_by_a_call_does_not_live_under_its_deadline() -> None:
    async def slowly(attempt: int) -> None:
        await anyio.sleep(20 if attempt > 1 else 0)

    peer = ScriptedPeer(era="legacy", on_connect=slowly)
    async with Client(peer.transport, roots=["/home"]) as client:
        peer.connection.lose()
        await peer.until(lambda: peer.open_connections == 0)
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=5)
        # The attempt goes on, and so does, long after that call, what the session does by itself.
        assert await client.ping()
        asked = peer.ask("roots/list")
        answer = await peer.answer_to(asked)
        assert isinstance(answer, JSONRPCResponse)
    assert peer.attempts == 2

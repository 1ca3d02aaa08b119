"""A dead peer is noticed while somebody waits for it, and not asked while nobody does."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from anyio_mcp.client import Client
from anyio_mcp.config import Heartbeat
from anyio_mcp.errors import DeadlineExceededError, SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence
from anyio_mcp.transports.base import Liveness
from tests.actor.support import in_time, outcome

pytestmark = pytest.mark.anyio

QUESTION = {"modern": "server/discover", "legacy": "ping"}


def dead_peer(era: Any) -> ScriptedPeer:
    """Begins a session, then never says anything again."""
    peer = ScriptedPeer(era=era)
    peer.on("tools/call", silence)
    return peer


def fall_silent(peer: ScriptedPeer) -> None:
    for method in ("ping", "server/discover", "tools/list"):
        peer.on(method, silence)


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("idle", [0, 7, 14.9, 15, 40])
@in_time
async def test_a_server_whose_process_is_stopped_is_lost_after_15_and_10_seconds(
    era: str, idle: float
) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        peer.connection.evidence = Liveness.STOPPED
        before = len(peer.requests)
        await anyio.sleep(idle)
        began = anyio.current_time()
        with pytest.raises(SessionLostError) as caught:
            await client.call_tool("echo")
        assert caught.value.reason == "silent"
        assert "is stopped (SIGSTOP) and has been silent for 25 seconds" in str(caught.value)
        assert anyio.current_time() - began == pytest.approx(25)
        assert len(peer.requests) == before + 1


@pytest.mark.parametrize("evidence", [Liveness.UNKNOWN, Liveness.ASK])
@in_time
async def test_silence_alone_ends_no_session(era: str, evidence: Liveness) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        fall_silent(peer)
        peer.connection.evidence = evidence
        before = len(peer.requests)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo")
        assert anyio.current_time() - began == pytest.approx(300)
        assert str(caught.value) == (
            "'tools/call' did not finish within 300 seconds: it was sent 300 s ago, "
            "the server was last heard of 300 s ago"
        )
        assert caught.value.method == "tools/call"
        assert caught.value.sent_seconds == caught.value.heard_seconds == pytest.approx(300)
        assert client.is_connected()
        # A server that is busy is asked nothing where its answer could tell nothing.
        assert len(peer.requests) - before - 1 == (0 if evidence is Liveness.UNKNOWN else 12)
        # And is not told that the questions are off: it would only have more to read.
        cancelled = [note for note in peer.notifications if note.method == "notifications/cancelled"]
        assert len(cancelled) <= 1


@in_time
async def test_an_answer_that_says_that_the_session_is_gone_ends_it(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        peer.connection.evidence = Liveness.ASK
        peer.on(QUESTION[era], lambda _: peer.connection.lose("expired"))
        began = anyio.current_time()
        with pytest.raises(SessionLostError) as caught:
            await client.call_tool("echo")
        assert caught.value.reason == "expired"
        assert anyio.current_time() - began == pytest.approx(15)


@in_time
async def test_a_server_that_waits_for_a_handler_of_ours_is_not_watched() -> None:
    peer = dead_peer("legacy")

    async def think(*_: object) -> str:
        await anyio.sleep(200)
        return "done"

    async with Client(
        peer.transport, sampling_handler=think, heartbeat=Heartbeat(interval=2, timeout=1)
    ) as client:
        peer.connection.evidence = Liveness.STOPPED

        async def ask(request: PeerRequest) -> None:
            await peer.answer_to(peer.ask("sampling/createMessage", {"messages": [], "maxTokens": 1}))
            peer.connection.evidence = Liveness.UNKNOWN
            request.answer({"content": []})

        peer.on("tools/call", ask)
        await client.call_tool("echo")
        assert client.is_connected()


@in_time
async def test_an_idle_session_is_not_asked(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        before = len(peer.requests)
        fall_silent(peer)
        await anyio.sleep(3600)
        assert len(peer.requests) == before
        assert client.is_connected()


@in_time
async def test_a_server_that_answers_the_question_is_alive(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        peer.connection.evidence = Liveness.ASK
        asked = len(peer.requests_of(QUESTION[era]))
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=100)
        assert len(peer.requests_of(QUESTION[era])) - asked == 6
        assert client.is_connected()


@pytest.mark.parametrize("sign", ["notify", "violate", "refuse"])
@in_time
async def test_any_bytes_are_a_sign_of_life(era: str, sign: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        fall_silent(peer)
        peer.connection.evidence = Liveness.ASK
        asked = len(peer.requests)

        async def chatter() -> None:
            while True:
                await anyio.sleep(14)
                if sign == "notify":
                    peer.connection.notify("notifications/message", {"level": "info", "data": "here"})
                elif sign == "violate":
                    peer.connection.violate()
                else:
                    peer.connection.refuse(None, -32600, "what?")

        async with anyio.create_task_group() as tg:
            tg.start_soon(chatter)
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("echo", timeout=200)
            tg.cancel_scope.cancel()
        assert len(peer.requests) == asked + 1


@in_time
async def test_an_error_as_the_answer_is_an_answer() -> None:
    peer = dead_peer("legacy")
    async with Client(peer.transport) as client:
        peer.connection.evidence = Liveness.ASK
        peer.on("ping", lambda request: request.refuse(-32601, "no ping"))
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=100)
        assert client.is_connected()


@in_time
async def test_a_wedged_server_is_waited_for_until_the_deadline(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        await anyio.sleep(7)
        peer.connection.wedge()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("echo")
        assert str(caught.value) == (
            "'tools/call' did not finish within 300 seconds: it was never sent: the server does not read "
            "what is being written to it, the server was last heard of 307 s ago"
        )
        assert caught.value.sent_seconds is None
        with pytest.raises(DeadlineExceededError, match="was not taken yet"):
            await client.call_tool("echo")
        peer.connection.unwedge()
        assert client.is_connected()


@in_time
async def test_a_caller_that_gives_up_meanwhile_does_not_cost_the_session() -> None:
    peer = dead_peer("legacy")
    async with Client(peer.transport) as client:
        fall_silent(peer)
        await outcome(lambda: client.call_tool("echo", timeout=20))
        await anyio.sleep(60)
        assert client.is_connected()


@in_time
async def test_its_times_can_be_set_and_it_can_be_turned_off(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport, heartbeat=Heartbeat(interval=2, timeout=1)) as client:
        peer.connection.evidence = Liveness.STOPPED
        began = anyio.current_time()
        with pytest.raises(SessionLostError):
            await client.call_tool("echo")
        assert anyio.current_time() - began == pytest.approx(3)
    peer = dead_peer(era)
    async with Client(peer.transport, heartbeat=None) as client:
        peer.connection.evidence = Liveness.STOPPED
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=1000)


@in_time
async def test_it_goes_on_after_a_restart(era: str, caplog: pytest.LogCaptureFixture) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        for number in range(3):
            with pytest.raises(SessionLostError) as caught:
                peer.connection.evidence = Liveness.STOPPED
                await client.call_tool("echo")
            assert caught.value.reason == "silent"
            await peer.until(lambda: peer.open_connections == 0)
            assert await client.ping()
            assert peer.attempts == number + 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []

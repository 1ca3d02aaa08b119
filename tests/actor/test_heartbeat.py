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
async def test_a_silent_server_is_lost_after_15_and_10_seconds(era: str, idle: float) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        fall_silent(peer)
        await anyio.sleep(idle)
        began = anyio.current_time()
        with pytest.raises(SessionLostError) as caught:
            await client.call_tool("echo")
        assert caught.value.reason == "silent"
        assert "silent for 25 seconds" in str(caught.value)
        assert anyio.current_time() - began == pytest.approx(25)


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
        asked = len(peer.requests_of(QUESTION[era]))
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=100)
        # Each answer counts for 10 seconds of waiting for bytes and 15 of quiet at least.
        assert 4 <= len(peer.requests_of(QUESTION[era])) - asked <= 7
        assert client.is_connected()


@pytest.mark.parametrize("sign", ["notify", "violate", "refuse"])
@in_time
async def test_any_bytes_are_a_sign_of_life(era: str, sign: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        fall_silent(peer)
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
        peer.on("ping", lambda request: request.refuse(-32601, "no ping"))
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=100)
        assert client.is_connected()


@in_time
async def test_an_answer_in_the_last_moment_saves_the_session(era: str) -> None:
    async def late(request: PeerRequest) -> None:
        await anyio.sleep(9.9)
        request.refuse(-32000, "late")

    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        peer.on(QUESTION[era], late)
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=24.95)
        await anyio.sleep(1)
        assert client.is_connected()


@in_time
async def test_a_wedged_server_is_silent_too(era: str) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        peer.connection.wedge()
        began = anyio.current_time()
        with pytest.raises(SessionLostError) as caught:
            await client.call_tool("echo")
        assert caught.value.reason == "silent"
        assert anyio.current_time() - began == pytest.approx(25)


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
        fall_silent(peer)
        began = anyio.current_time()
        with pytest.raises(SessionLostError):
            await client.call_tool("echo")
        assert anyio.current_time() - began == pytest.approx(3)
    peer = dead_peer(era)
    async with Client(peer.transport, heartbeat=None) as client:
        fall_silent(peer)
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=1000)


@in_time
async def test_it_goes_on_after_a_restart(era: str, caplog: pytest.LogCaptureFixture) -> None:
    peer = dead_peer(era)
    async with Client(peer.transport) as client:
        for number in range(3):
            with pytest.raises(SessionLostError) as caught:
                fall_silent(peer)
                await client.call_tool("echo")
            assert caught.value.reason == "silent"
            peer.on("server/discover", lambda request: peer_usual(peer, request))
            peer.on("ping", {})
            await peer.until(lambda: peer.open_connections == 0)
            assert await client.ping()
            assert peer.attempts == number + 2
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def peer_usual(peer: ScriptedPeer, request: PeerRequest) -> dict[str, Any] | None:
    """What the peer does by itself."""
    fresh = ScriptedPeer(era=peer.era)
    if peer.era == "legacy":
        request.refuse(-32601, "Method not found")
        return None
    return {"supportedVersions": ["2026-07-28"], "capabilities": fresh.capabilities}

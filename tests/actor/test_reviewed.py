"""What a reader who had not written the session found: waits that were bound to the wrong deadline, or to
none, and a group that left too early."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
from mcp.client import CacheConfig, CacheEntry, CacheKey

from anyio_mcp._session.errands import Errands
from anyio_mcp._session.responses import STORE_SECONDS
from anyio_mcp._session.watchdog import CallDeadline, call_deadline, current_deadline
from anyio_mcp.client import Client
from anyio_mcp.config import Restart, Timeouts
from anyio_mcp.errors import DeadlineExceededError, NotConnectedError, SessionLostError
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest
from tests.actor.support import in_time, outcome, passes

pytestmark = pytest.mark.anyio

LEGACY_HELLO: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "serverInfo": {"name": "slow to start", "version": "1"},
}
MODERN_HELLO: dict[str, Any] = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {},
    "ttlMs": 0,
    "cacheScope": "private",
}


def slow_to_start(era: Literal["modern", "legacy"]) -> ScriptedPeer:
    """A peer that takes two seconds for its first answer."""
    peer = ScriptedPeer(era=era)

    async def hello(_: PeerRequest) -> dict[str, Any]:
        await anyio.sleep(2)
        return LEGACY_HELLO if era == "legacy" else MODERN_HELLO

    peer.on("initialize" if era == "legacy" else "server/discover", hello)
    return peer


def never_acknowledging() -> ScriptedPeer:
    """A peer that takes `notifications/initialized` and never says so."""
    peer = ScriptedPeer(era="legacy")
    peer.on_delivery("notifications/initialized", None)
    return peer


@pytest.mark.parametrize(("era", "version"), [("modern", "2026-07-28"), ("legacy", "2025-11-25")])
@in_time
async def test_the_deadline_of_calls_does_not_bound_connecting(
    era: Literal["modern", "legacy"], version: str
) -> None:
    peer = slow_to_start(era)
    async with Client(peer.transport, timeouts=Timeouts(connect=30, call=1)) as client:
        assert client.protocol_version == version
        # Answered, not given up and asked again in the words of the other era.
        assert len(peer.requests_of("server/discover")) == 1
        assert len(peer.requests_of("initialize")) == (1 if era == "legacy" else 0)


@in_time
async def test_connecting_still_ends_at_its_own_deadline() -> None:
    peer = slow_to_start("legacy")
    began = anyio.current_time()
    with pytest.raises(DeadlineExceededError) as caught:
        async with Client(peer.transport, timeouts=Timeouts(connect=1)):
            raise AssertionError("entered")
    assert (caught.value.phase, caught.value.seconds) == ("connect", 1)
    assert anyio.current_time() - began == pytest.approx(1)


@in_time
async def test_initialize_ends_at_its_deadline_while_the_handshake_is_not_acknowledged() -> None:
    peer = never_acknowledging()
    async with Client(peer.transport, mode="legacy", auto_initialize=False) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.initialize(timeout=1)
        assert (caught.value.phase, caught.value.seconds) == ("call", 1)
        assert anyio.current_time() - began == pytest.approx(1)
        assert client.stats().waiters == 0


@in_time
async def test_initialize_ends_with_the_session_while_the_handshake_is_not_acknowledged() -> None:
    peer = never_acknowledging()
    results: list[Any] = []
    async with Client(peer.transport, mode="legacy", auto_initialize=False, restart=None) as client:
        began = anyio.current_time()

        async def initialize() -> None:
            results.append(await outcome(client.initialize))

        async with anyio.create_task_group() as tg:
            tg.start_soon(initialize)
            await peer.until(lambda: bool(peer.notifications_of("notifications/initialized")))
            peer.connection.lose()
        assert anyio.current_time() == began
    (error,) = results
    assert isinstance(error, SessionLostError)
    assert error.reason == "eof"


@pytest.mark.parametrize("several", [False, True], ids=["client", "group"])
@in_time
async def test_the_owner_waits_for_who_enters_in_the_moment_the_others_are_gone(several: bool) -> None:
    peer = ScriptedPeer()
    shared = ClientGroup({"one": peer.transport}) if several else Client(peer.transport)
    answers: list[Any] = []

    async def leaves(inside: anyio.Event, over: anyio.Event) -> None:
        async with shared:
            inside.set()
            await over.wait()

    async def enters(over: anyio.Event) -> None:
        await over.wait()
        async with shared:
            # Meanwhile the owner has learned that the one before has left.
            await passes(10)
            answers.append(await shared.call_tool("one_echo" if several else "echo"))

    async def end(over: anyio.Event) -> None:
        await passes(20)
        over.set()

    # Which of the two goes first is for trio to choose: often enough it is the one who leaves.
    for _ in range(20):
        inside, over = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as tg, shared:
            tg.start_soon(leaves, inside, over)
            await inside.wait()
            tg.start_soon(enters, over)
            tg.start_soon(end, over)
    assert [answer.is_error for answer in answers] == [False] * 20


class UndeletingStore:
    """A store of the user's whose deletions never return."""

    def __init__(self) -> None:
        self.entries: dict[CacheKey, CacheEntry] = {}

    async def get(self, key: CacheKey) -> CacheEntry | None:
        return self.entries.get(key)

    async def set(self, key: CacheKey, entry: CacheEntry) -> None:
        self.entries[key] = entry

    async def delete(self, key: CacheKey) -> None:
        await anyio.sleep_forever()

    async def clear(self) -> None:
        self.entries.clear()


@in_time
async def test_a_store_that_hangs_does_not_keep_the_server_from_being_told_of_unwanted_tasks() -> None:
    task = {
        "taskId": "t",
        "status": "working",
        "createdAt": "2026-11-21T00:00:00Z",
        "lastUpdatedAt": "2026-11-21T00:00:00Z",
        "ttlMs": None,
    }
    peer = ScriptedPeer()
    peer.on("tools/call", {**task, "resultType": "task"})
    peer.on("tasks/get", task)
    peer.on("tasks/cancel", {})
    cache = CacheConfig(store=UndeletingStore(), target_id="server", partition="user")
    async with Client(peer.transport, cache=cache) as client:
        for number in range(150):
            peer.connection.notify("notifications/resources/updated", {"uri": f"memo://{number}"})
        await anyio.sleep(STORE_SECONDS + 1)
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("echo", timeout=3)
        (cancelled,) = await peer.received("tasks/cancel")
        assert cancelled.params["taskId"] == "t"
    check_at_rest(client)


@in_time
async def test_a_call_that_waits_to_try_again_ends_when_the_last_lease_is_left() -> None:
    peer = ScriptedPeer()

    async def refuse(_: int) -> None:
        raise OSError("nobody listens")

    results: list[Any] = []
    async with anyio.create_task_group() as tg:
        restart = Restart(backoff=30, jitter=0)
        client = Client(peer.transport, task_group=tg, restart=restart)

        async def call() -> None:
            results.append(await outcome(lambda: client.call_tool("echo")))

        async with client:
            peer.on_connect = refuse
            peer.connection.lose()
            with pytest.raises(SessionLostError):
                await client.call_tool("echo")
            # Attempts to connect are half a minute apart: this call makes one, and waits for the next.
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("echo", timeout=1)
            tg.start_soon(call)
            await passes(10)
            began = anyio.current_time()
    assert anyio.current_time() == began
    (error,) = results
    assert isinstance(error, NotConnectedError)


@in_time
async def test_an_errand_is_not_bound_by_the_deadline_of_the_call_that_sends_it() -> None:
    errands, seen = Errands(), list[CallDeadline | None]()

    async def look() -> None:
        seen.append(current_deadline.get())

    async with anyio.create_task_group() as tg:
        errands.run_in(tg)
        with call_deadline(CallDeadline(1, 1)):
            assert errands.begin(look, name="look")
    assert seen == [None]

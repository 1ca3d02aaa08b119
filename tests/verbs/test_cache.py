"""Results that are kept as long as the server says, and not one change longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.client import CacheConfig, CacheEntry, CacheKey, InMemoryResponseCacheStore

from anyio_mcp.client import Client
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import PeerRequest, ScriptedPeer
from tests.verbs.servers import BOUND

pytestmark = pytest.mark.anyio

TOOL: dict[str, Any] = {"name": "add", "inputSchema": {"type": "object", "properties": {"a": {}}}}
LISTS: dict[str, tuple[str, str]] = {
    "tools/list": ("tools", "list_tools"),
    "prompts/list": ("prompts", "list_prompts"),
    "resources/list": ("resources", "list_resources"),
    "resources/templates/list": ("resourceTemplates", "list_resource_templates"),
}
CHANGES = {
    "tools/list": "notifications/tools/list_changed",
    "prompts/list": "notifications/prompts/list_changed",
    "resources/list": "notifications/resources/list_changed",
    "resources/templates/list": "notifications/resources/list_changed",
}
URI = "memo://a"


class Clock:
    """Epoch seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def keeping(ttl_ms: int | None = 60_000, *, era: Any = "modern", **more: Any) -> ScriptedPeer:
    """A server whose lists and resources are good for a while."""
    hints: dict[str, Any] = {} if ttl_ms is None else {"ttlMs": ttl_ms}
    peer = ScriptedPeer(era=era, capabilities={"tools": {}, "resources": {}, "prompts": {}})
    for method, (key, _) in LISTS.items():
        peer.on(method, {key: [TOOL] if method == "tools/list" else [], **hints, **more})
    peer.on("resources/read", {"contents": [{"uri": URI, "text": "x"}], **hints, **more})
    return peer


def asked(peer: ScriptedPeer, method: str) -> int:
    return len(peer.requests_of(method))


async def announce(client: Client, peer: ScriptedPeer, method: str, **params: Any) -> None:
    """Have the peer say that something changed, and wait until that has arrived."""
    peer.connection.notify(method, params)
    await client.ping()


def listing(client: Client, method: str) -> Callable[..., Awaitable[list[Any]]]:
    return getattr(client, LISTS[method][1])


@pytest.mark.parametrize("method", LISTS)
async def test_a_list_is_asked_for_once_while_it_is_fresh(method: str) -> None:
    peer, clock = keeping(), Clock()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=CacheConfig(clock=clock)) as client:
            first = await listing(client, method)()
            assert await listing(client, method)() == first
            assert asked(peer, method) == 1
            assert client.stats().cache_hits == 1
            clock.now += 60.0
            await listing(client, method)()
            assert asked(peer, method) == 2


@pytest.mark.parametrize("method", LISTS)
async def test_an_announced_change_makes_the_next_call_ask_again(method: str) -> None:
    peer = keeping()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await listing(client, method)()
            await announce(client, peer, CHANGES[method])
            await listing(client, method)()
            await listing(client, method)()
    assert asked(peer, method) == 2


async def test_a_resource_is_kept_by_its_uri_until_it_is_updated() -> None:
    peer = keeping()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            for uri in (URI, URI, "memo://b"):
                await client.read_resource(uri)
            assert asked(peer, "resources/read") == 2
            await announce(client, peer, "notifications/resources/updated", uri=URI)
            await client.read_resource("memo://b")
            assert asked(peer, "resources/read") == 2
            await client.read_resource(URI)
    assert asked(peer, "resources/read") == 3


async def test_a_call_with_metadata_asks_the_server_and_replaces_what_was_kept() -> None:
    peer = keeping()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await client.read_resource(URI)
            await client.read_resource(URI, meta={"why": "so"})
            await client.read_resource(URI)
    assert asked(peer, "resources/read") == 2


@pytest.mark.parametrize("ttl_ms", [0, None])
async def test_nothing_is_kept_that_the_server_did_not_say_to_keep(ttl_ms: int | None) -> None:
    peer = keeping(ttl_ms)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await client.list_prompts()
            await client.list_prompts()
    assert asked(peer, "prompts/list") == 2


async def test_without_a_cache_every_call_asks() -> None:
    peer = keeping()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=None) as client:
            await client.list_prompts()
            await client.list_prompts()
            assert client.stats().cache_hits == 0
    assert asked(peer, "prompts/list") == 2


async def test_the_era_before_has_no_hints_and_only_the_default_time_counts() -> None:
    peer = keeping(era="legacy")
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, mode="legacy") as client:
            await client.list_prompts()
            await client.list_prompts()
        assert asked(peer, "prompts/list") == 2
        async with Client(peer.transport, mode="legacy", cache=CacheConfig(default_ttl_ms=1000)) as client:
            await client.list_prompts()
            await client.list_prompts()
    assert asked(peer, "prompts/list") == 3


async def test_a_lifetime_of_years_is_cut_to_a_day() -> None:
    peer, clock = keeping(ttl_ms=10**12), Clock()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=CacheConfig(clock=clock)) as client:
            await client.list_prompts()
            clock.now += 24 * 3600 + 1
            await client.list_prompts()
    assert asked(peer, "prompts/list") == 2


async def test_a_mode_refreshes_or_bypasses_what_is_kept() -> None:
    peer = keeping()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await client.list_tools()
            await client.list_tools(cache_mode="refresh")
            assert asked(peer, "tools/list") == 2
            await client.list_tools(cache_mode="bypass")
            await client.list_tools_mcp(cache_mode="bypass")
            assert asked(peer, "tools/list") == 4
            await client.list_tools_mcp()
    assert asked(peer, "tools/list") == 4


async def test_what_is_served_belongs_to_who_asked() -> None:
    peer = keeping()
    peer.on("tools/list", lambda _: {"tools": [deepcopy(TOOL)], "ttlMs": 60_000})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            (first,) = await client.list_tools()
            first.input_schema["properties"].clear()
            first.name = "spoilt"
            (second,) = await client.list_tools()
            second.input_schema.clear()
            (third,) = await client.list_tools()
    assert third.name == "add"
    assert third.input_schema == {"type": "object", "properties": {"a": {}}}


async def test_a_change_announced_during_the_fetch_keeps_the_old_list_from_being_kept() -> None:
    peer = keeping()
    gate = anyio.Event()

    async def late(request: PeerRequest) -> dict[str, Any]:
        await gate.wait()
        return {"prompts": [], "ttlMs": 60_000}

    peer.on("prompts/list", late)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.list_prompts)
                await peer.until(lambda: asked(peer, "prompts/list") == 1)
                await announce(client, peer, "notifications/prompts/list_changed")
                gate.set()
            await client.list_prompts()
    assert asked(peer, "prompts/list") == 2


async def test_a_refused_cursor_means_that_the_list_has_changed() -> None:
    peer = keeping()

    async def answer(request: PeerRequest) -> dict[str, Any]:
        if request.params.get("cursor") is not None:
            raise MCPError(-32602, "what cursor?")
        return {"prompts": [], "nextCursor": "2", "ttlMs": 60_000}

    peer.on("prompts/list", answer)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await client.list_prompts_mcp()
            await client.list_prompts_mcp()
            assert asked(peer, "prompts/list") == 1
            with pytest.raises(MCPError):
                await client.list_prompts_mcp(cursor="2")
            await client.list_prompts_mcp()
    assert asked(peer, "prompts/list") == 3


async def test_a_new_session_begins_with_nothing_kept() -> None:
    peer = keeping()
    client = Client(peer.transport)
    with anyio.fail_after(BOUND):
        for _ in range(2):
            async with client:
                await client.list_prompts()
    assert asked(peer, "prompts/list") == 2


async def test_a_loop_over_hits_lets_others_run() -> None:
    peer = keeping()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client, anyio.create_task_group() as tg:
            tg.start_soon(other)
            await client.list_prompts()
            before = turns
            for _ in range(10):
                await client.list_prompts()
            assert turns >= before + 9
            tg.cancel_scope.cancel()


# --- a store of the user's ------------------------------------------------------------------------


class Store(InMemoryResponseCacheStore):
    """Remembers what it was asked, and fails or hangs when a test wants that."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[CacheKey] = set()
        self.broken = self.stuck = False

    async def _act(self) -> None:
        if self.broken:
            raise OSError("the store is on fire")
        if self.stuck:
            await anyio.sleep_forever()

    async def get(self, key: CacheKey) -> CacheEntry | None:
        await self._act()
        return await super().get(key)

    async def set(self, key: CacheKey, entry: CacheEntry) -> None:
        await self._act()
        self.keys.add(key)
        await super().set(key, entry)

    async def delete(self, key: CacheKey) -> None:
        await self._act()
        await super().delete(key)


def shared(store: Store, partition: str = "p", **more: Any) -> CacheConfig:
    return CacheConfig(store=store, partition=partition, target_id="the peer", **more)


async def test_clients_that_share_a_store_share_what_is_kept() -> None:
    peer, store = keeping(), Store()
    with anyio.fail_after(BOUND):
        for _ in range(2):
            async with Client(peer.transport, cache=shared(store)) as client:
                await client.list_prompts()
                await client.read_resource(URI)
                await client.list_tools()
                await client.list_tools()
    assert asked(peer, "prompts/list") == asked(peer, "resources/read") == asked(peer, "tools/list") == 1


@pytest.mark.parametrize(
    ("scope", "share", "fetches"),
    [
        ("private", True, 2),
        ("private", False, 2),
        ("public", False, 2),
        ("public", True, 1),
    ],
)
async def test_only_what_is_public_is_served_to_another_partition_and_only_if_that_is_wanted(
    scope: str, share: bool, fetches: int
) -> None:
    peer, store = keeping(cacheScope=scope), Store()
    with anyio.fail_after(BOUND):
        for partition in ("alice", "bob"):
            cache = shared(store, partition, share_public=share)
            async with Client(peer.transport, cache=cache) as client:
                await client.list_prompts()
    assert asked(peer, "prompts/list") == fetches


@pytest.mark.parametrize("fault", ["broken", "stuck"])
async def test_a_store_that_fails_costs_nothing_but_its_use(
    fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyio_mcp._session.responses.STORE_SECONDS", 0.01)
    peer, store = keeping(), Store()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=shared(store)) as client:
            await client.list_prompts()
            setattr(store, fault, True)
            assert await client.list_prompts() == []
            await announce(client, peer, "notifications/prompts/list_changed")
            assert await client.list_prompts() == []
    assert asked(peer, "prompts/list") == 3
    assert ("on fire" in caplog.text) == (fault == "broken")


async def test_a_value_of_another_kind_in_the_store_is_a_miss() -> None:
    peer, store = keeping(), Store()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=shared(store)) as client:
            await client.list_prompts()
            (key,) = store.keys
            await store.set(key, CacheEntry(value=b"?", scope="private", expires_at=1e12))
            assert await client.list_prompts() == []
    assert asked(peer, "prompts/list") == 2


async def test_a_store_whose_entries_must_be_told_apart_needs_to_know_the_server() -> None:
    with pytest.raises(ValueError, match="target_id"):
        Client(keeping().transport, cache=CacheConfig(store=Store(), partition="p"))
    Client("http://127.0.0.1:1/mcp", cache=CacheConfig(store=Store(), partition="p"))
    with pytest.raises(ValueError, match="target_id"):
        ClientGroup({}, cache=CacheConfig(target_id="one"))


async def test_a_flood_of_changes_switches_the_cache_off_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("anyio_mcp._session.responses.MAX_FORGOTTEN", 3)
    peer, store = keeping(), Store()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, cache=shared(store)) as client:
            await client.list_prompts()
            store.stuck = True
            for number in range(5):
                await announce(client, peer, "notifications/resources/updated", uri=f"memo://{number}")
            store.stuck = False
            await client.list_prompts()
            await client.list_prompts()
    assert asked(peer, "prompts/list") == 3

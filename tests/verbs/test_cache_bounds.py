"""What kept results, listings and metrics may cost, and which of two results is the newer one."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client import CacheConfig, CacheEntry, CacheKey, InMemoryResponseCacheStore

from anyio_mcp import Client, RequestFailedError, telemetry
from anyio_mcp._session import kept
from anyio_mcp._session.kept import ENTRY_BYTES, PROCESS_BYTES, SESSION_BYTES, MemoryStore
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence

pytestmark = pytest.mark.anyio

BOUND = 20.0
URI = "memo://a"


def contents(text: str, ttl_ms: int = 60_000) -> dict[str, Any]:
    return {"contents": [{"uri": URI, "text": text}], "ttlMs": ttl_ms}


def entry(size: int) -> CacheEntry:
    return CacheEntry(value=bytes(size), scope="private", expires_at=1e12)


def key(name: object) -> CacheKey:
    return CacheKey("resources/read", str(name))


async def test_a_store_keeps_what_was_used_last_within_its_bytes() -> None:
    store = MemoryStore()
    size = ENTRY_BYTES // 2
    for number in range(20):
        await store.set(key(number), entry(size))
        assert await store.get(key(0)) is not None, "used again and again, it stays"
    found = [number for number in range(20) if await store.get(key(number)) is not None]
    assert len(found) <= SESSION_BYTES // size
    assert found[-1] == 19
    await store.set(key(0), entry(ENTRY_BYTES + 1))
    assert await store.get(key(0)) is None, "too large to keep, and the one before it is gone"
    await store.clear()
    assert [number for number in range(20) if await store.get(key(number)) is not None] == []


async def test_all_sessions_together_keep_so_much_and_give_it_back_with_the_last_of_them() -> None:
    gc.collect()
    stores = [MemoryStore() for _ in range(2 * PROCESS_BYTES // SESSION_BYTES)]
    size = ENTRY_BYTES - 4096
    for store in stores:
        for number in range(5):
            await store.set(key(number), entry(size))
    held = sum([await store.get(key(number)) is not None for store in stores for number in range(5)])
    assert 0 < held * size <= PROCESS_BYTES
    del store, stores
    gc.collect()
    store = MemoryStore()
    await store.set(key("x"), entry(size))
    assert await store.get(key("x")) is not None


async def test_empty_results_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SESSION_BYTES", 100 * 1024)
    store = MemoryStore()
    for number in range(1000):
        await store.set(key(number), entry(0))
    assert sum([await store.get(key(number)) is not None for number in range(1000)]) < 100


async def test_a_result_that_was_asked_for_earlier_does_not_replace_a_newer_one() -> None:
    peer = ScriptedPeer()
    peer.on("resources/read", silence)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client, anyio.create_task_group() as tg:

            async def read(expected: str) -> None:
                (found,) = await client.read_resource(URI, cache_mode="refresh")
                assert getattr(found, "text", None) == expected

            tg.start_soon(read, "old")
            (old,) = await peer.received("resources/read")
            tg.start_soon(read, "new")
            _, new = await peer.received("resources/read", 2)
            new.answer(contents("new"))
            await client.ping()
            old.answer(contents("old"))
            await client.ping()
            (found,) = await client.read_resource(URI)
            assert getattr(found, "text", None) == "new"
    assert len(peer.requests_of("resources/read")) == 2


async def test_what_a_bypass_has_shown_to_be_old_is_served_no_more() -> None:
    peer = ScriptedPeer()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            for text in ("old", "old", "new"):
                peer.on("resources/read", contents(text))
                mode: Any = "use" if not peer.requests_of("resources/read") else "bypass"
                await client.read_resource(URI, cache_mode=mode)
            (found,) = await client.read_resource(URI)
            assert getattr(found, "text", None) == "new"
    assert len(peer.requests_of("resources/read")) == 4


async def test_a_result_that_took_input_ends_what_was_kept_before() -> None:
    peer = ScriptedPeer()
    peer.on("resources/read", contents("old"))

    def asks(request: PeerRequest) -> dict[str, Any]:
        if "requestState" in request.params:
            return contents("new")
        return {"resultType": "input_required", "requestState": "s", "inputRequests": {}}

    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            await client.read_resource(URI)
            peer.on("resources/read", asks)
            (found,) = await client.read_resource(URI, cache_mode="refresh")
            assert getattr(found, "text", None) == "new"
            (found,) = await client.read_resource(URI)
            assert getattr(found, "text", None) == "new"


async def test_tools_that_another_session_has_listed_are_known_to_this_one() -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    peer = ScriptedPeer()
    peer.on("tools/list", {"tools": [{"name": "echo", "inputSchema": schema}], "ttlMs": 60_000})
    cache = CacheConfig(store=InMemoryResponseCacheStore(), partition="p", target_id="the peer")
    with anyio.fail_after(BOUND):
        for _ in range(2):
            async with Client(peer.transport, cache=cache) as client:
                (tool,) = await client.list_tools()
                assert tool.name == "echo"
                await client.call_tool("echo", {"region": "north"})
    assert len(peer.requests_of("tools/list")) == 1
    for request in peer.requests_of("tools/call"):
        assert request.headers["Mcp-Param-Region"] == "north"


@pytest.mark.parametrize("kind", ["values", "text"])
async def test_a_listing_is_bounded_in_bytes_before_its_pages_are(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anyio_mcp._session.catalog.MAX_WEIGHT", 1024 * 1024)
    page = [[]] * 4000 if kind == "values" else "x" * 130_000
    peer = ScriptedPeer(era="legacy")

    def pages(request: PeerRequest) -> dict[str, Any]:
        number = int(request.params.get("cursor", 0)) + 1
        tool = {"name": f"t{number}", "inputSchema": {"type": "object", "x": page}}
        return {"tools": [tool], "nextCursor": str(number)}

    peer.on("tools/list", pages)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            with pytest.raises(RequestFailedError) as caught:
                await client.list_tools()
            assert await client.call_tool("t1")
    assert caught.value.reason == "oversized"
    assert len(peer.requests_of("tools/list")) < 20


async def test_no_label_of_a_metric_is_a_servers_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: set[tuple[Any, ...]] = set()

    class Durations:
        def record(self, value: float, attributes: dict[str, Any]) -> None:
            labels.add(tuple(sorted(attributes.items())))

    monkeypatch.setattr(telemetry, "_durations", Durations())
    monkeypatch.setattr(telemetry, "MAX_NAMES", 10)
    monkeypatch.setattr(telemetry, "_names", set[str]())
    peer = ScriptedPeer()
    code = 0

    def refuse(request: PeerRequest) -> None:
        nonlocal code
        code += 7919
        request.refuse(code, "no")

    peer.on("tools/call", refuse)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            for number in range(50):
                with pytest.raises(MCPError):
                    await client.call_tool_mcp(f"listed {number}")
    assert len(labels) == 11
    values = {str(value) for label in labels for _, value in label}
    assert "_OTHER" in values
    assert not any(value.isdigit() for value in values)

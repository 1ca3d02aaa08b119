"""What the cache does not do, and what it is not taken for."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.client import CacheConfig

from anyio_mcp.client import Client
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import PeerRequest, ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

FRESH: dict[str, Any] = {"prompts": [], "ttlMs": 60_000}


class Clock:
    """Epoch seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def keeping(answer: Any = FRESH) -> ScriptedPeer:
    peer = ScriptedPeer(capabilities={"tools": {}, "prompts": {"listChanged": True}, "resources": {}})
    peer.on("prompts/list", answer)
    return peer


@in_time
async def test_what_has_expired_is_not_served_because_the_server_fails() -> None:
    peer, clock = keeping(), Clock()
    async with Client(peer.transport, cache=CacheConfig(clock=clock)) as client:
        await client.list_prompts()
        clock.now += 61

        def fails(request: PeerRequest) -> None:
            raise MCPError(-32603, "out of order")

        peer.on("prompts/list", fails)
        with pytest.raises(MCPError, match="out of order"):
            await client.list_prompts()


@in_time
async def test_two_who_ask_at_the_same_time_are_two_questions() -> None:
    peer = keeping()
    async with Client(peer.transport) as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.list_prompts)
            tg.start_soon(client.list_prompts)
        await client.list_prompts()
    assert len(peer.requests_of("prompts/list")) == 2


@in_time
async def test_the_session_under_the_verbs_always_asks() -> None:
    peer = keeping()
    async with Client(peer.transport) as client:
        await client.list_prompts()
        await client.session.list_prompts()
    assert len(peer.requests_of("prompts/list")) == 2


@in_time
async def test_a_resource_that_took_input_is_not_kept() -> None:
    def read(request: PeerRequest) -> dict[str, Any]:
        if "inputResponses" not in request.params:
            roots = {"who": {"method": "roots/list"}}
            return {"resultType": "input_required", "inputRequests": roots, "requestState": "s"}
        return {"contents": [{"uri": "memo://a", "text": "x"}], "ttlMs": 60_000}

    peer = keeping()
    peer.on("resources/read", read)
    async with Client(peer.transport, roots=["/here"]) as client:
        for _ in range(2):
            assert await client.read_resource("memo://a")
    assert len(peer.requests_of("resources/read")) == 4


@in_time
async def test_who_hears_of_a_change_does_not_get_what_was_kept_before_it() -> None:
    def listen(request: PeerRequest) -> None:
        stamp = {"_meta": {"io.modelcontextprotocol/subscriptionId": request.id}}
        wanted = request.params["notifications"]
        request.connection.notify(
            "notifications/subscriptions/acknowledged", {**stamp, "notifications": wanted}
        )
        request.connection.notify("notifications/prompts/list_changed", stamp)

    peer = keeping()
    peer.on("subscriptions/listen", listen)
    async with Client(peer.transport) as client:
        await client.list_prompts()
        async with client.listen(prompts_list_changed=True) as events:
            await anext(events)
            await client.list_prompts()
    assert len(peer.requests_of("prompts/list")) == 2


@pytest.mark.parametrize("cache", [True, False, {"default_ttl_ms": 1}])
def test_what_is_no_cache_config_is_refused(cache: Any) -> None:
    with pytest.raises(TypeError, match="cache must be a CacheConfig, or None"):
        Client("http://127.0.0.1:1/mcp", cache=cache)
    with pytest.raises(TypeError, match="cache must be a CacheConfig, or None"):
        ClientGroup({"a": {"url": "http://127.0.0.1:1/mcp"}}, cache=cache)

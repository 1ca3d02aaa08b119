"""A group of servers of both eras."""

from __future__ import annotations

import pytest

from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio


@in_time
async def test_each_server_of_a_group_speaks_its_own_era() -> None:
    old, new = ScriptedPeer(era="legacy"), ScriptedPeer()
    async with ClientGroup({"old": old.transport, "new": new.transport}) as group:
        assert {name: client.protocol_version for name, client in group.servers.items()} == {
            "old": "2025-11-25",
            "new": "2026-07-28",
        }
        assert [tool.name for tool in await group.list_tools()] == ["old_echo", "new_echo"]
        for name in group:
            assert (await group.call_tool(f"{name}_echo")).content
    assert not new.requests_of("initialize")


@in_time
async def test_a_handler_set_on_one_client_of_a_group_answers_its_server_only() -> None:
    one, two = ScriptedPeer(era="legacy"), ScriptedPeer(era="legacy")
    group = ClientGroup({"one": one.transport, "two": two.transport}, mode="legacy")

    async def answer(*_: object) -> str:
        return "well"

    group["one"].set_sampling_callback(answer)
    declared = {}
    async with group:
        for name, peer in (("one", one), ("two", two)):
            (request,) = peer.requests_of("initialize")
            declared[name] = "sampling" in request.params["capabilities"]
    assert declared == {"one": True, "two": False}

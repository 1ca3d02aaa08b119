"""Arguments that are repeated in HTTP headers (`x-mcp-header`, 2026-07-28)."""

from __future__ import annotations

from typing import Any

import pytest

from anyio_mcp.client import Client
from anyio_mcp.testing import ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio


def routed(kind: str) -> ScriptedPeer:
    """A server with one tool whose argument of this kind is to be a header as well, and one without."""
    properties = {"region": {"type": kind, "x-mcp-header": "Region"}}
    tools = [
        {"name": "routed", "inputSchema": {"type": "object", "properties": properties}},
        {"name": "plain", "inputSchema": {"type": "object"}},
    ]
    peer = ScriptedPeer()
    peer.on("tools/list", {"tools": tools})
    return peer


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [("string", "eu-1", "eu-1"), ("integer", 7, "7"), ("boolean", True, "true")],
)
@in_time
async def test_a_marked_argument_of_a_listed_tool_is_a_header_as_well(
    kind: str, value: Any, text: str
) -> None:
    peer = routed(kind)
    async with Client(peer.transport) as client:
        await client.call_tool("routed", {"region": value})
        await client.list_tools()
        await client.call_tool("routed", {"region": value})
    before, after = peer.requests_of("tools/call")
    assert "mcp-param-region" not in {name.lower() for name in before.headers}
    headers = {name.lower(): found for name, found in after.headers.items()}
    assert headers["mcp-param-region"] == text
    assert after.params["arguments"] == {"region": value}


@in_time
async def test_a_tool_whose_mark_means_nothing_is_left_out_of_the_listing() -> None:
    peer = routed("object")
    async with Client(peer.transport) as client:
        assert [tool.name for tool in await client.list_tools()] == ["plain"]

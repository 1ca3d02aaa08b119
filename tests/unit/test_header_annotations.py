"""Which input schemas of a listing are searched for annotations, and which need not be."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import Tool

from anyio_mcp._session.header_annotations import MAX_ANNOTATED_VALUES, lightened
from tests.verbs.servers import MODERN, Scripted, connected

pytestmark = pytest.mark.anyio

REGION = {"type": "string", "x-mcp-header": "Region"}


def tool(name: str, **properties: Any) -> Tool:
    return Tool(name=name, input_schema={"type": "object", "properties": properties})


async def test_only_schemas_with_annotations_are_kept_to_be_searched() -> None:
    plain, annotated = tool("plain", a={"type": "string"}), tool("annotated", region=REGION)
    deep = tool("deep", a={"allOf": [{"items": REGION}]})
    (_, first), (_, second), (_, third) = await lightened([plain, annotated, deep])
    assert first.input_schema == {"type": "object"}
    assert (second, third) == (annotated, deep)
    assert plain.input_schema["properties"], "the tool itself stays as it was"


async def test_a_tool_with_annotations_in_a_huge_schema_is_left_out() -> None:
    many: dict[str, Any] = {f"p{n}": {} for n in range(MAX_ANNOTATED_VALUES)}
    found = await lightened([tool("huge", **many), tool("both", region=REGION, **many)])
    assert [each.name for each, _ in found] == ["huge"]


async def test_a_listing_gives_whole_tools_without_those_whose_annotations_are_not_valid() -> None:
    server = Scripted()
    server.tools = [
        tool("plain", a={"type": "string"}),
        tool("annotated", region=REGION),
        tool("invalid", region={"type": "string", "x-mcp-header": "no token"}),
    ]
    async with connected(server.server, MODERN) as client:
        listed = await client.list_tools()
    assert [(each.name, each.input_schema) for each in listed] == [
        (each.name, each.input_schema) for each in server.tools[:2]
    ]

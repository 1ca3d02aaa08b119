"""Which input schemas of a listing are searched for annotations, and which need not be."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.types import Tool

from anyio_mcp._session.header_annotations import MAX_ANNOTATED_VALUES, annotated
from tests.verbs.servers import MODERN, Scripted, connected

pytestmark = pytest.mark.anyio

REGION = {"type": "string", "x-mcp-header": "Region"}


def tool(name: str, **properties: Any) -> Tool:
    return Tool(name=name, input_schema={"type": "object", "properties": properties})


async def test_only_schemas_with_annotations_are_searched() -> None:
    plain, marked = tool("plain", a={"type": "string"}), tool("marked", region=REGION)
    deep = tool("deep", a={"allOf": [{"items": REGION}]})
    tools, parts = await annotated([plain, marked, deep])
    assert tools == [plain, marked, deep]
    assert parts == [[marked, deep]]


async def test_a_tool_that_has_lost_its_annotations_is_shown_without_any() -> None:
    tools, ((shown,),) = await annotated([tool("plain", a={"type": "string"})], {"plain"})
    assert shown.input_schema == {"type": "object"}
    assert tools[0].input_schema["properties"], "the tool itself stays as it was"


async def test_many_annotations_are_searched_in_parts() -> None:
    many: dict[str, Any] = {f"p{n}": {} for n in range(MAX_ANNOTATED_VALUES // 2)}
    given = [tool(str(number), region=REGION, **many) for number in range(5)]
    tools, parts = await annotated(given)
    assert tools == given
    assert [len(part) for part in parts] == [1] * 5


async def test_a_tool_with_annotations_in_a_huge_schema_is_left_out() -> None:
    many: dict[str, Any] = {f"p{n}": {} for n in range(MAX_ANNOTATED_VALUES)}
    found, _ = await annotated([tool("huge", **many), tool("both", region=REGION, **many)])
    assert [each.name for each in found] == ["huge"]


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

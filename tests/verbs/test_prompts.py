"""Prompts: listing them and having one rendered."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import TextContent
from pydantic import BaseModel

from tests.verbs.servers import Era, World, connected

pytestmark = pytest.mark.anyio


class Options(BaseModel):
    loud: bool
    since: date


async def test_prompts_are_listed_with_their_arguments(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        (prompt,) = await client.list_prompts()
        page = await client.list_prompts_mcp()
    assert prompt.name == "greet"
    assert [(each.name, each.required) for each in prompt.arguments or []] == [
        ("name", True),
        ("options", False),
    ]
    assert page.prompts == [prompt]
    assert page.next_cursor is None


async def test_a_prompt_is_rendered_by_the_server(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.get_prompt("greet", {"name": "Ada"})
        same = await client.get_prompt_mcp("greet", {"name": "Ada"})
    (message,) = result.messages
    assert message.role == "user"
    assert message.content == TextContent(type="text", text="Greet Ada.")
    assert same.messages == result.messages


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("as it is", "as it is"),
        ('"quoted"', '"quoted"'),
        ("", ""),
        (7, "7"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ([1, "ä"], '[1,"ä"]'),
        ({"a": {"b": None}}, '{"a":{"b":null}}'),
        (date(2026, 11, 20), '"2026-11-20"'),
        (Options(loud=True, since=date(2026, 1, 1)), '{"loud":true,"since":"2026-01-01"}'),
    ],
    ids=repr,
)
async def test_an_argument_that_is_no_text_is_sent_as_json(world: World, value: Any, sent: str) -> None:
    async with connected(world.server, "auto") as client:
        await client.get_prompt("greet", {"name": "x", "options": value})
        await client.get_prompt_mcp("greet", {"name": "x", "options": value})
    assert [params["arguments"]["options"] for params in world.log.params("prompts/get")] == [sent, sent]


async def test_an_argument_that_cannot_be_json_is_refused_before_it_is_sent(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(ValueError, match="serialize"):
            await client.get_prompt("greet", {"name": object()})
    assert world.log.count("prompts/get") == 0


async def test_a_prompt_without_arguments_is_asked_for_without_any(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(MCPError):
            await client.get_prompt("greet")
    assert world.log.params("prompts/get")[0].get("arguments") is None


async def test_an_unknown_prompt_is_the_servers_error(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(MCPError):
            await client.get_prompt("no such prompt")
        assert await client.get_prompt("greet", {"name": "Ada"})


async def test_the_callers_meta_reaches_the_server(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.get_prompt("greet", {"name": "x"}, meta={"example.com/key": 1})
        await client.get_prompt_mcp("greet", {"name": "x"}, meta={"example.com/key": 2})
    assert [meta["example.com/key"] for meta in world.log.metas("prompts/get")] == [1, 2]

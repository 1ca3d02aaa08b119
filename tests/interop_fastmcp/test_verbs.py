"""A FastMCP 4 server without tasks, in both eras. `conftest.py` says what this needs."""

from __future__ import annotations

from datetime import date
from typing import Any

import anyio
import pytest
from mcp.types import TextContent, TextResourceContents

from anyio_mcp import Client, ElicitResult, LogMessage, ToolError
from tests.interop_fastmcp.conftest import TaskServer

pytestmark = pytest.mark.anyio

BOUND = 60.0
"""Seconds a test may take. None comes near; a hang fails."""

VERSIONS = {"legacy": "2025-11-25", "auto": "2026-07-28"}


@pytest.fixture(params=VERSIONS)
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_what_the_server_is(plain_server: TaskServer, mode: str) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            assert client.protocol_version == VERSIONS[mode]
            assert client.instructions == "Be kind."
            assert client.server_info is not None
            assert client.server_info.name == "fastmcp 4 plain"
            assert await client.ping()


async def test_lists_are_complete_though_they_come_in_pages(plain_server: TaskServer, mode: str) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            assert (await client.list_tools_mcp()).next_cursor is not None
            names = {tool.name for tool in await client.list_tools()}
            assert names == {"forecast", "days", "broken", "steps", "talk", "greet", "greet_in_rounds"}
            assert [str(resource.uri) for resource in await client.list_resources()] == ["memo://one"]
            (template,) = await client.list_resource_templates()
            assert template.uri_template == "memo://about/{topic}"
            assert [prompt.name for prompt in await client.list_prompts()] == ["poem"]


async def test_results_have_the_types_of_the_tools_schemas(plain_server: TaskServer, mode: str) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            result = await client.call_tool("forecast", {"day": "2026-11-21"})
            assert result.data.day == date(2026, 11, 21)
            assert (result.data.degrees, result.data.words) == (21.5, ["dry", "calm"])
            assert (await client.call_tool("days", {"count": 2})).data == [
                date(2026, 1, 1),
                date(2026, 1, 2),
            ]


async def test_a_tools_error_is_its_own(plain_server: TaskServer, mode: str) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            with pytest.raises(ToolError, match="out of coffee"):
                await client.call_tool("broken")


async def test_progress_and_log_messages_arrive(plain_server: TaskServer, mode: str) -> None:
    seen: list[tuple[float, float | None, str | None]] = []
    logged = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async def log(message: LogMessage) -> None:
        assert "talking" in str(message.data)
        logged.set()

    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode, log_handler=log) as client:
            assert (await client.call_tool("steps", {"to": 3}, progress_handler=note)).data == 3
            assert seen == [(1, 3, "step 1"), (2, 3, "step 2"), (3, 3, "step 3")]
            await client.call_tool("talk")
            if mode == "legacy":
                await logged.wait()


@pytest.mark.parametrize(
    ("answer", "greeting"),
    [({"value": "Ada"}, "hello Ada"), (ElicitResult(action="decline"), "hello, decline")],
    ids=["accept", "decline"],
)
async def test_what_a_tool_asks_goes_to_the_handler(
    plain_server: TaskServer, mode: str, answer: Any, greeting: str
) -> None:
    async def reply(message: str, response_type: Any, params: Any, context: Any) -> Any:
        assert message == "Your name?"
        return answer

    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode, elicitation_handler=reply) as client:
            tool = "greet" if mode == "legacy" else "greet_in_rounds"
            assert (await client.call_tool(tool)).content == [TextContent(type="text", text=greeting)]


async def test_resources_and_prompts_are_read(plain_server: TaskServer, mode: str) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            (memo,) = await client.read_resource("memo://about/tea")
            assert isinstance(memo, TextResourceContents)
            assert memo.text == "a memo about tea"
            prompt = await client.get_prompt("poem", {"topic": "tea"})
            assert isinstance(prompt.messages[0].content, TextContent)
            assert prompt.messages[0].content.text == "Write a poem about tea"


async def test_tasks_asked_of_a_server_without_them_are_answered_at_once(
    plain_server: TaskServer, mode: str
) -> None:
    with anyio.fail_after(BOUND):
        async with Client(plain_server.source, mode=mode) as client:
            task = await client.call_tool("days", {"count": 1}, task=True)
            assert task.returned_immediately
            assert (await task).data == [date(2026, 1, 1)]

"""Background tasks of real servers, in both dialects. `conftest.py` says what this needs."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import MCPError

from anyio_mcp import (
    Client,
    DeadlineExceededError,
    SessionLostError,
    TaskError,
    TaskSnapshot,
    Timeouts,
    ToolError,
)
from tests.interop_fastmcp.conftest import TaskServer

pytestmark = pytest.mark.anyio


async def name(message: str, response_type: Any, params: Any, context: Any) -> dict[str, str]:
    assert message == "Your name?"
    return {"value": "Ada"}


def client_of(server: TaskServer) -> Client:
    return Client(server.source, elicitation_handler=name, timeouts=Timeouts(connect=30, call=20))


def said(result: Any) -> str:
    return result.content[0].text


async def test_a_task_runs_in_the_background_and_gives_its_result(task_server: TaskServer) -> None:
    seen: list[str] = []

    async def note(snapshot: TaskSnapshot) -> None:
        seen.append(snapshot.status)

    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("nap", {"seconds": 0.3}, task=True, ttl=30)
            task.on_status_change(note)
            assert not task.returned_immediately
            assert (await task.status()).status == "working"
            assert (await task).content
            assert (await task.status()).status == "completed"
            with anyio.fail_after(5):
                while seen[-1:] != ["completed"]:
                    await anyio.sleep(0.01)


async def test_what_a_task_asks_goes_to_the_handlers(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("greet", task=True)
            assert said(await task) == "hello Ada"


async def test_a_tool_that_fails_in_a_task_is_an_error(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("broken", task=True)
            with pytest.raises((ToolError, TaskError), match="out of coffee"):
                await task


async def test_a_task_is_cancelled(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("endless", task=True)
            await task.cancel()
            assert (await task.wait()).status == "cancelled"
            with pytest.raises(TaskError, match="was cancelled"):
                await task


async def test_a_tool_without_tasks_has_answered(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("at_once", task=True)
            assert task.returned_immediately
            assert said(await task) == "at once"


async def test_tasks_are_listed(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("nap", {"seconds": 0.1}, task=True)
            await task.wait()
            assert {each.task_id: each.status for each in await client.list_tasks()}[
                task.task_id
            ] == "completed"


async def test_a_task_that_does_not_exist_is_the_servers_error(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            with pytest.raises(MCPError, match="not found"):
                await client.get_task_status("nope")


async def test_a_wait_ends_at_its_deadline_and_the_task_goes_on(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("nap", {"seconds": 2}, task=True)
            with pytest.raises(DeadlineExceededError):
                await task.result(timeout=0.5)
            assert (await task).content


# Elsewhere the task belongs to the process, or to the session.
@pytest.mark.parametrize("task_server", ["fastmcp4-http", "fastmcp3-http"], indirect=True)
async def test_a_task_is_picked_up_by_another_client(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task_id = (await client.call_tool("nap", {"seconds": 0.5}, task=True)).task_id
        async with client_of(task_server) as another:
            assert (await another.tool_task(task_id, "nap")).structured_content == {"slept": 0.5}


# Only since 2026-07-28 servers make tasks unasked.
@pytest.mark.parametrize("task_server", ["fastmcp4-stdio", "fastmcp4-http"], indirect=True)
async def test_a_plain_call_is_followed_and_cancelled_at_its_deadline(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            assert (await client.call_tool("nap", {"seconds": 0.3})).data == {"slept": 0.3}
            assert said(await client.call_tool("greet")) == "hello Ada"
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("endless", timeout=0.5)
            (endless,) = [each for each in await client.list_tasks() if each.status != "completed"]
            assert (await client.wait_for_task(endless.task_id)).status == "cancelled"


# An invention of FastMCP, dropped in version 4.
@pytest.mark.parametrize("task_server", ["fastmcp3-stdio", "fastmcp3-http"], indirect=True)
async def test_prompts_and_resources_run_in_the_background_too(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            prompt = await client.get_prompt("poem", task=True)
            resource = await client.read_resource("memo://x", task=True)
            assert not prompt.returned_immediately
            assert not resource.returned_immediately
            assert (await prompt).messages[0].content.text == "a poem"  # type: ignore[union-attr]
            assert (await resource)[0].text == "a memo"  # type: ignore[union-attr]


async def test_who_waits_for_a_task_is_told_when_the_client_is_closed(task_server: TaskServer) -> None:
    with anyio.fail_after(60):
        async with client_of(task_server) as client:
            task = await client.call_tool("endless", task=True)

            async def wait() -> None:
                with pytest.raises(SessionLostError):
                    await task

            async with anyio.create_task_group() as tg:
                tg.start_soon(wait)
                await anyio.sleep(0.5)  # polling by then
                await client.close()

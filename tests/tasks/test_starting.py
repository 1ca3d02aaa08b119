"""Asking for a task, and servers that make none."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND
from pydantic import BaseModel

from anyio_mcp import (
    PromptTask,
    RequestFailedError,
    ResourceTask,
    ResultSchemaError,
    SessionLostError,
    TaskError,
    ToolError,
)
from anyio_mcp.testing import PeerRequest
from tests.tasks.servers import EXTENSION_ID, TaskServer, plain_answer, text_result

pytestmark = pytest.mark.anyio


def said(result: Any) -> str:
    return result.content[0].text


# 2025-11-25: the client asks


async def test_the_time_to_keep_a_task_goes_over_the_wire_in_milliseconds(core: TaskServer) -> None:
    async with core.client() as client:
        await client.call_tool("slow", task=True, ttl=1.5)
        await client.call_tool("slow", task=True)
        first, second = core.peer.requests_of("tools/call")
        assert (first.params["task"], second.params["task"]) == ({"ttl": 1500}, {})
        for wrong, error in ((-1, ValueError), ("1", TypeError), (True, TypeError)):
            with pytest.raises(error, match="ttl"):
                await client.call_tool("slow", task=True, ttl=wrong)  # type: ignore[call-overload]
    assert core.asked("tools/call") == 2


async def test_prompts_and_resources_become_tasks_of_servers_that_take_them(core: TaskServer) -> None:
    async with core.client() as client:
        prompt = await client.get_prompt("greet", {"n": 1}, task=True)
        resource = await client.read_resource("memo://x", task=True)
        assert isinstance(prompt, PromptTask)
        assert isinstance(resource, ResourceTask)
        one, two = core.tasks.values()
        assert one.params["arguments"] == {"n": "1"}
        one.finish({"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]})
        two.finish({"contents": [{"uri": "memo://x", "text": "contents"}]})
        assert (await prompt).messages[0].content.text == "hi"  # type: ignore[union-attr]
        assert (await resource)[0].text == "contents"  # type: ignore[union-attr]
        # Picked up by id they are the same.
        assert (await client.prompt_task(prompt.task_id)).messages == (await prompt).messages
        assert await client.resource_task(resource.task_id) == await resource


async def test_a_plain_call_asks_for_no_task(core: TaskServer) -> None:
    async with core.client() as client:
        assert said(await client.call_tool("slow")) == "at once"
        await client.get_prompt("greet")
        await client.read_resource("memo://x")
        assert not core.tasks


@pytest.mark.parametrize(
    "capabilities",
    [
        {"tools": {}},
        {"tools": {}, "tasks": {}},
        {"tools": {}, "tasks": {"requests": {}}},
        {"tools": {}, "tasks": {"requests": {"tools": {}}}},
    ],
)
async def test_a_server_without_tasks_of_tools_is_not_asked_for_one(
    core: TaskServer, capabilities: dict[str, Any]
) -> None:
    core.peer.capabilities = capabilities
    async with core.client() as client:
        task = await client.call_tool("slow", task=True)
        assert task.returned_immediately
        assert said(await task) == "at once"
    assert "task" not in core.peer.requests_of("tools/call")[0].params


async def test_before_anything_is_negotiated_no_task_is_asked_for(core: TaskServer) -> None:
    async with core.client(auto_initialize=False) as client:
        assert (await client.call_tool("slow", task=True)).returned_immediately
        await client.initialize()
        assert not (await client.call_tool("slow", task=True)).returned_immediately


@pytest.mark.parametrize(
    ("support", "asked"), [("required", True), ("optional", True), ("forbidden", False), (None, False)]
)
async def test_a_tool_that_is_listed_without_tasks_is_called_at_once(
    core: TaskServer, support: str | None, asked: bool
) -> None:
    execution = {} if support is None else {"execution": {"taskSupport": support}}
    core.peer.on("tools/list", {"tools": [{"name": "slow", "inputSchema": {"type": "object"}, **execution}]})
    async with core.client() as client:
        for _ in range(2):
            task = await client.call_tool("slow", task=True)
            assert task.returned_immediately is not asked
    assert core.asked("tools/list") == 1
    assert all(("task" in request.params) is asked for request in core.peer.requests_of("tools/call"))


async def test_a_server_that_refuses_the_task_is_called_at_once(core: TaskServer) -> None:
    def refuse(request: PeerRequest) -> dict[str, Any]:
        if "task" in request.params:
            raise MCPError(METHOD_NOT_FOUND, "this tool does not support tasks")
        return plain_answer(request)

    for method in ("tools/call", "prompts/get", "resources/read"):
        core.peer.on(method, refuse)
    async with core.client() as client:
        assert said(await (await client.call_tool("slow", task=True))) == "at once"
        assert (await client.get_prompt("greet", task=True)).returned_immediately
        assert (await client.read_resource("memo://x", task=True)).returned_immediately


async def test_any_other_refusal_is_the_callers(core: TaskServer) -> None:
    def refuse(request: PeerRequest) -> dict[str, Any]:
        raise MCPError(INVALID_PARAMS, "no such tool")

    core.peer.on("tools/call", refuse)
    async with core.client() as client:
        with pytest.raises(MCPError, match="no such tool"):
            await client.call_tool("nope", task=True)
    assert core.asked("tools/call") == 1


async def test_a_server_that_ignores_the_wish_has_answered(core: TaskServer) -> None:
    for method in ("tools/call", "prompts/get", "resources/read"):
        core.peer.on(method, plain_answer)
    async with core.client() as client:
        assert said(await (await client.call_tool("slow", task=True))) == "at once"
        assert (await (await client.get_prompt("greet", task=True))).messages
        assert (await (await client.read_resource("memo://x", task=True)))[0].uri == "memo://x"


async def test_the_progress_of_a_server_that_answers_at_once_is_reported(core: TaskServer) -> None:
    seen: list[float] = []

    def answer(request: PeerRequest) -> dict[str, Any]:
        request.progress(0.5)
        return plain_answer(request)

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    core.peer.on("tools/call", answer)
    async with core.client() as client:
        await client.call_tool("slow", task=True, progress_handler=note)
    assert seen == [0.5]


@pytest.mark.parametrize("capability", ["tasks", "experimental"])
async def test_the_task_of_an_older_fastmcp_server_is_found_in_its_meta(
    core: TaskServer, capability: str
) -> None:
    if capability == "experimental":
        core.peer.capabilities = {"tools": {}, "experimental": {"tasks": {}}}
    made = core._create

    def stub(request: PeerRequest) -> dict[str, Any]:
        task = made(request)["task"]
        meta = {"modelcontextprotocol.io/task": {"taskId": task["taskId"], "status": "working"}}
        return {"content": [], "_meta": meta}

    for method in ("tools/call", "prompts/get", "resources/read"):
        core.peer.on(method, stub)
    async with core.client() as client:
        task = await client.call_tool("slow", task=True)
        assert task.task_id == "task-1"
        core.only.finish()
        assert said(await task) == "done"
        assert (await client.get_prompt("greet", task=True)).task_id == "task-2"
        assert (await client.read_resource("memo://x", task=True)).task_id == "task-3"


# 2026-07-28: the server decides


async def test_the_extension_is_advertised_with_every_request_of_the_modern_era(
    extension: TaskServer,
) -> None:
    async with extension.client() as client:
        await client.list_tools()
    for request in extension.peer.requests:
        capabilities = request.params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        assert capabilities["extensions"] == {EXTENSION_ID: {}}


async def test_the_extension_is_not_advertised_in_the_era_before(core: TaskServer) -> None:
    async with core.client():
        pass
    (request,) = core.peer.requests_of("initialize")
    assert "extensions" not in request.params["capabilities"]


async def test_requests_that_name_a_task_name_it_in_a_header_too(extension: TaskServer) -> None:
    async with extension.client() as client:
        task = await client.call_tool("slow", task=True)
        await task.status()
        await task.cancel()
    for method in ("tasks/get", "tasks/cancel"):
        headers = extension.peer.requests_of(method)[0].headers
        assert headers["mcp-name"] == "task-1"
        assert headers["mcp-method"] == method


async def test_a_server_that_makes_no_task_has_answered(extension: TaskServer) -> None:
    extension.peer.on("tools/call", plain_answer)
    async with extension.client() as client:
        task = await client.call_tool("slow", task=True)
        assert task.returned_immediately
        assert said(await task) == "at once"


async def test_prompts_and_resources_are_answered_at_once_in_the_modern_era(extension: TaskServer) -> None:
    async with extension.client() as client:
        prompt = await client.get_prompt("greet", task=True)
        resource = await client.read_resource("memo://x", task=True)
        assert prompt.returned_immediately
        assert resource.returned_immediately
        assert (await prompt).messages
        assert (await resource)[0].uri == "memo://x"


async def test_a_task_of_what_the_extension_makes_no_tasks_of_is_a_violation(extension: TaskServer) -> None:
    task = {"resultType": "task", "taskId": "x", "status": "working", "ttlMs": None}
    extension.peer.on("prompts/get", task)
    extension.peer.on("resources/read", task)
    async with extension.client() as client:
        for use in (client.get_prompt, client.read_resource):
            for options in ({}, {"task": True}):
                with pytest.raises(RequestFailedError) as caught:
                    await use("memo://x", **options)  # type: ignore[operator]
                assert caught.value.reason == "violation"


async def test_questions_before_the_task_are_answered_before_the_task(extension: TaskServer) -> None:
    made = extension._create

    def ask_first(request: PeerRequest) -> dict[str, Any]:
        if "requestState" not in request.params:
            return {"resultType": "input_required", "requestState": "state"}
        return made(request)

    extension.peer.on("tools/call", ask_first)
    async with extension.client() as client:
        task = await client.call_tool("slow", task=True)
        extension.only.finish()
        assert said(await task) == "done"


# What is answered at once


async def test_a_handle_of_what_was_answered_at_once_needs_no_client(server: TaskServer) -> None:
    server.peer.on("tools/call", plain_answer)
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
    asked = len(server.peer.requests)
    assert said(await task) == said(await task) == "at once"
    assert (await task.status()).status == "completed"
    assert (await task.wait()).is_final
    assert (await task.wait(state="completed")).is_final
    with pytest.raises(TaskError, match="will not be working"):
        await task.wait(state="working")
    await task.cancel()
    task.on_status_change(print)
    assert task.task_id == ""
    assert "at once" in repr(task)
    assert len(server.peer.requests) == asked


async def test_the_failure_of_a_tool_that_answers_at_once_is_raised_where_the_result_would_be(
    server: TaskServer,
) -> None:
    server.peer.on("tools/call", text_result("broken", is_error=True))
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        quiet = await client.call_tool("slow", task=True, raise_on_error=False)
    for _ in range(2):
        with pytest.raises(ToolError, match="broken"):
            await task
    assert (await quiet).is_error


# What the result is


class Sum(BaseModel):
    total: int


def with_schema(server: TaskServer) -> None:
    schema = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
    tool = {
        "name": "add",
        "inputSchema": {"type": "object"},
        "outputSchema": schema,
        "execution": {"taskSupport": "optional"},
    }
    if not server.core:
        del tool["execution"]
    server.peer.on("tools/list", {"tools": [tool]})


async def test_the_result_of_a_task_is_converted_as_that_of_a_call(server: TaskServer) -> None:
    with_schema(server)
    async with server.client() as client:
        task = await client.call_tool("add", task=True)
        typed = await client.call_tool("add", task=True, result_type=Sum)
        for each in server.tasks.values():
            each.finish({**text_result("3"), "structuredContent": {"total": 3}})
        data = (await task).data
        assert (type(data).__name__, data.total) != ("dict", 3)
        assert data.total == 3
        assert (await typed).data == Sum(total=3)
        assert (await client.tool_task("task-1", "add")).data.total == 3
        assert (await client.tool_task("task-1")).data == {"total": 3}
        assert (await client.tool_task("task-1", result_type=Sum)).data == Sum(total=3)


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_result_that_does_not_fit_its_schema_is_an_error_each_time(
    server: TaskServer, at_once: bool
) -> None:
    with_schema(server)
    wrong = {**text_result("three"), "structuredContent": {"total": "three"}}
    if at_once:
        server.peer.on("tools/call", wrong)
    async with server.client() as client:
        task = await client.call_tool("add", task=True)
        if not at_once:
            server.only.finish(wrong)
        for _ in range(2):
            with pytest.raises(ResultSchemaError) as caught:
                await task
            assert said(caught.value.result) == "three"


async def test_a_session_lost_while_the_task_is_asked_for_is_the_callers(server: TaskServer) -> None:
    server.peer.on("tools/call", lambda request: request.connection.lose())
    async with server.client() as client:
        with pytest.raises(SessionLostError):
            await client.call_tool("slow", task=True)
    assert not server.tasks

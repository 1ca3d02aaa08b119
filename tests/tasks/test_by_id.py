"""Tasks by their ids: of another client, after a restart, and lists of them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.types import INTERNAL_ERROR, METHOD_NOT_FOUND

from anyio_mcp import RequestFailedError, SessionLostError
from anyio_mcp._session.tasks.records import MAX_STARTED, TaskRegistry
from anyio_mcp._session.tasks.wire import TaskSnapshot
from anyio_mcp.testing import PeerRequest
from tests.tasks.servers import FakeTask, TaskServer, text_result

pytestmark = pytest.mark.anyio


def said(result: Any) -> str:
    return result.content[0].text


async def test_another_client_picks_a_task_up_by_its_id(server: TaskServer) -> None:
    async with server.client() as client:
        task_id = (await client.call_tool("slow", task=True)).task_id
    async with server.client() as another:
        assert (await another.get_task_status(task_id)).status == "working"
        task = another.tool_task(task_id)
        server.only.finish(text_result("still here"))
        assert said(await task) == "still here"
        assert (await another.get_task_result(task_id))["content"] == [{"type": "text", "text": "still here"}]


async def test_a_handle_outlives_its_session(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        async with anyio.create_task_group() as tg:
            tg.start_soon(_expect_loss, task)
            await anyio.sleep(10)
            server.peer.connection.lose()
        server.only.finish()
        assert said(await task) == "done"
    assert client.stats().sessions_started == 2


async def test_a_task_by_id_can_be_waited_for_and_cancelled(server: TaskServer) -> None:
    async with server.client() as client:
        await client.call_tool("slow", task=True)
    async with server.client() as another:
        assert (await another.wait_for_task("task-1", state="working")).status == "working"
        await another.cancel_task("task-1")
        assert (await another.wait_for_task("task-1")).status == "cancelled"


async def test_a_task_the_server_does_not_know_is_its_error(server: TaskServer) -> None:
    async with server.client() as client:
        task = client.tool_task("nope")
        for use in (task.status, task.wait, task.result, task.cancel):
            with pytest.raises(MCPError, match="Task not found"):
                await use()
        with pytest.raises(MCPError, match="Task not found"):
            await client.get_task_result("nope")


async def _expect_loss(task: Any) -> None:
    with pytest.raises(SessionLostError):
        await task


# Lists


async def test_tasks_are_listed(server: TaskServer) -> None:
    async with server.client() as client:
        assert await client.list_tasks() == []
        first = await client.call_tool("one", task=True)
        await client.call_tool("two", task=True)
        server.tasks["task-1"].finish()
        del first
        listed = await client.list_tasks()
        assert [(each.task_id, each.status) for each in listed] == [
            ("task-1", "completed"),
            ("task-2", "working"),
        ]


async def test_the_servers_list_is_read_to_its_last_page(core: TaskServer) -> None:
    def listing(request: PeerRequest) -> dict[str, Any]:
        cursor = request.params.get("cursor")
        number = 1 if cursor is None else int(cursor)
        page = {"tasks": [FakeTask(f"task-{number}", "tools/call", {}).describe()]}
        return page if number == 3 else {**page, "nextCursor": str(number + 1)}

    core.peer.on("tasks/list", listing)
    async with core.client() as client:
        assert [each.task_id for each in await client.list_tasks()] == ["task-1", "task-2", "task-3"]
        with pytest.raises(RequestFailedError, match="more than 2 pages"):
            await client.list_tasks(max_pages=2)


@pytest.mark.parametrize("refusal", ["empty", "unknown"])
async def test_where_the_server_lists_none_those_this_client_started_are_asked_for(
    core: TaskServer, refusal: str
) -> None:
    def refuse(request: PeerRequest) -> dict[str, Any]:
        raise MCPError(METHOD_NOT_FOUND, "no lists")

    core.peer.on("tasks/list", {"tasks": []} if refusal == "empty" else refuse)
    async with core.client() as client:
        await client.call_tool("one", task=True)
        await client.call_tool("two", task=True)
        assert [each.task_id for each in await client.list_tasks()] == ["task-1", "task-2"]


async def test_a_task_the_server_has_forgotten_is_not_listed_any_more(extension: TaskServer) -> None:
    async with extension.client() as client:
        await client.call_tool("one", task=True)
        await client.call_tool("two", task=True)
        del extension.tasks["task-1"]
        assert [each.task_id for each in await client.list_tasks()] == ["task-2"]
        asked = extension.asked("tasks/get")
        await client.list_tasks()
        assert extension.asked("tasks/get") == asked + 1


async def test_a_failure_to_list_is_the_callers(server: TaskServer) -> None:
    def fail(request: PeerRequest) -> dict[str, Any]:
        raise MCPError(INTERNAL_ERROR, "no idea")

    async with server.client() as client:
        await client.call_tool("one", task=True)
        for method in ("tasks/list", "tasks/get"):
            server.peer.on(method, fail)
        with pytest.raises(MCPError, match="no idea"):
            await client.list_tasks()


async def test_what_is_no_list_of_tasks_is_a_violation(core: TaskServer) -> None:
    core.peer.on("tasks/list", {"tasks": "none"})
    async with core.client() as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.list_tasks()
        assert caught.value.reason == "violation"


async def test_of_a_list_of_tasks_what_is_none_is_left_out(core: TaskServer) -> None:
    known = {"taskId": "known", "status": "working"}
    core.peer.on("tasks/list", {"tasks": [{"taskId": "", "status": "working"}, known, None]})
    async with core.client() as client:
        assert [each.task_id for each in await client.list_tasks()] == ["known"]


def test_a_client_remembers_a_bounded_number_of_tasks() -> None:
    registry = TaskRegistry()
    for number in range(MAX_STARTED + 10):
        registry.start(TaskSnapshot(task_id=str(number), status="working"))
    assert len(registry.started) == MAX_STARTED
    assert registry.started[0] == "10"
    assert registry.find("1000") is None  # nobody holds it

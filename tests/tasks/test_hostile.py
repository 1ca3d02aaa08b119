"""Servers that say of tasks what cannot be."""

from __future__ import annotations

import pickle
import string
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp import MCPClientError, RequestFailedError, TaskError, TaskSnapshot
from anyio_mcp._session.tasks.wire import (
    MAX_ID_LENGTH,
    STATUSES,
    read_created,
    read_report,
    read_snapshot,
)
from anyio_mcp.errors import fresh
from anyio_mcp.testing import silence
from tests.tasks.servers import TaskServer

pytestmark = pytest.mark.anyio

NO_TASKS: list[Any] = [
    None,
    [],
    "task-1",
    {},
    {"status": "working"},
    {"taskId": "task-1"},
    {"taskId": "", "status": "working"},
    {"taskId": 1, "status": "working"},
    {"taskId": None, "status": "working"},
    {"taskId": ["task-1"], "status": "working"},
    {"taskId": "x" * (MAX_ID_LENGTH + 1), "status": "working"},
    {"taskId": "task-1", "status": "asleep"},
    {"taskId": "task-1", "status": None},
    {"taskId": "task-1", "status": ["working"]},
    {"taskId": "task-1", "status": {"working": True}},
]


@pytest.mark.parametrize("task", NO_TASKS)
async def test_a_task_that_is_none_is_a_violation(server: TaskServer, task: Any) -> None:
    flat = task if isinstance(task, dict) else {"task": task}
    server.peer.on("tools/call", {"task": task} if server.core else {"resultType": "task", **flat})
    async with server.client() as client:
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("slow", task=True)
        assert caught.value.reason == "violation"
        if not server.core:
            with pytest.raises(RequestFailedError):
                await client.call_tool("slow")
    assert server.asked("tools/call") <= 2


@pytest.mark.parametrize("state", [{"taskId": "task-2", "status": "working"}, *NO_TASKS[3:]])
async def test_a_state_that_is_none_or_of_another_task_is_a_violation(
    server: TaskServer, state: dict[str, Any]
) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.peer.on("tasks/get", state)
        for use in (task.status, task.wait, task.result):
            with pytest.raises(RequestFailedError) as caught:
                await use()
            assert caught.value.reason == "violation"


@pytest.mark.parametrize(
    "state",
    [
        {"status": "completed"},
        {"status": "completed", "result": None},
        {"status": "completed", "result": "done"},
        {"status": "completed", "result": []},
        {"status": "completed", "result": {}},
        {"status": "completed", "result": {"content": "done"}},
        {"status": "completed", "result": {"resultType": "input_required", "requestState": "x"}},
        {"status": "completed", "result": {"resultType": "task", "taskId": "task-2", "status": "working"}},
        {"status": "input_required"},
        {"status": "input_required", "inputRequests": None},
        {"status": "input_required", "inputRequests": ["name"]},
        {"status": "input_required", "inputRequests": {"name": None}},
        {"status": "input_required", "inputRequests": {"name": {"method": "elicitation/create"}}},
    ],
)
async def test_a_state_that_lacks_what_it_must_tell_is_a_violation(
    extension: TaskServer, state: dict[str, Any]
) -> None:
    async with extension.client() as client:
        extension.peer.on("tasks/get", {"taskId": "task-1", **state})
        with pytest.raises(RequestFailedError) as caught:
            await client.call_tool("slow")
        assert caught.value.reason == "violation"


@pytest.mark.parametrize("error", [None, "broken", {}, {"code": "x", "message": 1}, {"code": -32000}])
async def test_a_failure_that_does_not_say_how_is_a_task_error(extension: TaskServer, error: Any) -> None:
    async with extension.client() as client:
        extension.peer.on("tasks/get", {"taskId": "task-1", "status": "failed", "error": error})
        with pytest.raises(TaskError, match="failed"):
            await client.call_tool("slow")


@pytest.mark.parametrize("result", [{}, {"content": 1}, {"messages": []}])
async def test_a_result_that_is_none_is_a_violation(core: TaskServer, result: dict[str, Any]) -> None:
    core.peer.on("tasks/result", result)
    async with core.client() as client:
        task = await client.call_tool("slow", task=True)
        core.only.finish()
        with pytest.raises(RequestFailedError) as caught:
            await task
        assert caught.value.reason == "violation"


@pytest.mark.parametrize("pushed", [*NO_TASKS[3:], {"taskId": "nobody's", "status": "working"}])
async def test_a_push_that_is_none_is_no_harm(server: TaskServer, pushed: dict[str, Any]) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.peer.connection.notify("notifications/tasks/status", pushed)
        server.peer.connection.notify("notifications/tasks/status")
        server.peer.connection.notify("notifications/tasks", pushed)
        await client.ping()
        server.only.finish()
        assert (await task).content


async def test_a_push_that_tells_less_than_it_must_is_a_hint_to_ask(extension: TaskServer) -> None:
    extension.on_new = lambda task: setattr(task, "interval", 30_000)
    async with extension.client() as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)
        tg.start_soon(task.wait)
        await anyio.sleep(100)
        now = anyio.current_time()
        extension.only.finish()
        extension.peer.connection.notify("notifications/tasks", {"taskId": "task-1", "status": "completed"})
        await task
        assert anyio.current_time() == now


@pytest.mark.parametrize("result", [{}, {"_meta": {"io.modelcontextprotocol/related-task": {}}}])
async def test_a_failed_task_without_a_result_says_what_its_status_says(
    core: TaskServer, result: dict[str, Any]
) -> None:
    """The SDK's servers of 2025-11-25."""
    core.peer.on("tasks/result", result)
    async with core.client() as client:
        for status in ("failed", "input_required"):
            task = await client.call_tool("slow", task=True)
            fake = core.tasks[task.task_id]
            fake.change(status, "out of coffee")
            if status == "input_required":
                await task.wait(state="input_required")
                fake.change("failed", "out of coffee")
            with pytest.raises(TaskError, match="out of coffee"):
                await task


async def test_a_cancellation_answered_with_nonsense_is_a_violation(core: TaskServer) -> None:
    core.peer.on("tasks/cancel", {"taskId": "another", "status": "cancelled"})
    async with core.client() as client:
        task = await client.call_tool("slow", task=True)
        with pytest.raises(RequestFailedError):
            await task.cancel()


async def test_a_result_that_never_comes_ends_at_the_deadline(core: TaskServer) -> None:
    core.peer.on("tasks/result", silence)
    core.on_new = lambda task: task.change("input_required")
    async with core.client(heartbeat=None) as client:
        task = await client.call_tool("slow", task=True)
        with pytest.raises(TimeoutError):
            await task.result(timeout=30)


# The records


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["taskId", "status", "ttl", "ttlMs", "pollInterval", "result", "error", "task", "_meta"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)


def is_task_or_violation(read: Callable[[Any], object], raw: Any) -> bool:
    """Whether reading it succeeds or is refused; nothing else may be raised."""
    try:
        read(raw)
    except RequestFailedError as error:
        return error.reason == "violation"
    return True


@given(JSON)
def test_reading_a_task_from_anything_is_a_task_or_a_violation(raw: Any) -> None:
    assert is_task_or_violation(read_snapshot, raw)
    assert is_task_or_violation(read_report, raw)
    assert not isinstance(raw, dict) or is_task_or_violation(read_created, raw)


@given(
    st.sampled_from(sorted(STATUSES)),
    st.dictionaries(
        st.sampled_from(["ttl", "ttlMs", "pollInterval", "pollIntervalMs", "statusMessage", "createdAt"]),
        JSON,
    ),
)
def test_what_a_server_garbles_is_taken_as_not_said(status: Any, rest: dict[str, Any]) -> None:
    snapshot = read_snapshot({"taskId": "x", "status": status, **rest})
    assert snapshot.ttl is None or snapshot.ttl >= 0
    assert snapshot.poll_interval is None or snapshot.poll_interval >= 0
    assert isinstance(snapshot.status_message, str | None)


def test_a_task_error_survives_pickling() -> None:
    error = TaskError("cancelled", task=TaskSnapshot(task_id="x", status="cancelled"))
    for copy in (pickle.loads(pickle.dumps(error)), fresh(error)):
        assert isinstance(copy, MCPClientError)
        assert (str(copy), copy.task) == (str(error), error.task)

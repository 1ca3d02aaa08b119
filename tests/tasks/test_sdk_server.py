"""Tasks of a real SDK server, in memory, in both dialects.

The SDK knows no tasks of its own any more: its lowlevel server takes the methods as custom ones, and a
middleware answers `tools/call` with what the SDK would not serialize. That is how FastMCP does it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import mcp.types as types
import pytest
from mcp import MCPError
from mcp.server import Server

from anyio_mcp import Client, DeadlineExceededError, MemoryTransport
from anyio_mcp.testing import VirtualTime
from tests.tasks.servers import EXTENSION_ID, LONG, QUESTION, text_result

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"])


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, VirtualTime(request.param).options


class TaskParams(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


class Worker:
    """A server whose tool `greet` asks for a name in its task, and whose tool `endless` never ends."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"taskId": "only", "status": "working", "createdAt": "now", "ttl": None}
        self.seen: list[str] = []
        self.server = Server("worker", on_list_tools=self._list)
        self.server.extensions = {EXTENSION_ID: {}}
        self.server.middleware.append(self._make_task)
        for method in ("get", "result", "update", "cancel"):
            self.server.add_request_handler(f"tasks/{method}", TaskParams, getattr(self, f"_{method}"))

    async def _list(self, context: Any, params: Any) -> types.ListToolsResult:
        tools = [
            types.Tool(
                name=name,
                input_schema={"type": "object"},
                execution=types.ToolExecution(task_support="optional"),
            )
            for name in ("greet", "endless")
        ]
        return types.ListToolsResult(tools=tools)

    async def _make_task(self, context: Any, call_next: Any) -> Any:
        if context.method == "initialize":
            result = await call_next(context)
            requests = {"tools": {"call": {}}}
            return {**result, "capabilities": {**result["capabilities"], "tasks": {"requests": requests}}}
        self.seen.append(context.method)
        if context.method != "tools/call":
            return await call_next(context)
        if context.params["name"] == "greet":
            self.state["status"] = "input_required"
            self.state["inputRequests"] = {"name": QUESTION}
        if context.protocol_version == "2026-07-28":
            return {"resultType": "task", **self.state}
        assert context.params["task"] == {}
        return {"task": self.state}

    def _greet(self, answer: dict[str, Any]) -> None:
        self.state |= {"status": "completed", "result": text_result(f"hello {answer['content']['name']}")}

    async def _get(self, context: Any, params: TaskParams) -> dict[str, Any]:
        return {"resultType": "complete", **self.state}

    async def _result(self, context: Any, params: TaskParams) -> dict[str, Any]:
        if self.state["status"] == "cancelled":
            raise MCPError(-32000, "cancelled")
        answer = await context.session.elicit_form(
            "Your name?", {"type": "object", "properties": {"name": {"type": "string"}}}
        )
        self._greet({"content": answer.content})
        return self.state["result"]

    async def _update(self, context: Any, params: TaskParams) -> dict[str, Any]:
        self._greet((params.input_responses or {})["name"])
        return {"resultType": "complete"}

    async def _cancel(self, context: Any, params: TaskParams) -> dict[str, Any]:
        self.state["status"] = "cancelled"
        return {"resultType": "complete", **self.state}


async def name(message: str, response_type: Any, params: Any, context: Any) -> dict[str, str]:
    assert message == "Your name?"
    return {"name": "Ada"}


@MODES
async def test_a_task_that_asks_is_answered_and_gives_its_result(mode: str) -> None:
    worker = Worker()
    with anyio.fail_after(LONG):
        async with Client(MemoryTransport(worker.server), mode=mode, elicitation_handler=name) as client:
            task = await client.call_tool("greet", task=True)
            assert task.task_id == "only"
            assert (await task).content[0].text == "hello Ada"  # type: ignore[union-attr]
            assert (await task.status()).status == "completed"
    assert ("tasks/result" in worker.seen) is (mode == "legacy")
    assert ("tasks/update" in worker.seen) is (mode == "auto")


@MODES
async def test_a_task_is_cancelled(mode: str) -> None:
    worker = Worker()
    with anyio.fail_after(LONG):
        async with Client(MemoryTransport(worker.server), mode=mode) as client:
            task = await client.call_tool("endless", task=True)
            await task.cancel()
            assert (await task.wait()).status == "cancelled"


async def test_a_plain_call_that_became_a_task_is_followed_and_cancelled_when_unwanted() -> None:
    worker = Worker()
    with anyio.fail_after(LONG):
        async with Client(MemoryTransport(worker.server), elicitation_handler=name) as client:
            assert (await client.call_tool("greet")).content[0].text == "hello Ada"  # type: ignore[union-attr]
        worker = Worker()
        async with Client(MemoryTransport(worker.server)) as client:
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("endless", timeout=30)
            with anyio.fail_after(10):
                while worker.state["status"] != "cancelled":
                    await anyio.sleep(0.1)

"""A scripted server with tasks, in either dialect: a test says what becomes of each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
from mcp import MCPError
from mcp.types import INVALID_PARAMS, METHOD_NOT_FOUND

from anyio_mcp.client import Client
from anyio_mcp.testing import PeerRequest, ScriptedPeer

CORE: Literal["core"] = "core"
EXTENSION: Literal["extension"] = "extension"
EXTENSION_ID = "io.modelcontextprotocol/tasks"
LONG = 4 * 3600.0
"""Virtual seconds a test may take."""

Dialect = Literal["core", "extension"]

QUESTION = {
    "method": "elicitation/create",
    "params": {
        "mode": "form",
        "message": "Your name?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}


def text_result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


@dataclass(eq=False)
class FakeTask:
    """One task, and what a test may change of it. `server.push()` tells the client."""

    id: str
    method: str
    params: dict[str, Any]
    status: str = "working"
    message: str | None = None
    interval: Any = 1000
    """Milliseconds between polls, as it goes over the wire."""
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    questions: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    polls: list[float] = field(default_factory=list)
    """When it was asked for."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def change(self, status: str, message: str | None = None) -> None:
        self.status, self.message = status, message
        self.changed.set()
        self.changed = anyio.Event()

    def finish(self, result: dict[str, Any] | None = None) -> None:
        self.result = result or text_result("done")
        self.change("failed" if self.result.get("isError") and self.core else "completed")

    def fail(self, code: int, message: str) -> None:
        self.error = {"code": code, "message": message}
        self.change("failed")

    core: bool = True

    @property
    def is_final(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    def describe(self) -> dict[str, Any]:
        ttl, interval = ("ttl", "pollInterval") if self.core else ("ttlMs", "pollIntervalMs")
        task: dict[str, Any] = {
            "taskId": self.id,
            "status": self.status,
            "createdAt": "2026-07-28T10:00:00Z",
            "lastUpdatedAt": "2026-07-28T10:00:01Z",
            ttl: 60_000,
        }
        if self.interval is not None:
            task[interval] = self.interval
        if self.message is not None:
            task["statusMessage"] = self.message
        return task

    def detail(self) -> dict[str, Any]:
        """The whole state, as the extension tells it."""
        task = self.describe()
        if self.core:
            return task
        if self.status == "completed":
            task["result"] = self.result
        elif self.status == "failed":
            task["error"] = self.error
        elif self.status == "input_required":
            task["inputRequests"] = {k: v for k, v in self.questions.items() if k not in self.answers}
        return task


class TaskServer:
    """Makes a task of every call that may become one."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.core = dialect == CORE
        self.tasks: dict[str, FakeTask] = {}
        self.on_new: Callable[[FakeTask], None] = lambda task: None
        capabilities: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}
        if self.core:
            requests = {"tools": {"call": {}}, "prompts": {"get": {}}, "resources": {"read": {}}}
            capabilities["tasks"] = {"list": {}, "cancel": {}, "requests": requests}
        else:
            capabilities["extensions"] = {EXTENSION_ID: {}}
        self.peer = ScriptedPeer(era="legacy" if self.core else "modern", capabilities=capabilities)
        for method in ("tools/call", "prompts/get", "resources/read"):
            self.peer.on(method, self._create)
        self.peer.on("tasks/get", self._get)
        self.peer.on("tasks/cancel", self._cancel)
        if self.core:
            self.peer.on("tasks/result", self._result)
            self.peer.on("tasks/list", lambda _: {"tasks": [each.describe() for each in self.tasks.values()]})
        else:
            self.peer.on("tasks/update", self._update)

    @property
    def only(self) -> FakeTask:
        (task,) = self.tasks.values()
        return task

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        with anyio.fail_after(LONG):
            async with Client(self.peer.transport, **options) as client:
                yield client

    async def made(self, count: int = 1) -> FakeTask:
        """The newest task, once there are `count`."""
        await self.peer.until(lambda: len(self.tasks) >= count)
        return list(self.tasks.values())[count - 1]

    def push(self, task: FakeTask, method: str | None = None) -> None:
        usual = "notifications/tasks/status" if self.core else "notifications/tasks"
        self.peer.connection.notify(method or usual, task.detail())

    def asked(self, method: str) -> int:
        return len(self.peer.requests_of(method))

    def _wants_task(self, request: PeerRequest) -> bool:
        if self.core:
            return "task" in request.params
        capabilities = request.params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
        return request.method == "tools/call" and EXTENSION_ID in capabilities.get("extensions", {})

    def _create(self, request: PeerRequest) -> dict[str, Any]:
        if not self._wants_task(request):
            return plain_answer(request)
        task = FakeTask(f"task-{len(self.tasks) + 1}", request.method, request.params, core=self.core)
        self.tasks[task.id] = task
        self.on_new(task)
        return {"task": task.describe()} if self.core else {"resultType": "task", **task.describe()}

    def _find(self, request: PeerRequest) -> FakeTask:
        task = self.tasks.get(request.params["taskId"])
        if task is None:
            raise MCPError(INVALID_PARAMS, "Task not found")
        return task

    def _get(self, request: PeerRequest) -> dict[str, Any]:
        task = self._find(request)
        task.polls.append(anyio.current_time())
        return task.detail()

    async def _result(self, request: PeerRequest) -> dict[str, Any]:
        """2025-11-25: waits for the end, and asks on the way what the task wants to know."""
        task = self._find(request)
        while not task.is_final:
            if task.status == "input_required":
                for key, question in task.questions.items():
                    if key not in task.answers:
                        task.answers[key] = None
                        asked = self.peer.ask(question["method"], question["params"])
                        answer = await self.peer.answer_to(asked)
                        task.answers[key] = getattr(answer, "result", None)
                task.change("working")
            else:
                await task.changed.wait()
        if task.error is not None:
            raise MCPError(task.error["code"], task.error["message"])
        return {**(task.result or {}), "_meta": {"io.modelcontextprotocol/related-task": {"taskId": task.id}}}

    def _update(self, request: PeerRequest) -> dict[str, Any]:
        task = self._find(request)
        task.answers.update(request.params["inputResponses"])
        if task.answers.keys() >= task.questions.keys():
            task.change("working")
        return {}

    def _cancel(self, request: PeerRequest) -> dict[str, Any]:
        task = self._find(request)
        if task.is_final:
            if self.core:
                raise MCPError(INVALID_PARAMS, "Cannot cancel a task in a terminal status")
            return {}
        task.change("cancelled")
        return task.describe() if self.core else {}


def plain_answer(request: PeerRequest) -> dict[str, Any]:
    match request.method:
        case "tools/call":
            return text_result("at once")
        case "prompts/get":
            return {"messages": [{"role": "user", "content": {"type": "text", "text": "at once"}}]}
        case "resources/read":
            contents = [{"uri": request.params["uri"], "text": "at once"}]
            caching = {} if "task" in request.params else {"ttlMs": 0, "cacheScope": "private"}
            return {"contents": contents, **caching}
        case _:
            raise MCPError(METHOD_NOT_FOUND, "Method not found")

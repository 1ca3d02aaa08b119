"""Handles of background tasks: `ToolTask`, `PromptTask`, `ResourceTask`.

One API for both dialects of the protocol, and for servers that make no task and answer at once. What a
handle asks, it asks through the public verbs of its client, so it outlives the session it was made in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, final

import anyio.lowlevel
from mcp.types import BlobResourceContents, GetPromptResult, TextResourceContents

from anyio_mcp._session.tasks.records import StatusCallback, TaskRecord
from anyio_mcp._session.tasks.wire import TaskError, TaskSnapshot, TaskStatus
from anyio_mcp.results import CallToolResult
from anyio_mcp.verbs.base import DEFAULT, Timeout

__all__ = [
    "BackgroundTask",
    "PromptTask",
    "ResourceTask",
    "StatusCallback",
    "TaskClient",
    "TaskError",
    "TaskSnapshot",
    "TaskStatus",
    "ToolTask",
]

T = TypeVar("T")


class TaskClient(Protocol):
    """What a handle needs of its client."""

    async def get_task_status(self, task_id: str, *, timeout: Timeout = ...) -> TaskSnapshot: ...

    async def wait_for_task(
        self, task_id: str, *, state: TaskStatus | None = ..., timeout: Timeout = ...
    ) -> TaskSnapshot: ...

    async def cancel_task(self, task_id: str, *, timeout: Timeout = ...) -> None: ...


class BackgroundTask(Generic[T]):
    """Something the server does in the background, or has done already.

    The server does it whether or not anybody waits: cancelling a wait cancels no task, only `cancel()`
    does. What the task asks of the user goes to the client's handlers, while somebody waits in
    `result()` or `wait()`.

    Handles come from `call_tool(..., task=True)` and its like. With the `task_id` any client of the same
    server gets another one (`client.tool_task(task_id)`), also after a restart.
    """

    def __init__(
        self,
        client: TaskClient,
        record: TaskRecord | None,
        fetch: Callable[[Timeout], Awaitable[Callable[[], T]]],
    ) -> None:
        self._client = client
        self._record = record
        """Held here and found by id through a weak reference. None: the server answered at once."""
        self._fetch = fetch
        self._finish: Callable[[], T] | None = None

    def __repr__(self) -> str:
        if self._record is None:
            return f"<{type(self).__name__} answered at once>"
        known = self._record.snapshot
        return f"<{type(self).__name__} {self.task_id!r} {'unknown' if known is None else known.status}>"

    @property
    def task_id(self) -> str:
        """The server's name for the task; empty if it answered at once, so that there is no task."""
        return "" if self._record is None else self._record.task_id

    @property
    def returned_immediately(self) -> bool:
        """Whether the server made no task and answered at once; then nothing below waits."""
        return self._record is None

    async def status(self, *, timeout: Timeout = DEFAULT) -> TaskSnapshot:
        """Ask the server how the task is doing; one that has ended is not asked for again.

        Raises what every call raises, `MCPError` if the server does not know the task (any more).
        """
        if self._record is None:
            return TaskSnapshot(task_id="", status="completed")
        return await self._client.get_task_status(self._record.task_id, timeout=timeout)

    async def wait(self, *, state: TaskStatus | None = None, timeout: Timeout = DEFAULT) -> TaskSnapshot:
        """Wait until the task has ended, or is in `state`.

        `timeout` is in seconds. Without one the client's `Timeouts.call` applies, and every change of
        status or message counts as progress. Waiting for `input_required` leaves the task's questions
        alone; otherwise the handlers answer them.

        Raises `TaskError` if it ends in another state than `state`, `DeadlineExceededError`, what a
        handler's refusal raises, and what every call raises. A cancelled wait leaves the task alone.
        """
        if self._record is None:
            now = await self.status()
            if state in (None, now.status):
                return now
            raise TaskError(f"the server answered at once and will not be {state}", task=now)
        return await self._client.wait_for_task(self._record.task_id, state=state, timeout=timeout)

    async def result(self, *, timeout: Timeout = DEFAULT) -> T:
        """Wait for the result, `await task` for short; as often as you like, it is fetched once.

        `timeout` as in `wait()`. Raises what the call itself would have raised, had it not been a task;
        `TaskError` if the task was cancelled; and what `wait()` raises.
        """
        if self._finish is None:
            self._finish = await self._fetch(timeout)
        return self._finish()

    def __await__(self) -> Generator[Any, Any, T]:
        return self.result().__await__()

    async def cancel(self, *, timeout: Timeout = DEFAULT) -> None:
        """Ask the server to cancel the task; nothing happens if it has ended.

        A server of 2026-07-28 may go on and even finish: `wait()` tells.
        """
        if self._record is not None:
            await self._client.cancel_task(self._record.task_id, timeout=timeout)

    def on_status_change(self, callback: StatusCallback) -> None:
        """Call `callback(snapshot)` whenever a change of status or message becomes known.

        Changes become known by what the server pushes, if it does, and while somebody waits. The
        callback is async, or a plain function, which runs in a worker thread; the next change waits for
        it. What it raises is logged. Nobody is told once the last handle of the task is gone.
        """
        if self._record is not None:
            self._record.add_listener(callback)


def at_once(finish: Callable[[], T]) -> Callable[[Timeout], Awaitable[Callable[[], T]]]:
    """How the handle of what was answered at once gets its result."""

    async def known(timeout: Timeout) -> Callable[[], T]:
        await anyio.lowlevel.checkpoint()
        return finish

    return known


@final
class ToolTask(BackgroundTask[CallToolResult[T]]):
    """A tool that runs in the background. Its result is that of `call_tool`."""


@final
class PromptTask(BackgroundTask[GetPromptResult]):
    """A prompt that is rendered in the background. Its result is that of `get_prompt`."""


@final
class ResourceTask(BackgroundTask[list[TextResourceContents | BlobResourceContents]]):
    """A resource that is read in the background. Its result is that of `read_resource`."""

"""What one client knows of tasks: one record for each task somebody holds a handle of or follows.

Records are found by id, through weak references: when the last handle is gone, what the server pushes
about the task is dropped. Without I/O; who waits for a push waits on an event of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeAlias, final
from weakref import WeakValueDictionary

import anyio

from anyio_mcp._session.errands import Errands
from anyio_mcp._session.tasks.wire import TaskReport, TaskSnapshot
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.handlers.handler import Handler

MAX_STARTED: Final = 1000
"""Tasks a client remembers having started, for `list_tasks()` on servers that list none. When it is full
the oldest is forgotten."""

MAX_QUESTIONS: Final = 1000
"""Questions one task may ask. A server that never stops asking is no better than one that never
answers."""

MAX_TOLD: Final = 32
"""Changes waiting for a slow callback. When it is full the oldest is dropped: the newest tell more."""

StatusCallback: TypeAlias = Callable[[TaskSnapshot], Any]
"""Async, or a plain function, which runs in a worker thread."""


@final
class _Listener:
    """One callback: told of one change after the other, by one errand at a time."""

    def __init__(self, callback: StatusCallback) -> None:
        self._run = Handler("task status", callback)
        self._changes: deque[TaskSnapshot] = deque(maxlen=MAX_TOLD)
        self._busy = False

    def tell(self, snapshot: TaskSnapshot, errands: Errands) -> None:
        self._changes.append(snapshot)
        if not self._busy:
            self._busy = errands.begin(self._work, name=f"status of task {snapshot.task_id[:40]}")

    async def _work(self) -> None:
        try:
            while self._changes:
                try:
                    await self._run(self._changes.popleft())
                except Exception as error:
                    self._run.log(error)
        finally:
            self._busy = False


@final
class TaskRecord:
    """What is known of one task, and who wants to be told of changes."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.snapshot: TaskSnapshot | None = None
        self.input_requests: dict[str, Any] | None = None
        """Questions that came with the state; they are answered once, whoever follows the task."""
        self.result: dict[str, Any] | None = None
        """The raw result, once it is here; then the task is over for good."""
        self.error: Exception | None = None
        """Why there is no result; then the task is over for good."""
        self.changes = 0
        """How often status or message have changed. What counts as progress."""
        self.pushes = 0
        """How often the server has told of the task unasked."""
        self._answered: set[str] = set()
        self._listeners: list[_Listener] = []
        self._waiting: set[anyio.Event] = set()

    @property
    def is_over(self) -> bool:
        """Whether nothing about the task can change any more."""
        return self.snapshot is not None and self.snapshot.is_final

    def add_listener(self, callback: StatusCallback) -> None:
        """Call `callback` with every change that becomes known from now on."""
        self._listeners.append(_Listener(callback))

    def apply(self, report: TaskReport, errands: Errands) -> None:
        """The server has said this. A task that has ended stays as it is, whatever arrives late."""
        if self.is_over:
            return
        before, now = self.snapshot, report.snapshot
        self.snapshot = now
        self.input_requests = report.input_requests
        self.result = report.result
        self.error = report.error
        if before is None or (before.status, before.status_message) == (now.status, now.status_message):
            return
        self.changes += 1
        for listener in self._listeners:
            listener.tell(now, errands)

    def push(self, report: TaskReport, errands: Errands) -> None:
        """The server has said this unasked: whoever waits looks again."""
        self.apply(report, errands)
        self.pushes += 1
        self.nudge()

    def nudge(self) -> None:
        """Something may have changed: whoever waits asks now."""
        for event in self._waiting:
            event.set()

    async def next_push(self) -> None:
        """Wait for a push or a nudge. The caller bounds the wait."""
        event = anyio.Event()
        self._waiting.add(event)
        try:
            await event.wait()
        finally:
            self._waiting.discard(event)

    def settle(self, result: dict[str, Any], errands: Errands) -> None:
        """The result came by itself, so the task has ended, whatever was known of it."""
        self.result = result
        if self.snapshot is not None and not self.snapshot.is_final:
            # As the specification has it: a tool that failed is a failed task (2025-11-25).
            status = "failed" if result.get("isError") is True else "completed"
            self.apply(TaskReport(snapshot=replace(self.snapshot, status=status), result=result), errands)

    def claim(self, keys: set[str]) -> set[str]:
        """The questions among `keys` that are nobody's yet; they are the caller's now.

        Raises `RequestFailedError` (`violation`) when the task has asked too much.
        """
        new = keys - self._answered
        if len(self._answered) + len(new) > MAX_QUESTIONS:
            raise RequestFailedError(
                f"the task has asked more than {MAX_QUESTIONS} questions", reason="violation"
            )
        self._answered |= new
        return new

    def disclaim(self, keys: set[str]) -> None:
        """They were not answered after all; whoever follows the task next may try."""
        self._answered -= keys


@final
class TaskRegistry:
    """The tasks of one client, over all its sessions."""

    def __init__(self) -> None:
        self._records: WeakValueDictionary[str, TaskRecord] = WeakValueDictionary()
        self._started: dict[str, None] = {}

    @property
    def started(self) -> list[str]:
        """Ids of the tasks this client has started, oldest first."""
        return list(self._started)

    def record(self, task_id: str) -> TaskRecord:
        """The record of a task, shared by all who hold one."""
        record = self._records.get(task_id)
        if record is None:
            record = self._records[task_id] = TaskRecord(task_id)
        return record

    def find(self, task_id: str) -> TaskRecord | None:
        """The record of a task, if somebody holds one."""
        return self._records.get(task_id)

    def start(self, snapshot: TaskSnapshot) -> TaskRecord:
        """The record of a task that the server has just made."""
        self._started[snapshot.task_id] = None
        if len(self._started) > MAX_STARTED:
            self.forget(next(iter(self._started)))
        record = self.record(snapshot.task_id)
        # One that has ended already says nothing here of how; it is asked for.
        if record.snapshot is None and not snapshot.is_final:
            record.snapshot = snapshot
        return record

    def forget(self, task_id: str) -> None:
        """The server does not know this task any more."""
        self._started.pop(task_id, None)

"""Operations on tasks by id, whoever has started them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

from mcp import MCPError
from mcp.types import (
    METHOD_NOT_FOUND,
    ClientRequest,
    InputRequiredResult,
    InputResponses,
    PaginatedRequestParams,
    PaginatedResult,
)
from pydantic import BaseModel, TypeAdapter

from anyio_mcp._session.catalog import MAX_PAGES, all_pages
from anyio_mcp._session.rounds import finish_rounds
from anyio_mcp._session.tasks import driver
from anyio_mcp._session.tasks.dialects import dialect_of
from anyio_mcp._session.tasks.records import TaskRecord, TaskRegistry
from anyio_mcp._session.tasks.starting import TaskWish, send_or_start
from anyio_mcp._session.tasks.wire import TaskSnapshot, TaskStatus, read_snapshot
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp._text import get_logger
from anyio_mcp.config import duration
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout

logger = get_logger(__name__)

_T = TypeVar("_T")
_Model = TypeVar("_Model", bound=BaseModel)

_UNKNOWN_TASK: Final = -32602
"""JSON-RPC "invalid params", which is how servers refuse an id they do not know, in both dialects."""


class _Page(PaginatedResult):
    """A page of tasks; each one is read by `wire`, which forgives what servers leave out."""

    tasks: list[Any]


class TaskVerbs(Operations):
    """Verbs of `tasks/*`, and the base of the verbs that can start a task."""

    _tasks: TaskRegistry

    async def get_task_status(self, task_id: str, *, timeout: Timeout = DEFAULT) -> TaskSnapshot:
        """Ask the server how a task is doing. Raises `MCPError` if it does not know the task."""
        record = self._tasks.record(task_id)
        return await self._operate(
            "tasks/get",
            lambda session, _: driver.ask_status(session, record),
            timeout=timeout,
            replay=True,
        )

    async def wait_for_task(
        self, task_id: str, *, state: TaskStatus | None = None, timeout: Timeout = DEFAULT
    ) -> TaskSnapshot:
        """Wait until a task has ended, or is in `state`: see `BackgroundTask.wait`."""
        record = self._tasks.record(task_id)
        return await self._operate(
            "tasks/get",
            lambda session, deadline: driver.wait_for_state(session, record, deadline, state),
            timeout=timeout,
            replay=True,
        )

    async def get_task_result(self, task_id: str, *, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """Wait for a task's result, as the JSON the server sent: its shape depends on what the task is of.

        `tool_task`, `prompt_task` and `resource_task` give it as Python values.
        """

        async def present(
            raw: dict[str, Any], session: TypedSession, deadline: CallDeadline
        ) -> dict[str, Any]:
            return raw

        return await self._result_of(self._tasks.record(task_id), present, timeout)

    async def cancel_task(self, task_id: str, *, timeout: Timeout = DEFAULT) -> None:
        """Ask the server to cancel a task: see `BackgroundTask.cancel`."""
        record = self._tasks.record(task_id)
        await self._operate(
            "tasks/cancel", lambda session, _: driver.cancel(session, record), timeout=timeout, replay=True
        )

    async def list_tasks(
        self, max_pages: int = MAX_PAGES, *, timeout: Timeout = DEFAULT
    ) -> list[TaskSnapshot]:
        """The server's tasks for this client.

        On a server that lists none (2026-07-28 has no such list) those which this client has started and
        the server still knows, each of them asked for.
        """

        async def act(session: TypedSession, deadline: CallDeadline) -> list[TaskSnapshot]:
            listed = await _listed(session, max_pages)
            return listed or await self._started(session)

        return await self._operate("tasks/list", act, timeout=timeout, replay=True)

    async def _started(self, session: TypedSession) -> list[TaskSnapshot]:
        found: list[TaskSnapshot] = []
        for task_id in self._tasks.started:
            try:
                found.append(await driver.ask_status(session, self._tasks.record(task_id)))
            except MCPError as error:
                if error.code != _UNKNOWN_TASK:
                    raise
                self._tasks.forget(task_id)
        return found

    async def _start(
        self,
        build: Callable[[InputResponses | None, str | None], ClientRequest],
        answer: TypeAdapter[_Model | InputRequiredResult],
        wish: TaskWish,
        *,
        timeout: Timeout,
        target: str,
    ) -> TaskRecord | _Model:
        """Ask for a task. The record of it, or the result of a server that gives it at once."""
        first = build(None, None)

        async def act(session: TypedSession, deadline: CallDeadline) -> TaskSnapshot | _Model:
            async def send(request: ClientRequest) -> TaskSnapshot | _Model | InputRequiredResult:
                return await send_or_start(
                    session, request, answer, wish=wish, name=target, deadline=deadline
                )

            return await finish_rounds(
                await send(first),
                lambda answers, state: send(build(answers, state)),
                session=session,
                failure=session.failure,
                deadline=deadline,
                max_rounds=session.max_rounds,
            )

        outcome = await self._operate(first.method, act, timeout=timeout, target=target)
        return self._tasks.start(outcome) if isinstance(outcome, TaskSnapshot) else outcome

    async def _result_of(
        self,
        record: TaskRecord,
        present: Callable[[dict[str, Any], TypedSession, CallDeadline], Awaitable[_T]],
        timeout: Timeout,
    ) -> _T:
        """Wait for a task's raw result and make something of it, under one deadline."""

        async def act(session: TypedSession, deadline: CallDeadline) -> _T:
            return await present(await driver.wait_for_result(session, record, deadline), session, deadline)

        return await self._operate("tasks/result", act, timeout=timeout, replay=True)


async def _listed(session: TypedSession, max_pages: int) -> list[TaskSnapshot]:
    """What the server lists; nothing if it does not."""
    ask = dialect_of(session.protocol_version).list
    if ask is None:
        return []

    async def fetch(params: PaginatedRequestParams | None) -> _Page:
        return await session.send_request(ask(None if params is None else params.cursor), _Page)

    try:
        pages = await all_pages(fetch, max_pages=max_pages)
    except MCPError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        return []
    listed = [task for page in pages for task in page.tasks]
    found = [task for task in map(_known, listed) if task is not None]
    if len(found) < len(listed):
        logger.warning(
            "the answer to 'tasks/list' breaks the protocol; %d tasks of it are left out",
            len(listed) - len(found),
        )
    return found


def _known(raw: object) -> TaskSnapshot | None:
    """A task of a list; None for one that nothing can be asked of."""
    try:
        return read_snapshot(raw)
    except RequestFailedError:
        return None


def task_wish(ttl: float | timedelta | None) -> TaskWish:
    """What a caller asks for with `task=True, ttl=`. Raises `TypeError` and `ValueError`."""
    return TaskWish(None if ttl is None else duration("ttl", ttl))

"""The two ways to speak of tasks: in the core of 2025-11-25, and as the extension of 2026-07-28.

Requests out, records in, not a single await. Which dialect is spoken follows from the session's
protocol version and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, final

from mcp.types import (
    CancelTaskRequest,
    CancelTaskRequestParams,
    GetTaskPayloadRequest,
    GetTaskPayloadRequestParams,
    GetTaskRequest,
    GetTaskRequestParams,
    InputResponses,
    ListTasksRequest,
    PaginatedRequestParams,
    Request,
    RequestParams,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel

from anyio_mcp._session.tasks.wire import TaskReport, bare_report, read_report, read_snapshot

EXTENSION: Final = "io.modelcontextprotocol/tasks"


class RawResult(RootModel[dict[str, Any]]):
    """A result as it came: task results have the shape of whatever was made a task."""


class Dialect(Protocol):
    """One way to speak of tasks."""

    def get(self, task_id: str) -> Request[Any, Any]:
        """Ask for the state."""
        ...

    def report(self, raw: dict[str, Any], task_id: str) -> TaskReport:
        """The state in the answer; `RequestFailedError` (`violation`) if it is none."""
        ...

    @property
    def result(self) -> Callable[[str], Request[Any, Any]] | None:
        """Ask for the result of this task; the server waits for its end. None: it comes with the state."""
        ...

    @property
    def update(self) -> Callable[[str, InputResponses], Request[Any, Any]] | None:
        """Answer what the state of this task asks. None: questions come as requests of the server, while
        it is asked for the result."""
        ...

    def cancel(self, task_id: str) -> Request[Any, Any]:
        """Ask for the task to be cancelled."""
        ...

    def cancelled(self, raw: dict[str, Any], task_id: str) -> TaskReport | None:
        """The state in the answer to that, if one is."""
        ...

    @property
    def list(self) -> Callable[[str | None], Request[Any, Any]] | None:
        """Ask for the page of tasks at this cursor. None: there is no such question."""
        ...


@final
class CoreDialect(Dialect):
    """2025-11-25: the client asks for tasks and fetches results."""

    def get(self, task_id: str) -> Request[Any, Any]:
        return GetTaskRequest(params=GetTaskRequestParams(task_id=task_id))

    def report(self, raw: dict[str, Any], task_id: str) -> TaskReport:
        return bare_report(read_snapshot(raw, task_id=task_id))

    @property
    def result(self) -> Callable[[str], Request[Any, Any]] | None:
        return lambda task_id: GetTaskPayloadRequest(params=GetTaskPayloadRequestParams(task_id=task_id))

    @property
    def update(self) -> None:
        return None

    def cancel(self, task_id: str) -> Request[Any, Any]:
        return CancelTaskRequest(params=CancelTaskRequestParams(task_id=task_id))

    def cancelled(self, raw: dict[str, Any], task_id: str) -> TaskReport | None:
        return self.report(raw, task_id)

    @property
    def list(self) -> Callable[[str | None], Request[Any, Any]] | None:
        return lambda cursor: ListTasksRequest(params=PaginatedRequestParams(cursor=cursor))


# The extension wants `Mcp-Name` on every request that names a task, so that what sits between can route
# it to the instance that has the task; the core dialect knows no such header.


class _Get(GetTaskRequest):
    name_param = "taskId"


class _Cancel(CancelTaskRequest):
    name_param = "taskId"


class _UpdateParams(RequestParams):
    task_id: str
    input_responses: InputResponses


class _Update(Request[_UpdateParams, Literal["tasks/update"]]):
    name_param = "taskId"
    method: Literal["tasks/update"] = "tasks/update"
    params: _UpdateParams


@final
class ExtensionDialect(Dialect):
    """2026-07-28: the server makes tasks, and their state tells everything."""

    def get(self, task_id: str) -> Request[Any, Any]:
        return _Get(params=GetTaskRequestParams(task_id=task_id))

    def report(self, raw: dict[str, Any], task_id: str) -> TaskReport:
        return read_report(raw, task_id=task_id)

    @property
    def result(self) -> None:
        return None

    @property
    def update(self) -> Callable[[str, InputResponses], Request[Any, Any]] | None:
        return lambda task_id, answers: _Update(
            params=_UpdateParams(task_id=task_id, input_responses=answers)
        )

    def cancel(self, task_id: str) -> Request[Any, Any]:
        return _Cancel(params=CancelTaskRequestParams(task_id=task_id))

    def cancelled(self, raw: dict[str, Any], task_id: str) -> TaskReport | None:
        return None

    @property
    def list(self) -> None:
        return None


_CORE: Final = CoreDialect()
_EXTENSION: Final = ExtensionDialect()


def dialect_of(protocol_version: str | None) -> Dialect:
    """The dialect of a session's protocol version."""
    return _EXTENSION if protocol_version in MODERN_PROTOCOL_VERSIONS else _CORE

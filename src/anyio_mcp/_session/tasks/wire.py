"""What servers say of a task, in either dialect and in the form of older FastMCP servers.

Plain functions from JSON to records. What names no task, or a status that does not exist, is a
violation; everything else a server leaves out or garbles is taken as not said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, final, get_args

from mcp.types import ErrorData
from pydantic import ValidationError

from anyio_mcp.errors import MCPClientError, MCPError, RequestFailedError

TaskStatus: TypeAlias = Literal["working", "input_required", "completed", "failed", "cancelled"]

STATUSES: Final = frozenset[str](get_args(TaskStatus))
FINAL: Final = frozenset[str]({"completed", "failed", "cancelled"})

LEGACY_META: Final = "modelcontextprotocol.io/task"
"""Where FastMCP servers before the final specification of 2025-11-25 put the task they have made."""

MAX_ID_LENGTH: Final = 4096
"""Characters of a task's id. It is repeated in every request, over HTTP in a header."""

_MILLISECOND: Final = 0.001


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSnapshot:
    """What the server last said of a task. Durations are in seconds.

    `ttl` is how long after `created_at` the server keeps the task, None for ever or unknown;
    `poll_interval` how often it wants to be asked, None if it does not say. The times are ISO 8601 text,
    as the server sent them.
    """

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    created_at: str | None = None
    last_updated_at: str | None = None
    ttl: float | None = None
    poll_interval: float | None = None

    @property
    def is_final(self) -> bool:
        """Whether the task has ended: `completed`, `failed` or `cancelled`, and nothing else any more."""
        return self.status in FINAL


@final
class TaskError(MCPClientError):
    """A task ended without a result: it was cancelled, it failed and the server does not say how, or it
    ended in another state than the one waited for. `task` is the server's last word."""

    task: TaskSnapshot

    def __init__(self, message: str, *, task: TaskSnapshot) -> None:
        super().__init__(message)
        self.task = task


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """A snapshot, and what came with it (2026-07-28)."""

    snapshot: TaskSnapshot
    result: dict[str, Any] | None = None
    """The raw result, if it is known."""
    error: Exception | None = None
    """Why there is no result, if there is none and that is known."""
    input_requests: dict[str, Any] | None = None
    """What the task asks for."""


def read_snapshot(raw: object, *, task_id: str | None = None) -> TaskSnapshot:
    """The task that `raw` describes. `task_id` is whose description it must be, if that is known.

    Raises `RequestFailedError` (`violation`).
    """
    if not isinstance(raw, Mapping):
        raise _violation("is not an object")
    task = cast("Mapping[str, Any]", raw)
    found, status = task.get("taskId"), task.get("status")
    if not isinstance(found, str) or not 0 < len(found) <= MAX_ID_LENGTH:
        raise _violation("has no usable taskId")
    if task_id is not None and found != task_id:
        raise _violation(f"is of {found[:100]!r}, not of {task_id[:100]!r}")
    if not isinstance(status, str) or status not in STATUSES:
        raise _violation(f"has no known status: {str(status)[:100]!r}")
    return TaskSnapshot(
        task_id=found,
        status=cast("TaskStatus", status),
        status_message=_text(task.get("statusMessage")),
        created_at=_text(task.get("createdAt")),
        last_updated_at=_text(task.get("lastUpdatedAt")),
        ttl=_seconds(task.get("ttlMs", task.get("ttl"))),
        poll_interval=_seconds(task.get("pollIntervalMs", task.get("pollInterval"))),
    )


def read_report(raw: object, *, task_id: str | None = None) -> TaskReport:
    """A snapshot with the result, error or questions beside it, which must fit its status.

    Raises `RequestFailedError` (`violation`).
    """
    snapshot = read_snapshot(raw, task_id=task_id)
    task = cast("Mapping[str, Any]", raw)
    match snapshot.status:
        case "completed":
            return TaskReport(snapshot=snapshot, result=_object(task, "result"))
        case "failed":
            return TaskReport(snapshot=snapshot, error=_failure(snapshot, task.get("error")))
        case "input_required":
            return TaskReport(snapshot=snapshot, input_requests=_object(task, "inputRequests"))
        case _:
            return bare_report(snapshot)


def bare_report(snapshot: TaskSnapshot) -> TaskReport:
    """A snapshot that nothing came with."""
    if snapshot.status != "cancelled":
        return TaskReport(snapshot=snapshot)
    text = f"the task {snapshot.task_id[:100]!r} was cancelled"
    return TaskReport(snapshot=snapshot, error=TaskError(text, task=snapshot))


def failure_of(snapshot: TaskSnapshot) -> TaskError:
    """The error of a task that has failed, of which the server does not say how."""
    why = snapshot.status_message or "the server does not say why"
    return TaskError(f"the task {snapshot.task_id[:100]!r} failed: {why[:500]}", task=snapshot)


def read_created(raw: Mapping[str, Any]) -> TaskSnapshot | None:
    """The task in the answer to a request that asked for one (2025-11-25); None if it is a plain result.

    Raises `RequestFailedError` (`violation`) for a task that is none.
    """
    if "task" in raw:
        return read_snapshot(raw["task"])
    meta: object = raw.get("_meta")
    if isinstance(meta, Mapping) and LEGACY_META in meta:
        return read_snapshot(cast("Mapping[str, Any]", meta)[LEGACY_META])
    return None


def _object(task: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = task.get(key)
    if not isinstance(value, dict):
        raise _violation(f"is {task['status']} and has no {key}")
    return cast("dict[str, Any]", value)


def _failure(snapshot: TaskSnapshot, raw: object) -> Exception:
    """The server's JSON-RPC error, as the plain call would have raised it."""
    try:
        return MCPError.from_error_data(ErrorData.model_validate(raw))
    except ValidationError:
        return failure_of(snapshot)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    """Milliseconds as seconds; None for what is no duration."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value) * _MILLISECOND
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _violation(what: str) -> RequestFailedError:
    return RequestFailedError(f"the server's description of a task {what}", reason="violation")

"""Sending a request that may become a task, and telling a task from a plain answer.

Before 2026-07-28 the client asks for a task; a server that makes none, or cannot, answers at once.
Since then the server decides, whether or not anybody asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, final

from mcp import MCPError
from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types import METHOD_NOT_FOUND, Request, Result, Tool
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, ConfigDict, TypeAdapter

from anyio_mcp._sendable import check_sendable
from anyio_mcp._session.reading import read_result
from anyio_mcp._session.tasks.wire import TaskSnapshot, read_created, read_snapshot
from anyio_mcp._session.watchdog import CallDeadline

if TYPE_CHECKING:
    from anyio_mcp._session.typed import TypedSession

_Model = TypeVar("_Model", bound=BaseModel)


class CreatedTask(Result):
    """`resultType: "task"`, the answer of a server that has made a task of a call (2026-07-28).

    Only the tag is checked here; the rest is `read_snapshot`'s.
    """

    model_config = ConfigDict(extra="allow")

    result_type: Literal["task"]

    def snapshot(self) -> TaskSnapshot:
        """The task. Raises `RequestFailedError` (`violation`) if there is none."""
        return read_snapshot(self.model_extra)


@final
@dataclass(frozen=True, slots=True)
class TaskWish:
    """The caller wants a task. `ttl` is how many seconds the server shall keep it; None: as it likes."""

    ttl: float | None = None


async def send_or_start(
    session: TypedSession,
    request: Request[Any, Any],
    answer: TypeAdapter[_Model],
    *,
    wish: TaskWish | None,
    name: str,
    deadline: CallDeadline,
    on_progress: ProgressFnT | None = None,
) -> _Model | TaskSnapshot:
    """Send `request`; with a `wish`, ask for a task, if this era lets a client ask and the server takes it.

    A tool that is known to run as a task only is asked for one in any case, as the client must.
    `name` is what the request is about. Returns the task, or the answer of a server that gives it at
    once; in the modern era the answer itself may be a `CreatedTask`.
    """
    if session.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return await session.send_request(request, answer, progress_callback=on_progress)
    if wish is None and _is_task_only(session, request, name):
        wish = TaskWish()
    if wish is not None and await _takes_tasks(session, request, name, deadline):
        try:
            return await _send_augmented(session, request, answer, wish, on_progress)
        except MCPError as error:
            # How a server refuses to make a task of something it can do at once: it has run nothing. Where
            # it offers to make tasks of this tool, the error is the tool's own, and the tool has run.
            if error.code != METHOD_NOT_FOUND or _offers_tasks(session, request, name):
                raise
    return await session.send_request(request, answer, progress_callback=on_progress)


async def _send_augmented(
    session: TypedSession,
    request: Request[Any, Any],
    answer: TypeAdapter[_Model],
    wish: TaskWish,
    on_progress: ProgressFnT | None,
) -> _Model | TaskSnapshot:
    """`session.send_request` would refuse the answer: it knows the plain results of this era only."""
    check_sendable(request.params, request.method)
    data = request.model_dump(by_alias=True, mode="json", exclude_none=True)
    params = {**data["params"], "task": {} if wish.ttl is None else {"ttl": round(wish.ttl * 1000)}}
    options: CallOptions = {"headers": {MCP_PROTOCOL_VERSION_HEADER: session.protocol_version or ""}}
    if on_progress is not None:
        options["on_progress"] = on_progress
    raw = await session.dispatcher.send_raw_request(data["method"], params, options)
    return read_created(raw) or await read_result(data["method"], raw, answer)


def _is_task_only(session: TypedSession, request: Request[Any, Any], name: str) -> bool:
    tool = session.catalog.known(name) if request.method == "tools/call" else None
    return tool is not None and tool.execution is not None and tool.execution.task_support == "required"


def _offers_tasks(session: TypedSession, request: Request[Any, Any], name: str) -> bool:
    tool = session.catalog.known(name) if request.method == "tools/call" else None
    return tool is not None and _supports_tasks(tool)


def _supports_tasks(tool: Tool) -> bool:
    return tool.execution is not None and tool.execution.task_support in ("optional", "required")


async def _takes_tasks(
    session: TypedSession, request: Request[Any, Any], name: str, deadline: CallDeadline
) -> bool:
    """Whether the server lets a client ask it to make a task of this request (2025-11-25).

    The specification knows tools only. FastMCP makes tasks of prompts and resources as well; a server
    that does not ignores the wish, as it must.
    """
    capabilities = session.server_capabilities
    if capabilities is None:
        return False
    if capabilities.tasks is None:
        # Where FastMCP servers before the final specification declared it.
        return "tasks" in (capabilities.experimental or {})
    requests = capabilities.tasks.requests
    if requests is None:
        return False
    if request.method != "tools/call":
        return True
    if requests.tools is None or requests.tools.call is None:
        return False
    # A client must not even ask for what the listing does not offer: servers refuse it in ways that
    # cannot be told from a failure of the tool.
    tool = await session.catalog.find(name, deadline)
    return tool is None or _supports_tasks(tool)

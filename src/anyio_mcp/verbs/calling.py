"""Sending one tool call and seeing it through to its answer, and what a caller makes of the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn, TypeAlias, cast

from mcp import MCPError
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import (
    HEADER_MISMATCH,
    CallToolRequest,
    CallToolRequestParams,
    InputResponses,
    RequestParamsMeta,
)
from mcp.types import CallToolResult as RawToolResult
from mcp.types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel

from anyio_mcp._session.catalog import list_all_tools
from anyio_mcp._session.reading import read_result
from anyio_mcp._session.rounds import finish_rounds
from anyio_mcp._session.tasks.starting import CreatedTask, TaskWish, send_or_start
from anyio_mcp._session.tasks.wire import TaskSnapshot
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.errors import ToolError, fresh
from anyio_mcp.results import CallToolResult, ResultSchemaError, error_text

Call: TypeAlias = Callable[[TypedSession, CallDeadline], Awaitable[RawToolResult | TaskSnapshot]]
Presented: TypeAlias = Callable[[], CallToolResult[Any]]
"""Returns or raises what a call amounts to, as often as it is asked."""


def tool_call(
    name: str,
    arguments: dict[str, Any] | None,
    *,
    meta: dict[str, Any] | None,
    on_progress: ProgressFnT | None,
    wish: TaskWish | None = None,
) -> Call:
    """What sends the call, repeats it where the protocol wants that, and returns the answer.

    The answer may be a task: with a `wish`, and in the modern era without one.
    """

    def build(answers: InputResponses | None, state: str | None) -> CallToolRequest:
        params = CallToolRequestParams(
            name=name,
            arguments=arguments,
            input_responses=answers,
            request_state=state,
            _meta=cast("RequestParamsMeta | None", meta),
        )
        return CallToolRequest(params=params)

    first_request = build(None, None)

    async def call(session: TypedSession, deadline: CallDeadline) -> RawToolResult | TaskSnapshot:
        async def send(request: CallToolRequest) -> BaseModel | TaskSnapshot:
            ask = partial(
                send_or_start,
                session,
                request,
                session.tool_answers,
                wish=wish,
                name=name,
                deadline=deadline,
                on_progress=on_progress,
            )
            try:
                answer = await ask()
            except MCPError as error:
                if not _refused_for_headers(session, error):
                    raise
                # The server wants arguments repeated in headers that only the tool's schema names; it
                # has refused before running anything (2026-07-28, HTTP headers).
                session.catalog.learn(await list_all_tools(session.tools_page("refresh")))
                answer = await ask()
            return answer.snapshot() if isinstance(answer, CreatedTask) else answer

        answer = await finish_rounds(
            await send(first_request),
            lambda answers, state: send(build(answers, state)),
            session=session,
            failure=session.failure,
            deadline=deadline,
            max_rounds=session.max_rounds,
        )
        if isinstance(answer, TaskSnapshot):
            return answer
        return await session.extensions.finish(
            answer, session=session, name=name, failure=session.failure, deadline=deadline
        )

    return call


def pins_a_version(meta: Mapping[str, Any] | None, arguments: Mapping[str, Any] | None) -> bool:
    """Whether a call asks for a version of its tool, of which the server lists the schema of another.

    As FastMCP has it (https://gofastmcp.com/servers/versioning): `version` in an object of `_meta`, which
    may be among the arguments.
    """
    hints = [*(meta or {}).values(), *_members((arguments or {}).get("_meta"))]
    return any(isinstance(hint, Mapping) and "version" in hint for hint in hints)


def _members(value: object) -> Iterable[object]:
    return cast("Mapping[str, object]", value).values() if isinstance(value, Mapping) else ()


def _refused_for_headers(session: TypedSession, error: MCPError) -> bool:
    """Whether the server has looked at no more than the headers: it says so by status 400. With any other,
    and where there are no headers, the error is a tool's own, and the tool has run."""
    status = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    modern = session.protocol_version in MODERN_PROTOCOL_VERSIONS
    return error.code == HEADER_MISMATCH and modern and status == HTTPStatus.BAD_REQUEST


def present(raw: RawToolResult, result: CallToolResult[Any], *, raise_on_error: bool) -> CallToolResult[Any]:
    """The public result of a call, or its public error."""
    if raw.is_error and raise_on_error:
        raise ToolError(error_text(raw), result=result)
    return result


def refuse(error: ResultSchemaError) -> NoReturn:
    """The public error of a call whose answer does not fit its schema."""
    raise fresh(error)


async def task_result(raw: dict[str, Any]) -> RawToolResult:
    """The answer that came as the result of a task."""
    return await read_result("tools/call", raw, RawToolResult)

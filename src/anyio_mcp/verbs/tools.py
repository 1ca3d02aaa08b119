"""Operations on tools: listing them, calling one, and making sense of what it answers."""

from __future__ import annotations

import logging
from typing import Any, Final, TypeVar, cast, overload

import anyio
from mcp import MCPError
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import (
    HEADER_MISMATCH,
    CallToolRequest,
    CallToolRequestParams,
    InputRequiredResult,
    InputResponses,
    ListToolsResult,
    RequestParamsMeta,
    Tool,
)
from mcp.types import CallToolResult as RawToolResult
from pydantic import TypeAdapter

from anyio_mcp._session.catalog import MAX_PAGES, list_all_tools
from anyio_mcp._session.rounds import finish_rounds
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.errors import ToolError
from anyio_mcp.handlers import ProgressHandler, progress_callback
from anyio_mcp.results import CallToolResult, ResultSchemaError, error_text, tool_result
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout, page

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_RESULT: Final = TypeAdapter[RawToolResult | InputRequiredResult](RawToolResult | InputRequiredResult)

_LISTING_PATIENCE: Final = 30.0
"""Seconds the list of tools may take when a result that is here already waits for its schema."""


class ToolVerbs(Operations):
    """Verbs of `tools/*`."""

    _progress_handler: ProgressHandler | None

    async def list_tools(self, max_pages: int = MAX_PAGES, *, timeout: Timeout = DEFAULT) -> list[Tool]:
        """Every tool, from all pages; `RequestFailedError` if the pages never end."""

        async def act(session: TypedSession, deadline: CallDeadline) -> list[Tool]:
            tools = await list_all_tools(session, max_pages=max_pages)
            session.catalog.learn(tools)
            return tools

        return await self._operate("tools/list", act, timeout=timeout, replay=True)

    async def list_tools_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT
    ) -> ListToolsResult:
        """One page of tools, as the protocol's own result."""
        return await self._operate(
            "tools/list",
            lambda session, _: session.list_tools(params=page(cursor)),
            timeout=timeout,
            replay=True,
        )

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        progress_handler: ProgressHandler | None = ...,
        raise_on_error: bool = ...,
        meta: dict[str, Any] | None = ...,
        result_type: type[_T],
    ) -> CallToolResult[_T]: ...

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        progress_handler: ProgressHandler | None = ...,
        raise_on_error: bool = ...,
        meta: dict[str, Any] | None = ...,
        result_type: None = ...,
    ) -> CallToolResult[Any]: ...

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        progress_handler: ProgressHandler | None = None,
        raise_on_error: bool = True,
        meta: dict[str, Any] | None = None,
        result_type: type[Any] | None = None,
    ) -> CallToolResult[Any]:
        """Call a tool and wait for its result.

        `timeout` is in seconds and covers everything, the progress handler included; without one the
        client's `Timeouts.call` applies, which progress extends. `result_type` is what `data` shall
        be: a pydantic model, a dataclass, any type pydantic can validate; without it `data` follows
        the tool's output schema.

        Raises `ToolError` when the tool answers with an error, unless `raise_on_error=False`;
        `ResultSchemaError` when its structured content does not fit the schema or `result_type` (the
        tool has run; the error carries its result); `MCPError` for the server's own errors;
        `RequestFailedError` or `HTTPStatusError` when only this call failed; `DeadlineExceededError`;
        `SessionLostError` when the session ended meanwhile.

        A cancelled call returns at once. The request may have been sent: the server is told that
        nobody waits, and a late answer is dropped.
        """
        raw, tool = await self._call(
            name, arguments, timeout=timeout, progress_handler=progress_handler, meta=meta, typed=True
        )
        if raw.is_error and raise_on_error:
            raise ToolError(error_text(raw), result=tool_result(raw, output_schema=None))
        schema = None if tool is None else tool.output_schema
        return tool_result(raw, output_schema=schema, result_type=None if raw.is_error else result_type)

    async def call_tool_mcp(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        progress_handler: ProgressHandler | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> RawToolResult:
        """`call_tool`, as the protocol's own result: no `ToolError`, no check against the schema."""
        raw, _ = await self._call(
            name, arguments, timeout=timeout, progress_handler=progress_handler, meta=meta, typed=False
        )
        return raw

    async def _call(
        self,
        name: str,
        arguments: dict[str, Any] | None,
        *,
        timeout: Timeout,
        progress_handler: ProgressHandler | None,
        meta: dict[str, Any] | None,
        typed: bool,
    ) -> tuple[RawToolResult, Tool | None]:
        handler = progress_handler or self._progress_handler
        on_progress: ProgressFnT | None = None if handler is None else progress_callback(handler)

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

        async def act(session: TypedSession, deadline: CallDeadline) -> tuple[RawToolResult, Tool | None]:
            async def send(request: CallToolRequest) -> RawToolResult | InputRequiredResult:
                try:
                    return await session.send_request(request, _RESULT, progress_callback=on_progress)
                except MCPError as error:
                    if error.code != HEADER_MISMATCH:
                        raise
                # The server wants arguments repeated in headers that only the tool's schema names;
                # it has refused before running anything (2026-07-28, HTTP headers).
                session.catalog.learn(await list_all_tools(session))
                return await session.send_request(request, _RESULT, progress_callback=on_progress)

            raw = await finish_rounds(
                await send(first_request),
                lambda answers, state: send(build(answers, state)),
                session=session,
                failure=session.failure,
                deadline=deadline,
            )
            tool = await self._checked(session, name, raw, deadline) if typed and not raw.is_error else None
            return raw, tool

        return await self._operate("tools/call", act, timeout=timeout, target=name)

    async def _checked(
        self, session: TypedSession, name: str, raw: RawToolResult, deadline: CallDeadline
    ) -> Tool | None:
        """The tool, once `raw` conforms to its output schema; None when its schema is not to be had."""
        catalog = session.catalog
        tool = catalog.known(name)
        if tool is None and raw.structured_content is not None:
            try:
                # The tool has run. No failure to list may cost the caller its result, and neither may
                # a listing that takes for ever.
                with anyio.move_on_after(min(_LISTING_PATIENCE, deadline.remaining() / 2)):
                    tool = await catalog.find(name, deadline)
            except Exception as error:
                logger.warning("the result of %r is unchecked, its tool could not be listed: %s", name, error)
        if tool is None or tool.output_schema is None:
            return tool
        try:
            await session.validate_tool_result(name, raw)
        except RuntimeError as error:
            result: CallToolResult[Any] = tool_result(raw, output_schema=None)
            raise ResultSchemaError(str(error)[:2000], result=result) from error
        return tool

"""Operations on tools: listing them, calling one, and making sense of what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, overload

from mcp.client import CacheMode
from mcp.shared.dispatcher import ProgressFnT
from mcp.types import CallToolResult as RawToolResult
from mcp.types import (
    ListToolsResult,
    Tool,
)

from anyio_mcp._session.catalog import MAX_PAGES, list_all_tools
from anyio_mcp._session.tasks.driver import follow_for_caller
from anyio_mcp._session.tasks.records import TaskRecord
from anyio_mcp._session.tasks.wire import TaskSnapshot
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.handlers import ProgressHandler, progress_callback
from anyio_mcp.results import CallToolResult, ResultSchemaError, adapter_for
from anyio_mcp.tasks import ToolTask, at_once
from anyio_mcp.verbs.base import DEFAULT, Timeout, page
from anyio_mcp.verbs.calling import Presented, pins_a_version, present, refuse, task_result, tool_call
from anyio_mcp.verbs.tasks import TaskVerbs, task_wish

_T = TypeVar("_T")

_Judge: TypeAlias = Callable[[TypedSession, RawToolResult, CallDeadline, int | None], Awaitable[_T]]


class ToolVerbs(TaskVerbs):
    """Verbs of `tools/*`."""

    _progress_handler: ProgressHandler | None

    async def list_tools(
        self,
        max_pages: int = MAX_PAGES,
        *,
        timeout: Timeout = DEFAULT,
        cache_mode: CacheMode = "use",
    ) -> list[Tool]:
        """Every tool, from all pages; `RequestFailedError` if the pages never end.

        `cache_mode`, here and in the other verbs that have it, is `"use"` for what was kept as long as
        the server said, `"refresh"` to replace it, or `"bypass"` to neither look nor keep.
        """

        async def act(session: TypedSession, deadline: CallDeadline) -> list[Tool]:
            tools = await list_all_tools(session.tools_page(cache_mode), max_pages=max_pages)
            session.catalog.learn(tools)
            return tools

        return await self._operate("tools/list", act, timeout=timeout, replay=True)

    async def list_tools_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT, cache_mode: CacheMode = "use"
    ) -> ListToolsResult:
        """One page of tools, as the protocol's own result."""

        async def act(session: TypedSession, _: CallDeadline) -> ListToolsResult:
            result = await session.tools_page(cache_mode)(page(cursor))
            if cursor is None and result.next_cursor is None:
                session.catalog.learn(result.tools)
            return result

        return await self._operate("tools/list", act, timeout=timeout, replay=True)

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
        task: Literal[False] = ...,
        ttl: None = ...,
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
        task: Literal[False] = ...,
        ttl: None = ...,
    ) -> CallToolResult[Any]: ...

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
        task: Literal[True],
        ttl: float | timedelta | None = ...,
    ) -> ToolTask[_T]: ...

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
        task: Literal[True],
        ttl: float | timedelta | None = ...,
    ) -> ToolTask[Any]: ...

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
        task: bool = False,
        ttl: float | timedelta | None = None,
    ) -> CallToolResult[Any] | ToolTask[Any]:
        """Call a tool and wait for its result.

        `timeout` is in seconds and covers everything, the progress handler included; without one the
        client's `Timeouts.call` applies, which progress extends. `result_type` is what `data` shall
        be: a pydantic model, a dataclass, any type pydantic can validate; without it `data` follows
        the tool's output schema.

        Raises `ToolError` when the tool answers with an error, unless `raise_on_error=False`;
        `ResultSchemaError` when its structured content does not fit the schema or `result_type` (the
        tool has run; the error carries its result), but not when that cannot be known: then the result's
        `unchecked` says why, unless the client has `strict_schemas`; `MCPError` for the server's own errors;
        `RequestFailedError` or `HTTPStatusError` when only this call failed; `DeadlineExceededError`;
        `SessionLostError` when the session ended meanwhile.

        A cancelled call returns at once. The request may have been sent: the server is told that
        nobody waits, and a late answer is dropped.

        With `task=True` the result is a `ToolTask`, at once: what the call would have raised about the
        tool, `await task` raises. `ttl` is how many seconds the server is asked to keep the task; only
        servers of 2025-11-25 can be asked. One that makes no task of the call answers it, and the handle
        has the result already. A server of 2026-07-28 decides for itself: a call that it makes a task of
        without `task=True` is followed to its end, within `timeout`, and cancelled there when nobody
        waits any more.
        """
        if result_type is not None:
            # Before anything is sent: a mistake in the type must not cost the result of a tool that ran.
            adapter_for(result_type)
        judge = _judge(name, result_type, is_pinned=pins_a_version(meta, arguments))
        if not task:
            raw, result = await self._call(
                name,
                arguments,
                timeout=timeout,
                progress_handler=progress_handler,
                meta=meta,
                judge=judge,
            )
            return present(raw, result, raise_on_error=raise_on_error)
        call = tool_call(
            name,
            arguments,
            meta=meta,
            on_progress=self._on_progress(progress_handler),
            wish=task_wish(ttl),
        )

        async def act(session: TypedSession, deadline: CallDeadline) -> TaskSnapshot | Presented:
            changes = session.catalog.changes
            answer = await call(session, deadline)
            if isinstance(answer, TaskSnapshot):
                return answer
            try:
                result = await judge(session, answer, deadline, changes)
            except ResultSchemaError as error:
                return partial(refuse, error)
            return partial(present, answer, result, raise_on_error=raise_on_error)

        outcome = await self._operate("tools/call", act, timeout=timeout, target=name)
        if isinstance(outcome, TaskSnapshot):
            return self._tool_task(self._tasks.start(outcome), judge, raise_on_error=raise_on_error)
        return ToolTask(self, None, at_once(outcome))

    def tool_task(
        self,
        task_id: str,
        name: str | None = None,
        *,
        result_type: type[Any] | None = None,
        raise_on_error: bool = True,
    ) -> ToolTask[Any]:
        """A handle of a tool's task that was started before, or by another client. Asks nothing yet.

        `name` is the tool's: with it the result is checked and converted by the tool's output schema.
        """
        judge = _judge(name, result_type)
        return self._tool_task(self._tasks.record(task_id), judge, raise_on_error=raise_on_error)

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
            name,
            arguments,
            timeout=timeout,
            progress_handler=progress_handler,
            meta=meta,
            judge=_take_as_it_is,
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
        judge: _Judge[_T],
    ) -> tuple[RawToolResult, _T]:
        call = tool_call(name, arguments, meta=meta, on_progress=self._on_progress(progress_handler))

        async def act(session: TypedSession, deadline: CallDeadline) -> tuple[RawToolResult, _T]:
            changes = session.catalog.changes
            answer = await call(session, deadline)
            if isinstance(answer, TaskSnapshot):
                record = self._tasks.start(answer)
                answer = await task_result(await follow_for_caller(session, record, deadline))
            return answer, await judge(session, answer, deadline, changes)

        return await self._operate(
            "tools/call",
            act,
            timeout=timeout,
            target=name,
            failed=lambda outcome: bool(outcome[0].is_error),
        )

    def _tool_task(
        self, record: TaskRecord, judge: _Judge[CallToolResult[Any]], *, raise_on_error: bool
    ) -> ToolTask[Any]:
        async def finish(raw: dict[str, Any], session: TypedSession, deadline: CallDeadline) -> Presented:
            answer = await task_result(raw)
            result = await judge(session, answer, deadline, None)
            return partial(present, answer, result, raise_on_error=raise_on_error)

        return ToolTask(self, record, partial(self._result_of, record, finish))

    def _on_progress(self, own: ProgressHandler | None) -> ProgressFnT | None:
        handler = own or self._progress_handler
        return None if handler is None else progress_callback(handler)


def _judge(name: str | None, result_type: type[Any] | None, *, is_pinned: bool = False) -> _Judge[Any]:
    """What makes the public result of a raw one, once it conforms to what its tool promises.

    Told how often the tools had changed when the call was sent, if that is known.
    """

    async def judge(
        session: TypedSession, raw: RawToolResult, deadline: CallDeadline, changes: int | None
    ) -> CallToolResult[Any]:
        return await session.results.present(
            name,
            raw,
            deadline,
            result_type=result_type,
            is_doubtful=lambda: is_pinned or (changes is not None and changes != session.catalog.changes),
        )

    return judge


async def _take_as_it_is(
    session: TypedSession, raw: RawToolResult, deadline: CallDeadline, changes: int | None
) -> None:
    return None

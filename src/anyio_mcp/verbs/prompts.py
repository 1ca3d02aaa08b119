"""Operations on prompts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, cast, overload

from mcp.client import CacheMode
from mcp.types import (
    GetPromptRequest,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    InputResponses,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    RequestParamsMeta,
)
from pydantic import TypeAdapter

from anyio_mcp._session.catalog import MAX_PAGES
from anyio_mcp._session.reading import read_result
from anyio_mcp._session.tasks.records import TaskRecord
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.tasks import PromptTask, at_once
from anyio_mcp.verbs.base import DEFAULT, Timeout, as_strings
from anyio_mcp.verbs.tasks import TaskVerbs, task_wish

_RESULT: Final = TypeAdapter[GetPromptResult | InputRequiredResult](GetPromptResult | InputRequiredResult)


class PromptVerbs(TaskVerbs):
    """Verbs of `prompts/*`."""

    async def list_prompts(
        self,
        max_pages: int = MAX_PAGES,
        *,
        timeout: Timeout = DEFAULT,
        cache_mode: CacheMode = "use",
    ) -> list[Prompt]:
        """Every prompt, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._pages(
            "prompts/list", _fetch_prompts, max_pages=max_pages, cache_mode=cache_mode, timeout=timeout
        )
        return [prompt for one in pages for prompt in one.prompts]

    async def list_prompts_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT, cache_mode: CacheMode = "use"
    ) -> ListPromptsResult:
        """One page of prompts, as the protocol's own result."""
        return await self._page(
            "prompts/list", _fetch_prompts, cursor=cursor, cache_mode=cache_mode, timeout=timeout
        )

    @overload
    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[False] = ...,
        ttl: None = ...,
    ) -> GetPromptResult: ...

    @overload
    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[True],
        ttl: float | timedelta | None = ...,
    ) -> PromptTask: ...

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
        task: bool = False,
        ttl: float | timedelta | None = None,
    ) -> GetPromptResult | PromptTask:
        """A prompt, rendered by the server. Arguments that are not strings are sent as JSON text.

        With `task=True` a `PromptTask`, see `call_tool`.
        """
        if not task:
            return await self.get_prompt_mcp(name, arguments, timeout=timeout, meta=meta)
        started = await self._start(
            _builder(name, arguments, meta), _RESULT, task_wish(ttl), timeout=timeout, target=name
        )
        if isinstance(started, TaskRecord):
            return self._prompt_task(started)
        return PromptTask(self, None, at_once(lambda: started))

    def prompt_task(self, task_id: str) -> PromptTask:
        """A handle of a prompt's task that was started before, or by another client. Asks nothing yet."""
        return self._prompt_task(self._tasks.record(task_id))

    async def get_prompt_mcp(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> GetPromptResult:
        """The same as `get_prompt`, whose result is the protocol's already."""
        return await self._interact(_builder(name, arguments, meta), _RESULT, timeout=timeout, target=name)

    def _prompt_task(self, record: TaskRecord) -> PromptTask:
        async def present(
            raw: dict[str, Any], session: TypedSession, deadline: CallDeadline
        ) -> Callable[[], GetPromptResult]:
            result = await read_result("prompts/get", raw, GetPromptResult)
            return lambda: result

        return PromptTask(self, record, partial(self._result_of, record, present))


async def _fetch_prompts(session: TypedSession, params: PaginatedRequestParams | None) -> ListPromptsResult:
    return await session.list_prompts(params=params)


def _builder(
    name: str, arguments: dict[str, Any] | None, meta: dict[str, Any] | None
) -> Callable[[InputResponses | None, str | None], GetPromptRequest]:
    strings = as_strings(arguments)

    def build(answers: InputResponses | None, state: str | None) -> GetPromptRequest:
        params = GetPromptRequestParams(
            name=name,
            arguments=strings,
            input_responses=answers,
            request_state=state,
            _meta=cast("RequestParamsMeta | None", meta),
        )
        return GetPromptRequest(params=params)

    return build

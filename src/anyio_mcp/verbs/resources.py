"""Operations on resources and resource templates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal, cast, overload

from mcp.client import CacheMode
from mcp.types import (
    BlobResourceContents,
    EmptyResult,
    InputRequiredResult,
    InputResponses,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequest,
    ReadResourceRequestParams,
    ReadResourceResult,
    RequestParamsMeta,
    Resource,
    ResourceTemplate,
    SubscribeRequest,
    SubscribeRequestParams,
    TextResourceContents,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)
from pydantic import AnyUrl, TypeAdapter

from anyio_mcp._session.catalog import MAX_PAGES
from anyio_mcp._session.reading import read_result
from anyio_mcp._session.tasks.records import TaskRecord
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.tasks import ResourceTask, at_once
from anyio_mcp.verbs.base import DEFAULT, Timeout
from anyio_mcp.verbs.tasks import TaskVerbs, task_wish

_RESULT: Final = TypeAdapter[ReadResourceResult | InputRequiredResult](
    ReadResourceResult | InputRequiredResult
)


class ResourceVerbs(TaskVerbs):
    """Verbs of `resources/*`."""

    async def list_resources(
        self,
        max_pages: int = MAX_PAGES,
        *,
        timeout: Timeout = DEFAULT,
        cache_mode: CacheMode = "use",
    ) -> list[Resource]:
        """Every resource, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._pages(
            "resources/list", _fetch_resources, max_pages=max_pages, cache_mode=cache_mode, timeout=timeout
        )
        return [resource for one in pages for resource in one.resources]

    async def list_resources_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT, cache_mode: CacheMode = "use"
    ) -> ListResourcesResult:
        """One page of resources, as the protocol's own result."""
        return await self._page(
            "resources/list", _fetch_resources, cursor=cursor, cache_mode=cache_mode, timeout=timeout
        )

    async def list_resource_templates(
        self,
        max_pages: int = MAX_PAGES,
        *,
        timeout: Timeout = DEFAULT,
        cache_mode: CacheMode = "use",
    ) -> list[ResourceTemplate]:
        """Every resource template, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._pages(
            "resources/templates/list",
            _fetch_templates,
            max_pages=max_pages,
            cache_mode=cache_mode,
            timeout=timeout,
        )
        return [template for one in pages for template in one.resource_templates]

    async def list_resource_templates_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT, cache_mode: CacheMode = "use"
    ) -> ListResourceTemplatesResult:
        """One page of resource templates, as the protocol's own result."""
        return await self._page(
            "resources/templates/list",
            _fetch_templates,
            cursor=cursor,
            cache_mode=cache_mode,
            timeout=timeout,
        )

    @overload
    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[False] = ...,
        ttl: None = ...,
        cache_mode: CacheMode = ...,
    ) -> list[TextResourceContents | BlobResourceContents]: ...

    @overload
    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[True],
        ttl: float | timedelta | None = ...,
    ) -> ResourceTask: ...

    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
        task: bool = False,
        ttl: float | timedelta | None = None,
        cache_mode: CacheMode = "use",
    ) -> list[TextResourceContents | BlobResourceContents] | ResourceTask:
        """The contents of a resource. Raises `MCPError` if there is none.

        A call with `meta` always asks the server.

        With `task=True` a `ResourceTask`, see `call_tool`.
        """
        if not task:
            result = await self.read_resource_mcp(uri, timeout=timeout, meta=meta, cache_mode=cache_mode)
            return list(result.contents)
        started = await self._start(
            _builder(uri, meta), _RESULT, task_wish(ttl), timeout=timeout, target=str(uri)
        )
        if isinstance(started, TaskRecord):
            return self._resource_task(started)
        return ResourceTask(self, None, at_once(lambda: list(started.contents)))

    def resource_task(self, task_id: str) -> ResourceTask:
        """A handle of a resource's task that was started before, or by another client. Asks nothing yet."""
        return self._resource_task(self._tasks.record(task_id))

    async def read_resource_mcp(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
        cache_mode: CacheMode = "use",
    ) -> ReadResourceResult:
        """`read_resource`, as the protocol's own result."""
        return await self._interact(
            _builder(uri, meta),
            _RESULT,
            timeout=timeout,
            target=str(uri),
            cache_mode="refresh" if meta is not None and cache_mode == "use" else cache_mode,
        )

    def _resource_task(self, record: TaskRecord) -> ResourceTask:
        async def present(
            raw: dict[str, Any], session: TypedSession, deadline: CallDeadline
        ) -> Callable[[], list[TextResourceContents | BlobResourceContents]]:
            result = await read_result("resources/read", raw, ReadResourceResult)
            return lambda: list(result.contents)

        return ResourceTask(self, record, partial(self._result_of, record, present))

    async def subscribe_resource(self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT) -> None:
        """Ask for `notifications/resources/updated` on a resource (2025-11-25 and before)."""
        request = SubscribeRequest(params=SubscribeRequestParams(uri=str(uri)))
        await self._request(request, EmptyResult, timeout=timeout, target=str(uri))

    async def unsubscribe_resource(self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT) -> None:
        """Undo `subscribe_resource`."""
        request = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=str(uri)))
        await self._request(request, EmptyResult, timeout=timeout, target=str(uri))


async def _fetch_resources(
    session: TypedSession, params: PaginatedRequestParams | None
) -> ListResourcesResult:
    return await session.list_resources(params=params)


async def _fetch_templates(
    session: TypedSession, params: PaginatedRequestParams | None
) -> ListResourceTemplatesResult:
    return await session.list_resource_templates(params=params)


def _builder(
    uri: AnyUrl | str, meta: dict[str, Any] | None
) -> Callable[[InputResponses | None, str | None], ReadResourceRequest]:
    def build(answers: InputResponses | None, state: str | None) -> ReadResourceRequest:
        params = ReadResourceRequestParams(
            uri=str(uri),
            input_responses=answers,
            request_state=state,
            _meta=cast("RequestParamsMeta | None", meta),
        )
        return ReadResourceRequest(params=params)

    return build

"""Operations on resources and resource templates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, cast, overload

from mcp.types import (
    BlobResourceContents,
    EmptyResult,
    InputRequiredResult,
    InputResponses,
    ListResourcesRequest,
    ListResourcesResult,
    ListResourceTemplatesRequest,
    ListResourceTemplatesResult,
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

from anyio_mcp._session.catalog import MAX_PAGES, all_pages
from anyio_mcp._session.tasks.records import TaskRecord
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp.tasks import ResourceTask, at_once
from anyio_mcp.verbs.base import DEFAULT, Timeout, page
from anyio_mcp.verbs.tasks import TaskVerbs, task_wish

_RESULT: Final = TypeAdapter[ReadResourceResult | InputRequiredResult](
    ReadResourceResult | InputRequiredResult
)


class ResourceVerbs(TaskVerbs):
    """Verbs of `resources/*`."""

    async def list_resources(
        self, max_pages: int = MAX_PAGES, *, timeout: Timeout = DEFAULT
    ) -> list[Resource]:
        """Every resource, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._operate(
            "resources/list",
            lambda session, _: all_pages(
                lambda params: session.list_resources(params=params), max_pages=max_pages
            ),
            timeout=timeout,
            replay=True,
        )
        return [resource for one in pages for resource in one.resources]

    async def list_resources_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT
    ) -> ListResourcesResult:
        """One page of resources, as the protocol's own result."""
        request = ListResourcesRequest(params=page(cursor))
        return await self._request(request, ListResourcesResult, timeout=timeout, replay=True)

    async def list_resource_templates(
        self, max_pages: int = MAX_PAGES, *, timeout: Timeout = DEFAULT
    ) -> list[ResourceTemplate]:
        """Every resource template, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._operate(
            "resources/templates/list",
            lambda session, _: all_pages(
                lambda params: session.list_resource_templates(params=params), max_pages=max_pages
            ),
            timeout=timeout,
            replay=True,
        )
        return [template for one in pages for template in one.resource_templates]

    async def list_resource_templates_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT
    ) -> ListResourceTemplatesResult:
        """One page of resource templates, as the protocol's own result."""
        request = ListResourceTemplatesRequest(params=page(cursor))
        return await self._request(request, ListResourceTemplatesResult, timeout=timeout, replay=True)

    @overload
    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[False] = ...,
        ttl: None = ...,
    ) -> list[TextResourceContents | BlobResourceContents]: ...

    @overload
    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = ...,
        meta: dict[str, Any] | None = ...,
        task: Literal[True],
        ttl: float | None = ...,
    ) -> ResourceTask: ...

    async def read_resource(
        self,
        uri: AnyUrl | str,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
        task: bool = False,
        ttl: float | None = None,
    ) -> list[TextResourceContents | BlobResourceContents] | ResourceTask:
        """The contents of a resource. Raises `MCPError` if there is none.

        With `task=True` a `ResourceTask`, see `call_tool`.
        """
        if not task:
            return list((await self.read_resource_mcp(uri, timeout=timeout, meta=meta)).contents)
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
        self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT, meta: dict[str, Any] | None = None
    ) -> ReadResourceResult:
        """`read_resource`, as the protocol's own result."""
        return await self._interact(_builder(uri, meta), _RESULT, timeout=timeout, target=str(uri))

    def _resource_task(self, record: TaskRecord) -> ResourceTask:
        async def present(
            raw: dict[str, Any], session: TypedSession, deadline: CallDeadline
        ) -> Callable[[], list[TextResourceContents | BlobResourceContents]]:
            result = ReadResourceResult.model_validate(raw, by_name=False)
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

"""Operations on resources and resource templates."""

from __future__ import annotations

from typing import Any, Final, cast

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
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout, page

_RESULT: Final = TypeAdapter[ReadResourceResult | InputRequiredResult](
    ReadResourceResult | InputRequiredResult
)


class ResourceVerbs(Operations):
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

    async def read_resource(
        self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT, meta: dict[str, Any] | None = None
    ) -> list[TextResourceContents | BlobResourceContents]:
        """The contents of a resource. Raises `MCPError` if there is none."""
        result = await self.read_resource_mcp(uri, timeout=timeout, meta=meta)
        return list(result.contents)

    async def read_resource_mcp(
        self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT, meta: dict[str, Any] | None = None
    ) -> ReadResourceResult:
        """`read_resource`, as the protocol's own result."""

        def build(answers: InputResponses | None, state: str | None) -> ReadResourceRequest:
            params = ReadResourceRequestParams(
                uri=str(uri),
                input_responses=answers,
                request_state=state,
                _meta=cast("RequestParamsMeta | None", meta),
            )
            return ReadResourceRequest(params=params)

        return await self._interact(build, _RESULT, timeout=timeout, target=str(uri))

    async def subscribe_resource(self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT) -> None:
        """Ask for `notifications/resources/updated` on a resource (2025-11-25 and before)."""
        request = SubscribeRequest(params=SubscribeRequestParams(uri=str(uri)))
        await self._request(request, EmptyResult, timeout=timeout, target=str(uri))

    async def unsubscribe_resource(self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT) -> None:
        """Undo `subscribe_resource`."""
        request = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=str(uri)))
        await self._request(request, EmptyResult, timeout=timeout, target=str(uri))

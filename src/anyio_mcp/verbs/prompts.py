"""Operations on prompts."""

from __future__ import annotations

from typing import Any, Final, cast

from mcp.types import (
    GetPromptRequest,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    InputResponses,
    ListPromptsRequest,
    ListPromptsResult,
    Prompt,
    RequestParamsMeta,
)
from pydantic import TypeAdapter
from pydantic_core import to_json

from anyio_mcp._session.catalog import MAX_PAGES, all_pages
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout, page

_RESULT: Final = TypeAdapter[GetPromptResult | InputRequiredResult](GetPromptResult | InputRequiredResult)


class PromptVerbs(Operations):
    """Verbs of `prompts/*`."""

    async def list_prompts(self, max_pages: int = MAX_PAGES, *, timeout: Timeout = DEFAULT) -> list[Prompt]:
        """Every prompt, from all pages; `RequestFailedError` if the pages never end."""
        pages = await self._operate(
            "prompts/list",
            lambda session, _: all_pages(
                lambda params: session.list_prompts(params=params), max_pages=max_pages
            ),
            timeout=timeout,
            replay=True,
        )
        return [prompt for one in pages for prompt in one.prompts]

    async def list_prompts_mcp(
        self, *, cursor: str | None = None, timeout: Timeout = DEFAULT
    ) -> ListPromptsResult:
        """One page of prompts, as the protocol's own result."""
        request = ListPromptsRequest(params=page(cursor))
        return await self._request(request, ListPromptsResult, timeout=timeout, replay=True)

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> GetPromptResult:
        """A prompt, rendered by the server. Arguments that are not strings are sent as JSON text."""
        return await self.get_prompt_mcp(name, arguments, timeout=timeout, meta=meta)

    async def get_prompt_mcp(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> GetPromptResult:
        """The same as `get_prompt`, whose result is the protocol's already."""
        strings = _as_strings(arguments)

        def build(answers: InputResponses | None, state: str | None) -> GetPromptRequest:
            params = GetPromptRequestParams(
                name=name,
                arguments=strings,
                input_responses=answers,
                request_state=state,
                _meta=cast("RequestParamsMeta | None", meta),
            )
            return GetPromptRequest(params=params)

        return await self._interact(build, _RESULT, timeout=timeout, target=name)


def _as_strings(arguments: dict[str, Any] | None) -> dict[str, str] | None:
    """The protocol knows string arguments only."""
    if arguments is None:
        return None
    return {
        key: value if isinstance(value, str) else to_json(value).decode() for key, value in arguments.items()
    }

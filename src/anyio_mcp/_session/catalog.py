"""The tools of one session, listed once for everybody who needs their schemas.

A result that carries structured content is checked against the tool's output schema, and a modern
server wants some arguments repeated in headers: both need the list. It is fetched when first needed,
by the caller who needs it, and shared by all who need it meanwhile.
"""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, final

import anyio
from mcp import MCPError
from mcp.types import ListToolsResult, PaginatedRequestParams, PaginatedResult, Tool
from pydantic_core import PydanticSerializationError, to_json

from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, guard
from anyio_mcp._text import get_logger
from anyio_mcp.errors import RequestFailedError

logger = get_logger(__name__)

MAX_PAGES: Final = 250
"""Pages one listing may have."""

MAX_WEIGHT: Final = 128 * 1024 * 1024
"""Bytes that the pages of one listing may take in memory, about."""

_VALUE_BYTES: Final = 30
"""What a JSON value takes in memory beside its text, about."""

_Page = TypeVar("_Page", bound=PaginatedResult)

ListPage = Callable[[PaginatedRequestParams | None], Awaitable[ListToolsResult]]


@final
class ToolCatalog:
    """What is known of one session's tools."""

    def __init__(self, list_page: ListPage, failure: SessionFailure) -> None:
        self._list_page = list_page
        self._failure = failure
        self._tools: dict[str, Tool] | None = None
        self._loading: anyio.Event | None = None
        self._changes = 0

    @property
    def changes(self) -> int:
        """How often the server said that its tools have changed."""
        return self._changes

    def learn(self, tools: list[Tool]) -> None:
        """A complete listing was made anyway."""
        self._tools = {tool.name: tool for tool in tools}

    def forget(self) -> None:
        """The server says its tools have changed; list again when next needed."""
        self._tools = None
        self._changes += 1

    def known(self, name: str) -> Tool | None:
        """The tool, if a listing has shown it."""
        return None if self._tools is None else self._tools.get(name)

    async def find(self, name: str, deadline: CallDeadline) -> Tool | None:
        """The tool, from one listing shared by all who ask at the same time; None if unlisted.

        Raises what stopped the listing. A server that refuses to list, or whose list has no end, is
        not asked again before it says that its tools have changed.
        """
        while self._tools is None:
            if self._loading is not None:
                with guard(self._failure, deadline, what="waiting for the list of tools"):
                    await self._loading.wait()
                continue
            loading = self._loading = anyio.Event()
            changes = self._changes
            try:
                tools = await self._list()
            finally:
                # On every path, so that the next in line takes over when this caller was cancelled.
                self._loading = None
                loading.set()
            if changes == self._changes:
                self.learn(tools)
            else:
                # Changed meanwhile: good enough for this caller, who asked before, but for no other.
                return next((tool for tool in tools if tool.name == name), None)
        return self._tools.get(name)

    async def _list(self) -> list[Tool]:
        try:
            return await list_all_tools(self._list_page)
        except MCPError as error:
            logger.debug("the server does not list its tools: %s", error)
        except RequestFailedError as error:
            if error.reason not in ("violation", "oversized"):
                raise
            logger.warning("the server's list of tools is of no use: %s", error)
        return []


async def list_all_tools(list_page: ListPage, *, max_pages: int = MAX_PAGES) -> list[Tool]:
    """The tools of every page of `tools/list`."""
    pages = await all_pages(list_page, max_pages=max_pages)
    return [tool for page in pages for tool in page.tools]


async def all_pages(
    fetch: Callable[[PaginatedRequestParams | None], Awaitable[_Page]], *, max_pages: int = MAX_PAGES
) -> list[_Page]:
    """The pages of a listing, one request each.

    Raises `RequestFailedError` when the server repeats a cursor or goes on past `max_pages` (`violation`),
    or sends more than fits into memory (`oversized`): half a list that looks whole would be worse.
    """
    pages: list[_Page] = []
    weight = 0
    seen: set[str] = set()
    cursor: str | None = None
    while len(pages) < max_pages:
        page = await fetch(None if cursor is None else PaginatedRequestParams(cursor=cursor))
        pages.append(page)
        cursor = page.next_cursor
        if cursor is None:
            return pages
        weight += _weight(page)
        if weight > MAX_WEIGHT:
            raise RequestFailedError(
                f"the server's listing is too large: more than {len(pages)} pages", reason="oversized"
            )
        if cursor in seen:
            raise RequestFailedError("the server's listing repeats a cursor", reason="violation")
        seen.add(cursor)
    raise RequestFailedError(f"the server's listing has more than {max_pages} pages", reason="violation")


def _weight(page: PaginatedResult) -> int:
    """What a page takes in memory, estimated from its text: an empty list of two bytes takes thirty times
    that."""
    try:
        text = to_json(page, inf_nan_mode="constants")
    except PydanticSerializationError:  # a lone surrogate, which JSON cannot hold
        text = pickle.dumps(page)
    return len(text) + _VALUE_BYTES * (text.count(b",") + text.count(b"[") + text.count(b"{"))

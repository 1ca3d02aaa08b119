"""Listings of several pages, of every kind: all of them, one of them, and those that never end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    Resource,
    ResourceTemplate,
    Tool,
)

from anyio_mcp import Client
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.testing import ScriptedPeer
from tests.lag.plugin import ORDINARY, check
from tests.verbs.servers import BOUND, Era, Log, connected

pytestmark = pytest.mark.anyio

SIZE: Final = 3
PAGES: Final = 4


@dataclass(frozen=True)
class Kind:
    """One kind of listing: its verb, its method, and how a page of it is made."""

    verb: str
    method: str
    handler: str
    page: Callable[[list[str], str | None], Any]
    names: Callable[[Any], list[str]]


KINDS = [
    Kind(
        "list_tools",
        "tools/list",
        "on_list_tools",
        lambda names, then: ListToolsResult(
            tools=[Tool(name=name, input_schema={"type": "object"}) for name in names], next_cursor=then
        ),
        lambda page: [tool.name for tool in page.tools],
    ),
    Kind(
        "list_resources",
        "resources/list",
        "on_list_resources",
        lambda names, then: ListResourcesResult(
            resources=[Resource(name=name, uri=f"memo://{name}") for name in names], next_cursor=then
        ),
        lambda page: [resource.name for resource in page.resources],
    ),
    Kind(
        "list_resource_templates",
        "resources/templates/list",
        "on_list_resource_templates",
        lambda names, then: ListResourceTemplatesResult(
            resource_templates=[ResourceTemplate(name=name, uri_template="memo://{x}") for name in names],
            next_cursor=then,
        ),
        lambda page: [template.name for template in page.resource_templates],
    ),
    Kind(
        "list_prompts",
        "prompts/list",
        "on_list_prompts",
        lambda names, then: ListPromptsResult(
            prompts=[Prompt(name=name) for name in names], next_cursor=then
        ),
        lambda page: [prompt.name for prompt in page.prompts],
    ),
]
ALL = [str(number) for number in range(SIZE * PAGES)]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.verb)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


class Book:
    """A server with one listing, whose cursors are the numbers of its pages."""

    def __init__(self, kind: Kind, *, pages: int = PAGES) -> None:
        self.kind = kind
        self.pages = pages
        self.log = Log()
        handlers: dict[str, Any] = {kind.handler: self.turn}
        self.server: Server[Any] = Server("book", **handlers)
        self.server.middleware.append(self.log)

    async def turn(self, context: ServerRequestContext[Any], params: PaginatedRequestParams | None) -> Any:
        cursor = None if params is None else params.cursor
        number = 0 if cursor is None else int(cursor.removeprefix("page "))
        if not 0 <= number < self.pages:
            raise MCPError(-32602, "no such page")
        names = [str(index) for index in range(number * SIZE, (number + 1) * SIZE)]
        return self.kind.page(names, f"page {number + 1}" if number + 1 < self.pages else None)

    def cursors(self) -> list[str | None]:
        return [params.get("cursor") for params in self.log.params(self.kind.method)]


async def test_all_pages_are_listed_in_order(kind: Kind, era: Era) -> None:
    book = Book(kind)
    async with connected(book.server, era) as client:
        items = await getattr(client, kind.verb)()
    assert [item.name for item in items] == ALL
    assert book.cursors() == [None, "page 1", "page 2", "page 3"]


async def test_one_page_is_listed_by_its_cursor(kind: Kind, era: Era) -> None:
    book = Book(kind)
    async with connected(book.server, era) as client:
        verb = getattr(client, f"{kind.verb}_mcp")
        found: list[str] = []
        page = await verb()
        found += kind.names(page)
        while page.next_cursor is not None:
            page = await verb(cursor=page.next_cursor)
            found += kind.names(page)
        with pytest.raises(MCPError, match="no such page"):
            await verb(cursor="page 99")
    assert found == ALL
    assert book.cursors() == [None, "page 1", "page 2", "page 3", "page 99"]


async def test_a_listing_of_too_many_pages_is_refused_rather_than_cut(kind: Kind, era: Era) -> None:
    book = Book(kind)
    async with connected(book.server, era) as client:
        verb = getattr(client, kind.verb)
        with pytest.raises(RequestFailedError, match="more than 3 pages") as caught:
            await verb(max_pages=3)
        assert [item.name for item in await verb(max_pages=4)] == ALL
    assert caught.value.reason == "violation"


async def test_a_listing_that_goes_round_in_circles_is_refused(kind: Kind, era: Era) -> None:
    async def round_and_round(context: Any, params: PaginatedRequestParams | None) -> Any:
        return kind.page(["x"], "again")

    handlers: dict[str, Any] = {kind.handler: round_and_round}
    async with connected(Server("circle", **handlers), era) as client:
        with pytest.raises(RequestFailedError, match="repeats a cursor"):
            await getattr(client, kind.verb)()
        assert await client.ping()


async def test_an_error_in_the_middle_is_the_error_of_the_listing(kind: Kind, era: Era) -> None:
    async def torn(context: Any, params: PaginatedRequestParams | None) -> Any:
        if params is not None and params.cursor is not None:
            raise MCPError(-32602, "torn out")
        return kind.page(["x"], "page 1")

    handlers: dict[str, Any] = {kind.handler: torn}
    async with connected(Server("torn", **handlers), era) as client:
        with pytest.raises(MCPError, match="torn out"):
            await getattr(client, kind.verb)()


async def test_a_server_without_the_listing_says_so(kind: Kind, era: Era) -> None:
    async with connected(Server("empty"), era) as client:
        with pytest.raises(MCPError) as caught:
            await getattr(client, kind.verb)()
    assert caught.value.code == -32601


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_list_of_20_000_tools_is_read_in_short_steps(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools = [{"name": str(number), "description": "x", "inputSchema": schema} for number in range(20_000)]
    peer.on("tools/list", {"tools": tools})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert len(await client.list_tools()) == 20_000
    check(ORDINARY)

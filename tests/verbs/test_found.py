"""Faults these tests have found, each mended since: what must not happen again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.shared.message import SessionMessage
from mcp.types import (
    CallToolRequestParams,
    JSONRPCRequest,
    ListToolsResult,
    PromptReference,
)

from anyio_mcp._session.catalog import ToolCatalog
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure
from anyio_mcp.client import Client
from anyio_mcp.config import duration
from anyio_mcp.results import ResultSchemaError
from anyio_mcp.testing import VirtualTime
from tests.verbs.servers import LEGACY, Era, Scripted, World, connected, text_result, tool

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, VirtualTime(request.param).options


INTEGER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TEXT = {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}


# --- _session/typed.py: a change of the tools is heard behind the handlers, not as it comes -------


class Changeable(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.tools = [tool("x", INTEGER)]

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        if params.arguments:
            self.tools = [tool("x", TEXT)]
            await context.session.send_tool_list_changed()
            return text_result("done", {"n": "many"})
        return text_result("done", {"n": 1})


async def test_a_result_is_not_checked_against_a_schema_its_server_had_withdrawn_before() -> None:
    async with connected(Changeable().server, LEGACY) as client:
        await client.call_tool("x")
        result = await client.call_tool("x", {"change": True})
        assert result.structured_content == {"n": "many"}


# --- _session/catalog.py: a change during a listing is lost; an endless one is made each time -----


async def test_a_change_told_while_the_tools_are_being_listed_is_not_forgotten() -> None:
    asked = 0

    async def list_page(params: Any) -> ListToolsResult:
        nonlocal asked
        asked += 1
        await anyio.lowlevel.checkpoint()
        if asked == 1:
            catalog.forget()  # the server says so after it has answered the first page
        return ListToolsResult(tools=[tool("old" if asked == 1 else "new")])

    catalog = ToolCatalog(list_page, SessionFailure())
    await catalog.find("new", CallDeadline(100, 100))
    assert await catalog.find("new", CallDeadline(100, 100)) is not None


async def test_a_listing_without_an_end_is_made_once_and_not_for_every_call(era: Era) -> None:
    scripted = Scripted()

    async def endless(cursor: str | None) -> ListToolsResult:
        return ListToolsResult(tools=[], next_cursor=str(int(cursor or 0) + 1))

    async def calling(context: Any, params: Any) -> Any:
        return text_result("done", {"n": 1})

    scripted.listing, scripted.calling = endless, calling
    async with connected(scripted.server, era) as client:
        await client.call_tool("x")
        before = scripted.log.count("tools/list")
        await client.call_tool("x")
        assert scripted.log.count("tools/list") == before


# --- verbs/tools.py: a result whose type or schema is wrong ---------------------------------------


async def test_a_type_that_cannot_be_validated_is_refused_before_the_tool_runs(
    world: World, era: Era
) -> None:
    class Opaque:
        pass

    async with connected(world.server, era) as client:
        with pytest.raises(TypeError, match="result_type"):
            await client.call_tool("add", {"a": 1, "b": 2}, result_type=Opaque)
    assert world.log.count("tools/call") == 0


async def test_the_result_of_a_schema_error_has_no_data(era: Era) -> None:
    scripted = Scripted()
    scripted.tools = [tool("x", INTEGER)]

    async def calling(context: Any, params: Any) -> Any:
        return text_result("done", {"n": "many"})

    scripted.calling = calling
    async with connected(scripted.server, era) as client:
        with pytest.raises(ResultSchemaError) as caught:
            await client.call_tool("x")
    assert caught.value.result.data is None


async def test_a_listing_hidden_in_the_check_costs_no_result(era: Era) -> None:
    scripted = Scripted()
    scripted.tools = [tool("x", INTEGER)]

    async def calling(context: Any, params: Any) -> Any:
        return text_result("done", {"n": 1})

    async def refuses(cursor: str | None) -> ListToolsResult:
        raise MCPError(-32000, "not now")

    scripted.calling = calling
    async with connected(scripted.server, era) as client:
        await client.call_tool("x")
        scripted.tools = []
        await client.list_tools_mcp()
        scripted.listing = refuses
        assert (await client.call_tool("x")).structured_content == {"n": 1}


# --- verbs/server.py ------------------------------------------------------------------------------


async def test_a_ping_may_take_as_long_as_its_caller_allows(era: Era) -> None:
    server: Server[Any] = Server("slow")

    async def slow(context: Any, call_next: Any) -> Any:
        await anyio.sleep(pause)
        return await call_next(context)

    pause = 0
    server.middleware.append(slow)
    async with Client(server, mode=era, heartbeat=None) as client:
        pause = 50
        assert await client.ping(timeout=60)


async def test_a_context_argument_that_is_no_text_is_sent_as_json(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.complete(
            PromptReference(name="greet"), {"name": "name", "value": ""}, {"n": 1, "t": "x"}
        )
    assert world.log.params("completion/complete")[0]["context"]["arguments"] == {"n": "1", "t": "x"}


# --- client.py ------------------------------------------------------------------------------------


async def test_tasks_that_initialize_at_once_negotiate_once(world: World, era: Era) -> None:
    async with connected(world.server, era, auto_initialize=False) as client:
        results: list[Any] = []

        async def initialize() -> None:
            results.append(await client.initialize())

        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(initialize)
    assert len(results) == 3
    assert world.log.count("initialize" if era == LEGACY else "server/discover") == 1


async def test_a_session_that_replaces_a_negotiated_one_is_negotiated(world: World, era: Era) -> None:
    async with connected(world.server, era, auto_initialize=False) as client:
        await client.initialize()
        version = client.protocol_version
        assert client._keeper.actor is not None
        client._keeper.actor.close()
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
        assert client.protocol_version == version


def test_a_progress_handler_that_cannot_be_called_is_refused_when_the_client_is_made(world: World) -> None:
    handler: Any = "no function"
    with pytest.raises(TypeError, match="progress handler must be a function"):
        Client(world.server, progress_handler=handler)


# --- config.py ----------------------------------------------------------------


def test_a_number_beyond_any_float_is_a_duration_or_a_value_error() -> None:
    with contextlib.suppress(ValueError):
        assert duration("x", 10**400) > 10**300


# --- _session/inbound.py --------------------------------------------------------------------------


async def test_a_server_that_asks_and_does_not_read_cannot_pile_up_answers() -> None:
    """The pipe to the server is full; every request of its own is answered, and the answers wait."""
    to_client, read = anyio.create_memory_object_stream[SessionMessage](0)
    write, from_client = anyio.create_memory_object_stream[SessionMessage](0)

    @asynccontextmanager
    async def deaf() -> AsyncGenerator[tuple[Any, Any]]:
        async with to_client, read, write, from_client:
            yield read, write

    with anyio.fail_after(10_000):
        async with Client(deaf, auto_initialize=False, heartbeat=None) as client:
            for number in range(3000):
                request = JSONRPCRequest(jsonrpc="2.0", id=number, method="ping")
                await to_client.send(SessionMessage(request))
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            running = sum(task.name == "anyio_mcp ping" for task in anyio.get_running_tasks())
            assert running <= 100
            assert client.stats().refused_requests >= 2000

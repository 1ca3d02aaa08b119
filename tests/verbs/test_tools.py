"""Tools: listing, calling, errors, progress, and what becomes of what they answer."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp.types import CallToolRequestParams, TextContent
from pydantic import BaseModel

from anyio_mcp.errors import ToolError
from anyio_mcp.results import CallToolResult, ResultSchemaError
from tests.verbs.servers import BOUND, Era, Forecast, Scripted, World, connected, text_result, tool

pytestmark = pytest.mark.anyio

DAY = {"day": "2026-11-20", "degrees": 7.5}


def texts(result: CallToolResult[Any]) -> list[str]:
    return [block.text for block in result.content if isinstance(block, TextContent)]


# --- listing and calling --------------------------------------------------------------------------


async def test_tools_are_listed_with_their_schemas(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        tools = {tool.name: tool for tool in await client.list_tools()}
        page = await client.list_tools_mcp()
    assert {"add", "forecast", "plain", "fail"} <= tools.keys()
    assert tools["add"].description == "Add two numbers."
    assert tools["forecast"].output_schema is not None
    assert tools["plain"].output_schema is None
    assert {each.name: each for each in page.tools} == tools
    assert page.next_cursor is None


async def test_a_tool_gets_its_arguments_and_its_result_comes_back_whole(era: Era) -> None:
    scripted = Scripted()
    scripted.tools = [tool("x")]

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        return text_result("done", {"got": params.arguments}, _meta={"mine": 1})

    scripted.calling = calling
    async with connected(scripted.server, era) as client:
        result = await client.call_tool("x", {"a": [1, {"b": None}], "ä": "ö"})
    assert texts(result) == ["done"]
    assert result.structured_content == result.data == {"got": {"a": [1, {"b": None}], "ä": "ö"}}
    assert result.meta is not None
    assert result.meta["mine"] == 1
    assert not result.is_error


@pytest.mark.parametrize("arguments", [None, {}])
async def test_a_tool_can_be_called_without_arguments(
    world: World, era: Era, arguments: dict[str, Any] | None
) -> None:
    async with connected(world.server, era) as client:
        assert texts(await client.call_tool("plain", arguments)) == ["plain"]


async def test_the_callers_arguments_are_not_changed(world: World, era: Era) -> None:
    arguments, meta = {"a": 1, "b": 2}, {"mine": 1}
    async with connected(world.server, era) as client:
        await client.call_tool("add", arguments, meta=meta, progress_handler=lambda *_: None)
    assert arguments == {"a": 1, "b": 2}
    assert meta == {"mine": 1}


async def test_the_callers_meta_reaches_the_server(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.call_tool("plain", meta={"example.com/key": {"a": 1}})
        await client.call_tool_mcp("plain", meta={"example.com/key": 2})
    assert [meta["example.com/key"] for meta in world.log.metas("tools/call")] == [{"a": 1}, 2]


async def test_the_result_in_the_form_of_the_protocol(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.call_tool_mcp("add", {"a": 1, "b": 2})
        assert result.structured_content == {"result": 3}
        assert not result.is_error
        failed = await client.call_tool_mcp("fail", {"why": "so"})
        assert failed.is_error
    assert world.log.count("tools/list") == 0, "nothing to check it against is fetched"


async def test_a_hundred_calls_at_once_get_each_its_own_answer(world: World, era: Era) -> None:
    sums: dict[int, Any] = {}

    async with connected(world.server, era) as client:

        async def call(number: int) -> None:
            sums[number] = (await client.call_tool("add", {"a": number, "b": 1000})).structured_content

        async with anyio.create_task_group() as tg:
            for number in range(100):
                tg.start_soon(call, number)
    assert sums == {number: {"result": number + 1000} for number in range(100)}
    assert world.log.count("tools/list") == 1, "one listing for all of them"


# --- errors ---------------------------------------------------------------------------------------


async def test_a_tool_that_fails_raises_a_tool_error_with_its_text_and_result(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(ToolError, match=r"^out of bread$") as caught:
            await client.call_tool("fail", {"why": "out of bread"})
        assert await client.ping(), "the session lives"
    result = caught.value.result
    assert result.is_error
    assert texts(result) == ["out of bread"]
    assert result.data is None


async def test_a_tool_that_fails_can_be_taken_as_a_result(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.call_tool("fail", {"why": "so"}, raise_on_error=False)
        typed = await client.call_tool("fail", {"why": "so"}, raise_on_error=False, result_type=Forecast)
    for each in (result, typed):
        assert each.is_error
        assert texts(each) == ["so"]
        assert each.data is None


async def test_an_unknown_tool_and_wrong_arguments_are_errors_of_the_tool(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(ToolError, match="Unknown tool"):
            await client.call_tool("no such tool")
        with pytest.raises(ToolError, match="b"):
            await client.call_tool("add", {"a": 1})


async def test_the_servers_own_error_passes_through(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("refuse")
        with pytest.raises(MCPError):
            await client.call_tool("refuse", raise_on_error=False)
    assert (caught.value.code, caught.value.message) == (-32050, "refused")
    assert caught.value.data == {"why": "so"}


# --- data -----------------------------------------------------------------------------------------


async def test_data_follows_the_output_schema(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.call_tool("forecast", DAY)
    assert result.structured_content == {**DAY, "words": ["sunny"]}
    assert dataclasses.is_dataclass(result.data)
    assert (result.data.day, result.data.degrees) == (date(2026, 11, 20), 7.5)
    assert result.data.words == ["sunny"]


@dataclasses.dataclass
class Plain:
    day: date
    degrees: float
    words: list[str]


async def test_data_is_of_the_type_the_caller_asked_for(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        model = await client.call_tool("forecast", DAY, result_type=Forecast)
        assert model.data == Forecast(day=date(2026, 11, 20), degrees=7.5, words=["sunny"])
        plain = await client.call_tool("forecast", DAY, result_type=Plain)
        assert plain.data == Plain(day=date(2026, 11, 20), degrees=7.5, words=["sunny"])
        number = await client.call_tool("add", {"a": 1, "b": 2}, result_type=int)
        assert number.data == 3


class Other(BaseModel):
    something: int


async def test_a_result_that_is_not_of_the_type_asked_for_is_not_lost(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(ResultSchemaError, match="does not fit Other") as caught:
            await client.call_tool("forecast", DAY, result_type=Other)
    assert caught.value.result.structured_content == {**DAY, "words": ["sunny"]}
    assert not caught.value.result.is_error


async def test_a_result_without_structure_has_no_data_and_costs_no_listing(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.call_tool("plain")
    assert result.structured_content is None
    assert result.data is None
    assert world.log.count("tools/list") == 0


async def test_the_tools_are_listed_once_for_all_calls(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        for _ in range(3):
            await client.call_tool("forecast", DAY)
            await client.call_tool("add", {"a": 1, "b": 2})
    assert world.log.count("tools/list") == 1


async def test_a_listing_of_the_users_own_is_not_repeated(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.list_tools()
        await client.call_tool("forecast", DAY)
    assert world.log.count("tools/list") == 1


# --- progress -------------------------------------------------------------------------------------


async def test_progress_arrives_in_order_and_before_the_result(world: World, era: Era) -> None:
    updates: list[tuple[float, float | None, str | None]] = []

    async def handler(progress: float, total: float | None, message: str | None) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        updates.append((progress, total, message))

    async with connected(world.server, era) as client:
        assert texts(await client.call_tool("count", {"to": 20}, progress_handler=handler)) == ["counted"]
        assert updates == [(n, 20.0, f"step {n}") for n in range(1, 21)]
        updates.clear()
        await client.call_tool_mcp("count", {"to": 3}, handler)
        assert [update[0] for update in updates] == [1, 2, 3]


async def test_a_plain_function_may_handle_progress(world: World, era: Era) -> None:
    updates: list[float] = []

    def handler(progress: float, total: float | None, message: str | None) -> None:
        updates.append(progress)

    async with connected(world.server, era) as client:
        await client.call_tool("count", {"to": 3}, progress_handler=handler)
    assert updates == [1, 2, 3]


async def test_the_progress_handler_of_the_client_serves_calls_without_their_own(
    world: World, era: Era
) -> None:
    general: list[float] = []
    own: list[float] = []

    async def of_the_client(progress: float, total: float | None, message: str | None) -> None:
        general.append(progress)

    async def of_the_call(progress: float, total: float | None, message: str | None) -> None:
        own.append(progress)

    async with connected(world.server, era, progress_handler=of_the_client) as client:
        await client.call_tool("count", {"to": 2})
        await client.call_tool("count", {"to": 3}, progress_handler=of_the_call)
    assert general == [1, 2]
    assert own == [1, 2, 3]


async def test_a_progress_handler_that_raises_costs_only_its_update(
    world: World, era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[float] = []

    async def handler(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)
        raise KeyError("clumsy")

    async with connected(world.server, era) as client:
        assert texts(await client.call_tool("count", {"to": 3}, progress_handler=handler)) == ["counted"]
    assert seen == [1, 2, 3]
    assert caplog.text.count("the progress handler raised") == 3


async def test_a_progress_handler_may_call_the_same_client(world: World, era: Era) -> None:
    sums: list[Any] = []

    async with connected(world.server, era) as client:

        async def handler(progress: float, total: float | None, message: str | None) -> None:
            result = await client.call_tool("add", {"a": int(progress), "b": 1})
            sums.append(result.structured_content)

        await client.call_tool("count", {"to": 2}, progress_handler=handler)
    assert sums == [{"result": 2}, {"result": 3}]


async def test_progress_is_asked_for_without_a_handler_too(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.call_tool("count", {"to": 2})
        await client.call_tool("count", {"to": 2}, progress_handler=lambda *_: None)
    without, with_handler = world.log.metas("tools/call")
    # It extends the call.
    assert "progressToken" in without
    assert "progressToken" in with_handler


async def test_a_handler_that_cannot_be_called_is_refused_before_anything_is_sent(
    world: World, era: Era
) -> None:
    handler: Any = "no function"
    async with connected(world.server, era) as client:
        with pytest.raises(TypeError, match="progress handler must be a function"):
            await client.call_tool("add", {"a": 1, "b": 2}, progress_handler=handler)
    assert world.log.count("tools/call") == 0


# --- two clients ----------------------------------------------------------------------------------


async def test_clients_of_one_server_do_not_meet(world: World, era: Era) -> None:
    with anyio.fail_after(BOUND):
        async with connected(world.server, era) as one, one.new() as other:
            assert one.session is not other.session
            await one.call_tool("add", {"a": 1, "b": 2})
            await one.close()
            assert (await other.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}

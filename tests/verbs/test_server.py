"""What concerns the server as a whole: getting to know it, liveness, logging, completion, notifications."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    Completion,
    EmptyResult,
    Implementation,
    LoggingLevel,
    NotificationParams,
    ProgressNotificationParams,
    PromptReference,
    ResourceTemplateReference,
    SetLevelRequestParams,
)
from mcp.types.version import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError
from tests.verbs.servers import BOUND, LEGACY, MODERN, Era, Scripted, World, connected, text_result

pytestmark = pytest.mark.anyio

VERSIONS = {LEGACY: LATEST_HANDSHAKE_VERSION, MODERN: LATEST_MODERN_VERSION}


# --- getting to know it ---------------------------------------------------------------------------


async def test_a_client_knows_its_server_when_it_is_entered(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        assert client.is_connected()
        assert client.state is SessionState.READY
        assert client.protocol_version == VERSIONS[era]
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("world", "7")
        assert client.instructions == "Be kind."
        assert client.server_capabilities is not None
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.logging is None
        assert (client.discover_result is None) is (era == LEGACY)
        result = client.initialize_result
        assert (result.protocol_version, result.instructions) == (VERSIONS[era], "Be kind.")
        assert result.server_info == client.server_info
        assert result.capabilities == client.server_capabilities
    assert not client.is_connected()
    assert client.state is SessionState.CLOSED
    with pytest.raises(NotConnectedError, match="not connected"):
        _ = client.protocol_version


async def test_the_client_says_who_it_is(era: Era) -> None:
    names: list[str | None] = []
    scripted = Scripted()

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        client = context.session.client_params
        names.append(client and client.client_info.name)
        return text_result("done")

    scripted.calling = calling
    info = Implementation(name="a test", version="1")
    for given in (info, None):
        async with connected(scripted.server, era, client_info=given) as client:
            await client.call_tool("x")
    assert names == ["a test", "anyio-mcp"]


async def test_a_modern_version_is_used_unasked(world: World) -> None:
    async with connected(world.server, LATEST_MODERN_VERSION) as client:
        assert client.protocol_version == LATEST_MODERN_VERSION
        assert world.log.count("server/discover") == 0
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


async def test_initialize_again_asks_nobody(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        before = list(world.log.seen)
        first = await client.initialize()
        assert await client.initialize() == first == client.initialize_result
        assert world.log.seen == before


async def test_without_auto_initialize_nothing_is_negotiated_until_asked(world: World, era: Era) -> None:
    async with connected(world.server, era, auto_initialize=False) as client:
        assert client.is_connected()
        assert client.protocol_version is None
        assert client.server_info is None
        assert client.server_capabilities is None
        assert client.instructions is None
        with pytest.raises(NotConnectedError, match=r"call initialize\(\)"):
            _ = client.initialize_result
        assert world.log.seen == []
        result = await client.initialize()
        assert result.protocol_version == client.protocol_version == VERSIONS[era]
        assert await client.initialize() == result
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
    assert world.log.count("initialize") == (era == LEGACY)
    assert world.log.count("server/discover") == (era == MODERN)


async def test_a_server_that_refuses_the_client_is_heard_by_who_initializes(era: Era) -> None:
    server: Server[Any] = Server("grumpy")

    async def refuse(context: ServerRequestContext[Any], call_next: Any) -> Any:
        raise MCPError(-32050, "not you")

    server.middleware.append(refuse)
    with anyio.fail_after(BOUND):
        with pytest.raises(MCPError) as caught:
            async with Client(server, mode=era):
                raise AssertionError("entered")
        if era == LEGACY:
            assert (caught.value.code, caught.value.message) == (-32050, "not you")
        async with Client(server, mode=era, auto_initialize=False) as client:
            with pytest.raises(MCPError):
                await client.initialize()
            assert client.is_connected(), "the connection is as good as before"
            assert client.protocol_version is None


# --- liveness -------------------------------------------------------------------------------------


async def test_a_ping_is_answered_in_either_era(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        before = world.log.count("server/discover")
        assert await client.ping() is True
        assert world.log.count("ping") == (era == LEGACY)
        assert world.log.count("server/discover") - before == (era == MODERN)


async def test_a_ping_that_is_refused_raises_the_refusal() -> None:
    async def refuse(context: ServerRequestContext[Any], params: Any) -> EmptyResult:
        raise MCPError(-32050, "busy")

    async with connected(Server("busy", on_ping=refuse), LEGACY) as client:
        with pytest.raises(MCPError, match="busy"):
            await client.ping()


# --- logging --------------------------------------------------------------------------------------


async def test_a_logging_level_reaches_the_server_of_the_older_era() -> None:
    levels: list[LoggingLevel] = []

    async def set_level(context: ServerRequestContext[Any], params: SetLevelRequestParams) -> EmptyResult:
        levels.append(params.level)
        return EmptyResult()

    server: Server[Any] = Server("logging")
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    async with connected(server, LEGACY) as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.logging is not None
        await client.set_logging_level("debug")
        await client.set_logging_level("emergency")
    assert levels == ["debug", "emergency"]


async def test_a_logging_level_is_refused_by_a_server_that_has_none(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(MCPError) as caught:
            await client.set_logging_level("info")
    assert caught.value.code == -32601


# --- completion -----------------------------------------------------------------------------------


async def test_completions_of_a_prompt_and_of_a_template(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        found = await client.complete(PromptReference(name="greet"), {"name": "name", "value": "A"})
        assert found == Completion(values=["greet", "name", "A", "{}"], total=4, has_more=False)
        template = ResourceTemplateReference(uri="memo://people/{name}")
        found = await client.complete(template, {"name": "name", "value": ""}, {"b": "2", "a": "1"})
        assert found.values == ["memo://people/{name}", "name", "", "{'a': '1', 'b': '2'}"]


async def test_completions_in_the_form_of_the_protocol(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        result = await client.complete_mcp(PromptReference(name="greet"), {"name": "name", "value": "A"})
    assert result.completion.values[0] == "greet"


async def test_an_argument_without_name_or_value_is_refused_before_it_is_sent(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(ValueError, match="value"):
            await client.complete(PromptReference(name="greet"), {"name": "name"})
    assert world.log.count("completion/complete") == 0


# --- notifications --------------------------------------------------------------------------------


async def test_changed_roots_are_told_to_the_server() -> None:
    server: Server[Any] = Server("roots")
    told = anyio.Event()

    async def changed(context: ServerRequestContext[Any], params: NotificationParams) -> None:
        told.set()

    server.add_notification_handler("notifications/roots/list_changed", NotificationParams, changed)
    async with connected(server, LEGACY, roots=["/tmp"]) as client:
        await client.send_roots_list_changed()
        await told.wait()


async def test_progress_is_told_to_the_server() -> None:
    server: Server[Any] = Server("progress")
    told: list[ProgressNotificationParams] = []

    async def progress(context: ServerRequestContext[Any], params: ProgressNotificationParams) -> None:
        told.append(params)

    server.add_notification_handler("notifications/progress", ProgressNotificationParams, progress)
    async with connected(server, LEGACY) as client:
        await client.progress("token", 1)
        await client.progress(7, 0.5, 2.5, "half way")
        await client.ping()  # answered after what was sent before it
        while len(told) < 2:
            await anyio.lowlevel.checkpoint()
    assert [(each.progress_token, each.progress, each.total, each.message) for each in told] == [
        ("token", 1, None, None),
        (7, 0.5, 2.5, "half way"),
    ]


async def test_telling_the_server_to_cancel_stops_its_work_and_the_call_goes_on_waiting(era: Era) -> None:
    scripted, stopped, request_ids = Scripted(), anyio.Event(), list[Any]()

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        request_ids.append(context.request_id)
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    scripted.calling = calling
    async with connected(scripted.server, era) as client, anyio.create_task_group() as tg:
        tg.start_soon(client.call_tool, "slow")
        await scripted.log.arrival("tools/call")
        while not request_ids:
            await anyio.lowlevel.checkpoint()
        await client.cancel(request_ids[0], "enough")
        await stopped.wait()
        assert client.stats().calls_in_flight == 1
        tg.cancel_scope.cancel()


async def test_a_call_the_caller_cancels_is_stopped_at_the_server_as_well(era: Era) -> None:
    scripted, stopped = Scripted(), anyio.Event()

    async def calling(context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            stopped.set()

    scripted.calling = calling
    async with connected(scripted.server, era) as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.call_tool, "slow")
            await scripted.log.arrival("tools/call")
            tg.cancel_scope.cancel()
        assert client.stats().calls_in_flight == 0
        await stopped.wait()
        assert await client.ping()


@pytest.mark.parametrize("notify", ["cancel", "progress", "send_roots_list_changed"])
async def test_a_notification_outside_a_context_says_so(world: World, notify: str) -> None:
    client: Any = Client(world.server)
    arguments = {"cancel": (1,), "progress": ("token", 1.0), "send_roots_list_changed": ()}[notify]
    with pytest.raises(NotConnectedError, match="async with client"):
        await getattr(client, notify)(*arguments)

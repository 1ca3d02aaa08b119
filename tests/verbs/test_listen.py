"""`listen()`: change events of the modern era."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)

from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError
from tests.verbs.servers import BOUND, LEGACY, MODERN, connected

pytestmark = pytest.mark.anyio


def changing() -> MCPServer:
    """A server with one tool for each kind of change."""
    server = MCPServer("changing", log_level="CRITICAL")

    @server.tool(structured_output=False)
    async def change(what: str, context: Context) -> str:
        match what:
            case "tools":
                await context.notify_tools_changed()
            case "prompts":
                await context.notify_prompts_changed()
            case "resources":
                await context.notify_resources_changed()
            case uri:
                await context.notify_resource_updated(uri)
        return "changed"

    return server


async def changes(client: Client, *what: str) -> None:
    for each in what:
        await client.call_tool("change", {"what": each})


async def test_events_arrive_in_order_and_only_those_asked_for() -> None:
    async with (
        connected(changing(), MODERN) as client,
        client.listen(
            tools_list_changed=True, prompts_list_changed=True, resource_subscriptions=["memo://a"]
        ) as events,
    ):
        assert events.honored.tools_list_changed
        assert events.honored.prompts_list_changed
        assert not events.honored.resources_list_changed
        assert events.honored.resource_subscriptions == ["memo://a"]
        await changes(client, "prompts", "resources", "memo://b", "memo://a", "tools")
        found = [await anext(events) for _ in range(3)]
    assert found == [PromptsListChanged(), ResourceUpdated("memo://a"), ToolsListChanged()]


async def test_leaving_ends_the_subscription_and_leaves_the_session() -> None:
    async with connected(changing(), MODERN) as client:
        async with client.listen(tools_list_changed=True) as events:
            assert client.stats().calls_in_flight == 1
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert await client.ping()


async def test_several_subscriptions_of_one_client_get_each_their_own() -> None:
    async with (
        connected(changing(), MODERN) as client,
        client.listen(tools_list_changed=True) as tools,
        client.listen(resources_list_changed=True) as resources,
    ):
        await changes(client, "resources", "tools")
        assert await anext(tools) == ToolsListChanged()
        assert await anext(resources) == ResourcesListChanged()


async def test_waiting_for_an_event_can_be_cancelled_and_loses_none() -> None:
    async with connected(changing(), MODERN) as client, client.listen(tools_list_changed=True) as events:
        with anyio.move_on_after(0.01):
            await anext(events)
        await changes(client, "tools")
        assert await anext(events) == ToolsListChanged()


async def test_who_waits_for_an_event_is_told_when_the_client_is_closed() -> None:
    with anyio.fail_after(BOUND):
        async with Client(changing(), mode=MODERN, restart=None) as client:
            errors: list[BaseException] = []

            async def wait() -> None:
                try:
                    async with client.listen(tools_list_changed=True) as events:
                        listening.set()
                        await anext(events)
                except Exception as error:
                    errors.append(error)

            listening = anyio.Event()
            async with anyio.create_task_group() as tg:
                tg.start_soon(wait)
                await listening.wait()
                await client.close()
    assert len(errors) == 1
    assert isinstance(errors[0], RuntimeError)


async def test_the_older_era_has_no_such_thing() -> None:
    async with connected(changing(), LEGACY) as client:
        with pytest.raises(RuntimeError):
            async with client.listen(tools_list_changed=True):
                raise AssertionError("entered")
        assert await client.ping()


async def test_a_server_without_subscriptions_refuses() -> None:
    async with connected(Server("silent"), MODERN) as client:
        with pytest.raises(MCPError):
            async with client.listen(tools_list_changed=True):
                raise AssertionError("entered")
        assert await client.ping()


async def test_a_single_uri_is_refused_where_several_are_meant() -> None:
    uris: Any = "memo://a"
    with pytest.raises(TypeError, match="sequence of URIs"):
        async with Client(changing()).listen(resource_subscriptions=uris):
            raise AssertionError("entered")


async def test_listening_outside_a_context_says_so() -> None:
    with pytest.raises(NotConnectedError):
        async with Client(changing()).listen(tools_list_changed=True):
            raise AssertionError("entered")


async def test_the_bodys_own_exception_leaves_as_it_was_raised() -> None:
    async with connected(changing(), MODERN) as client:
        with pytest.raises(KeyError):
            async with client.listen(tools_list_changed=True):
                raise KeyError("mine")
        assert await client.ping()

"""The verbs of a group: listings over all servers, and calls that find theirs."""

from __future__ import annotations

import anyio
import pytest
from mcp import MCPError
from mcp.types import TextResourceContents

from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import NotConnectedError, ToolError
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence
from tests.group.support import answer, at_rest, group_of, holds_calls, in_time, library, peers

pytestmark = pytest.mark.anyio


@in_time
async def test_everything_is_listed_under_the_groups_names_in_the_order_of_the_configuration() -> None:
    async with ClientGroup({"b": library("b"), "a": library("a")}) as group:
        assert [each.name for each in await group.list_tools()] == ["b_where", "b_add", "a_where", "a_add"]
        assert [each.name for each in await group.list_prompts()] == ["b_ask", "a_ask"]
        resources = await group.list_resources()
        assert [each.name for each in resources] == ["b_greeting", "a_greeting"]
        assert [each.uri for each in resources] == ["b+text://greeting", "a+text://greeting"]
        templates = await group.list_resource_templates()
        assert [each.name for each in templates] == ["b_greet", "a_greet"]
        assert [each.uri_template for each in templates] == [
            "b+text://greeting/{who}",
            "a+text://greeting/{who}",
        ]


@in_time
async def test_every_name_that_is_listed_can_be_used() -> None:
    async with ClientGroup({"a": library("a"), "b_c": library("b_c")}) as group:
        for server in group:
            assert (await group.call_tool(f"{server}_where")).data.result == server
            assert (await group.call_tool(f"{server}_add", {"a": 1, "b": 2})).data.result == 3
            prompt = await group.get_prompt(f"{server}_ask", {"topic": "trio"})
            assert f"{server}: what is trio?" in str(prompt.messages[0])
            (greeting,) = await group.read_resource(f"{server}+text://greeting")
            assert isinstance(greeting, TextResourceContents)
            assert (greeting.text, greeting.uri) == (f"hello from {server}", "text://greeting")
            assert group.split(f"{server}_ask_me") == (server, "ask_me")


@in_time
async def test_prefix_and_separator_are_the_callers_to_choose() -> None:
    servers = {"My Files": library("x"), "Search": library("y")}
    group = ClientGroup(servers, separator="__", prefix=lambda name: name.lower().replace(" ", "-"))
    async with group:
        names = [each.name for each in await group.list_tools()]
        assert names == ["my-files__where", "my-files__add", "search__where", "search__add"]
        assert (await group.call_tool("my-files__where")).data.result == "x"
        (resource, _) = await group.list_resources()
        assert resource.uri == "my-files+text://greeting"
        assert group.split("search__where") == ("Search", "where")
        assert list(group) == ["My Files", "Search"]


@in_time
async def test_the_clients_of_a_group_keep_the_servers_own_names() -> None:
    async with ClientGroup({"a": library("a")}) as group:
        client = group["a"]
        assert isinstance(client, Client)
        assert client is group["a"] is group.servers["a"]
        assert [each.name for each in await client.list_tools()] == ["where", "add"]
        assert "a" in group
        assert "b" not in group
        with pytest.raises(KeyError):
            group["b"]


@in_time
async def test_names_of_no_server_are_refused_without_asking_any() -> None:
    servers = peers("a b")
    async with group_of(servers) as group:
        for attempt in (
            lambda: group.call_tool("where"),
            lambda: group.call_tool("c_where"),
            lambda: group.get_prompt("a"),
            lambda: group.read_resource("text://greeting"),
            lambda: group.read_resource("a_text://greeting"),
        ):
            with pytest.raises(ValueError, match="belongs to no server of this group"):
                await attempt()
    assert not [r for peer in servers.values() for r in peer.requests if r.method != "server/discover"]


@in_time
async def test_errors_of_one_server_are_raised_as_its_client_raises_them() -> None:
    servers = peers("a b")
    servers["a"].on("tools/call", {"content": [{"type": "text", "text": "no"}], "isError": True})
    async with group_of(servers) as group:
        with pytest.raises(ToolError, match="no"):
            await group.call_tool("a_echo")
        with pytest.raises(MCPError, match="Method not found"):
            await group.get_prompt("b_ask")
        result = await group.call_tool("a_echo", raise_on_error=False)
        assert result.is_error
        with pytest.raises(TimeoutError):
            servers["b"].on("tools/call", silence)
            await group.call_tool("b_echo", timeout=0.5)


@in_time
async def test_listings_ask_all_servers_at_the_same_time() -> None:
    servers = peers("a b c d")
    arrived: list[str] = []
    everybody = anyio.Event()

    def asked(name: str, tool: str) -> None:
        async def handler(request: PeerRequest) -> dict[str, object]:
            arrived.append(name)
            if len(arrived) == len(servers):
                everybody.set()
            await everybody.wait()
            return {"tools": [{"name": tool, "inputSchema": {"type": "object"}}]}

        servers[name].on("tools/list", handler)

    for name in servers:
        asked(name, "t")
    async with group_of(servers) as group:
        tools = await group.list_tools(timeout=5)
    assert [each.name for each in tools] == ["a_t", "b_t", "c_t", "d_t"]


@in_time
async def test_a_server_that_declares_no_such_thing_is_not_asked() -> None:
    servers = peers("a b")
    servers["a"].on("prompts/list", silence)
    servers["b"].capabilities = {"prompts": {}}
    servers["b"].on("prompts/list", {"prompts": [{"name": "ask"}]})
    async with group_of(servers) as group:
        assert [each.name for each in await group.list_prompts()] == ["b_ask"]
        assert [each.name for each in await group.list_tools()] == ["a_echo"]
        assert await group.list_resources() == []
    assert servers["a"].requests_of("prompts/list") == []
    assert servers["b"].requests_of("tools/list") == []


@in_time
async def test_a_server_that_knows_no_templates_has_none() -> None:
    servers = peers("a")
    servers["a"].capabilities = {"resources": {}}
    async with group_of(servers) as group:
        assert await group.list_resource_templates() == []
    assert len(servers["a"].requests_of("resources/templates/list")) == 1


@in_time
async def test_ping_asks_every_server() -> None:
    servers = {name: ScriptedPeer(era="legacy") for name in "abc"}
    async with group_of(servers) as group:
        assert await group.ping() == {"a": True, "b": True, "c": True}
    assert [len(peer.requests_of("ping")) for peer in servers.values()] == [1, 1, 1]


@in_time
async def test_a_slow_server_delays_its_own_calls_only() -> None:
    servers = peers("slow fast")
    holds_calls(servers["slow"])
    done: list[str] = []
    async with group_of(servers) as group, anyio.create_task_group() as tg:

        async def call(name: str) -> None:
            result = await group.call_tool(name)
            done.append(result.content[0].text)

        tg.start_soon(call, "slow_echo")
        (request,) = await servers["slow"].received("tools/call")
        for _ in range(3):
            await call("fast_echo")
        assert done == ["echo"] * 3
        answer(request, "late")
    assert done[3:] == ["late"]


@in_time
async def test_a_group_without_servers_is_no_error() -> None:
    for config in ({}, {"mcpServers": {}}):
        async with ClientGroup(config) as group:
            assert list(group) == []
            assert await group.list_tools() == []
            assert await group.ping() == {}
            with pytest.raises(ValueError, match="it is empty"):
                await group.call_tool("a_b")


@in_time
async def test_a_group_that_is_not_open_says_so() -> None:
    servers = peers("a")
    group = group_of(servers)
    for _ in range(2):
        for attempt in (group.list_tools, group.list_resources, group.ping):
            with pytest.raises(NotConnectedError, match="is not open"):
                await attempt()
        with pytest.raises(NotConnectedError):
            await group.call_tool("a_echo")
        with pytest.raises(NotConnectedError, match="a belongs to a ClientGroup that is not open"):
            await group["a"].__aenter__()
        with pytest.raises(NotConnectedError, match="a belongs to a ClientGroup that is not open"):
            await group["a"].run()
        async with group:
            await group.list_tools()
    at_rest(group, servers)


@in_time
async def test_settings_are_given_to_every_server() -> None:
    servers = peers("a b")
    logs: list[object] = []
    group = group_of(servers, timeouts=Timeouts(call=7), log_handler=logs.append, restart=None)
    for peer in servers.values():
        holds_calls(peer)
    async with group:
        for name in group:
            with pytest.raises(TimeoutError) as caught:
                await group.call_tool(f"{name}_echo")
            assert caught.value.seconds == 7


def test_a_mapping_may_mix_configurations_and_anything_a_client_is_made_of() -> None:
    group = ClientGroup(
        {
            "server": library("x"),
            "web": "http://127.0.0.1:1/mcp",
            "child": {"command": "x"},
            "off": {"command": "x", "disabled": True},
            "peer": ScriptedPeer().transport,
        }
    )
    assert list(group) == ["server", "web", "child", "peer"]
    group = ClientGroup({"mcpServers": {"a": library("x"), "b": {"url": "http://127.0.0.1:1/"}}})
    assert list(group) == ["a", "b"]
    assert list(ClientGroup({"command": "x", "args": []})) == ["server"]


@pytest.mark.parametrize(
    ("config", "options", "kind", "why"),
    [
        ("mcp.json", {}, TypeError, "MCPConfig.load"),
        (None, {}, TypeError, "an MCPConfig or a mapping"),
        ({"a": None, "b": library("x")}, {}, TypeError, "server 'a': None is no server"),
        ({"a": 7}, {}, TypeError, "cannot tell how to reach 7"),
        ({"a": "x"}, {}, ValueError, "cannot tell how to run 'x'"),
        ({"a": library("x"), "a_b": library("y")}, {}, ValueError, "two ways"),
        ({"a\n": library("x")}, {}, ValueError, "printable"),
        ({1: library("x")}, {}, TypeError, "must be a str"),
        ({}, {"on_failure": "ignore"}, ValueError, "on_failure must be"),
        ({}, {"auth": "token"}, TypeError, "auth; it belongs into the configuration of a server"),
        ({}, {"colour": "red"}, TypeError, "ClientGroup takes no colour"),
        ({"a": library("x")}, {"mode": "new"}, ValueError, "mode must be one of"),
    ],
)
def test_what_makes_no_group_is_refused(
    config: object, options: dict[str, object], kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why) as caught:
        ClientGroup(config, **options)
    assert type(caught.value) is kind


@in_time
async def test_a_copy_of_a_client_is_in_no_group() -> None:
    servers = peers("a")
    async with group_of(servers) as group:
        copy = group["a"].new()
        async with copy:
            assert servers["a"].open_connections == 2
        await group["a"].ping()
        assert servers["a"].open_connections == 1
    async with copy:
        await copy.ping()
    at_rest(group, servers)

"""Adding and removing servers while a group is open, in any order, while others use it."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyio_mcp.errors import ConnectError, MCPClientError, NotConnectedError, SessionLostError
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import ScriptedPeer, check_never_hangs
from tests.group.support import (
    at_rest,
    cancel_after_every_pass,
    cancelled_after,
    group_of,
    hangs_in_connect,
    holds_calls,
    in_time,
    peers,
    refuses_connections,
)

pytestmark = pytest.mark.anyio


@in_time
async def test_a_server_can_be_added_and_removed_while_the_group_is_open() -> None:
    servers = peers("a b c")
    async with ClientGroup({"a": servers["a"].transport}) as group:
        client = await group.add("c", servers["c"].transport)
        assert client is group["c"]
        assert client.is_connected()
        await group.add("b", servers["b"].transport)
        assert list(group) == ["a", "c", "b"]
        assert [each.name for each in await group.list_tools()] == ["a_echo", "c_echo", "b_echo"]
        await group.remove("a")
        assert [each.name for each in await group.list_tools()] == ["c_echo", "b_echo"]
        assert [peer.open_connections for peer in servers.values()] == [0, 1, 1]
        with pytest.raises(ValueError, match="belongs to no server"):
            await group.call_tool("a_echo")
    at_rest(group, servers)


@in_time
async def test_a_server_added_to_a_group_that_is_not_open_is_connected_when_it_is() -> None:
    servers = peers("a b")
    group = group_of({"a": servers["a"]})
    client = await group.add("b", servers["b"].transport)
    assert not client.is_connected()
    async with group:
        assert client.is_connected()
        assert await group.ping() == {"a": True, "b": True}
    await group.remove("b")
    async with group:
        assert await group.ping() == {"a": True}
    at_rest(group, servers)


@in_time
async def test_a_server_can_be_added_by_its_configuration() -> None:
    group = ClientGroup({})
    await group.add("child", {"command": "x"})
    await group.add("web", {"url": "http://127.0.0.1:1/mcp"})
    await group.add("page", "http://127.0.0.1:1/mcp")
    assert [client.transport.kind for client in group.servers.values()] == ["pipe", "tcp", "tcp"]


@pytest.mark.parametrize(
    ("name", "server", "kind", "why"),
    [
        ("a", {"command": "x"}, ValueError, "there is a server 'a' already"),
        ("a_b", {"command": "x"}, ValueError, "two ways"),
        ("", {"command": "x"}, ValueError, "printable"),
        (1, {"command": "x"}, TypeError, "must be a str"),
        ("b", {"cmd": "x"}, ValueError, "either a 'url' or a 'command'"),
        ("b", {"command": "x", "disabled": True}, ValueError, "is disabled"),
        ("b", {"mcpServers": {"b": {"command": "x"}}}, ValueError, "either a 'url' or a 'command'"),
        ("b", None, TypeError, "None is no server"),
        ("b", 7, TypeError, "cannot tell how to reach"),
    ],
)
@in_time
async def test_what_cannot_be_added_changes_nothing(
    name: str, server: object, kind: type[Exception], why: str
) -> None:
    servers = peers("a")
    async with group_of(servers) as group:
        untyped: object = server
        with pytest.raises(kind, match=why) as caught:
            await group.add(name, untyped)
        assert type(caught.value) is kind
        assert list(group) == ["a"]
        assert await group.ping() == {"a": True}


@in_time
async def test_a_server_that_is_not_there_cannot_be_removed() -> None:
    async with group_of(peers("a")) as group:
        with pytest.raises(KeyError):
            await group.remove("b")
        await group.remove("a")
        with pytest.raises(KeyError):
            await group.remove("a")


@in_time
async def test_a_server_that_cannot_be_reached_is_not_added_or_reported_by_policy() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    async with group_of({"a": servers["a"]}) as group:
        with pytest.raises(ConnectError) as caught:
            await group.add("b", servers["b"].transport)
        assert caught.value.__notes__ == ["server 'b'"]
        assert list(group) == ["a"]
        assert await group.ping() == {"a": True}
    async with group_of({"a": servers["a"]}, on_failure="report") as group:
        client = await group.add("b", servers["b"].transport)
        assert list(group.failures) == ["b"]
        servers["b"].on_connect = None
        await client.ping()
        assert group.failures == {}
    at_rest(group, servers)


@in_time
async def test_an_add_that_is_cancelled_leaves_no_server_and_does_not_hold_up_the_others() -> None:
    servers = peers("a b")
    hangs_in_connect(servers["b"])
    async with group_of({"a": servers["a"]}) as group:
        with anyio.move_on_after(1) as scope:
            async with anyio.create_task_group() as tg:
                tg.start_soon(group.add, "b", servers["b"].transport)
                while not servers["b"].attempts:
                    await anyio.sleep(0.001)
                assert await group.call_tool("a_echo")
        assert scope.cancelled_caught
        assert list(group) == ["a"]
        servers["b"].on_connect = None
        await group.add("b", servers["b"].transport)
        assert await group.ping() == {"a": True, "b": True}
    at_rest(group, servers)


@in_time
async def test_removing_a_server_ends_its_calls_and_nobody_elses() -> None:
    servers = peers("a b")
    for peer in servers.values():
        holds_calls(peer)
    outcomes: dict[str, str] = {}

    async def call(name: str) -> None:
        try:
            outcomes[name] = (await group.call_tool(f"{name}_echo", timeout=None)).content[0].text
        except SessionLostError as error:
            outcomes[name] = f"{error.reason}: {error}"

    async with group_of(servers) as group, anyio.create_task_group() as tg:
        for name in servers:
            tg.start_soon(call, name)
            await servers[name].received("tools/call")
        removed = group["b"]
        await group.remove("b")
        while "b" not in outcomes:
            await anyio.sleep(0.001)
        servers["a"].requests_of("tools/call")[0].answer({"content": [{"type": "text", "text": "fine"}]})
    assert outcomes == {"a": "fine", "b": "closed: server 'b' was removed from the client group"}
    with pytest.raises(NotConnectedError):
        await removed.ping()
    with pytest.raises(NotConnectedError):
        await removed.__aenter__()
    at_rest(group, servers)


@in_time
async def test_a_server_removed_while_it_is_being_connected_holds_up_nobody() -> None:
    for policy in ("raise", "report"):
        servers = peers("a b")
        hangs_in_connect(servers["b"])
        async with anyio.create_task_group() as tg:
            group = group_of(servers, on_failure=policy, task_group=tg)
            tg.start_soon(group.__aenter__)
            while not servers["b"].attempts:
                await anyio.sleep(0.001)
            await group.remove("b")
            while not group["a"].is_connected():
                await anyio.sleep(0.001)
            assert await group.ping() == {"a": True}
            assert group.failures == {}
            await group.__aexit__(None, None, None)
        at_rest(group, servers)


@in_time
async def test_a_server_removed_while_it_is_asked_is_left_out() -> None:
    for policy in ("raise", "report"):
        servers = peers("a b")
        servers["b"].on("tools/list", lambda _: None)
        listed: list[str] = []

        async def list_all(group: ClientGroup, listed: list[str]) -> None:
            listed += [each.name for each in await group.list_tools()]

        async with group_of(servers, on_failure=policy) as group:
            async with anyio.create_task_group() as tg:
                tg.start_soon(list_all, group, listed)
                await servers["b"].received("tools/list")
                await group.remove("b")
            assert listed == ["a_echo"]
            assert group.failures == {}


@in_time
async def test_a_name_can_be_used_again_once_it_is_free() -> None:
    first, second = ScriptedPeer(), ScriptedPeer()
    async with ClientGroup({"a": first.transport}) as group:
        async with anyio.create_task_group() as tg:
            tg.start_soon(group.remove, "a")
            while "a" in group:
                await anyio.sleep(0)
            await group.add("a", second.transport)
        assert await group.call_tool("a_echo")
        assert (first.open_connections, second.open_connections) == (0, 1)


@in_time
async def test_a_group_closed_while_a_server_is_added_says_so() -> None:
    servers = peers("a b")
    hangs_in_connect(servers["b"])
    async with anyio.create_task_group() as tg:
        group = group_of({"a": servers["a"]}, on_failure="report", task_group=tg)

        async def add() -> None:
            with pytest.raises(SessionLostError) as caught:
                await group.add("b", servers["b"].transport)
            assert caught.value.reason == "closed"

        async with group:
            tg.start_soon(add)
            while not servers["b"].attempts:
                await anyio.sleep(0.001)
            await group.close()
    assert list(group) == ["a"]
    at_rest(group, servers)


@pytest.mark.parametrize("policy", ["raise", "report"])
def test_adding_and_removing_can_be_cancelled_anywhere(backend: str, policy: str) -> None:
    async def scenario(passes: int) -> bool:
        servers = peers("a b")
        async with group_of({"a": servers["a"]}, on_failure=policy) as group:

            async def add_and_remove() -> None:
                await group.add("b", servers["b"].transport)
                await group.ping()
                await group.remove("b")

            cut = await cancelled_after(passes, add_and_remove)
            # Cancelled, each has happened or has not; the group is usable either way.
            if "b" in group:
                await group.remove("b")
            assert await group.ping() == {"a": True}
            await group.add("b", servers["b"].transport)
            assert await group.ping() == {"a": True, "b": True}
        at_rest(group, servers)
        return cut

    assert cancel_after_every_pass(scenario, backend=backend) > 5


# --- any order ------------------------------------------------------------------------------------

NAMES = "abc"
ACTIONS = st.sampled_from(["add", "remove", "call", "list", "ping", "enter", "close", "lose", "cancel"])
STEPS = st.lists(
    st.tuples(ACTIONS, st.sampled_from(NAMES), st.sampled_from([0.0, 0.0, 0.1, 0.3])),
    min_size=1,
    max_size=25,
)
EXPECTED = (MCPClientError, KeyError, ValueError)
"""What an action may raise when others got in its way; never an ExceptionGroup, never anything else."""


@settings(max_examples=60, deadline=None)
@given(
    steps=STEPS,
    policy=st.sampled_from(["raise", "report"]),
    supplied=st.booleans(),
    trouble=st.sampled_from(["none", "refuse", "slow"]),
    backend=st.sampled_from(["asyncio", "trio"]),
)
def test_whatever_is_done_in_whatever_order_the_group_stays_usable_and_leaves_nothing(
    steps: list[tuple[str, str, float]], policy: str, supplied: bool, trouble: str, backend: str
) -> None:
    async def scenario() -> None:
        servers = peers(" ".join(NAMES))

        async def on_connect(attempt: int) -> None:
            await anyio.sleep(0.2)
            if trouble == "refuse" and attempt % 2:
                raise OSError("nobody home")

        if trouble != "none":
            servers["c"].on_connect = on_connect

        async def act(group: ClientGroup, action: str, name: str) -> None:
            try:
                match action:
                    case "add":
                        await group.add(name, servers[name].transport)
                    case "remove":
                        await group.remove(name)
                    case "call":
                        await group.call_tool(f"{name}_echo", timeout=5)
                    case "list":
                        await group.list_tools(timeout=5)
                    case "ping":
                        await group.ping(timeout=5)
                    case "enter":
                        async with group:
                            await anyio.sleep(0.15)
                            await group.list_tools(timeout=5)
                    case "close":
                        await group.close()
                    case "cancel":
                        with anyio.move_on_after(0.1):
                            await group.list_tools()
                    case _:
                        for connection in servers[name].connections:
                            connection.lose("eof")
            except EXPECTED:
                return

        async with anyio.create_task_group() as tg:
            group = ClientGroup(
                {name: servers[name].transport for name in "ab"},
                on_failure=policy,
                task_group=tg if supplied else None,
            )
            async with group:
                async with anyio.create_task_group() as acting:
                    for action, name, pause in steps:
                        acting.start_soon(act, group, action, name)
                        await anyio.sleep(pause)
                assert set(group) <= set(NAMES)
            at_rest(group, servers)
            servers["c"].on_connect = None
            async with group:
                assert await group.ping() == dict.fromkeys(group, True)
        at_rest(group, servers)

    check_never_hangs(scenario, backend=backend)

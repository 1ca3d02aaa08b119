"""What the failure of one server means for the others: nothing, but for those who asked for all."""

from __future__ import annotations

import math
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from anyio_mcp.config import Restart, Timeouts
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
)
from anyio_mcp.group import ClientGroup
from anyio_mcp.testing import PeerRequest, ScriptedPeer, silence
from tests.group.support import (
    answer,
    answers_again,
    at_rest,
    disconnected,
    group_of,
    hangs_in_connect,
    holds_calls,
    in_time,
    peers,
    refuses_connections,
)

pytestmark = pytest.mark.anyio


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


# --- connecting, on_failure="raise" ---------------------------------------------------------------


@in_time
async def test_a_server_that_cannot_be_reached_ends_the_entry_and_is_named_in_a_note() -> None:
    servers = peers("a b c")
    refuses_connections(servers["b"])
    group = group_of(servers)
    with pytest.raises(ConnectError, match="nobody home") as caught:
        await group.__aenter__()
    assert type(caught.value) is ConnectError
    assert isinstance(caught.value.cause, OSError)
    assert notes(caught.value) == ["server 'b'"]
    at_rest(group, servers)
    assert list(group) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "failure",
    [
        MCPError(-32000, "go away"),
        httpx2.HTTPStatusError(
            "401", request=httpx2.Request("POST", "http://x/"), response=httpx2.Response(401)
        ),
    ],
    ids=["MCPError", "HTTPStatusError"],
)
@in_time
async def test_what_a_server_answers_to_connecting_passes_through_as_it_is(failure: Exception) -> None:
    servers = peers("a b")

    async def refuse(attempt: int) -> None:
        raise failure

    servers["a"].on_connect = refuse
    for _ in range(3):
        with pytest.raises(type(failure)) as caught:
            async with group_of(servers):
                pytest.fail("entered")
        assert notes(caught.value) == ["server 'a'"]


@in_time
async def test_the_first_failure_does_not_wait_for_a_server_that_hangs() -> None:
    servers = peers("a b c")
    hangs_in_connect(servers["a"])
    refuses_connections(servers["c"])
    started = anyio.current_time()
    group = group_of(servers)
    with pytest.raises(ConnectError) as caught:
        async with group:
            pytest.fail("entered")
    assert notes(caught.value) == ["server 'c'"]
    assert anyio.current_time() - started < 1
    at_rest(group, servers)


@in_time
async def test_failures_at_the_same_time_raise_the_first_of_the_configuration_with_notes_on_the_others() -> (
    None
):
    servers = peers("a b c d")
    together = anyio.Event()

    def refuses(peer: ScriptedPeer, text: str) -> None:
        async def refuse(attempt: int) -> None:
            await together.wait()
            raise OSError(text)

        peer.on_connect = refuse

    refuses(servers["b"], "b is out")
    refuses(servers["c"], "c is out" * 1000)
    refuses(servers["d"], "d is out")
    group = group_of(servers)
    async with anyio.create_task_group() as tg:
        tg.start_soon(_set_when, together, lambda: all(p.attempts for p in servers.values()))
        with pytest.raises(ConnectError, match="b is out") as caught:
            await group.__aenter__()
    first, *others = notes(caught.value)
    assert first == "server 'b'"
    assert [other[:43] for other in others] == [
        "server 'c' failed as well: ConnectError: co",
        "server 'd' failed as well: ConnectError: co",
    ]
    assert max(map(len, others)) <= 300
    at_rest(group, servers)


async def _set_when(event: anyio.Event, condition: Any) -> None:
    while not condition():
        await anyio.sleep(0.01)
    event.set()


@in_time
async def test_a_server_that_hangs_in_connect_costs_the_connect_deadline() -> None:
    servers = peers("a b")
    hangs_in_connect(servers["b"])
    group = group_of(servers, timeouts=Timeouts(connect=3))
    started = anyio.current_time()
    with pytest.raises(DeadlineExceededError) as caught:
        await group.__aenter__()
    assert (caught.value.phase, caught.value.seconds) == ("connect", 3)
    assert notes(caught.value) == ["server 'b'"]
    assert anyio.current_time() - started == pytest.approx(3, abs=0.5)
    at_rest(group, servers)


@in_time
async def test_a_group_that_failed_can_be_entered_again() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    group = group_of(servers)
    for _ in range(3):
        with pytest.raises(ConnectError) as caught:
            await group.__aenter__()
        assert notes(caught.value) == ["server 'b'"]
    answers_again(servers["b"])
    async with group:
        assert await group.ping() == {"a": True, "b": True}
        assert group.failures == {}


# --- connecting, on_failure="report" --------------------------------------------------------------


@in_time
async def test_a_group_that_reports_is_entered_without_the_servers_that_fail() -> None:
    servers = peers("a b c")
    refuses_connections(servers["b"])
    hangs_in_connect(servers["c"])
    started = anyio.current_time()
    async with group_of(servers, on_failure="report", timeouts=Timeouts(connect=3)) as group:
        assert anyio.current_time() - started == pytest.approx(3, abs=0.5)
        failures = group.failures
        assert list(failures) == ["b", "c"]
        assert isinstance(failures["b"], ConnectError)
        assert isinstance(failures["c"], DeadlineExceededError)
        assert await group.call_tool("a_echo")
    assert list(group.failures) == ["b", "c"]
    at_rest(group, servers)


@in_time
async def test_a_reported_server_is_tried_again_by_the_next_call_that_needs_it() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    async with group_of(servers, on_failure="report") as group:
        for attempt in range(3):
            with pytest.raises(ConnectError):
                await group.call_tool("b_echo", timeout=60)
            assert servers["b"].attempts >= 2 + attempt
        answers_again(servers["b"])
        assert await group.call_tool("b_echo")
        assert group.failures == {}
        assert [each.name for each in await group.list_tools()] == ["a_echo", "b_echo"]


@in_time
async def test_the_restart_policy_bounds_how_often_a_call_tries() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    restart = Restart(max_attempts=3, backoff=1, jitter=0)
    async with group_of(servers, on_failure="report", restart=restart) as group:
        with pytest.raises(ConnectError):
            await group.call_tool("b_echo")
        assert servers["b"].attempts == 3
        assert servers["a"].attempts == 1


@in_time
async def test_without_restart_the_failure_is_raised_again() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    async with group_of(servers, on_failure="report", restart=None) as group:
        for _ in range(2):
            with pytest.raises(ConnectError, match="nobody home"):
                await group.call_tool("b_echo")
        assert servers["b"].attempts == 1
        assert [each.name for each in await group.list_tools()] == ["a_echo"]


@in_time
async def test_entering_a_group_again_tries_again() -> None:
    servers = peers("a b")
    refuses_connections(servers["b"])
    async with group_of(servers, on_failure="report") as group:
        answers_again(servers["b"])
        async with group:
            assert group.failures == {}
            assert group["b"].is_connected()


@pytest.mark.parametrize("policy", ["raise", "report"])
@in_time
async def test_a_cancelled_task_group_is_no_failure_of_a_server(policy: str) -> None:
    servers = peers("a b")
    async with anyio.create_task_group() as tg:
        group = group_of(servers, on_failure=policy, task_group=tg)
        tg.cancel_scope.cancel()
        with anyio.CancelScope(shield=True), pytest.raises(NotConnectedError, match="is cancelled"):
            await group.__aenter__()
    with pytest.raises(NotConnectedError, match="is cancelled"):
        await group.__aenter__()
    at_rest(group, servers)


# --- a server that dies ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["raise", "report"])
@in_time
async def test_the_death_of_one_server_touches_nobody_elses_calls(policy: str) -> None:
    servers = peers("a b c")
    for peer in servers.values():
        holds_calls(peer)
    outcomes: dict[str, object] = {}

    async def call(name: str) -> None:
        try:
            outcomes[name] = (await group.call_tool(f"{name}_echo", timeout=None)).content[0].text
        except SessionLostError as error:
            outcomes[name] = error.reason

    async with group_of(servers, on_failure=policy) as group, anyio.create_task_group() as tg:
        for name in servers:
            tg.start_soon(call, name)
        for peer in servers.values():
            await peer.received("tools/call")
        servers["b"].connection.lose("exited", exit_code=1)
        while "b" not in outcomes:
            await anyio.sleep(0.001)
        assert outcomes == {"b": "exited"}
        assert list(group.failures) == ["b"]
        for name in "ac":
            answer(servers[name].requests_of("tools/call")[0], name)
    assert outcomes == {"a": "a", "b": "exited", "c": "c"}
    assert [peer.attempts for peer in servers.values()] == [1, 1, 1]


@in_time
async def test_a_dead_server_is_replaced_by_the_next_call_to_it() -> None:
    servers = peers("a b")
    async with group_of(servers) as group:
        servers["b"].connection.lose("eof")
        await disconnected(group, "b")
        assert await group.call_tool("a_echo")
        assert servers["b"].attempts == 1
        assert await group.call_tool("b_echo")
        assert servers["b"].attempts == 2
        assert group.failures == {}
        servers["b"].connection.lose("eof")
        await disconnected(group, "b")
        assert [each.name for each in await group.list_tools()] == ["a_echo", "b_echo"]


# --- listings with a failing server ---------------------------------------------------------------


def refuse(request: PeerRequest) -> dict[str, Any]:
    raise MCPError(-32603, "out of order")


@in_time
async def test_a_listing_raises_the_first_failure_as_it_is() -> None:
    servers = peers("a b c")
    servers["a"].on("tools/list", silence)
    servers["c"].on("tools/list", refuse)
    async with group_of(servers) as group:
        with pytest.raises(MCPError, match="out of order") as caught:
            await group.list_tools()
        assert notes(caught.value) == ["server 'c'"]
        # The session lives on, and so do the others.
        assert await group.call_tool("c_echo")
        assert group["a"].stats().calls_in_flight == 0


@in_time
async def test_a_listing_that_reports_leaves_a_failing_server_out() -> None:
    servers = peers("a b c")
    servers["a"].on("tools/list", silence)
    servers["c"].on("tools/list", refuse)
    async with group_of(servers, on_failure="report") as group:
        started = anyio.current_time()
        assert [each.name for each in await group.list_tools(timeout=2)] == ["b_echo"]
        assert anyio.current_time() - started == pytest.approx(2, abs=0.1)
        assert list(group.failures) == ["a", "c"]
        assert isinstance(group.failures["a"], DeadlineExceededError)
        assert isinstance(group.failures["c"], MCPError)
        # Other operations say nothing about this one.
        await group.ping()
        assert list(group.failures) == ["a", "c"]
        for name in "ac":
            servers[name].on("tools/list", {"tools": []})
        assert [each.name for each in await group.list_tools()] == ["b_echo"]
        assert group.failures == {}


@in_time
async def test_what_failed_in_a_session_before_says_nothing_about_the_one_after() -> None:
    servers = peers("a")
    servers["a"].on("tools/list", refuse)
    async with group_of(servers, on_failure="report") as group:
        assert await group.list_tools() == []
        servers["a"].connection.lose("eof")
        await disconnected(group, "a")
        await group["a"].ping()
        assert group.failures == {}


@in_time
async def test_listings_over_a_dead_server_follow_the_policy() -> None:
    for policy in ("raise", "report"):
        servers = peers("a b")
        async with group_of(servers, on_failure=policy) as group:
            refuses_connections(servers["b"])
            servers["b"].connection.lose("eof")
            await disconnected(group, "b")
            if policy == "raise":
                with pytest.raises(ConnectError, match="nobody home") as caught:
                    await group.list_tools()
                assert notes(caught.value) == ["server 'b'"]
                with pytest.raises(ConnectError):
                    await group.ping()
            else:
                assert [each.name for each in await group.list_tools()] == ["a_echo"]
                assert await group.ping() == {"a": True, "b": False}
            assert list(group.failures) == ["b"]
            assert await group.call_tool("a_echo")


@in_time
async def test_a_listing_over_a_server_that_hangs_in_connect_is_bounded_by_its_own_timeout() -> None:
    servers = peers("a b")
    async with group_of(servers, on_failure="report") as group:
        hangs_in_connect(servers["b"])
        servers["b"].connection.lose("eof")
        await disconnected(group, "b")
        started = anyio.current_time()
        assert [each.name for each in await group.list_tools(timeout=4)] == ["a_echo"]
        assert anyio.current_time() - started == pytest.approx(4, abs=0.1)
        assert list(group.failures) == ["b"]


@in_time
async def test_an_answer_that_breaks_the_protocol_is_reported_too() -> None:
    servers = peers("a b")
    servers["a"].on("tools/list", {"tools": "none"})
    async with group_of(servers, on_failure="report") as group:
        assert [each.name for each in await group.list_tools()] == ["b_echo"]
        assert isinstance(group.failures["a"], RequestFailedError)


@in_time
async def test_a_client_closed_by_its_user_stays_closed_and_has_not_failed() -> None:
    servers = peers("a b")
    for policy in ("raise", "report"):
        async with group_of(servers, on_failure=policy) as group:
            await group["b"].close()
            assert group.failures == {}
            assert await group.call_tool("a_echo")
            with pytest.raises(NotConnectedError):
                await group.call_tool("b_echo")
            if policy == "raise":
                with pytest.raises(NotConnectedError):
                    await group.list_tools()
            else:
                assert [each.name for each in await group.list_tools()] == ["a_echo"]
            async with group:
                assert await group.ping() == {"a": True, "b": True}
        at_rest(group, servers)


@in_time
async def test_a_server_that_never_lets_go_costs_the_close_deadline_once() -> None:
    servers = peers("a b c")
    for peer in servers.values():
        peer.farewell = math.inf
    async with group_of(servers, timeouts=Timeouts(close=2)):
        started = anyio.current_time()
    assert anyio.current_time() - started == pytest.approx(2, abs=0.5)


# --- what cannot even be a server -----------------------------------------------------------------

UNUSABLE = {
    "a variable that is not set": {"url": "http://127.0.0.1:1/${NO_SUCH_VARIABLE_42}"},
    "a variable in a header": {"url": "http://127.0.0.1:1/", "headers": {"x": "${env:NO_SUCH_VARIABLE_42}"}},
    "an input that is not given": {"command": "x", "env": {"A": "${input:key}"}},
    "neither command nor url": {"args": ["x"]},
    "no mapping": 5,
    "none": None,
    "a wrong type": {"command": ["x"]},
    "an odd url": {"url": "gopher://x"},
    "an odd transport": {"url": "http://127.0.0.1:1/", "type": "pigeon"},
    "a file that is not there": "/no/such/file.py",
}


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("bad", UNUSABLE)
@in_time
async def test_one_bad_configuration_does_not_stop_the_others_where_failures_are_reported(
    bad: str, wrapped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    good = ScriptedPeer()
    servers: dict[str, Any] = {"bad": UNUSABLE[bad], "good": good.transport}
    config = {"mcpServers": servers} if wrapped else servers
    with pytest.raises((TypeError, ValueError)):
        ClientGroup(config)
    group = ClientGroup(config, on_failure="report")
    assert "'bad'" in caplog.text
    async with group:
        assert list(group) == ["good"]
        assert [tool.name for tool in await group.list_tools()] == ["good_echo"]
        assert list(group.failures) == ["bad"]
        assert isinstance(group.failures["bad"], TypeError | ValueError)
        added = ScriptedPeer()
        await group.add("bad", added.transport)
        assert group.failures == {}
        assert sorted(group) == ["bad", "good"]


@in_time
async def test_a_name_that_cannot_be_one_stops_no_other_server() -> None:
    config = {"mcpServers": {"": ScriptedPeer().transport, "a\nb": {}, "good": ScriptedPeer().transport}}
    async with ClientGroup(config, on_failure="report") as group:
        assert list(group) == ["good"]
        assert sorted(group.failures) == ["", "a\nb"]


def test_a_mistake_in_the_settings_is_raised_and_not_reported() -> None:
    mode: Any = "loud"
    for policy in ("raise", "report"):
        with pytest.raises(ValueError, match="mode must be one of"):
            ClientGroup({"a": ScriptedPeer().transport}, on_failure=policy, mode=mode)

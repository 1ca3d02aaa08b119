"""A URL of which nobody has said how it is reached: Streamable HTTP first, then HTTP+SSE, in one connect.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#backwards-compatibility
"""

from __future__ import annotations

from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from anyio_mcp import (
    Client,
    ClientGroup,
    DeadlineExceededError,
    SSETransport,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.testing import check_at_rest
from anyio_mcp.transports.infer import Source
from tests.faults.http_server import FaultServer, Handler, Talk, error_answer, fault_server, never
from tests.faults.http_stage import behave, echoes
from tests.faults.sse_stage import serve

pytestmark = pytest.mark.anyio


def posts(server: FaultServer, target: str = "/mcp") -> list[str | None]:
    return [each.rpc_method for each in server.of("POST") if each.target == target]


def older(status: int = 405, body: bytes = b"", kind: str | None = None) -> Handler:
    """A server of HTTP+SSE, which refuses what is POSTed to the address of its stream."""

    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST" and talk.received.target == "/mcp":
            await talk.reply(status, body, kind)
        else:
            await serve("legacy", talk)

    return handler


def refusing(post: int, get: Handler) -> Handler:
    """A server that speaks neither."""

    async def handler(talk: Talk) -> None:
        await (talk.reply(post) if talk.received.method == "POST" else get(talk))

    return handler


async def not_found(talk: Talk) -> None:
    await talk.reply(404)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_server_that_refuses_the_post_is_reached_over_the_older_transport(
    status: int, mode: str
) -> None:
    with anyio.fail_after(20):
        async with fault_server(older(status)) as server:
            async with Client(server.url, mode=mode) as client:
                assert await echoes(client)
                assert isinstance(client.transport, SSETransport)
                assert client.protocol_version == "2025-11-25"
            check_at_rest(client)
            assert posts(server) == ["server/discover", "initialize"][mode == "legacy" :]
            await server.until(lambda server: server.open == 0)


async def test_a_refusal_in_json_rpc_is_one_as_well() -> None:
    with anyio.fail_after(20):
        body = error_answer(None, -32600, "no such session")
        async with fault_server(older(400, body, "application/json")) as server, Client(server.url) as client:
            assert await echoes(client)


@pytest.mark.parametrize(
    "source",
    [
        lambda url: {"url": url},
        lambda url: {"url": url, "type": None},
        lambda url: {"mcpServers": {"one": {"url": url}}},
        lambda url: httpx2.URL(url).__str__(),
    ],
)
async def test_a_configuration_that_says_no_transport_falls_back(source: Any) -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server, Client(source(server.url)) as client:
            assert await echoes(client)


async def test_a_server_of_a_group_falls_back() -> None:
    with anyio.fail_after(20):
        async with (
            fault_server(older()) as server,
            fault_server(lambda talk: behave("modern", talk)) as other,
            ClientGroup({"old": {"url": server.url}, "new": {"url": other.url}}) as group,
        ):
            names = {tool.name for tool in await group.list_tools()}
    assert names == {"old_echo", "new_echo"}


async def test_headers_and_a_token_go_to_the_older_transport_too() -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server:
            source = {"url": server.url, "headers": {"x-tenant": "blue"}}
            async with Client(source, auth="token") as client:
                assert await echoes(client)
            for received in server.requests:
                assert received.headers["x-tenant"] == "blue"
                assert received.headers["authorization"] == "Bearer token"


@pytest.mark.parametrize("declared", ["transport", "configuration"])
async def test_who_says_streamable_http_gets_no_other(declared: str) -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server:
            said: dict[str, Source] = {
                "transport": StreamableHttpTransport(server.url),
                "configuration": {"url": server.url, "type": "http"},
            }
            with pytest.raises(httpx2.HTTPStatusError):
                await Client(said[declared]).__aenter__()
            assert not server.of("GET")


@pytest.mark.parametrize("status", [401, 403, 406, 410, 429, 500, 501, 503])
async def test_any_other_status_is_no_reason_to_fall_back(status: int) -> None:
    with anyio.fail_after(20):
        async with fault_server(older(status)) as server:
            with pytest.raises(httpx2.HTTPStatusError) as caught:
                await Client(server.url).__aenter__()
            assert caught.value.response.status_code == status
            assert not server.of("GET")


async def test_a_version_that_is_used_unasked_is_no_first_contact() -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server, Client(server.url, mode="2026-07-28") as client:
            with pytest.raises(httpx2.HTTPStatusError):
                await client.call_tool("echo")
            assert not server.of("GET")


async def _html(talk: Talk) -> None:
    await talk.reply(200, b"<h1>welcome</h1>", "text/html")


async def _unauthorized(talk: Talk) -> None:
    await talk.reply(401)


async def _closed(talk: Talk) -> None:
    await talk.close()


@pytest.mark.parametrize("get", [not_found, _html, _unauthorized, _closed])
@pytest.mark.parametrize("status", [400, 404, 405])
async def test_the_first_error_is_raised_when_the_older_transport_fails_as_well(
    status: int, get: Handler
) -> None:
    with anyio.fail_after(20):
        async with fault_server(refusing(status, get)) as server:
            client = Client(server.url)
            with pytest.raises(httpx2.HTTPStatusError) as caught:
                await client.__aenter__()
            assert caught.value.response.status_code == status
            assert caught.value.request.method == "POST"
            # Tried once, and nothing is remembered of what failed.
            assert len(server.of("GET")) == 1
            assert isinstance(client.transport, StreamableHttpTransport)
            check_at_rest(client)


async def test_the_servers_own_words_are_raised_when_the_older_transport_fails_as_well() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "GET":
            await not_found(talk)
        else:
            await talk.reply(400, error_answer(talk.id, -32050, "no tenant"), "application/json")

    with anyio.fail_after(20):
        async with fault_server(handler) as server:
            with pytest.raises(MCPError, match="no tenant"):
                await Client(server.url).__aenter__()


async def _quiet_stream(talk: Talk) -> None:
    await talk.begin_events()
    await never(talk)


@pytest.mark.parametrize("get", [never, _quiet_stream])
async def test_a_server_that_says_nothing_to_the_get_delays_the_first_error_by_a_third_of_the_time(
    get: Handler,
) -> None:
    with anyio.fail_after(20):
        async with fault_server(refusing(404, get)) as server:
            began = anyio.current_time()
            with pytest.raises(httpx2.HTTPStatusError) as caught:
                await Client(server.url, timeouts=Timeouts(connect=3.0, close=0.2)).__aenter__()
            assert caught.value.response.status_code == 404
            assert 0.9 < anyio.current_time() - began < 2.5
            assert len(server.of("GET")) == 1


async def test_both_ways_share_one_connect_deadline() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST" and talk.received.target == "/mcp":
            await anyio.sleep(0.6)
            await talk.reply(405)
        elif talk.received.method == "POST":
            await never(talk)
        else:
            await serve("legacy", talk)

    with anyio.fail_after(20):
        async with fault_server(handler) as server:
            began = anyio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                client = Client(server.url, mode="legacy", timeouts=Timeouts(connect=1.0, close=0.2))
                await client.__aenter__()
            assert caught.value.phase == "connect"
            assert 0.9 < anyio.current_time() - began < 1.5


async def test_what_a_server_of_the_older_transport_says_is_raised_as_it_says_it() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST" and talk.received.target == "/mcp":
            await talk.reply(405)
        elif talk.received.method == "POST":
            await talk.reply(403)
        else:
            await serve("legacy", talk)

    with anyio.fail_after(20):
        async with fault_server(handler) as server:
            with pytest.raises(httpx2.HTTPStatusError) as caught:
                await Client(server.url).__aenter__()
            assert caught.value.response.status_code == 403


async def test_initialize_has_one_deadline_for_both_ways() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "POST" and talk.received.target == "/mcp":
            await anyio.sleep(0.4)
            await talk.reply(405)
        elif talk.received.method == "POST":
            await never(talk)
        else:
            await serve("legacy", talk)

    with anyio.fail_after(20):
        async with (
            fault_server(handler) as server,
            Client(server.url, mode="legacy", auto_initialize=False, timeouts=Timeouts(close=0.2)) as client,
        ):
            began = anyio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                await client.initialize(timeout=1.0)
            assert caught.value.seconds == 1.0
            assert 0.9 < anyio.current_time() - began < 1.35


async def test_what_worked_is_remembered_by_the_sessions_that_follow_and_by_a_new_client() -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server:
            client = Client(server.url)
            async with client:
                assert await echoes(client)
                await next(iter(server.streams.values())).close()
                while client.is_connected():
                    await anyio.sleep(0.001)
                assert await echoes(client)
            async with client, client.new() as another:
                assert await echoes(another)
            assert posts(server) == ["server/discover", "initialize"]
            assert len(server.of("GET")) == 4


async def test_what_worked_is_forgotten_when_it_does_not_any_more() -> None:
    handlers: list[Handler] = [older()]
    with anyio.fail_after(20):
        async with fault_server(lambda talk: handlers[-1](talk)) as server:
            client = Client(server.url)
            async with client:
                assert isinstance(client.transport, SSETransport)
            # The server has been brought up to date: it refuses the GET, and is reached all the same.
            handlers.append(lambda talk: behave("modern", talk))
            async with client:
                assert await echoes(client)
                assert isinstance(client.transport, StreamableHttpTransport)


async def test_many_who_wait_fall_back_together() -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server, anyio.create_task_group() as tg:
            client = Client(server.url, task_group=tg)

            async def enter() -> None:
                async with client:
                    assert await echoes(client)
                    await anyio.wait_all_tasks_blocked()

            async with anyio.create_task_group() as users:
                for _ in range(10):
                    users.start_soon(enter)
            assert posts(server) == ["server/discover", "initialize"]


async def test_initialize_of_a_client_that_was_opened_without_falls_back_too() -> None:
    with anyio.fail_after(20):
        async with fault_server(older()) as server, Client(server.url, auto_initialize=False) as client:
            assert (await client.initialize()).server_info.name == "fault server"
            assert await echoes(client)


async def test_leaving_while_the_older_transport_is_tried_leaves_nothing() -> None:
    with anyio.fail_after(20):
        async with fault_server(refusing(405, never)) as server:
            client = Client(server.url, timeouts=Timeouts(close=0.2))
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.__aenter__)
                await server.until(lambda server: bool(server.of("GET")))
                tg.cancel_scope.cancel()
            await server.until(lambda server: server.open == 0)
            check_at_rest(client)

"""The connections of our own HTTP client: used again, bounded when idle, and all closed in the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import httpx2
import pytest

from anyio_mcp.transports._httppool import ConnectionPool
from tests.faults.http_server import FaultServer, Talk, fault_server
from tests.leaks import open_sockets

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_with_pool(
    *, idle: int = 20, idle_seconds: float = 4.0
) -> AsyncGenerator[httpx2.AsyncClient]:
    transport = ConnectionPool(ssl_context=None, idle=idle, idle_seconds=idle_seconds)
    async with httpx2.AsyncClient(transport=transport, timeout=None) as client:
        yield client


async def works(talk: Talk) -> None:
    await talk.reply(200, b"{}", "application/json")


class Gate:
    """Answers when it is opened, so that requests are under way together."""

    def __init__(self) -> None:
        self.opened = anyio.Event()

    async def __call__(self, talk: Talk) -> None:
        await self.opened.wait()
        await works(talk)


async def at_once(server: FaultServer, client: httpx2.AsyncClient, gate: Gate, count: int) -> None:
    arrived = len(server.requests)
    async with anyio.create_task_group() as tg:
        for _ in range(count):
            tg.start_soon(client.get, server.url)
        await server.until(lambda seen: len(seen.requests) == arrived + count)
        gate.opened.set()


async def test_requests_one_after_another_share_a_connection() -> None:
    with anyio.fail_after(5):
        async with fault_server(works) as server, client_with_pool() as client:
            for _ in range(5):
                await client.get(server.url)
    assert server.accepted == 1


async def test_every_request_under_way_has_a_connection_and_the_surplus_is_closed() -> None:
    gate = Gate()
    with anyio.fail_after(5):
        async with fault_server(gate) as server, client_with_pool(idle=3) as client:
            await at_once(server, client, gate, 10)
            assert server.accepted == 10
            await server.until(lambda seen: seen.open == 3)
            await client.get(server.url)
            assert server.accepted == 10


async def test_connections_that_nobody_has_used_for_long_are_closed() -> None:
    gate = Gate()
    with anyio.fail_after(5):
        async with fault_server(gate) as server, client_with_pool(idle_seconds=0.0) as client:
            await at_once(server, client, gate, 4)
            await server.until(lambda seen: seen.open <= 1)


async def test_a_connection_the_server_has_closed_is_not_used_again() -> None:
    async def once(talk: Talk) -> None:
        await talk.reply(200, b"{}", "application/json")
        await talk.close()

    with anyio.fail_after(5):
        async with fault_server(once) as server, client_with_pool() as client:
            for turn in range(3):
                assert (await client.get(server.url)).is_success
                await server.until(lambda seen: seen.open == 0)
                assert server.accepted == turn + 1


async def test_a_request_cancelled_at_any_moment_leaves_no_socket() -> None:
    before = open_sockets()
    with anyio.fail_after(20):
        async with fault_server(works) as server:
            for checkpoints in range(12):
                async with client_with_pool() as client, anyio.create_task_group() as tg:
                    tg.start_soon(client.get, server.url)
                    for _ in range(checkpoints):
                        await anyio.lowlevel.checkpoint()
                    tg.cancel_scope.cancel()
    assert open_sockets() <= before


async def test_closing_the_client_breaks_off_what_is_under_way() -> None:
    async def begins(talk: Talk) -> None:
        await talk.head(200, {"content-length": "10"}, "application/json")
        await talk.hang()

    before = open_sockets()
    with anyio.fail_after(5):
        async with fault_server(begins) as server:
            async with client_with_pool() as client:
                response = await client.send(client.build_request("GET", server.url), stream=True)
                await client.aclose()
                with pytest.raises((httpx2.TransportError, httpx2.StreamError, RuntimeError)):
                    await response.aread()
                await response.aclose()
            await server.until(lambda seen: seen.open == 0)
    assert open_sockets() <= before

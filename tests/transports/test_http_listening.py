"""The GET stream stands before the first request goes out, so that what a server asks on it is heard."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp.types import JSONRPCRequest, JSONRPCResponse

from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports.base import Outgoing, RequestFault
from tests.faults.http_driver import QUICK, connected
from tests.faults.http_server import Talk, fault_server, never, session

pytestmark = pytest.mark.anyio


async def test_the_first_requests_wait_until_the_server_has_answered_the_get() -> None:
    order: list[str] = []

    async def slowly(talk: Talk) -> None:
        await anyio.sleep(0.05)  # a server that is slow to accept the stream
        order.append("GET")
        await talk.reply(405)

    async def answer(talk: Talk) -> None:
        order.append("POST")
        await talk.result()

    async with (
        fault_server(session(answer, get=slowly)) as server,
        connected(server.url, policy=replace(QUICK, listen_patience=10)) as driver,
    ):
        await driver.initialize()
        await driver.request("one")
        await driver.request("two")
        await server.until(lambda s: order.count("POST") == 2)
    assert order == ["GET", "POST", "POST"]


async def test_a_get_that_is_never_answered_holds_requests_up_no_longer_than_a_moment() -> None:
    async def answer(talk: Talk) -> None:
        await talk.result()

    with anyio.fail_after(5):
        async with (
            fault_server(session(answer, get=never)) as server,
            connected(server.url, policy=replace(QUICK, listen_patience=0.05)) as driver,
        ):
            await driver.initialize()
            assert await driver.result() == {}
            assert await driver.result() == {}


async def test_a_request_abandoned_while_it_waits_is_not_sent() -> None:
    async def answer(talk: Talk) -> None:
        await talk.result()

    async with (
        fault_server(session(answer, get=never)) as server,
        connected(server.url, policy=replace(QUICK, listen_patience=0.05)) as driver,
    ):
        await driver.initialize()
        driver.connection.abandon(await driver.request("abandoned"))
        assert await driver.result("kept") == {}
        assert "abandoned" not in {received.rpc_method for received in server.requests}


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_listening_gives_up_the_only_connection_of_a_users_pool(library: Any) -> None:
    async def answer(talk: Talk) -> None:
        await talk.result()

    policy = replace(QUICK, listen_patience=0.05, pool_seconds=0.05, listen_pause=0.2)
    with anyio.fail_after(20):
        async with (
            library.AsyncClient(limits=library.Limits(max_connections=1), trust_env=False) as client,
            fault_server(session(answer, get=never)) as server,
            connected(server.url, policy=policy, http_client=client) as driver,
        ):
            await driver.initialize()
            for _ in range(3):
                assert await driver.result() == {}
            # It is taken up again.
            await server.until(lambda s: len(s.of("GET")) >= 2)
            assert await driver.result() == {}


async def test_a_question_of_the_heartbeat_takes_no_connection_that_a_call_waits_for() -> None:
    async def answer(talk: Talk) -> None:
        if talk.received.rpc_method == "slow":
            await anyio.sleep(0.5)
        await talk.result()

    async def no_stream(talk: Talk) -> None:
        await talk.reply(405)

    policy = replace(QUICK, pool_seconds=0.05)
    with anyio.fail_after(20):
        async with (
            httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1), trust_env=False) as client,
            fault_server(session(answer, get=no_stream)) as server,
            connected(server.url, policy=policy, http_client=client) as driver,
        ):
            await driver.initialize()
            await driver.request("slow")
            await server.until(lambda s: any(each.rpc_method == "slow" for each in s.requests))
            ping = JSONRPCRequest(jsonrpc="2.0", id="probe", method="ping")
            await driver.connection.send(Outgoing(ping, probe=True))
            fault = await driver.connection.incoming.receive()
            assert isinstance(fault, RequestFault)
            assert fault.request_id == "probe"
            assert isinstance(fault.error, RequestFailedError)
            assert isinstance(await driver.connection.incoming.receive(), JSONRPCResponse)
            assert "ping" not in {each.rpc_method for each in server.requests}

"""The GET stream stands before the first request goes out, so that what a server asks on it is heard."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

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

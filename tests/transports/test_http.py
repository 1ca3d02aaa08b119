"""Streamable HTTP that works: the SDK's server under two web servers, from enter to leave."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import SessionLostError
from anyio_mcp.transports.base import Outgoing
from anyio_mcp.transports.http import StreamableHttpTransport
from tests.faults.http_driver import LEGACY, MODERN, QUICK, Driver, Receipt, connected
from tests.faults.http_server import (
    Talk,
    fault_server,
)
from tests.faults.sdk_server import sdk_server
from tests.leaks import open_sockets

pytestmark = pytest.mark.anyio

ANSWERS = ["json", "events", "resumable"]


@pytest.fixture(scope="module", params=["uvicorn", "hypercorn"])
def base(request: pytest.FixtureRequest) -> Iterator[str]:
    with sdk_server(request.param) as url:
        yield url


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def call(driver: Driver, name: str, **arguments: Any) -> Any:
    """The structured result of one tool."""
    result = await driver.result(params=tool(name, **arguments))
    return result["structuredContent"]["result"]


# --- the SDK's server ------------------------------------------------------------------------------


@pytest.mark.parametrize("answers", ANSWERS)
async def test_a_legacy_session_from_initialize_to_delete(base: str, answers: str) -> None:
    url = f"{base}/{answers}/mcp"
    async with httpx2.AsyncClient() as client:
        session_ids: set[str] = set()

        async def remember(response: httpx2.Response) -> None:
            session_ids.add(response.headers.get("mcp-session-id", ""))

        client.event_hooks["response"].append(remember)
        async with connected(url, http_client=client) as driver:
            await driver.initialize()
            assert len((await driver.result("tools/list"))["tools"]) == 7
            assert await call(driver, "add", a=1, b=2) == 3
            assert isinstance(await driver.call("no/such/method"), JSONRPCError)
        session_ids.discard("")
        (session_id,) = session_ids
        headers = {"mcp-session-id": session_id, "accept": "application/json, text/event-stream", **LEGACY}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await client.post(url, headers=headers, json=body)).status_code == 404


@pytest.mark.parametrize("answers", ANSWERS)
async def test_modern_requests_without_a_session(base: str, answers: str) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "driver", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    async with connected(f"{base}/{answers}/mcp") as driver:
        discovered = await driver.result(
            "server/discover", {"_meta": meta}, era={**MODERN, "mcp-method": "server/discover"}
        )
        assert "2026-07-28" in discovered["supportedVersions"]
        result = await driver.result(
            "tools/call",
            {**tool("add", a=1, b=2), "_meta": meta},
            era={**MODERN, "mcp-method": "tools/call", "mcp-name": "add"},
        )
        assert result["structuredContent"] == {"result": 3}


@pytest.mark.parametrize("answers", ANSWERS)
async def test_connections_are_reused(base: str, answers: str) -> None:
    async with connected(f"{base}/{answers}/mcp") as driver:
        await driver.initialize()
        ports = {await call(driver, "peer") for _ in range(20)}
        # Two, since the next call may be on its way before the end of a stream has arrived.
        assert len(ports) <= 2


@pytest.mark.parametrize("answers", ["events", "resumable"])
async def test_what_a_call_says_before_its_answer_arrives_in_order(base: str, answers: str) -> None:
    async with connected(f"{base}/{answers}/mcp") as driver:
        await driver.initialize()
        await driver.result(params={**tool("progress"), "_meta": {"progressToken": "p"}})
        said = [item for item in driver.seen if isinstance(item, JSONRPCNotification)]
        assert [item.params and item.params["progress"] for item in said] == [0, 1, 2]


@pytest.mark.parametrize("answers", ["events", "resumable"])
async def test_a_request_of_the_server_is_answered_while_the_call_is_open(base: str, answers: str) -> None:
    async with connected(f"{base}/{answers}/mcp") as driver:
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "driver", "version": "1"},
        }
        await driver.result("initialize", params, era=None)
        assert await (await driver.notify("notifications/initialized")).wait() is None
        request = await driver.request(params=tool("ask"))
        question = await driver.arrived(JSONRPCRequest)
        assert question.method == "elicitation/create"
        reply = JSONRPCResponse(jsonrpc="2.0", id=question.id, result={"action": "decline"})
        receipt = Receipt()
        await driver.connection.send(Outgoing(reply, receipt=receipt))
        settled = await driver.settled(request)
        assert isinstance(settled, JSONRPCResponse)
        assert settled.result["structuredContent"] == {"result": "decline"}
        assert await receipt.wait() is None


@pytest.mark.parametrize("answers", ANSWERS)
async def test_the_get_stream_carries_what_belongs_to_no_call(base: str, answers: str) -> None:
    async with connected(f"{base}/{answers}/mcp") as driver:
        await driver.initialize()
        # The server drops what it says before the GET has arrived, so it says it until it is heard.
        with anyio.fail_after(3):
            while not any(isinstance(item, JSONRPCNotification) for item in driver.seen):
                assert await call(driver, "announce") == "announced"
        assert (await driver.arrived(JSONRPCNotification)).method == "notifications/tools/list_changed"


async def test_a_stream_the_server_ends_early_is_resumed(base: str) -> None:
    async with connected(f"{base}/resumable/mcp") as driver:
        await driver.initialize()
        assert await call(driver, "interrupted") == "still here"


async def test_a_session_that_was_deleted_elsewhere_is_lost(base: str) -> None:
    sessions: list[str] = []

    async def remember(request: httpx2.Request) -> None:
        sessions.append(request.headers.get("mcp-session-id", ""))

    url = f"{base}/json/mcp"
    async with (
        httpx2.AsyncClient(event_hooks={"request": [remember]}) as client,
        connected(url, http_client=client) as driver,
    ):
        await driver.initialize()
        await driver.result("tools/list")
        async with httpx2.AsyncClient() as other:
            deleted = await other.delete(url, headers={"mcp-session-id": sessions[-1], **LEGACY})
            assert deleted.status_code == 200
        await driver.request("tools/list")
        assert (await driver.lost()).error.reason == "expired"


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_client_of_the_user_is_used_and_not_closed(base: str, library: Any) -> None:
    async with library.AsyncClient(headers={"x-mine": "yes"}) as client:
        for answers in ANSWERS:
            async with connected(f"{base}/{answers}/mcp", http_client=client) as driver:
                await driver.initialize()
                assert await call(driver, "add", a=20, b=22) == 42
            assert not client.is_closed


# --- entering and leaving --------------------------------------------------------------------------


async def _session(talk: Talk) -> None:
    """A legacy server where every call and the GET stream hang."""
    if talk.received.method == "DELETE":
        await talk.reply(200)
    elif talk.received.rpc_method == "initialize":
        await talk.result({}, {"mcp-session-id": "S-1"})
    elif talk.received.rpc_method == "notifications/initialized":
        await talk.reply(202)
    else:
        await talk.hang()


async def test_entering_needs_no_server() -> None:
    before = open_sockets()
    async with connected("http://127.0.0.1:1/mcp") as driver:
        assert driver.connection.last_traffic <= anyio.current_time()
    assert open_sockets() == before


async def test_no_socket_is_left() -> None:
    async with fault_server(_session) as server:
        await anyio.lowlevel.checkpoint()
        before = open_sockets()
        async with connected(server.url) as driver:
            await driver.initialize()
            for _ in range(10):
                await driver.request()
            await server.until(lambda s: len(s.requests) == 13)
        await server.until(lambda s: s.open == 0)
        assert open_sockets() == before


async def test_an_exception_of_the_body_leaves_as_it_was_raised() -> None:
    mine = ZeroDivisionError("mine")
    async with fault_server(_session) as server:
        with pytest.raises(ZeroDivisionError) as caught:
            async with connected(server.url) as driver:
                await driver.initialize()
                raise mine
        assert caught.value is mine
        assert len(server.of("DELETE")) == 1


async def test_two_connections_of_one_transport_are_independent() -> None:
    numbers = iter(range(10))

    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "initialize":
            await talk.result({}, {"mcp-session-id": f"S-{next(numbers)}"})
        elif talk.received.method == "POST":
            await talk.reply(202) if talk.id is None else await talk.result(
                {"session": talk.received.headers["mcp-session-id"]}
            )
        else:
            await talk.reply(405)

    async with fault_server(handler) as server:
        transport = StreamableHttpTransport(server.url, _policy=QUICK)
        options: dict[str, Any] = {"timeouts": Timeouts(close=1.0), "limits": Limits()}
        with anyio.fail_after(5):
            async with transport.connect(**options) as one, transport.connect(**options) as two:
                for number, connection in enumerate((one, two)):
                    driver = Driver(connection)
                    await driver.initialize()
                    assert await driver.result() == {"session": f"S-{number}"}
        assert len(server.of("DELETE")) == 2


async def test_a_cancelled_user_says_goodbye_all_the_same() -> None:
    async with fault_server(_session) as server:
        with anyio.CancelScope() as scope:
            async with connected(server.url) as driver:
                await driver.initialize()
                receipt = await driver.notify()
                await driver.request()
                await server.until(lambda s: len(s.requests) == 5)
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert len(server.of("DELETE")) == 1
        assert isinstance(receipt.given[0], SessionLostError)
        await server.until(lambda s: s.open == 0)


async def test_a_cancelled_user_waits_for_a_goodbye_no_longer_than_the_timeout() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.method == "DELETE":
            await talk.hang()
        await _session(talk)

    async with fault_server(handler) as server:
        started = time.monotonic()
        with anyio.move_on_after(0.1) as scope:
            async with connected(server.url, timeouts=Timeouts(close=0.1)) as driver:
                await driver.initialize()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert time.monotonic() - started < 1.0
        await server.until(lambda s: s.open == 0)


async def test_a_timeout_of_zero_for_the_goodbye_says_none() -> None:
    async with fault_server(_session) as server:
        async with connected(server.url, timeouts=Timeouts(close=0)) as driver:
            await driver.initialize()
        await server.until(lambda s: s.open == 0)


async def test_a_connection_without_a_session_says_no_goodbye() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with fault_server(handler) as server:
        async with connected(server.url) as driver:
            await driver.result(era=MODERN)
        await server.until(lambda s: s.open == 0)
        assert server.of("DELETE") == []


async def test_a_message_sent_after_leaving_is_receipted_and_goes_nowhere() -> None:
    async with fault_server(_session) as server:
        async with connected(server.url) as driver:
            pass
        receipt = await driver.notify()
        assert isinstance(receipt.given[0], SessionLostError)
        assert receipt.given[0].reason == "closed"
        await driver.request()
        assert server.accepted == 0


async def test_an_id_used_again_belongs_to_the_new_request() -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "first":
            await talk.hang()
        await talk.result({"method": talk.received.rpc_method})

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.request("first", request_id=7)
        await server.until(lambda s: len(s.requests) == 1)
        await driver.request("second", request_id=7)
        settled = await driver.settled(7)
        assert isinstance(settled, JSONRPCResponse)
        assert settled.result == {"method": "second"}
        await server.until(lambda s: s.open == 1)


async def test_a_goodbye_is_not_loud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "anyio_mcp"):
        async with fault_server(_session) as server, connected(server.url) as driver:
            await driver.initialize()
    assert not [record for record in caplog.records if record.name.startswith("anyio_mcp")]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("moment", ["in the body", "while closing"])
async def test_asyncios_own_cancellation_repeated_does_not_pierce_the_goodbye(moment: str) -> None:
    import asyncio

    entered, leave = asyncio.Event(), asyncio.Event()

    async def handler(talk: Talk) -> None:
        if talk.received.method == "DELETE":
            await talk.hang()
        await _session(talk)

    async def user(url: str) -> None:
        async with connected(url, timeouts=Timeouts(close=0.2)) as driver:
            await driver.initialize()
            for _ in range(3):
                await driver.request()
            entered.set()
            await leave.wait()

    async with fault_server(handler) as server:
        task = asyncio.create_task(user(server.url))
        await entered.wait()
        await server.until(lambda s: len(s.requests) == 6)
        started = time.monotonic()
        if moment == "in the body":
            task.cancel()
        else:
            leave.set()
        await server.until(lambda s: len(s.of("DELETE")) == 1)
        for _ in range(10):
            task.cancel()
            await asyncio.sleep(0.005)
        assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 1.0
        await server.until(lambda s: s.open == 0)
        left = {one for one in asyncio.all_tasks() if "anyio_mcp" in one.get_name()}
        assert not left


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_survives_asyncios_own_timeouts() -> None:
    import asyncio

    async def user(url: str) -> None:
        async with connected(url) as driver:
            await driver.initialize()
            await asyncio.sleep(60)

    async with fault_server(_session) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(user(server.url), 0.2)
        assert len(server.of("DELETE")) == 1
        await server.until(lambda s: s.open == 0)

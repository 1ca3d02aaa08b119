"""Servers that do not say 404 when they do not know a session: the loss is read from what they say."""

from __future__ import annotations

from contextlib import suppress

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.types import ErrorData, JSONRPCResponse

from anyio_mcp import Client
from anyio_mcp.errors import SessionLostError
from anyio_mcp.transports.base import RequestFault
from tests.faults.http_driver import connected, the_fault
from tests.faults.http_server import Handler, Talk, error_answer, fault_server, session

pytestmark = pytest.mark.anyio

NO_SESSION = [
    pytest.param(
        b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID provided"}}',
        id="typescript-examples",
    ),
    pytest.param(error_answer("server-error", -32600, "No valid session ID provided"), id="sdk1"),
    pytest.param(b"Invalid or missing session ID", id="express-examples"),
    pytest.param(b"unknown session", id="plain"),
]


def refusing(body: bytes) -> Handler:
    async def refuse(talk: Talk) -> None:
        await talk.reply(400, body, "application/json")

    return refuse


@pytest.mark.parametrize("body", NO_SESSION)
async def test_a_400_that_denies_the_session_is_its_loss(body: bytes) -> None:
    async with fault_server(session(refusing(body))) as server, connected(server.url) as driver:
        await driver.initialize()
        fault = await driver.fault()
        assert isinstance(fault, SessionLostError)
        assert fault.refused
        loss = (await driver.lost()).error
        assert loss.reason == "expired"
        assert isinstance(loss.cause, httpx2.HTTPStatusError)
        assert loss.cause.response.status_code == 400
    assert server.of("DELETE") == []


async def test_a_400_to_the_get_stream_says_nothing_of_the_session() -> None:
    async def answer(talk: Talk) -> None:
        await talk.result()

    denied = refusing(b"No valid session ID provided")
    async with fault_server(session(answer, get=denied)) as server, connected(server.url) as driver:
        await driver.initialize()
        await server.until(lambda s: len(s.of("GET")) == 1)
        assert await driver.result() == {}
    assert len(server.of("DELETE")) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", httpx2.HTTPStatusError),
        (b"a session of yoga is no argument", httpx2.HTTPStatusError),
        (error_answer(None, -32000, "the session is busy"), MCPError),
    ],
)
async def test_any_other_400_in_a_session_is_one_requests_own(body: bytes, kind: type[Exception]) -> None:
    async with fault_server(session(refusing(body))) as server, connected(server.url) as driver:
        await driver.initialize()
        assert isinstance(await driver.fault(), kind)
        assert isinstance(await driver.fault(), kind)


async def test_a_400_that_denies_a_session_nobody_spoke_of_is_only_a_status() -> None:
    assert isinstance(await the_fault(refusing(b"No valid session ID provided")), httpx2.HTTPStatusError)


DOUBTFUL = [
    (200, -32002, "Server not initialized"),
    (200, -32001, "Session not found"),
    (200, -32005, "Session not found"),
    (200, -32000, "No active session"),
    (500, None, "session not found"),
    (401, None, "your session has expired"),
]


def saying(status: int, code: int | None, text: str) -> Handler:
    async def refuse(talk: Talk) -> None:
        if code is None:
            await talk.reply(status, text.encode(), "text/plain")
        else:
            await talk.reply(status, error_answer(talk.id, code, text), "application/json")

    return refuse


@pytest.mark.parametrize(("status", "code", "text"), DOUBTFUL)
async def test_a_denial_that_may_have_run_is_the_answer_and_the_next_call_is_not_sent_in_that_session(
    status: int, code: int | None, text: str
) -> None:
    async with (
        fault_server(session(saying(status, code, text))) as server,
        connected(server.url) as driver,
    ):
        await driver.initialize()
        item = await driver.call()
        kind = ErrorData if status == 200 else httpx2.HTTPStatusError
        assert isinstance(getattr(item, "error", None), kind)
        sent = len(server.of("POST"))
        first, second = await driver.request(), await driver.request()
        for request_id in (first, second):
            fault = await driver.settled(request_id)
            assert isinstance(fault, RequestFault)
            assert isinstance(fault.error, SessionLostError)
            assert (fault.error.reason, fault.error.refused) == ("expired", True)
        assert (await driver.lost()).error.reason == "expired"
        assert len(server.of("POST")) == sent


async def test_what_is_under_way_is_answered_though_another_answer_raised_the_doubt() -> None:
    async def answer(talk: Talk) -> None:
        if talk.received.message["method"] == "slow":
            await server.until(lambda s: len(s.of("POST")) == 4)
            await anyio.sleep(0.1)
            await talk.result({"slow": True})
        else:
            await saying(200, -32001, "Session not found")(talk)

    async with fault_server(session(answer)) as server, connected(server.url) as driver:
        await driver.initialize()
        slow = await driver.request("slow")
        await driver.call("doubtful")
        await driver.request("refused")
        item = await driver.settled(slow)
        assert isinstance(item, JSONRPCResponse)
        assert item.result == {"slow": True}
        await driver.lost()


RESTARTED = [*DOUBTFUL, (410, None, "Gone"), (404, None, ""), (400, None, "No active session")]


@pytest.mark.parametrize(("status", "code", "text"), RESTARTED)
async def test_a_client_is_as_good_as_new_whatever_a_restarted_server_says(
    status: int, code: int | None, text: str
) -> None:
    sessions = 0

    async def answer(talk: Talk) -> None:
        nonlocal sessions
        received = talk.received
        if received.method != "POST":
            await talk.reply(405)
        elif received.rpc_method == "initialize":
            sessions += 1
            info = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "1"},
            }
            await talk.result(info, {"mcp-session-id": f"S-{sessions}"})
        elif "id" not in received.message:
            await talk.reply(202)
        elif received.headers["mcp-session-id"] == "S-1" and ran:
            await saying(status, code, text)(talk)
        else:
            ran.append(received.headers["mcp-session-id"])
            await talk.result({"content": [{"type": "text", "text": "hi"}]})

    ran: list[str] = []
    with anyio.fail_after(10):
        async with fault_server(answer) as server, Client(server.url, mode="legacy") as client:
            assert (await client.call_tool("t", {})).content[0].text == "hi"
            with suppress(MCPError, httpx2.HTTPStatusError):
                await client.call_tool("t", {})
            assert (await client.call_tool("t", {})).content[0].text == "hi"
    assert sessions == 2


async def test_a_second_400_in_a_row_without_a_reason_lets_the_next_call_start_anew() -> None:
    async with fault_server(session(saying(400, None, ""))) as server, connected(server.url) as driver:
        await driver.initialize()
        for _ in range(2):
            assert isinstance(await driver.fault(), httpx2.HTTPStatusError)
        sent = len(server.of("POST"))
        fault = await driver.fault()
        assert isinstance(fault, SessionLostError)
        assert (fault.reason, fault.refused) == ("expired", True)
        await driver.lost()
        assert len(server.of("POST")) == sent


@pytest.mark.parametrize(("status", "code"), [(400, -32602), (403, None), (413, None), (500, None)])
async def test_refusals_with_a_reason_or_of_another_kind_leave_the_session_alone(
    status: int, code: int | None
) -> None:
    async with fault_server(session(saying(status, code, "no"))) as server, connected(server.url) as driver:
        await driver.initialize()
        for _ in range(4):
            item = await driver.call()
            assert not isinstance(getattr(item, "error", None), SessionLostError)
        assert len(server.of("POST")) == 6


async def test_an_answer_between_two_bad_requests_shows_that_the_session_is_known() -> None:
    async def answer(talk: Talk) -> None:
        if talk.received.rpc_method == "bad":
            await talk.reply(400)
        else:
            await talk.result()

    async with fault_server(session(answer)) as server, connected(server.url) as driver:
        await driver.initialize()
        for _ in range(3):
            assert isinstance(await driver.fault("bad"), httpx2.HTTPStatusError)
            assert await driver.result("good") == {}

"""Servers that do not say 404 when they do not know a session: the loss is read from the 400 they say."""

from __future__ import annotations

import httpx2
import pytest
from mcp import MCPError

from anyio_mcp.errors import SessionLostError
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

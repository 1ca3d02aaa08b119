"""A deadline that passes while a request waits to be sent does not say that the request was sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from anyio_mcp import Client, DeadlineExceededError
from anyio_mcp.transports._httppool import ConnectionPool
from anyio_mcp.transports.base import Transport
from anyio_mcp.transports.http import StreamableHttpTransport
from anyio_mcp.transports.sse import SSETransport
from tests.faults.http_driver import QUICK
from tests.faults.http_server import Talk, fault_server
from tests.faults.http_stage import CALLS, behave
from tests.faults.sse_stage import serve

pytestmark = pytest.mark.anyio

TRANSPORTS = {"http": StreamableHttpTransport, "sse": SSETransport}


def transport(kind: str, url: str, **options: Any) -> Transport:
    return TRANSPORTS[kind](url, _policy=replace(QUICK, pool_seconds=0.05, listen_patience=0.05), **options)


async def answer(kind: str, talk: Talk) -> None:
    await (serve if kind == "sse" else behave)("legacy", talk)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_call_that_waits_in_the_pool_of_a_users_client_may_not_have_been_sent(
    kind: str, library: Any
) -> None:
    async def server_of_one(talk: Talk) -> None:
        if CALLS(talk.received):
            await talk.hang()
        await answer(kind, talk)

    with anyio.fail_after(10):
        async with (
            fault_server(server_of_one) as server,
            # HTTP+SSE keeps one for its stream.
            library.AsyncClient(
                limits=library.Limits(max_connections=2 if kind == "sse" else 1), trust_env=False
            ) as client,
            Client(transport(kind, server.url, http_client=client), mode="legacy") as session,
            anyio.create_task_group() as tg,
        ):
            tg.start_soon(session.call_tool, "slow")
            await server.until(lambda s: any(CALLS(each) for each in s.requests))
            with pytest.raises(DeadlineExceededError) as caught:
                await session.call_tool("echo", timeout=0.5)
            tg.cancel_scope.cancel()
            assert len([each for each in server.requests if CALLS(each)]) == 1
    assert caught.value.sent_seconds is None
    assert "it may not have been sent: no connection of the http_client was free for it" in str(caught.value)


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_call_that_left_the_pool_and_is_being_answered_was_sent(library: Any) -> None:
    async def slow_then_hang(talk: Talk) -> None:
        if CALLS(talk.received):
            if len([each for each in talk.server.requests if CALLS(each)]) == 1:
                await anyio.sleep(0.2)
            else:
                await talk.begin_events()
                await talk.hang()
        await answer("http", talk)

    with anyio.fail_after(10):
        async with (
            fault_server(slow_then_hang) as server,
            library.AsyncClient(limits=library.Limits(max_connections=1), trust_env=False) as client,
            Client(transport("http", server.url, http_client=client), mode="legacy") as session,
            anyio.create_task_group() as tg,
        ):
            tg.start_soon(session.call_tool, "echo")
            await server.until(lambda s: any(CALLS(each) for each in s.requests))
            with pytest.raises(DeadlineExceededError) as caught:
                await session.call_tool("echo", timeout=1.0)
    assert caught.value.sent_seconds is not None
    assert caught.value.sent_seconds < 0.95


@pytest.mark.parametrize("kind", TRANSPORTS)
async def test_a_call_whose_connection_does_not_come_about_may_not_have_been_sent(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none_free(*args: object) -> None:
        await anyio.lowlevel.checkpoint()

    async with (
        fault_server(lambda talk: answer(kind, talk)) as server,
        Client(transport(kind, server.url), mode="legacy") as session,
    ):
        await session.call_tool("echo")
        with anyio.fail_after(10), monkeypatch.context() as patch:
            patch.setattr(ConnectionPool, "_take", none_free)
            patch.setattr(ConnectionPool, "_open", lambda *args: anyio.sleep_forever())
            with pytest.raises(DeadlineExceededError) as caught:
                await session.call_tool("echo", timeout=0.2)
        await session.call_tool("echo")
    assert caught.value.sent_seconds is None
    assert "it may not have been sent: there is no connection to the server yet" in str(caught.value)

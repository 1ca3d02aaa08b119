"""A connection that breaks: its caller is told, it is closed, and nothing remains."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx2
import pytest
from mcp.types import JSONRPCResponse

from anyio_mcp import Client, Limits
from anyio_mcp.errors import RequestFailedError
from tests.faults.http_driver import LEGACY, MODERN, QUICK, connected
from tests.faults.http_server import NOTIFICATION, Handler, Talk, answer, close, fault_server, reset
from tests.leaks import open_sockets

pytestmark = pytest.mark.anyio


async def _events_then_reset(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b": hello\n\n")
    await talk.reset()


async def _events_then_close(talk: Talk) -> None:
    await talk.begin_events()
    await talk.close()


@pytest.mark.parametrize("handler", [close, reset, _events_then_reset, _events_then_close])
@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
async def test_the_caller_is_told_what_broke_and_where(handler: Handler, era: dict[str, str]) -> None:
    before = open_sockets()
    async with fault_server(handler) as server:
        async with connected(server.url, policy=QUICK) as driver:
            error = await driver.fault(era=era)
            assert isinstance(error, RequestFailedError)
            assert error.reason == "transport"
            root: BaseException = error
            while isinstance(root, RequestFailedError) and root.cause is not None:
                root = root.cause
            assert isinstance(root, httpx2.TransportError)
            assert str(root.request.url) == server.url
        await server.until(lambda seen: seen.open == 0)
    assert open_sockets() == before


async def test_what_breaks_next_is_told_as_well() -> None:
    async with fault_server(close) as server, connected(server.url, policy=QUICK) as driver:
        for _ in range(3):
            assert isinstance(await driver.fault(), RequestFailedError)


async def test_a_connection_that_broke_is_closed() -> None:
    async with fault_server(close) as server, connected(server.url, policy=QUICK) as driver:
        before = open_sockets()
        for _ in range(2):
            await driver.fault()
            with anyio.fail_after(2):
                while open_sockets() != before:
                    await anyio.sleep(0.005)


async def test_a_stream_that_can_be_resumed_is_not_given_up() -> None:
    async def post(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(NOTIFICATION, id="7")
        await talk.close()

    async def get(talk: Talk) -> None:
        assert talk.received.headers["last-event-id"] == "7"
        await talk.begin_events()
        await talk.event(answer(1, {"resumed": True}))
        await talk.end_events()

    async def handler(talk: Talk) -> None:
        await (get if talk.received.method == "GET" else post)(talk)

    async with fault_server(handler) as server, connected(server.url, policy=QUICK) as driver:
        assert await driver.result() == {"resumed": True}


async def test_an_answer_that_is_there_outweighs_what_breaks_behind_it() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(answer(talk.id, {"fine": True}))
        await talk.close()

    async with fault_server(handler) as server, connected(server.url, policy=QUICK) as driver:
        for _ in range(3):
            assert await driver.result() == {"fine": True}


async def test_the_body_of_an_error_that_breaks_off_is_still_that_error() -> None:
    async def handler(talk: Talk) -> None:
        await talk.raw(b"HTTP/1.1 500 Oh\r\ncontent-length: 100\r\n\r\nhalf of it")
        await talk.reset()

    async with fault_server(handler) as server, connected(server.url, policy=QUICK) as driver:
        error = await driver.fault()
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.status_code == 500


class _Again(httpx2.AsyncBaseTransport):
    """A user's transport that sends a request once more when its connection breaks."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except httpx2.TransportError:
            return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_client_of_the_users_may_try_again_unseen() -> None:
    broken = False

    async def handler(talk: Talk) -> None:
        nonlocal broken
        if not broken:
            broken = True
            await talk.close()
        else:
            await talk.result({"second": "time"})

    async with (
        fault_server(handler) as server,
        httpx2.AsyncClient(transport=_Again()) as client,
        connected(server.url, http_client=client) as driver,
    ):
        item = await driver.call()
    assert isinstance(item, JSONRPCResponse)
    assert item.result == {"second": "time"}


async def test_an_oversized_event_is_the_reason_though_the_stream_breaks_behind_it() -> None:
    async def handler(talk: Talk) -> None:
        await talk.begin_events()
        # In one piece, so that both are read at once.
        event = b"data: " + b"x" * 5000 + b"\n\n"
        await talk.raw(b"%x\r\n%b\r\nno chunk at all\r\n\r\n" % (len(event), event))
        await talk.hang()

    limits = Limits(max_message_bytes=1024)
    async with fault_server(handler) as server, connected(server.url, limits=limits) as driver:
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert error.reason == "oversized"


class _Once(httpx2.AsyncByteStream):
    """An answer that is there at the very moment its request is abandoned."""

    def __init__(self) -> None:
        self.awaited = anyio.Event()
        self.there = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.awaited.set()
        await self.there.wait()
        yield b"data: %b\n\n" % answer(7, {"from": "the old one"})


async def test_what_was_abandoned_does_not_answer_a_new_request_of_the_same_id() -> None:
    first = _Once()

    async def serve(request: httpx2.Request) -> httpx2.Response:
        if first.awaited.is_set():
            return httpx2.Response(200, json=json.loads(answer(7, {"from": "the new one"})))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=first)

    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(serve)) as client,
        connected("http://127.0.0.1/mcp", http_client=client) as driver,
    ):
        await driver.request(request_id=7)
        await first.awaited.wait()
        await anyio.wait_all_tasks_blocked()
        first.there.set()
        driver.connection.abandon(7)
        await driver.request(request_id=7)
        item = await driver.settled(7)
    assert isinstance(item, JSONRPCResponse)
    assert item.result == {"from": "the new one"}


async def _closes(talk: Talk) -> None:
    """A server that breaks every connection, but for those of the handshake."""
    match talk.received.rpc_method:
        case "server/discover":
            await talk.reply(404)
        case "initialize":
            server = {"name": "it", "version": "1"}
            await talk.result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": server})
        case "notifications/initialized":
            await talk.reply(202)
        case _:
            await talk.close()


async def _fail_call(client: Client) -> None:
    with pytest.raises(RequestFailedError):
        await client.list_tools()


async def _fail_notification(client: Client) -> None:
    with pytest.raises(RequestFailedError):
        await client.progress("token", 1)


@pytest.mark.parametrize("fail", [_fail_call, _fail_notification])
async def test_what_fails_leaves_nothing_for_the_garbage_collector(
    fail: Callable[[Client], Awaitable[None]],
) -> None:
    # An error that a frame keeps, and that keeps the frame, keeps all that the exchange was made of: a
    # thousand failed calls made the collector stop everything else while calls were waiting.
    async with fault_server(_closes) as server, Client(server.url, restart=None) as client:
        with anyio.fail_after(10):
            for _ in range(2):
                await fail(client)
            # Behind the cleaning up.
            await anyio.sleep(0.3)
            gc.collect()
            gc.disable()
            try:
                for _ in range(5):
                    await fail(client)
                await anyio.sleep(0.3)
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                found: list[Any] = [thing for thing in gc.garbage if type(thing).__module__.startswith(OURS)]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
    assert found == []


OURS = ("anyio_mcp", "httpx2", "httpcore2", "h11", "mcp")


class _Local:
    """What a caller has on its stack."""


async def test_a_session_keeps_nothing_of_the_last_caller_that_failed() -> None:
    async def fail(client: Client) -> weakref.ref[_Local]:
        local = _Local()
        with pytest.raises(RequestFailedError):
            await client.list_tools()
        return weakref.ref(local)

    async with fault_server(_closes) as server, Client(server.url, restart=None) as client:
        with anyio.fail_after(10):
            left = await fail(client)
            await anyio.sleep(0.3)
            gc.collect()
            assert left() is None

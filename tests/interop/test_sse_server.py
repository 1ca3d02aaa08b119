"""The client over HTTP+SSE, against the SDK's own server of that transport under uvicorn."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import anyio.to_thread
import httpx2
import pytest

from anyio_mcp import (
    Client,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
    SSETransport,
    StreamableHttpTransport,
)
from tests.interop.conftest import HttpServer
from tests.interop.test_real_servers import exercise
from tests.leaks import open_sockets

pytestmark = pytest.mark.anyio


def url(server: HttpServer) -> str:
    return f"http://127.0.0.1:{server.port}/sse"


@pytest.fixture(scope="module")
def sse_server() -> Iterator[HttpServer]:
    """One server for all that leave it as they found it."""
    server = HttpServer("uvicorn", "http+sse")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def mortal_sse_server() -> Iterator[HttpServer]:
    server = HttpServer("uvicorn", "http+sse")
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_every_verb_works_in_either_mode_and_no_socket_is_left(
    sse_server: HttpServer, mode: str
) -> None:
    before = open_sockets()
    with anyio.fail_after(30):
        async with Client(SSETransport(url(sse_server)), mode=mode) as client:
            # The transport is older than the modern era, whatever the server behind it speaks.
            await exercise(client, "legacy")
    assert open_sockets() <= before


async def test_a_configuration_names_the_transport(sse_server: HttpServer) -> None:
    with anyio.fail_after(30):
        async with Client({"type": "sse", "url": url(sse_server)}) as client:
            assert isinstance(client.transport, SSETransport)
            result = await client.call_tool("add", {"a": 1, "b": 2})
            assert result.structured_content == {"result": 3}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_url_that_does_not_tell_is_tried_over_streamable_http_first(mode: str) -> None:
    server = HttpServer("uvicorn", "http+sse-at-mcp")
    await anyio.to_thread.run_sync(server.start)
    before = open_sockets()
    try:
        with anyio.fail_after(30):
            async with Client(server.url, mode=mode) as client:
                await exercise(client, "legacy")
                assert isinstance(client.transport, SSETransport)
            with pytest.raises(httpx2.HTTPStatusError) as caught:
                await Client(StreamableHttpTransport(server.url), mode=mode).__aenter__()
            assert caught.value.response.status_code == 405
    finally:
        server.kill()
    assert open_sockets() <= before


async def test_two_hundred_calls_share_one_stream(sse_server: HttpServer) -> None:
    done: list[int] = []

    async def call(client: Client, number: int) -> None:
        result = await client.call_tool("add", {"a": number, "b": 1})
        assert result.structured_content == {"result": number + 1}
        done.append(number)

    with anyio.fail_after(60):
        async with Client(SSETransport(url(sse_server))) as client, anyio.create_task_group() as tg:
            for number in range(200):
                tg.start_soon(call, client, number)
    assert sorted(done) == list(range(200))


async def test_a_cancelled_call_leaves_the_session_alone(sse_server: HttpServer) -> None:
    with anyio.fail_after(30):
        async with Client(SSETransport(url(sse_server))) as client:
            with anyio.move_on_after(0.1) as scope:
                await client.call_tool("slow", {"seconds": 30})
            assert scope.cancelled_caught
            assert (await client.call_tool("add", {"a": 1, "b": 1})).structured_content == {"result": 2}
            assert client.stats().calls_in_flight == 0


async def test_a_server_killed_and_restarted_costs_its_calls_in_flight_and_nothing_after(
    mortal_sse_server: HttpServer,
) -> None:
    lost: list[str] = []

    async def wait(client: Client) -> None:
        # Which of the two depends on whether the server had acknowledged the call when it died.
        with pytest.raises((SessionLostError, RequestFailedError)) as caught:
            await client.call_tool("slow", {"seconds": 30})
        assert caught.value.reason in ("eof", "transport")
        lost.append(caught.value.reason)

    with anyio.fail_after(60):
        async with Client(SSETransport(url(mortal_sse_server))) as client:
            async with anyio.create_task_group() as tg:
                for _ in range(4):
                    tg.start_soon(wait, client)
                while client.stats().calls_in_flight < 4:
                    await anyio.sleep(0.01)
                await anyio.to_thread.run_sync(mortal_sse_server.kill)
            assert len(lost) == 4
            await anyio.to_thread.run_sync(mortal_sse_server.start)
            assert (await client.call_tool("add", {"a": 1, "b": 1})).structured_content == {"result": 2}
    with pytest.raises(NotConnectedError):
        await client.ping()


async def test_a_server_of_streamable_http_is_no_server_of_this_transport(http_server: HttpServer) -> None:
    with anyio.fail_after(30), pytest.raises(httpx2.HTTPStatusError) as caught:
        async with Client(SSETransport(http_server.url), restart=None):
            pytest.fail("connected")
    assert caught.value.response.status_code in (400, 405, 406)

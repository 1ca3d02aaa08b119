"""HTTP/2 in a client of the user's: exchanges that are given up cost no call behind them."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, final

import anyio
import httpx2
import pytest

from anyio_mcp import Client, MCPClientError, StreamableHttpTransport, Timeouts
from anyio_mcp.transports._http2 import Http2Streams, StreamUse
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._policy import HttpPolicy
from tests.faults.h2_server import h2_server
from tests.faults.http_server import CERTIFICATE

pytestmark = pytest.mark.anyio

QUICK = HttpPolicy(retire_seconds=0.1)


@pytest.fixture
def url() -> Iterator[str]:
    with h2_server() as url:
        yield url


@asynccontextmanager
async def session(url: str) -> AsyncGenerator[tuple[Client, Any]]:
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with httpx2.AsyncClient(http2=True, http1=False, verify=trusted) as http:
        transport = StreamableHttpTransport(url, http_client=http, _policy=QUICK)
        timeouts = Timeouts(connect=10, call=10, close=1)
        async with Client(transport, mode="legacy", timeouts=timeouts) as client:
            yield client, http


async def is_served(client: Client) -> bool:
    """Whether a call is answered. The client itself may break a connection when it is cancelled in the middle
    of a frame (https://github.com/encode/httpcore/issues/830): that costs one call, and no second one."""
    for _ in range(3):
        with suppress(MCPClientError):
            answer = await client.call_tool("hi", {}, timeout=2)
            return not answer.is_error
    return False


def refused(lost: list[Exception]) -> list[Exception]:
    """Those for which no stream was free."""
    return [error for error in lost if "outbound streams" in str(error)]


async def give_up(client: Client, calls: int, lost: list[Exception], seconds: float = 0.5) -> None:
    """Make that many calls at once, and cancel them while the server works on them."""

    async def one() -> None:
        with anyio.move_on_after(seconds):
            try:
                await client.call_tool("slow", {})
            except Exception as error:
                lost.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(one)


async def test_a_call_is_answered_after_any_number_of_cancelled_ones(url: str) -> None:
    lost: list[Exception] = []
    with anyio.fail_after(20):
        async with session(url) as (client, _):
            for _ in range(3):
                await give_up(client, 60, lost)
            assert await is_served(client)
    assert not refused(lost)


@final
class _Network:
    """Of a connection: whether it is closed."""

    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True


def answer(network: _Network, version: bytes = b"HTTP/2") -> httpx2.Response:
    return httpx2.Response(200, extensions={"network_stream": network, "http_version": version})


async def abandon(streams: Http2Streams, count: int) -> None:
    """That many exchanges at once, all given up."""
    uses = [StreamUse(streams, QUICK) for _ in range(count)]
    for use in uses:
        await use.enter()
    for use in uses:
        await use.leave()


async def test_a_connection_with_many_abandoned_streams_is_closed_once_nobody_uses_it() -> None:
    streams, network = Http2Streams(), _Network()
    streams.heard(answer(network))
    used = StreamUse(streams, QUICK)
    with anyio.fail_after(5):
        await used.enter()
        await abandon(streams, 40)
        assert not network.closed
        used.over = True
        await used.leave()
    assert network.closed


async def test_streams_that_ended_cost_no_connection() -> None:
    streams, network = Http2Streams(), _Network()
    streams.heard(answer(network))
    with anyio.fail_after(5):
        for _ in range(200):
            use = StreamUse(streams, QUICK)
            await use.enter()
            use.over = True
            await use.leave()
    assert not network.closed


async def test_a_connection_of_http_1_is_never_closed_nor_waited_for() -> None:
    streams, network = Http2Streams(), _Network()
    streams.heard(answer(network, b"HTTP/1.1"))
    with anyio.fail_after(5):
        await abandon(streams, 200)
    assert not network.closed


async def test_few_exchanges_that_never_end_keep_the_others_waiting_for_a_bounded_time() -> None:
    streams, network = Http2Streams(), _Network()
    streams.heard(answer(network))
    with anyio.fail_after(5):
        await StreamUse(streams, QUICK).enter()
        await abandon(streams, 89)
        await StreamUse(streams, QUICK).enter()
    assert network.closed


async def test_many_exchanges_under_way_are_waited_for_and_not_broken() -> None:
    streams, network = Http2Streams(), _Network()
    streams.heard(answer(network))
    with anyio.fail_after(5):
        used = [StreamUse(streams, QUICK) for _ in range(50)]
        for use in used:
            await use.enter()
        await abandon(streams, 40)
        with anyio.move_on_after(3 * QUICK.retire_seconds) as waited:
            await StreamUse(streams, QUICK).enter()
    assert waited.cancelled_caught
    assert not network.closed


@pytest.mark.parametrize(
    ("error", "unsent"),
    [
        (httpx2.LocalProtocolError("Max outbound streams is 100, 100 open"), True),
        (httpx2.WriteError("broken"), False),
        (httpx2.LocalProtocolError("bad header"), False),
        (httpx2.ReadError("broken"), False),
        (httpx2.RemoteProtocolError("Server disconnected"), False),
    ],
)
async def test_only_what_was_not_sent_completely_is_sent_again(error: Exception, unsent: bool) -> None:
    streams = Http2Streams()
    streams.heard(answer(_Network()))
    use = StreamUse(streams, QUICK)
    with anyio.fail_after(5):
        await use.enter()
        assert await use.is_unsent(error) is unsent


async def test_what_broke_before_its_body_was_written_is_sent_again_and_nothing_that_broke_later() -> None:
    streams = Http2Streams()
    streams.heard(answer(_Network()))
    use = StreamUse(streams, QUICK)
    with anyio.fail_after(5):
        await use.enter()
        request = httpx2.Request("POST", "http://127.0.0.1/mcp", content=b"{}")
        use.watch(request)
        assert request.content == b"{}"
        assert await anext(aiter(request.stream)) == b"{}"
        assert await use.is_unsent(httpx2.WriteError("broken"))
        assert [piece async for piece in request.stream] == [b"{}"]
        assert not await use.is_unsent(httpx2.WriteError("broken"))


class _Body(httpx2.AsyncByteStream):
    """Of a response: whether it was closed."""

    closed = False

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        yield b""

    async def aclose(self) -> None:
        self.closed = True


async def test_a_response_that_comes_while_its_request_is_given_up_is_closed() -> None:
    late = _Body()

    class Late(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET":
                return httpx2.Response(200, extensions={"http_version": b"HTTP/2"})
            await anyio.sleep(0.05)
            return httpx2.Response(200, stream=late, extensions={"http_version": b"HTTP/2"})

    async with httpx2.AsyncClient(transport=Late()) as http:
        requester = HttpRequester(
            http,
            "http://127.0.0.1/mcp",
            headers={},
            auth=None,
            timeout=httpx2.Timeout(5),
            policy=HttpPolicy(),
        )
        with anyio.fail_after(5):
            async with requester.open("GET", {}):
                pass
            with anyio.move_on_after(0.01):
                async with requester.open("POST", {}, b"{}"):
                    await anyio.sleep_forever()
    assert late.closed


async def test_nothing_is_sent_again_over_http_1() -> None:
    use = StreamUse(Http2Streams(), QUICK)
    with anyio.fail_after(5):
        await use.enter()
        assert not await use.is_unsent(httpx2.WriteError("broken"))


async def test_a_request_is_written_to_its_end_although_its_exchange_is_cancelled() -> None:
    streams = Http2Streams()
    streams.heard(answer(_Network()))
    use, written = StreamUse(streams, QUICK), False
    with anyio.fail_after(5):
        await use.enter()
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with use.writing():
                await anyio.sleep(0.01)
                written = True
                await anyio.sleep_forever()
    assert written
    assert scope.cancelled_caught


async def test_what_is_raised_while_a_request_is_written_is_raised_as_it_is() -> None:
    streams = Http2Streams()
    streams.heard(answer(_Network()))
    with anyio.fail_after(5), pytest.raises(httpx2.ReadError, match="broken"):
        async with StreamUse(streams, QUICK).writing():
            raise httpx2.ReadError("broken")

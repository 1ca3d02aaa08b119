"""The loopback listener: one request counts, everything else that may come along does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream

from anyio_mcp.auth import callback
from anyio_mcp.auth.callback import CallbackListener, bind_callback, listen_for_callback
from tests.leaks import open_sockets

pytestmark = pytest.mark.anyio

STATE = "the-state"
GOOD = f"/callback?code=c0de&state={STATE}"


@asynccontextmanager
async def listening() -> AsyncGenerator[CallbackListener]:
    with anyio.fail_after(5):
        async with listen_for_callback(await bind_callback()) as listener:
            listener.expect(STATE)
            yield listener


async def ask(listener: CallbackListener, request: bytes) -> bytes:
    """The whole answer to `request`; empty if the connection is closed without one."""
    async with await anyio.connect_tcp("127.0.0.1", listener.port) as stream:
        await stream.send(request)
        return await everything(stream)


async def everything(stream: SocketStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return received


async def get(listener: CallbackListener, target: str) -> bytes:
    return await ask(listener, f"GET {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())


async def test_the_callback_is_what_the_browser_brings_and_the_page_is_plain() -> None:
    async with listening() as listener:
        async with httpx2.AsyncClient(trust_env=False) as client:
            response = await client.get(
                f"{listener.redirect_uri}?code=c0de&state={STATE}&iss=https%3A%2F%2Fas"
            )
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert "You can close this window" in response.text
        found = await listener.wait()
    assert (found.code, found.state, found.issuer, found.error) == ("c0de", STATE, "https://as", None)
    assert "c0de" not in f"{found!r} {found} {response.text}"


async def test_a_refusal_is_a_callback_as_well() -> None:
    async with listening() as listener:
        page = await get(listener, f"/callback?error=access_denied&state={STATE}")
        assert b"Not signed in" in page
        assert (await listener.wait()).error == "access_denied"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /favicon.ico HTTP/1.1\r\n\r\n", b"404"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /callback/?code=a&state=the-state HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /callback?code=a&state=the-state HTTP/1.1\r\n\r\n", b"405"),
        (b"HEAD /callback?code=a&state=the-state HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /callback HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?code=a HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?code=a&state=other HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?code=a&state=\xff%ff HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?state=the-state HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?state=the-state&code= HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /callback?" + b"a=1&" * 50 + b"code=a&state=the-state HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://[/ HTTP/1.1\r\n\r\n", b"400"),
        (b"SSH-2.0-scanner\r\n\r\n", b"400"),
        (b"GET /callback?code=a&state=the-state HTTP/2\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
    ],
)
async def test_anything_else_is_turned_away_and_the_right_one_still_counts(
    request_: bytes, status: bytes
) -> None:
    async with listening() as listener:
        assert (await ask(listener, request_)).startswith(b"HTTP/1.1 " + status)
        await get(listener, GOOD)
        assert (await listener.wait()).code == "c0de"


async def test_nothing_of_a_request_is_repeated_in_a_page() -> None:
    async with listening() as listener:
        for target in (
            "/callback?code=a&state=<script>",
            f"/callback?error=<script>&state={STATE}",
            "/<script>",
        ):
            assert b"script" not in await get(listener, target)


async def test_an_endless_request_gets_no_answer() -> None:
    async with listening() as listener:
        assert await ask(listener, b"GET /" + b"x" * (callback.MAX_HEAD + 1)) == b""
        await get(listener, GOOD)
        assert (await listener.wait()).code == "c0de"


async def test_a_silent_connection_holds_up_nobody_and_is_closed_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callback, "VISIT_SECONDS", 0.1)
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as silent:
        await silent.send(b"GET /call")
        assert b"200 OK" in await get(listener, GOOD)
        assert await everything(silent) == b""


async def test_more_visitors_than_there_is_room_for_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "MAX_VISITORS", 2)
    async with listening() as listener:
        first = await anyio.connect_tcp("127.0.0.1", listener.port)
        second = await anyio.connect_tcp("127.0.0.1", listener.port)
        async with first:
            async with second:
                assert await get(listener, GOOD) == b""
            # Room again, as soon as the listener has seen the second one go.
            while not (page := await get(listener, GOOD)):
                pass
            assert b"200 OK" in page


async def test_only_the_first_callback_counts() -> None:
    async with listening() as listener:
        await get(listener, GOOD)
        assert b"200 OK" in await get(listener, f"/callback?code=late&state={STATE}")
        assert (await listener.wait()).code == "c0de"


async def test_before_a_state_is_expected_there_is_none() -> None:
    with anyio.fail_after(5):
        async with listen_for_callback(await bind_callback()) as listener:
            assert b"400" in await get(listener, "/callback?code=a&state=")


async def test_leaving_closes_the_port_and_every_visitor() -> None:
    before = open_sockets()
    async with listening() as listener:
        visitor = await anyio.connect_tcp("127.0.0.1", listener.port)
    async with visitor:
        with anyio.fail_after(5):
            assert await everything(visitor) == b""
    with pytest.raises(OSError):
        await anyio.connect_tcp("127.0.0.1", listener.port)
    assert open_sockets() <= before


async def test_what_the_body_raises_leaves_as_it_was_raised() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with listening():
            raise LookupError("mine")

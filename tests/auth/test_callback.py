"""The loopback listener: one request counts, everything else that may come along does not."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from anyio.abc import Listener, SocketStream

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


@pytest.mark.parametrize("more", [0, 1, 50])
async def test_the_browser_gets_through_however_many_others_are_there_and_say_nothing(
    monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(callback, "MAX_VISITORS", 2)
    async with AsyncExitStack() as visitors, listening() as listener:
        silent = [
            await visitors.enter_async_context(await anyio.connect_tcp("127.0.0.1", listener.port))
            for _ in range(2 + more)
        ]
        assert b"200 OK" in await get(listener, GOOD)
        assert (await listener.wait()).code == "c0de"
        # The oldest made room: no more than there is room for were there at a time.
        assert await everything(silent[0]) == b""


async def test_a_visitor_that_trickles_is_sent_away_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "VISIT_SECONDS", 0.2)
    async with listening() as listener, await anyio.connect_tcp("127.0.0.1", listener.port) as slow:
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            while True:
                await slow.send(b"G")
                with anyio.move_on_after(0.01):
                    await slow.receive()
        assert b"200 OK" in await get(listener, GOOD)


@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
async def test_localhost_is_listened_at_wherever_a_browser_looks_for_it(family: str) -> None:
    with anyio.fail_after(5):
        async with listen_for_callback(await bind_callback(0, "localhost"), "/back") as listener:
            listener.expect(STATE)
            try:
                stream = await anyio.connect_tcp(family, listener.port)
            except OSError:
                pytest.skip(f"no {family} on this machine")
            async with stream:
                await stream.send(f"GET /back?code=c&state={STATE} HTTP/1.1\r\n\r\n".encode())
                assert b"200 OK" in await everything(stream)
            assert (await listener.wait()).code == "c"


async def test_a_port_that_fails_to_accept_once_is_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callback, "_PAUSE_SECONDS", 0.0)
    servers = await bind_callback()

    class Exhausted(Listener[SocketStream]):
        """Has no file descriptor left at first."""

        def __init__(self) -> None:
            self.failed = False

        async def serve(self, handler: Any, task_group: Any = None) -> None:
            if not self.failed:
                self.failed = True
                raise OSError(errno.EMFILE, "too many open files")
            await servers[0].serve(handler, task_group)

        async def aclose(self) -> None:
            await servers[0].aclose()

        @property
        def extra_attributes(self) -> Any:
            return servers[0].extra_attributes

    with anyio.fail_after(5):
        async with listen_for_callback([Exhausted()]) as listener:
            listener.expect(STATE)
            assert b"200 OK" in await get(listener, GOOD)


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

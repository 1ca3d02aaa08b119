"""Whose requests they are: either library's client, headers, authentication, and what is refused."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.types import JSONRPCResponse

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._httpsettings import keepalive_options
from anyio_mcp.transports.base import Outgoing
from anyio_mcp.transports.http import StreamableHttpTransport
from tests.faults.http_driver import MODERN, Receipt, connected
from tests.faults.http_server import (
    CERTIFICATE,
    Talk,
    answer,
    fault_server,
)

pytestmark = pytest.mark.anyio


# --- either library --------------------------------------------------------------------------------


CLIENTS = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


@CLIENTS
async def test_statuses_of_a_client_are_that_librarys_errors(library: Any) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(429, b"slow down", headers={"retry-after": "9"})

    async with (
        fault_server(handler) as server,
        library.AsyncClient() as client,
        connected(server.url, http_client=client) as driver,
    ):
        error = await driver.fault()
    assert isinstance(error, library.HTTPStatusError)
    assert error.response.headers["retry-after"] == "9"
    assert error.response.text == "slow down"


@CLIENTS
async def test_errors_of_a_client_are_the_cause(library: Any) -> None:
    async def handler(talk: Talk) -> None:
        await talk.close()

    async with (
        fault_server(handler) as server,
        library.AsyncClient() as client,
        connected(server.url, http_client=client) as driver,
    ):
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert isinstance(error.cause, library.RemoteProtocolError)


@CLIENTS
async def test_the_reading_and_pool_timeouts_of_a_client_do_not_end_calls(library: Any) -> None:
    async def handler(talk: Talk) -> None:
        assert await talk.result({}) is None

    seen: list[dict[str, Any]] = []

    async def look(request: Any) -> None:
        seen.append(request.extensions["timeout"])

    timeout = library.Timeout(connect=1.5, read=0.01, write=2.5, pool=0.01)
    async with (
        fault_server(handler) as server,
        library.AsyncClient(timeout=timeout, event_hooks={"request": [look]}) as client,
        connected(server.url, http_client=client) as driver,
    ):
        await driver.result()
    # A wait for the pool is cut short only to be begun again: listening makes room for it meanwhile.
    assert seen == [{"connect": 1.5, "read": None, "write": 2.5, "pool": 0.5}]


@CLIENTS
async def test_a_client_that_follows_redirects_still_does_not_leave_the_origin(library: Any) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(307, headers={"location": "http://other.example/mcp"})

    async with (
        fault_server(handler) as server,
        library.AsyncClient(follow_redirects=True) as client,
        connected(server.url, http_client=client) as driver,
    ):
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert error.reason == "redirect"


@CLIENTS
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "identity"])
@pytest.mark.parametrize("framing", ["json", "events"])
async def test_compressed_answers_are_decoded(library: Any, coding: str, framing: str) -> None:
    def encode(data: bytes) -> bytes:
        match coding:
            case "gzip":
                return gzip.compress(data)
            case "deflate":
                return zlib.compress(data)
            case "raw deflate":
                bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
                return bare.compress(data) + bare.flush()
            case _:
                return data

    async def handler(talk: Talk) -> None:
        assert talk.received.headers["accept-encoding"] == "gzip, deflate"
        body = answer(talk.id, {"text": "x" * 1_000_000})
        if framing == "events":
            body = b"data: " + body + b"\n\n"
        kind = "application/json" if framing == "json" else "text/event-stream"
        await talk.reply(200, encode(body), kind, {"content-encoding": coding.removeprefix("raw ")})

    async with (
        fault_server(handler) as server,
        library.AsyncClient() as client,
        connected(server.url, http_client=client) as driver,
    ):
        assert len((await driver.result())["text"]) == 1_000_000


@CLIENTS
async def test_a_mock_transport_will_do(library: Any) -> None:
    def respond(request: Any) -> Any:
        message = library.Response(200, content=request.content).json()
        if message["method"] == "events":
            body = b"data: " + answer(message["id"], {"framing": "events"}) + b"\n\n"
            return library.Response(200, content=body, headers={"content-type": "text/event-stream"})
        if message["method"] == "refused":
            return library.Response(418, text="no coffee")
        return library.Response(
            200, json={"jsonrpc": "2.0", "id": message["id"], "result": {"framing": "json"}}
        )

    async with (
        library.AsyncClient(transport=library.MockTransport(respond)) as client,
        connected("http://mock.example/mcp", http_client=client) as driver,
    ):
        assert await driver.result("json") == {"framing": "json"}
        assert await driver.result("events") == {"framing": "events"}
        error = await driver.fault("refused")
        assert isinstance(error, library.HTTPStatusError)
        assert error.response.text == "no coffee"


@CLIENTS
@pytest.mark.parametrize("read", [True, False])
async def test_a_hook_that_raises_for_statuses_changes_nothing(library: Any, read: bool) -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "moved" and talk.received.target == "/mcp":
            await talk.reply(307, headers={"location": "/elsewhere"})
        elif talk.received.rpc_method == "refused":
            await talk.reply(429, b"slow down", headers={"retry-after": "9"})
        else:
            await talk.result({"at": talk.received.target})

    async def hook(response: Any) -> None:
        if read:
            await response.aread()
        response.raise_for_status()

    async with (
        fault_server(handler) as server,
        library.AsyncClient(event_hooks={"response": [hook]}) as client,
        connected(server.url, http_client=client) as driver,
    ):
        assert await driver.result("moved") == {"at": "/elsewhere"}
        error = await driver.fault("refused")
    assert isinstance(error, library.HTTPStatusError)
    assert error.response.headers["retry-after"] == "9"
    assert error.response.text == ("slow down" if read else "")


class _Endless(httpx2.AsyncByteStream):
    """A body that never waits, never ends, and does not want to be closed."""

    async def __aiter__(self) -> Any:
        while True:
            yield b" " * 1000

    async def aclose(self) -> None:
        raise RuntimeError("not yet")


@pytest.mark.parametrize(("kind", "reason"), [("application/json", "oversized"), ("text/html", "violation")])
async def test_the_body_of_a_foreign_transport_is_bounded_as_well(kind: str, reason: str) -> None:
    class Foreign(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, headers={"content-type": kind}, stream=_Endless())

    limits = Limits(max_message_bytes=10_000)
    async with (
        httpx2.AsyncClient(transport=Foreign()) as client,
        connected("http://foreign.example/", http_client=client, limits=limits) as driver,
    ):
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert error.reason == reason


@CLIENTS
async def test_a_client_that_was_closed_fails_the_call(library: Any) -> None:
    client = library.AsyncClient()
    await client.aclose()
    async with connected("http://127.0.0.1:1/mcp", http_client=client) as driver:
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert isinstance(error.cause, RuntimeError)


# --- headers and authentication --------------------------------------------------------------------


async def test_the_headers_of_both_eras() -> None:
    async def handler(talk: Talk) -> None:
        method = talk.received.rpc_method
        if talk.received.method == "GET":
            await talk.reply(405)
        elif method == "initialize":
            await talk.result({}, {"mcp-session-id": "S-1"})
        elif talk.received.body and method is not None and talk.id is not None:
            await talk.result()
        else:
            await talk.reply(202)

    async with fault_server(handler) as server:
        async with connected(server.url, headers={"X-Mine": "ä", "Accept": "text/html"}) as driver:
            discover = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "server/discover"}
            await driver.result("server/discover", era=discover)
            await driver.initialize()
            await driver.result("tools/list")
            await driver.result("ping", era=None)
            await driver.result("tools/list", era=MODERN)
            await driver.result("ping")
            receipt = Receipt()
            await driver.connection.send(
                Outgoing(JSONRPCResponse(jsonrpc="2.0", id=1, result={"a": None}), receipt=receipt)
            )
            assert await receipt.wait() is None
        await server.until(lambda s: len(s.of("DELETE")) == 1)

        def heads(http_method: str, rpc_method: str | None = None) -> list[tuple[str | None, str | None]]:
            return [
                (received.headers.get("mcp-protocol-version"), received.headers.get("mcp-session-id"))
                for received in server.of(http_method)
                if received.rpc_method == rpc_method
            ]

        assert heads("POST", "server/discover") == [("2026-07-28", None)]
        assert heads("POST", "initialize") == [(None, None)]
        assert heads("POST", "notifications/initialized") == [("2025-11-25", "S-1")]
        assert heads("POST", "tools/list") == [("2025-11-25", "S-1"), ("2026-07-28", None)]
        assert heads("POST", "ping") == [("2025-11-25", "S-1"), ("2025-11-25", "S-1")]
        assert heads("POST") == [("2025-11-25", "S-1")]
        assert heads("GET") == [("2025-11-25", "S-1")]
        assert heads("DELETE") == [("2025-11-25", "S-1")]
        assert server.requests[0].headers["mcp-method"] == "server/discover"
        for received in server.of("POST"):
            assert received.headers["accept"] == "application/json, text/event-stream"
            assert received.headers["content-type"] == "application/json"
            assert received.headers["x-mine"].encode("latin-1").decode() == "ä"


async def test_messages_are_written_without_nulls_in_the_envelope_only() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.result("ping")
        await driver.result("tools/call", {"name": "é", "arguments": {"nothing": None}})
        assert server.requests[0].body == b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
        assert server.requests[1].message["params"] == {"name": "é", "arguments": {"nothing": None}}


class _Signed(httpx2.Auth):
    def auth_flow(self, request: httpx2.Request) -> Any:
        request.headers["authorization"] = "Signed"
        yield request


class _SignedClassic(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["authorization"] = "Signed"
        yield request


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"auth": "token"}, "Bearer token"),
        ({"auth": _Signed()}, "Signed"),
        ({"headers": {"Authorization": "Mine"}}, "Mine"),
        ({"headers": {"Authorization": "Mine"}, "auth": "token"}, "Bearer token"),
    ],
)
async def test_authentication_applies_to_every_request(options: dict[str, Any], expected: str | None) -> None:
    async def handler(talk: Talk) -> None:
        await talk.result({}, {"mcp-session-id": "S-1"}) if talk.received.body else await talk.reply(405)

    async with fault_server(handler) as server:
        async with connected(server.url, **options) as driver:
            await driver.initialize()
            await server.until(lambda s: len(s.of("GET")) == 1)
        assert {received.method for received in server.requests} == {"POST", "GET", "DELETE"}
        assert {received.headers.get("authorization") for received in server.requests} == {expected}


@pytest.mark.parametrize(
    ("client", "auth", "expected"),
    [
        (lambda: httpx2.AsyncClient(auth=("user", "pass")), None, "Basic dXNlcjpwYXNz"),
        (lambda: httpx2.AsyncClient(auth=("user", "pass")), "token", "Bearer token"),
        (lambda: httpx2.AsyncClient(auth=("user", "pass")), _Signed(), "Signed"),
        (lambda: httpx.AsyncClient(auth=("user", "pass")), None, "Basic dXNlcjpwYXNz"),
        (lambda: httpx.AsyncClient(auth=("user", "pass")), "token", "Bearer token"),
        (lambda: httpx.AsyncClient(auth=("user", "pass")), _SignedClassic(), "Signed"),
    ],
)
async def test_authentication_given_here_wins_over_that_of_the_client(
    client: Any, auth: Any, expected: str
) -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with (
        fault_server(handler) as server,
        client() as http_client,
        connected(server.url, http_client=http_client, auth=auth) as driver,
    ):
        await driver.result()
        assert server.requests[0].headers["authorization"] == expected


async def test_authentication_that_fails_fails_the_call() -> None:
    class Broken(httpx2.Auth):
        def auth_flow(self, request: httpx2.Request) -> Any:
            raise LookupError("no token at https://user:hush@auth.example/token?code=hush")
            yield request

    async with connected("http://127.0.0.1:1/mcp", auth=Broken()) as driver:
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert isinstance(error.cause, LookupError)
    assert "https://auth.example/token" in str(error)
    assert "hush" not in str(error)


async def test_secrets_are_in_no_text() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(401, b"who are you")

    async with fault_server(handler) as server:
        url = f"http://user:hush@127.0.0.1:{server.port}/mcp?key=hush#hush"
        transport = StreamableHttpTransport(url, headers={"x-key": "hush"}, auth="hush")
        assert transport.describe == server.url
        assert repr(transport) == f"StreamableHttpTransport({server.url!r})"
        async with connected(url, headers={"x-key": "hush"}, auth="hush") as driver:
            error = await driver.fault()
        assert isinstance(error, httpx2.HTTPStatusError)
        assert "hush" not in f"{error} {error!r} {error.request.url} {error.request.headers}"
        assert server.requests[0].target == "/mcp?key=hush"
    async with connected(url) as driver:
        error = await driver.fault()
        assert isinstance(error, RequestFailedError)
        assert "hush" not in f"{error} {error!r}"


# --- the arguments ---------------------------------------------------------------------------------


def test_a_transport_describes_itself() -> None:
    transport = StreamableHttpTransport("https://example.org/mcp")
    assert transport.kind == "tcp"
    assert transport.describe == "https://example.org:443/mcp"
    assert StreamableHttpTransport("http://[::1]:80/").describe == "http://[::1]:80/"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (None, TypeError),
        (b"http://127.0.0.1/", TypeError),
        ("", ValueError),
        ("127.0.0.1:8000/mcp", ValueError),
        ("/mcp", ValueError),
        ("ftp://127.0.0.1/", ValueError),
        ("http://", ValueError),
        ("http:///mcp", ValueError),
        ("http://hush@", ValueError),
        ("http://127.0.0.1:hush/", ValueError),
        ("http://127.0.0.1:99999/", ValueError),
        ("http://127.0.0.1/\r\nhush", ValueError),
        ("http://[hush/", ValueError),
    ],
)
def test_what_is_no_url_is_refused(url: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        StreamableHttpTransport(url)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ("x: y", TypeError),
        ([("x", "y")], TypeError),
        ({"x": 1}, TypeError),
        ({1: "x"}, TypeError),
        ({"x": b"y"}, TypeError),
        ({"x": "a\r\nb: c"}, ValueError),
        ({"x": "a\nb"}, ValueError),
        ({"x": "a\0b"}, ValueError),
        ({"x\r\ny": "a"}, ValueError),
        ({"x y": "a"}, ValueError),
        ({"": "a"}, ValueError),
    ],
)
def test_what_is_no_header_is_refused(headers: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        StreamableHttpTransport("http://127.0.0.1/", headers=headers)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"auth": 1}, TypeError),
        ({"auth": ("user", "pass")}, TypeError),
        ({"auth": ""}, ValueError),
        ({"auth": "a b"}, ValueError),
        ({"auth": "a\r\nb"}, ValueError),
        ({"auth": _SignedClassic()}, TypeError),
        ({"http_client": object()}, TypeError),
        ({"http_client": httpx2.AsyncClient}, TypeError),
        ({"http_client": httpx.AsyncClient(), "auth": _Signed()}, TypeError),
        ({"http_client": httpx2.AsyncClient(), "auth": _SignedClassic()}, TypeError),
    ],
)
def test_what_cannot_make_requests_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        StreamableHttpTransport("http://127.0.0.1/", **options)


def test_headers_are_copied_and_frozen() -> None:
    mine = {"x": "1"}
    transport = StreamableHttpTransport("http://127.0.0.1/", headers=mine)
    mine["x"] = "2"
    assert transport.headers == {"x": "1"}
    with pytest.raises(TypeError):
        transport.headers["x"] = "3"  # type: ignore[index]
    with pytest.raises(AttributeError):
        transport.url = "http://127.0.0.2/"  # type: ignore[misc]


def test_classic_httpx_is_not_imported() -> None:
    code = (
        "import sys; from anyio_mcp.transports.http import StreamableHttpTransport as T; T('http://a/')\n"
        "try: T('http://a/', http_client=object())\n"
        "except TypeError: print('httpx' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "False"


# --- the default client ----------------------------------------------------------------------------


async def test_the_environments_proxies_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(talk: Talk) -> None:
        await talk.result({"target": talk.received.target})

    async with fault_server(handler) as server:
        for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
        async with connected("http://mcp.invalid/mcp") as driver:
            assert await driver.result() == {"target": "http://mcp.invalid/mcp"}
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with connected(server.url) as driver:
            assert await driver.result() == {"target": "/mcp"}


async def test_https_with_the_environments_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.rpc_method == "slow":
            await talk.hang()
        await talk.result()

    async with fault_server(handler, tls=True) as server:
        async with connected(server.url) as driver:
            error = await driver.fault()
            assert isinstance(error, RequestFailedError)
            assert "CERTIFICATE_VERIFY_FAILED" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        async with connected(server.url) as driver:
            before = server.accepted
            for _ in range(5):
                assert await driver.result() == {}
            assert server.accepted == before + 1
            request = await driver.request("slow")
            await server.until(lambda s: len(s.requests) == 6)
            driver.connection.abandon(request)
            await server.until(lambda s: s.open == 0)


async def test_a_dead_peer_is_noticed_by_tcp() -> None:
    async def handler(talk: Talk) -> None:
        await talk.result()

    async with fault_server(handler) as server, connected(server.url) as driver:
        await driver.result()
        kept_alive: list[list[int]] = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(OSError, ValueError), socket.socket(fileno=os.dup(int(descriptor.name))) as one:
                if one.getpeername() == ("127.0.0.1", server.port):
                    kept_alive.append([one.getsockopt(level, name) for level, name, _ in keepalive_options()])
        assert kept_alive == [[value for *_, value in keepalive_options()]]


@pytest.mark.skipif(sys.platform != "linux", reason="others name the options differently")
def test_the_death_of_a_peer_is_noticed_within_half_a_minute() -> None:
    options = {name: value for _, name, value in keepalive_options()}
    interval, count = options[socket.TCP_KEEPINTVL], options[socket.TCP_KEEPCNT]
    assert options[socket.SO_KEEPALIVE] == 1
    assert options[socket.TCP_KEEPIDLE] + interval * count <= 30

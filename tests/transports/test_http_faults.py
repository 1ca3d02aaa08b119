"""What an HTTP server can do wrong, down to the bytes: every fault ends in one typed error of one call."""

from __future__ import annotations

import gzip
import json
import ssl
import time
from contextlib import suppress
from dataclasses import replace

import anyio
import httpx2
import pytest
from anyio.abc import SocketAttribute, SocketStream
from mcp import MCPError

from anyio_mcp.config import Timeouts
from anyio_mcp.errors import RequestFailedError
from tests.faults.http_driver import LEGACY, MODERN, QUICK, connected, the_fault
from tests.faults.http_server import (
    GONE,
    NOTIFICATION,
    Handler,
    Talk,
    answer,
    close,
    error_answer,
    fault_server,
    garbage,
    never,
    reset,
)
from tests.servers import free_port

pytestmark = pytest.mark.anyio


# --- statuses --------------------------------------------------------------------------------------


STATUSES = [400, 401, 403, 404, 405, 406, 410, 429, 500, 503]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    ("body", "kind"), [(b"", None), (b"<h1>no</h1>", "text/html"), (b'{"error": "no"}', "application/json")]
)
async def test_an_error_status_is_the_error_of_the_call(status: int, body: bytes, kind: str | None) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(status, body, kind, {"retry-after": "7"})

    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.status_code == status
    assert error.response.content == body
    assert error.response.text == body.decode()
    assert error.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("ours", [True, False])
async def test_a_json_rpc_error_in_the_body_of_a_status_is_the_error_of_the_call(
    status: int, ours: bool
) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(
            status, error_answer(talk.id if ours else None, -32022, "too old"), "application/json"
        )

    error = await the_fault(handler)
    assert isinstance(error, MCPError)
    assert (error.code, error.message) == (-32022, "too old")
    assert isinstance(error.__cause__, httpx2.HTTPStatusError)
    assert error.__cause__.response.status_code == status


async def test_a_json_rpc_error_for_another_request_does_not_hide_the_status() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(500, error_answer("server-error"), "application/json")

    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert "server-error" in error.response.text


@pytest.mark.parametrize("begin", [b"", b"half of a bo"])
async def test_a_status_whose_body_never_arrives_is_raised_without_it(begin: bytes) -> None:
    async def handler(talk: Talk) -> None:
        await talk.head(503, {"content-length": "100", "retry-after": "1"}, "text/plain")
        await talk.raw(begin)
        await talk.hang()

    started = time.monotonic()
    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.content == begin
    assert error.response.headers["retry-after"] == "1"
    assert time.monotonic() - started < 1.0


async def test_a_status_with_an_endless_body_is_raised_with_its_beginning() -> None:
    async def handler(talk: Talk) -> None:
        await talk.head(500, {"transfer-encoding": "chunked"})
        while True:
            await talk.chunk(b"x" * 65536)

    error = await the_fault(handler, policy=replace(QUICK, error_body_seconds=2.0))
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.content == b"x" * 65536


async def test_a_status_whose_compressed_body_is_broken_is_still_that_status() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(502, b"this is not gzip", "text/plain", {"content-encoding": "gzip"})

    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.status_code == 502


async def test_the_body_of_a_status_is_decoded() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(502, gzip.compress(b"bad gateway"), "text/plain", {"content-encoding": "gzip"})

    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.text == "bad gateway"


@pytest.mark.parametrize("status", [202, 204])
async def test_an_acknowledged_request_without_an_answer_fails(status: int) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(status)

    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"
    assert str(status) in str(error)


# --- bodies that are no answer ---------------------------------------------------------------------


NO_ANSWERS: dict[str, tuple[bytes, str | None]] = {
    "an empty body": (b"", "application/json"),
    "a page": (b"<html>", "text/html"),
    "a text": (b"welcome", None),
    "invalid JSON": (b'{"jsonrpc": "2.0", "id": 1, "result": {', "application/json"),
    "invalid UTF-8": (b'{"jsonrpc": "2.0", "id": 1, "result": {"a": "\xff"}}', "application/json"),
    "result a list": (b'{"jsonrpc": "2.0", "id": 1, "result": [1]}', "application/json"),
    "neither result nor error": (b'{"jsonrpc": "2.0", "id": 1}', "application/json"),
    "a wrong id": (b'{"jsonrpc": "2.0", "id": 2, "result": {}}', "application/json"),
    "an error with a wrong id": (error_answer(2), "application/json"),
    "a notification": (json.dumps(NOTIFICATION).encode(), "application/json"),
    "a request": (b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}', "application/json"),
    "nesting without end": (b'{"jsonrpc": "2.0", "id": 1, "result": ' + b"[" * 9999, "application/json"),
}


@pytest.mark.parametrize("case", NO_ANSWERS)
async def test_a_body_that_is_no_answer_to_this_request_is_a_violation(case: str) -> None:
    body, kind = NO_ANSWERS[case]

    async def handler(talk: Talk) -> None:
        await talk.reply(200, body, kind)

    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"


async def test_an_error_without_an_id_can_only_mean_this_request() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(200, error_answer(None, -32700, "cannot read it"), "application/json")

    error = await the_fault(handler)
    assert isinstance(error, MCPError)
    assert (error.code, error.message) == (-32700, "cannot read it")


async def test_an_echo_of_the_request_is_no_answer() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(200, talk.received.body, "application/json")

    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"


# --- below HTTP ------------------------------------------------------------------------------------


async def _half_a_body(talk: Talk) -> None:
    await talk.head(200, {"content-length": "1000"}, "application/json")
    await talk.raw(b'{"jsonrpc": "2.0", ')


async def _half_a_body_reset(talk: Talk) -> None:
    await _half_a_body(talk)
    await talk.reset()


async def _chunked_cut_off(talk: Talk) -> None:
    await talk.head(200, {"transfer-encoding": "chunked"}, "application/json")
    await talk.chunk(b'{"jsonrpc": "2.0", ')


async def _half_a_head(talk: Talk) -> None:
    await talk.raw(b"HTTP/1.1 200 OK\r\ncontent-ty")


async def _broken_gzip(talk: Talk) -> None:
    await talk.reply(200, b"this is not gzip", "application/json", {"content-encoding": "gzip"})


async def _unasked_coding(talk: Talk) -> None:
    await talk.reply(200, answer(talk.id), "application/json", {"content-encoding": "gzip, gzip"})


async def _half_an_event(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b'data: {"jsonrpc": "2.0", "id"')


async def _no_event(talk: Talk) -> None:
    await talk.begin_events()
    await talk.end_events()


async def _an_answer_without_final_blank_line(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"data: " + answer(talk.id) + b"\n")
    await talk.end_events()


BREAKS = [
    close,
    reset,
    garbage,
    _half_a_body,
    _half_a_body_reset,
    _chunked_cut_off,
    _half_a_head,
    _broken_gzip,
    _unasked_coding,
    _half_an_event,
    _no_event,
    _an_answer_without_final_blank_line,
]


@pytest.mark.parametrize("handler", BREAKS)
@pytest.mark.parametrize("era", [LEGACY, MODERN], ids=["legacy", "modern"])
async def test_an_answer_that_breaks_off_fails_one_call(handler: Handler, era: dict[str, str]) -> None:
    error = await the_fault(handler, era=era)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"


@pytest.mark.parametrize("handler", [close, reset, garbage, _half_a_body, _broken_gzip])
async def test_what_broke_the_exchange_is_the_cause(handler: Handler) -> None:
    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert "no reason given" not in str(error)
    assert isinstance(error.cause, ValueError if handler is _broken_gzip else httpx2.RequestError)
    assert error.__cause__ is error.cause


async def test_a_refused_connection_fails_the_call() -> None:
    async with connected(f"http://127.0.0.1:{free_port()}/mcp") as driver:
        error = await driver.fault()
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"
    assert isinstance(error.cause, httpx2.ConnectError)


# A server of plain HTTP reads a TLS handshake as the beginning of a line, and waits for its end.


async def test_a_tls_handshake_that_is_never_answered_is_abandoned_without_a_trace() -> None:
    async with (
        fault_server(never) as server,
        connected(f"https://127.0.0.1:{server.port}/mcp") as driver,
    ):
        request = await driver.request()
        await server.until(lambda s: s.accepted == 1)
        assert driver.connection.abandon(request) is False
        await server.until(lambda s: s.open == 0)


async def test_a_tls_handshake_that_takes_longer_than_its_timeout_fails_the_call() -> None:
    timeouts = Timeouts(connect=0.1, close=1.0)
    async with (
        fault_server(never) as server,
        connected(f"https://127.0.0.1:{server.port}/mcp", timeouts=timeouts) as driver,
    ):
        error = await driver.fault()
        await server.until(lambda s: s.open == 0)
    assert isinstance(error, RequestFailedError)
    assert isinstance(error.cause, httpx2.ConnectTimeout)


async def test_a_server_that_does_not_speak_tls_fails_the_call() -> None:
    async def says_hello_first(stream: SocketStream) -> None:
        async with stream:
            await stream.send(b"220 mail.example ESMTP\r\n")
            with suppress(*GONE):
                while True:
                    await stream.receive()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, says_hello_first)
        async with connected(f"https://127.0.0.1:{port}/mcp") as driver:
            error = await driver.fault()
        tg.cancel_scope.cancel()
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"
    assert isinstance(error.cause, httpx2.ConnectError | ssl.SSLError)


# --- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_origin_keeps_the_request(status: int) -> None:
    async def handler(talk: Talk) -> None:
        if talk.received.target == "/mcp":
            await talk.reply(status, b"moved", headers={"location": "/mcp/"})
        else:
            assert talk.received.message["method"] == "tools/call"
            assert talk.received.headers["authorization"] == "Bearer secret"
            await talk.result({"at": talk.received.target})

    async with fault_server(handler) as server, connected(server.url, auth="secret") as driver:
        assert await driver.result() == {"at": "/mcp/"}
        assert server.accepted == 1
        assert [received.method for received in server.requests] == ["POST", "POST"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_would_change_the_method_is_refused(status: int) -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(status, headers={"location": "/elsewhere"})

    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "redirect"
    assert "/elsewhere" in str(error)


@pytest.mark.parametrize(
    ("location", "named"),
    [
        ("http://localhost:1/mcp?token=hush", "http://localhost:1/mcp"),
        ("https://127.0.0.1/mcp", "https://127.0.0.1:443/mcp"),
        ("//other.example/mcp", "http://other.example:80/mcp"),
        ("http://user:hush@127.0.0.1:{port}/mcp", "http://127.0.0.1:{port}/mcp"),
        ("ftp://127.0.0.1/", "ftp://127.0.0.1"),
        ("http://127.0.0.1:port/mcp?hush", "http://127.0.0.1:port/mcp"),
    ],
)
async def test_a_redirect_out_of_the_origin_is_refused_and_named(location: str, named: str) -> None:
    port = 0

    async def handler(talk: Talk) -> None:
        nonlocal port
        port = int(talk.received.headers["host"].partition(":")[2])
        await talk.reply(307, headers={"location": location.format(port=port)})

    error = await the_fault(handler)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "redirect"
    assert named.format(port=port) in str(error)
    assert "hush" not in str(error)


async def test_a_redirect_loop_is_refused_after_five() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(307, headers={"location": f"{talk.received.target}x"})

    async with fault_server(handler) as server, connected(server.url) as driver:
        error = await driver.fault()
        assert isinstance(error, RequestFailedError)
        assert error.reason == "redirect"
        assert "/mcpxxxxxx" in str(error)
        assert len(server.requests) == 6


async def test_a_redirect_without_a_location_is_a_status() -> None:
    async def handler(talk: Talk) -> None:
        await talk.reply(304)

    error = await the_fault(handler)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert error.response.status_code == 304

"""Whatever is raised while a peer's bytes are handled is the fault of one message, and a bug report."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError

from anyio_mcp import Client, MCPClientError, RequestFailedError, SessionLostError, SSETransport, Timeouts
from anyio_mcp.transports import (
    _body,
    _boundary,
    _delivery,
    _exchange,
    _http11,
    _httpclient,
    _httppool,
    _listen,
    _messages,
    _post,
    _urltransport,
    _wire,
    http,
    sse,
)
from anyio_mcp.transports._budget import BarrenBudget, Pace
from anyio_mcp.transports._headers import SessionHeaders
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._sse import SseParser
from tests.faults.http_driver import connected
from tests.faults.http_server import NOTIFICATION, Handler, Talk, fault_server, session
from tests.traps import Trap, named

pytestmark = pytest.mark.anyio

TYPED = (MCPClientError, MCPError, httpx2.HTTPStatusError)
CAFE = "café"
LOGGED = {**NOTIFICATION, "params": {"level": "info", "data": "x"}}


def tool_result(talk: Talk) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": talk.id, "result": {"content": [{"type": "text", "text": "hi"}]}}


def server_of(answer: Handler) -> Handler:
    """A server of the older era, whose tools are answered by `answer`."""

    async def handler(talk: Talk) -> None:
        if talk.received.method == "GET":
            await talk.begin_events()
            await talk.event(LOGGED)
            await talk.hang()
        elif talk.received.method == "DELETE":
            await talk.reply(204)
        elif talk.received.rpc_method == "initialize":
            info = {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "1"},
            }
            await talk.result(info, {"mcp-session-id": "S-1"})
        elif talk.received.rpc_method == "tools/call":
            await answer(talk)
        else:
            await talk.reply(202)

    return handler


async def in_json(talk: Talk) -> None:
    await talk.result(tool_result(talk)["result"])


async def in_events(talk: Talk) -> None:
    await talk.begin_events()
    await talk.event(LOGGED)
    await talk.event(tool_result(talk))
    await talk.end_events()


async def status_500(talk: Talk) -> None:
    await talk.reply(500, b"oops", "text/plain")


def wrong_once(wrong: Handler) -> Handler:
    broken = True

    async def handler(talk: Talk) -> None:
        nonlocal broken
        first, broken = broken, False
        await (wrong if first else in_json)(talk)

    return handler


CALLEES: list[tuple[Any, str, Handler]] = [
    (_exchange, "encode", in_json),
    (_exchange, "Body", in_json),
    (_exchange, "read_messages", in_json),
    (_exchange, "settles", in_json),
    (_exchange, "refusal", status_500),
    (_exchange, "SseParser", in_events),
    (_exchange, "read_event", in_events),
    (_exchange, "carries_data", in_events),
    (_messages, "read_messages", in_events),
    (_wire, "encode_message", in_json),
    (_wire, "read_messages", status_500),
    (_body, "media_type", in_json),
    (_body, "_parts", in_events),
    (_body.Body, "kind", in_json),
    (_body.Body, "read", in_json),
    (_body.Body, "events", in_events),
    (_httpclient, "decoder", in_json),
    (_httpclient, "rebuilt_error", status_500),
    (_httpclient.HttpRequester, "open", in_json),
    (_httpclient.HttpRequester, "chunks", in_json),
    (_httpclient.HttpRequester, "collect", in_json),
    (_httpclient.HttpRequester, "status_error", status_500),
    (_httpclient.HttpRequester, "_send", in_json),
    (_httpclient.HttpRequester, "_release", in_json),
    (BarrenBudget, "receive", in_events),
    (BarrenBudget, "spend", in_events),
    (Pace, "spend", in_json),
    (_httppool.ConnectionPool, "handle_async_request", in_json),
    (_httppool.ConnectionPool, "release", in_json),
    (_httppool.ConnectionPool, "_connect", in_json),
    (_http11.Http11Connection, "request", in_json),
    (_http11.Http11Connection, "read", in_json),
    (_http11.Http11Connection, "start_next", in_json),
    (SseParser, "feed", in_events),
    (Inbox, "put", in_events),
    (Inbox, "settle", in_json),
    (_exchange.RequestExchange, "_converse", in_json),
    (_exchange.RequestExchange, "_fail", status_500),
    (_exchange.RequestExchange, "run", in_json),
    (http.HttpConnection, "_request", in_json),
    (http.HttpConnection, "_forget", in_json),
]


@pytest.mark.parametrize(("owner", "name", "answer"), CALLEES, ids=named)
async def test_a_bug_in_any_callee_of_a_request_fails_that_call_alone(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, answer: Handler
) -> None:
    trap = Trap(late=name == "_release")
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(10):
        async with fault_server(server_of(wrong_once(answer))) as server, anyio.create_task_group() as mine:
            client = Client(server.url, task_group=mine, mode="legacy", timeouts=Timeouts(call=2, close=1))
            async with client:
                await server.until(lambda s: len(s.of("GET")) == 1)
                trap.armed = True
                with suppress(*TYPED):
                    await client.call_tool("t", {})
                assert trap.sprung == 1
                assert (await client.call_tool("t", {})).content[0].text == "hi"
            assert not mine.cancel_scope.cancel_called


OTHERS: list[tuple[Any, str]] = [
    (_delivery, "encode"),
    (_delivery.DeliveryExchange, "_deliver"),
    (_delivery.DeliveryExchange, "run"),
    (_httpclient.HttpRequester, "discard"),
    (http.HttpConnection, "_listen"),
]


@pytest.mark.parametrize(("owner", "name"), OTHERS, ids=named)
async def test_a_bug_in_any_callee_of_a_notification_is_in_its_receipt(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap()
    trap.set(monkeypatch, owner, name)

    async def answer(talk: Talk) -> None:
        await (talk.result() if "id" in talk.received.message else talk.reply(202))

    async with fault_server(session(answer)) as server, connected(server.url) as driver:
        await driver.result("initialize", {}, era=None)
        trap.armed = True
        receipt = await driver.notify("notifications/initialized")
        fault = await receipt.wait()
        assert trap.sprung == 1
        assert len(receipt.given) == 1
        assert fault is None or isinstance(fault, RequestFailedError | SessionLostError)
        if not isinstance(fault, SessionLostError):
            assert await driver.result() == {}


LISTENING: list[tuple[Any, str]] = [
    (_listen, "Body"),
    (_listen, "SseParser"),
    (_listen, "read_event"),
    (_listen, "carries_data"),
    (SessionHeaders, "stamp_get"),
    (_listen.Listener, "_follow"),
    (_listen.Listener, "_on_event"),
    (_listen.Listener, "_listen"),
]


@pytest.mark.parametrize(("owner", "name"), LISTENING, ids=named)
async def test_a_bug_in_any_callee_of_the_get_stream_leaves_an_idle_client_alone(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap(armed=True)
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(10):
        async with fault_server(server_of(in_json)) as server, anyio.create_task_group() as mine:
            client = Client(server.url, task_group=mine, mode="legacy", timeouts=Timeouts(call=2, close=1))
            async with client:
                while not trap.sprung:
                    await anyio.sleep(0.001)
                assert (await client.call_tool("t", {})).content[0].text == "hi"
            assert not mine.cancel_scope.cancel_called


LEAVING: list[tuple[Any, str]] = [
    (SessionHeaders, "stamp_delete"),
    (http.HttpConnection, "farewell"),
    (httpx2.AsyncClient, "aclose"),
]


@pytest.mark.parametrize(("owner", "name"), LEAVING, ids=named)
async def test_a_bug_in_leaving_is_nobodys_fault(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    trap = Trap(late=name == "aclose")
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(10):
        async with fault_server(server_of(in_json)) as server, Client(server.url, mode="legacy") as client:
            assert (await client.call_tool("t", {})).content[0].text == "hi"
            trap.armed = True
    assert trap.sprung == 1
    assert "a bug, please report it" in caplog.text


async def test_a_bug_in_signing_in_is_why_the_session_could_not_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap = Trap(armed=True)
    trap.set(monkeypatch, http, "sign_in")
    with anyio.fail_after(10):
        async with fault_server(server_of(in_json)) as server:
            with pytest.raises(MCPClientError, match="a bug"):
                async with Client(server.url, mode="legacy"):
                    pytest.fail("entered")


# --- HTTP+SSE --------------------------------------------------------------------------------------


def sse_server(answer: Callable[[Talk], Mapping[str, Any]]) -> Handler:
    streams: list[Talk] = []

    async def handler(talk: Talk) -> None:
        if talk.received.method == "GET":
            streams.append(talk)
            await talk.begin_events()
            await talk.chunk(b"event: endpoint\ndata: /messages\n\n")
            await talk.hang()
            return
        message = talk.received.message
        await talk.reply(202)
        if message["method"] == "initialize":
            info = {
                "protocolVersion": "2024-11-05",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "s", "version": "1"},
            }
            await streams[-1].event({"jsonrpc": "2.0", "id": message["id"], "result": info})
        elif "id" in message:
            await streams[-1].event(answer(talk))

    return handler


SSE_CALLEES: list[tuple[Any, str]] = [
    (_post, "encode"),
    (_post.RequestPost, "_post"),
    (_post.RequestPost, "run"),
    (_httpclient.HttpRequester, "open"),
    (_httpclient.HttpRequester, "discard"),
    (SseParser, "feed"),
    (sse, "read_event"),
    (sse.SseConnection, "_on_event"),
    (sse.SseConnection, "_answered"),
    (Inbox, "put"),
    (_body, "_parts"),
]


@pytest.mark.parametrize(("owner", "name"), SSE_CALLEES, ids=named)
async def test_a_bug_in_any_callee_of_the_older_transport_fails_its_calls_alone(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    trap = Trap()
    trap.set(monkeypatch, owner, name)
    with anyio.fail_after(10):
        async with fault_server(sse_server(tool_result)) as server, anyio.create_task_group() as mine:
            transport = SSETransport(server.url)
            client = Client(transport, task_group=mine, mode="legacy", timeouts=Timeouts(call=2, close=1))
            async with client:
                trap.armed = True
                while not trap.sprung:
                    with suppress(*TYPED):
                        await client.call_tool("t", {})
                assert (await client.call_tool("t", {})).content[0].text == "hi"
            assert not mine.cancel_scope.cancel_called


async def test_a_bug_in_telling_of_a_loss_ends_the_session_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("put_last", "end"):
        trap = Trap()
        trap.set(monkeypatch, Inbox, name)
        with anyio.fail_after(10):
            async with (
                fault_server(sse_server(tool_result)) as server,
                Client(SSETransport(server.url), mode="legacy") as client,
            ):
                trap.armed = True
                monkeypatch.setattr(SseParser, "feed", _never_feeds)
                with pytest.raises(SessionLostError):
                    await client.call_tool("t", {})
        assert trap.sprung == 1
        monkeypatch.undo()


def _never_feeds(*_: Any) -> Any:
    raise ZeroDivisionError("a bug")


# --- bytes past ASCII ------------------------------------------------------------------------------


def past_ascii(status: int, **headers: str) -> Handler:
    async def handler(talk: Talk) -> None:
        lines = [f"HTTP/1.1 {status} {CAFE}", "content-length: 0"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await talk.raw("\r\n".join([*lines, "", ""]).encode("latin-1"))
        talk.complete = True

    return handler


HEADERS: list[dict[str, str]] = [
    {"x_note": CAFE},
    {"content_type": CAFE},
    {"content_type": f"text/event-stream; charset={CAFE}"},
    {"mcp_session_id": CAFE},
    {"www_authenticate": f'Bearer error="{CAFE}"'},
    {"retry_after": CAFE},
    {"location": f"/{CAFE}"},
    {"location": f"http://{CAFE}/"},
    {"set_cookie": f"{CAFE}={CAFE}"},
    {"content_encoding": CAFE},
    {"server": CAFE, "date": CAFE},
]


@pytest.mark.parametrize("headers", HEADERS, ids=str)
@pytest.mark.parametrize("status", [200, 307, 401, 404, 500])
async def test_a_byte_past_ascii_in_any_header_is_the_calls_own_fault(
    status: int, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    odd = past_ascii(status, **headers)

    async def delete(talk: Talk) -> None:
        await odd(talk)

    async def answer(talk: Talk) -> None:
        if talk.received.message.get("params") == {"odd": True} or "id" not in talk.received.message:
            await odd(talk)
        else:
            await talk.result()

    async with (
        # A 404 to the GET or to a notification is the end of the session, whatever its headers say.
        fault_server(session(answer, get=None if status == 404 else odd, delete=delete)) as server,
        connected(server.url) as driver,
    ):
        await driver.initialize()
        await server.until(lambda s: len(s.of("GET")) >= 1)
        assert await driver.result() == {}
        if status != 404:
            await (await driver.notify()).wait()
        item = await driver.call(params={"odd": True})
        error = getattr(item, "error", item)
        assert isinstance(error, TYPED), error
        if isinstance(error, httpx2.HTTPStatusError):
            again = pickle.loads(pickle.dumps(error))
            for one in (error, again):
                assert one.response.status_code == status
                for name, value in headers.items():
                    if name != "content_encoding":
                        assert one.response.headers[name.replace("_", "-")] == value
    assert "a bug" not in caplog.text


async def test_what_is_no_fault_of_ours_is_not_logged_as_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        error = RequestFailedError("x", reason="transport")
        assert _boundary.contained(error, "the server") is error
        assert not caplog.records
        assert isinstance(_boundary.contained(RecursionError("deep"), "the server"), RequestFailedError)
        assert "a bug, please report it: handling what the server said failed" in caplog.text
        assert _urltransport.contained is _boundary.contained

"""HTTP+SSE against a server that misbehaves below HTTP: a fault of a POST is one request's, the end of the
stream is the session's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp import MCPError
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp import Client, ConnectError, DeadlineExceededError, SSETransport
from anyio_mcp.config import Heartbeat, Limits, Timeouts
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports.base import INBOX_SIZE, Outgoing, RequestFault
from tests.faults.http_driver import QUICK, Driver, Receipt
from tests.faults.http_server import (
    NOTIFICATION,
    FaultServer,
    Handler,
    Talk,
    answer,
    close,
    error_answer,
    fault_server,
    garbage,
    head_then_silence,
    never,
    reset,
)
from tests.leaks import open_sockets
from tests.servers import free_port

pytestmark = pytest.mark.anyio

LIMIT = 10_000
ENDPOINT = b"/messages/?session_id=5"


class SseServer:
    """A well-behaved server of this transport, but for the handlers it is given."""

    def __init__(self, post: Handler | None = None, get: Handler | None = None) -> None:
        self.post = post or self.answered
        self.get = get or self.endpoint
        self.stream: Talk | None = None

    async def __call__(self, talk: Talk) -> None:
        if talk.received.method == "GET":
            await self.get(talk)
        else:
            await self.post(talk)

    async def endpoint(self, talk: Talk) -> None:
        """Names the endpoint, and keeps the stream open."""
        self.stream = talk
        await talk.begin_events()
        await talk.event(ENDPOINT, event="endpoint")
        await talk.hang()

    async def answered(self, talk: Talk) -> None:
        """Acknowledges a message, and answers it on the stream if it is a request."""
        await talk.reply(202, b"Accepted")
        if talk.id is not None and talk.received.rpc_method is not None:
            await self.say(answer(talk.id, {"works": True}))

    async def say(self, data: Any) -> None:
        assert self.stream is not None
        await self.stream.event(data, event="message")


@asynccontextmanager
async def connected(
    url: str,
    *,
    policy: HttpPolicy = QUICK,
    limits: Limits | None = None,
    seconds: float = 5.0,
    **options: Any,
) -> AsyncGenerator[Driver]:
    transport = SSETransport(url, _policy=policy, **options)
    with anyio.fail_after(seconds):
        async with transport.connect(timeouts=Timeouts(close=1.0), limits=limits or Limits()) as connection:
            yield Driver(connection)


@asynccontextmanager
async def session(
    server: SseServer | None = None, **options: Any
) -> AsyncGenerator[tuple[FaultServer, Driver]]:
    async with (
        fault_server(server or SseServer()) as faults,
        connected(faults.url, **options) as driver,
    ):
        yield faults, driver


async def refusal(get: Handler, **options: Any) -> Exception:
    """Why a connection to a server that answers the GET like this does not come about."""
    async with fault_server(SseServer(get=get)) as server:
        with pytest.raises(Exception) as caught:
            async with connected(server.url, **options):
                pytest.fail("connected")
        await server.until(lambda s: s.open == 0)
    return caught.value


# --- the connection --------------------------------------------------------------------------------


async def test_messages_go_to_the_endpoint_and_answers_come_on_the_stream() -> None:
    async with session(headers={"x-key": "1"}, auth="token") as (server, driver):
        assert await driver.result() == {"works": True}
        assert await (await driver.notify()).wait() is None
        get, *posts = server.requests
        assert (get.method, get.target, get.headers["accept"]) == ("GET", "/mcp", "text/event-stream")
        assert {post.target for post in posts} == {ENDPOINT.decode()}
        for received in server.requests:
            assert received.headers["x-key"] == "1"
            assert received.headers["authorization"] == "Bearer token"


async def test_what_the_server_says_unasked_arrives_in_order() -> None:
    peer = SseServer()
    async with session(peer) as (_, driver):
        await peer.say({**NOTIFICATION, "params": {"n": 1}})
        await peer.say({"jsonrpc": "2.0", "id": "s1", "method": "ping"})
        first = await driver.arrived(JSONRPCNotification)
        assert first.params == {"n": 1}
        assert (await driver.arrived(JSONRPCRequest)).id == "s1"
        reply = Receipt()
        await driver.connection.send(
            Outgoing(JSONRPCResponse(jsonrpc="2.0", id="s1", result={}), receipt=reply)
        )
        assert await reply.wait() is None


@pytest.mark.parametrize(
    "endpoint", ["messages?s=1", "/messages?s=1", "{origin}/messages?s=1", "/messages?s=1#part"]
)
async def test_the_endpoint_may_be_named_in_any_way_within_the_origin(endpoint: str) -> None:
    async def get(talk: Talk) -> None:
        peer.stream = talk
        await talk.begin_events()
        text = endpoint.format(origin=f"http://{talk.received.headers['host']}")
        await talk.event(text.encode(), event="endpoint")
        await talk.hang()

    peer = SseServer(get=get)
    async with session(peer) as (server, driver):
        assert await driver.result() == {"works": True}
        assert server.of("POST")[0].target == "/messages?s=1"


async def test_the_user_info_of_the_url_goes_with_every_message() -> None:
    async def get(talk: Talk) -> None:
        peer.stream = talk
        await talk.begin_events()
        await talk.event(f"http://{talk.received.headers['host']}/post".encode(), event="endpoint")
        await talk.hang()

    peer = SseServer(get=get)
    async with fault_server(peer) as server:
        async with connected(server.url.replace("://", "://user:hush@")) as driver:
            assert await driver.result() == {"works": True}
        assert {r.headers.get("authorization") for r in server.requests} == {"Basic dXNlcjpodXNo"}


async def test_a_redirect_of_the_stream_is_followed_within_the_origin() -> None:
    async def get(talk: Talk) -> None:
        if talk.received.target == "/mcp":
            await talk.reply(307, headers={"location": "/inner/sse"})
            return
        peer.stream = talk
        await talk.begin_events()
        await talk.event(b"post", event="endpoint")
        await talk.hang()

    peer = SseServer(get=get)
    async with session(peer) as (server, driver):
        assert await driver.result() == {"works": True}
        assert server.of("POST")[0].target == "/inner/post"


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_the_clients_of_both_libraries_serve_and_are_left_open(library: Any) -> None:
    async with library.AsyncClient() as http_client:
        async with session(http_client=http_client) as (_, driver):
            assert await driver.result() == {"works": True}
        assert not http_client.is_closed


# --- faults while connecting -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 429, 500, 503])
async def test_an_error_status_of_the_stream_is_raised_with_its_response(status: int) -> None:
    async def get(talk: Talk) -> None:
        await talk.reply(status, b"because", "text/plain")

    error = await refusal(get)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert (error.response.status_code, error.response.text) == (status, "because")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        (b"http://127.0.0.1:1/messages", "another origin"),
        (b"https://example.org/", "another origin"),
        (b"//example.org/messages", "another origin"),
        (b"file:///etc/passwd", "no URL"),
        (b"http://[/", "no URL"),
        (b"/\xff", "no URL"),
        (b"/" + b"x" * 9000, "more than 8192 bytes"),
        (b"", "empty"),
    ],
)
async def test_an_endpoint_elsewhere_is_refused_and_nothing_is_sent_there(endpoint: bytes, why: str) -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(endpoint, event="endpoint")
        await talk.hang()

    error = await refusal(get)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"
    assert why in str(error)


@pytest.mark.parametrize("kind", ["application/json", "text/html", None])
async def test_something_else_than_a_stream_is_a_violation(kind: str | None) -> None:
    async def get(talk: Talk) -> None:
        await talk.reply(200, b"{}", kind)

    error = await refusal(get)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "violation"


@pytest.mark.parametrize("get", [close, reset, garbage])
async def test_a_stream_that_breaks_before_its_head_cannot_be_connected_to(get: Handler) -> None:
    error = await refusal(get)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"


async def test_a_stream_that_ends_before_it_names_an_endpoint_cannot_be_connected_to() -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.end_events()

    error = await refusal(get)
    assert isinstance(error, SessionLostError)
    assert error.reason == "eof"


@pytest.mark.parametrize("number", [INBOX_SIZE, INBOX_SIZE + 1])
async def test_messages_before_the_endpoint_are_kept_as_long_as_there_is_room(number: int) -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.chunk(b'data: {"jsonrpc":"2.0","method":"x"}\n\n' * number)
        await talk.event(ENDPOINT, event="endpoint")
        await talk.hang()

    if number > INBOX_SIZE:
        error = await refusal(get)
        assert isinstance(error, RequestFailedError)
        assert error.reason == "violation"
        assert f"named no endpoint in {INBOX_SIZE} messages" in str(error)
    else:
        async with session(SseServer(get=get)) as (_, driver):
            assert await (await driver.notify()).wait() is None
            for _ in range(number):
                await driver.arrived(JSONRPCNotification)


async def test_a_server_nobody_runs_cannot_be_connected_to() -> None:
    with pytest.raises(RequestFailedError) as caught:
        async with connected(f"http://127.0.0.1:{free_port()}/sse"):
            pytest.fail("connected")
    assert isinstance(caught.value.cause, httpx2.ConnectError)


async def begun_and_silent(talk: Talk) -> None:
    await talk.begin_events()
    await talk.chunk(b"event: endpoint\ndata: /mess")
    await talk.hang()


async def comments_for_ever(talk: Talk) -> None:
    await talk.begin_events()
    while True:
        await talk.chunk(b": still here\n\n")
        await anyio.sleep(0.01)


@pytest.mark.parametrize("get", [never, begun_and_silent, comments_for_ever])
async def test_an_endpoint_that_is_never_named_ends_with_the_connect_deadline(get: Handler) -> None:
    before = open_sockets()
    async with fault_server(SseServer(get=get)) as server:
        client = Client(SSETransport(server.url), timeouts=Timeouts(connect=0.2), restart=None)
        with anyio.fail_after(5), pytest.raises(DeadlineExceededError) as caught:
            async with client:
                pytest.fail("connected")
        assert caught.value.phase == "connect"
        await server.until(lambda s: s.open == 0)
    assert open_sockets() <= before


async def test_a_refused_connect_reaches_the_user_as_a_connect_error() -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(b"http://127.0.0.1:1/", event="endpoint")
        await talk.hang()

    async with fault_server(SseServer(get=get)) as server:
        with anyio.fail_after(5), pytest.raises(ConnectError, match="another origin") as caught:
            async with Client(SSETransport(server.url), restart=None):
                pytest.fail("connected")
    assert isinstance(caught.value.cause, RequestFailedError)


# --- faults of one POST ----------------------------------------------------------------------------


async def the_fault(post: Handler, **options: Any) -> Exception:
    """The error of one call whose POST is handled by `post`, after which the connection still works."""
    broken = True

    async def first_wrong_then_right(talk: Talk) -> None:
        if broken:
            await post(talk)
        else:
            await peer.answered(talk)

    peer = SseServer(first_wrong_then_right)
    async with session(peer, **options) as (server, driver):
        error = await driver.fault()
        broken = False
        assert await driver.result() == {"works": True}
        assert len(server.of("GET")) == 1
    return error


@pytest.mark.parametrize("status", [400, 401, 403, 405, 413, 429, 500, 503])
async def test_an_error_status_of_a_post_fails_that_request_only(status: int) -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(status, b"because", "text/plain", {"retry-after": "7"})

    error = await the_fault(post)
    assert isinstance(error, httpx2.HTTPStatusError)
    assert (error.response.status_code, error.response.text) == (status, "because")
    assert error.response.headers["retry-after"] == "7"


async def test_a_json_rpc_error_in_the_refusal_of_a_post_is_the_error_of_the_call() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(400, error_answer(talk.id, -32602, "no such tool"), "application/json")

    error = await the_fault(post)
    assert isinstance(error, MCPError)
    assert error.message == "no such tool"
    assert isinstance(error.__cause__, httpx2.HTTPStatusError)


@pytest.mark.parametrize("post", [close, reset, garbage])
async def test_a_post_that_breaks_fails_that_request_only(post: Handler) -> None:
    error = await the_fault(post)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "transport"


async def test_a_redirect_of_a_post_to_another_origin_is_not_followed() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(307, headers={"location": "http://127.0.0.1:1/steal"})

    error = await the_fault(post)
    assert isinstance(error, RequestFailedError)
    assert error.reason == "redirect"


async def test_a_message_that_cannot_be_written_fails_that_request_only() -> None:
    async with session() as (_, driver):
        item = await driver.settled(await driver.request(params={"lone": "\ud800"}))
        assert isinstance(item, RequestFault)
        assert isinstance(item.error, RequestFailedError)
        assert await driver.result() == {"works": True}


@pytest.mark.parametrize("post", [never, head_then_silence])
async def test_a_post_that_hangs_holds_up_nobody_else(post: Handler) -> None:
    peer = SseServer()

    async def first_hangs(talk: Talk) -> None:
        await (post(talk) if talk.id == "stuck" else peer.answered(talk))

    peer.post = first_hangs
    async with session(peer) as (server, driver):
        await driver.request(request_id="stuck")
        await server.until(lambda s: len(s.of("POST")) == 1)
        assert await driver.result() == {"works": True}
        assert driver.connection.abandon("stuck") is False
        await server.until(lambda s: s.open <= 2)


async def test_an_answer_may_come_before_its_post_is_acknowledged() -> None:
    async def post(talk: Talk) -> None:
        await peer.say(answer(talk.id, {"early": True}))
        await talk.hang()

    peer = SseServer(post)
    async with session(peer) as (server, driver):
        assert await driver.result() == {"early": True}
        # The POST that is never acknowledged gives its connection back.
        await server.until(lambda s: s.open == 1)


async def test_the_refusal_of_a_post_behind_its_answer_is_no_fault_any_more() -> None:
    async def post(talk: Talk) -> None:
        await peer.say(answer(talk.id, {"early": True}))
        await talk.reply(500)
        await peer.say(NOTIFICATION)

    peer = SseServer(post)
    async with session(peer) as (_, driver):
        assert await driver.result() == {"early": True}
        await driver.arrived(JSONRPCNotification)
        assert driver.seen == []


async def test_an_id_used_again_belongs_to_the_new_request() -> None:
    async def post(talk: Talk) -> None:
        if len(faults.of("POST")) == 1:
            await talk.hang()
        await peer.answered(talk)

    peer = SseServer(post)
    async with session(peer) as (faults, driver):
        await driver.request(request_id=7)
        await faults.until(lambda s: len(s.of("POST")) == 1)
        item = await driver.settled(await driver.request(request_id=7))
        assert isinstance(item, JSONRPCResponse)


# --- notifications ---------------------------------------------------------------------------------


async def test_a_stalled_notification_holds_up_nothing_and_learns_of_the_end() -> None:
    peer = SseServer()

    async def post(talk: Talk) -> None:
        await (talk.hang() if talk.id is None else peer.answered(talk))

    peer.post = post
    async with session(peer) as (_, driver):
        receipt = await driver.notify()
        assert await driver.result() == {"works": True}
        assert receipt.given == []
    (error,) = receipt.given
    assert isinstance(error, SessionLostError)
    assert error.reason == "closed"


async def test_a_refused_notification_tells_its_receipt() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(400, b"because")

    async with session(SseServer(post)) as (_, driver):
        error = await (await driver.notify()).wait()
        assert isinstance(error, httpx2.HTTPStatusError)


# --- the stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["end_events", "close", "reset"])
async def test_the_end_of_the_stream_is_the_loss_of_the_session(end: str) -> None:
    asked = anyio.Event()

    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(ENDPOINT, event="endpoint")
        await asked.wait()
        await getattr(talk, end)()

    async def post(talk: Talk) -> None:
        if talk.id is None:
            await talk.hang()
        await talk.reply(202)
        asked.set()

    async with session(SseServer(post, get)) as (server, driver):
        receipt = await driver.notify()
        await server.until(lambda s: len(s.of("POST")) == 1)
        await driver.request()
        lost = await driver.lost()
        assert lost.error.reason == "eof"
        error = await receipt.wait()
        assert isinstance(error, SessionLostError)
        assert error.reason == "eof"
        late = await driver.notify()
        assert isinstance(await late.wait(), SessionLostError)
        await driver.request()
        assert len(server.of("POST")) == 2


async def test_what_was_said_before_the_end_still_arrives() -> None:
    async def post(talk: Talk) -> None:
        await peer.answered(talk)
        assert peer.stream is not None
        await peer.stream.end_events()

    peer = SseServer(post)
    async with session(peer) as (_, driver):
        assert await driver.result() == {"works": True}
        assert (await driver.lost()).error.reason == "eof"


async def test_what_is_no_message_is_a_violation_and_skipped() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        assert peer.stream is not None
        await peer.stream.event(b"garbage", event="message")
        await peer.stream.event(b"\xff", event="message")
        await peer.stream.event(b"/elsewhere", event="endpoint")
        await peer.stream.event(b"whatever", event="other")
        await peer.stream.chunk(b": a comment\n\n")
        await peer.say(answer("not yours"))
        await peer.say(answer(talk.id, {"works": True}))

    peer = SseServer(post)
    async with session(peer) as (server, driver):
        assert await driver.result() == {"works": True}
        assert len(driver.violations) == 3
        assert "a second endpoint on one stream" in driver.violations
        assert await driver.result() == {"works": True}
        assert {post.target for post in server.of("POST")} == {ENDPOINT.decode()}


@pytest.mark.parametrize("others", [0, 2])
async def test_an_oversized_answer_fails_its_request_and_no_other(others: int) -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        if talk.id == "big":
            await peer.say(answer("big", {"text": "x" * LIMIT}))

    peer = SseServer(post)
    async with session(peer, limits=Limits(max_message_bytes=LIMIT)) as (_, driver):
        for number in range(others):
            await driver.request(request_id=f"other {number}")
        item = await driver.settled(await driver.request(request_id="big"))
        assert isinstance(item, RequestFault)
        assert isinstance(item.error, RequestFailedError)
        assert item.error.reason == "oversized"
        for number in range(others):
            await peer.say(answer(f"other {number}", {"fits": True}))
            assert isinstance(await driver.settled(f"other {number}"), JSONRPCResponse)


async def test_an_oversized_event_that_names_no_request_fails_the_only_one_there_is() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        text = b'{"jsonrpc": "2.0", "result": {"text": "' + b"x" * LIMIT + b'"}, "id": %d}' % talk.id
        await peer.say(text)

    peer = SseServer(post)
    async with session(peer, limits=Limits(max_message_bytes=LIMIT)) as (_, driver):
        item = await driver.settled(await driver.request())
        assert isinstance(item, RequestFault)
        assert isinstance(item.error, RequestFailedError)
        assert item.error.reason == "oversized"
        # Two of them wait: neither can be told from the other, and neither is blamed.
        await driver.request()
        await driver.request()
        while len(driver.violations) < 2:
            driver.seen.append(await driver.connection.incoming.receive())


async def test_a_flood_of_notifications_is_held_back_and_the_answer_still_comes() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        assert peer.stream is not None
        for _ in range(100):
            await peer.stream.chunk(b'event: message\ndata: {"jsonrpc":"2.0","method":"x"}\n\n' * 100)
        await peer.say(answer(talk.id, {"works": True}))

    peer = SseServer(post)
    async with session(peer, seconds=20) as (_, driver):
        assert await driver.result() == {"works": True}
        assert len(driver.seen) == 10_000


async def test_traffic_is_what_comes_on_the_stream_or_answers_a_post() -> None:
    peer = SseServer()
    async with session(peer) as (_, driver):
        before = driver.connection.last_traffic
        while anyio.current_time() == before:
            await anyio.sleep(0)
        await driver.notify()
        while driver.connection.last_traffic == before:
            await anyio.sleep(0.001)


# --- the era ---------------------------------------------------------------------------------------


def initialized(request_id: Any) -> bytes:
    return answer(
        request_id,
        {
            "protocolVersion": "2024-11-05",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "old", "version": "1"},
        },
    )


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_old_server_is_never_asked_what_it_cannot_know(mode: str) -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        if talk.received.rpc_method == "initialize":
            await peer.say(initialized(talk.id))
        elif talk.received.rpc_method == "tools/list":
            await peer.say(answer(talk.id, {"tools": []}))

    peer = SseServer(post)
    async with fault_server(peer) as server:
        with anyio.fail_after(5):
            async with Client(SSETransport(server.url), mode=mode) as client:
                assert client.protocol_version == "2024-11-05"
                assert await client.list_tools() == []
        methods = [received.rpc_method for received in server.of("POST")]
        assert set(methods) == {"initialize", "notifications/initialized", "tools/list"}


async def test_a_question_that_is_not_the_probe_is_the_servers_to_answer() -> None:
    async with session() as (server, driver):
        probe = await driver.call("server/discover")
        assert isinstance(probe, JSONRPCError)
        assert probe.error.code == -32601
        assert server.of("POST") == []
        assert await driver.result("server/discover") == {"works": True}


async def test_a_lost_session_is_replaced_by_the_next_call_with_a_stream_of_its_own() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        match talk.received.rpc_method:
            case "initialize":
                await peer.say(initialized(talk.id))
            case "tools/list" if len(server.of("GET")) == 1:
                assert peer.stream is not None
                await peer.stream.close()
            case "tools/list":
                await peer.say(answer(talk.id, {"tools": []}))

    peer = SseServer(post)
    async with fault_server(peer) as server:
        with anyio.fail_after(5):
            async with Client(SSETransport(server.url)) as client:
                with pytest.raises(SessionLostError) as caught:
                    await client.list_tools()
                assert caught.value.reason == "eof"
                assert await client.list_tools() == []
    assert len(server.of("GET")) == 2


async def test_a_server_that_says_nothing_any_more_is_waited_for_until_the_deadline() -> None:
    async def post(talk: Talk) -> None:
        if talk.received.rpc_method == "initialize":
            await talk.reply(202)
            await peer.say(initialized(talk.id))
        elif talk.id is None:
            await talk.reply(202)
        else:
            await talk.hang()

    peer = SseServer(post)
    async with fault_server(peer) as server:
        heartbeat = Heartbeat(interval=0.05, timeout=0.05)
        with anyio.fail_after(5):
            async with Client(SSETransport(server.url), heartbeat=heartbeat, restart=None) as client:
                with pytest.raises(DeadlineExceededError) as caught:
                    await client.list_tools(timeout=0.5)
                assert client.is_connected()
    assert caught.value.method == "tools/list"
    assert caught.value.sent_seconds == pytest.approx(0.5, abs=0.4)


# --- leaving ---------------------------------------------------------------------------------------


async def test_leaving_aborts_what_is_in_flight_and_leaves_no_socket() -> None:
    before = open_sockets()
    async with fault_server(SseServer(never)) as server:
        started = time.monotonic()
        async with connected(server.url) as driver:
            for _ in range(5):
                await driver.request()
            receipt = await driver.notify()
            await server.until(lambda s: len(s.of("POST")) == 6)
        assert time.monotonic() - started < 5.0
        assert len(receipt.given) == 1
        await server.until(lambda s: s.open == 0)
    assert open_sockets() <= before


async def test_the_body_leaves_a_connection_as_it_raised() -> None:
    async with fault_server(SseServer()) as server:
        with pytest.raises(LookupError, match="mine"):
            async with connected(server.url):
                raise LookupError("mine")
        await server.until(lambda s: s.open == 0)


async def test_leaving_does_not_wait_for_somebody_to_read() -> None:
    async def get(talk: Talk) -> None:
        await talk.begin_events()
        await talk.event(ENDPOINT, event="endpoint")
        while True:
            await talk.chunk(b'event: message\ndata: {"jsonrpc":"2.0","method":"x"}\n\n' * 100)

    async with fault_server(SseServer(get=get)) as server:
        async with connected(server.url) as driver:
            while driver.connection.incoming.statistics().tasks_waiting_send == 0:
                await anyio.sleep(0.001)
        await server.until(lambda s: s.open == 0)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_connection_survives_asyncios_native_cancellation_again_and_again() -> None:
    entered = asyncio.Event()

    async def user(url: str) -> None:
        async with connected(url):
            entered.set()
            await asyncio.sleep(60)

    async with fault_server(SseServer()) as server:
        task = asyncio.create_task(user(server.url))
        await entered.wait()
        for _ in range(10):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda s: s.open == 0)
        assert not {one for one in asyncio.all_tasks() if "anyio_mcp" in one.get_name()}


# --- the arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"url": None}, TypeError),
        ({"url": "ftp://127.0.0.1/"}, ValueError),
        ({"headers": {"a b": "c"}}, ValueError),
        ({"headers": {"a": "b\r\nc"}}, ValueError),
        ({"auth": 1}, TypeError),
        ({"auth": "a b"}, ValueError),
        ({"http_client": object()}, TypeError),
    ],
)
def test_arguments_that_could_never_work_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        SSETransport(**{"url": "http://127.0.0.1/sse", **options})


def test_a_transport_describes_itself_without_secrets() -> None:
    transport = SSETransport("http://user:hush@127.0.0.1/sse?key=hush", auth="hush", headers={"x": "hush"})
    assert transport.kind == "tcp"
    assert transport.describe == "http://127.0.0.1:80/sse"
    assert repr(transport) == "SSETransport('http://127.0.0.1:80/sse')"

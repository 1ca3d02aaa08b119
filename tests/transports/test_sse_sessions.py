"""HTTP+SSE: refused the address of its messages, a session is lost, and the next call has a new one."""

from __future__ import annotations

import anyio
import httpx2
import pytest
from mcp.types import JSONRPCResponse

from anyio_mcp import Client
from anyio_mcp.errors import SessionLostError
from anyio_mcp.transports._forgotten import denies, verdict
from anyio_mcp.transports.base import RequestFault
from anyio_mcp.transports.sse import SSETransport
from tests.faults.http_server import Handler, Talk, answer, error_answer, fault_server
from tests.faults.http_stage import result_of
from tests.faults.sse_stage import name_endpoint, say_answer, stream_of
from tests.transports.test_sse import SseServer, session

pytestmark = pytest.mark.anyio


def refusing(status: int, text: bytes = b"") -> Handler:
    async def post(talk: Talk) -> None:
        await talk.reply(status, text, "text/plain")

    return post


@pytest.mark.parametrize(("status", "text"), [(404, b""), (410, b"gone"), (400, b"Invalid session ID: 5")])
async def test_a_status_that_denies_the_session_of_the_address_is_its_loss(status: int, text: bytes) -> None:
    async with session(SseServer(refusing(status, text))) as (_, driver):
        fault = await driver.fault()
        assert isinstance(fault, SessionLostError)
        assert (fault.reason, fault.refused) == ("expired", True)
        loss = (await driver.lost()).error
        assert loss.reason == "expired"
        assert isinstance(loss.cause, httpx2.HTTPStatusError)


async def test_the_handshake_refused_with_404_is_not_a_lost_session() -> None:
    async with session(SseServer(refusing(404))) as (_, driver):
        assert isinstance(await driver.fault("initialize"), httpx2.HTTPStatusError)
        assert isinstance(await driver.fault("initialize"), httpx2.HTTPStatusError)


async def test_a_notification_refused_with_404_is_the_loss_of_the_session() -> None:
    async with session(SseServer(refusing(404))) as (_, driver):
        assert isinstance(await (await driver.notify()).wait(), SessionLostError)
        assert (await driver.lost()).error.reason == "expired"


async def test_what_is_under_way_is_answered_though_another_post_was_refused() -> None:
    async def post(talk: Talk) -> None:
        if talk.received.rpc_method == "slow":
            await talk.reply(202)
            await faults.until(lambda s: len(s.of("POST")) == 2)
            await anyio.sleep(0.05)
            await peer.say(answer(talk.id, {"slow": True}))
        else:
            await talk.reply(404)

    peer = SseServer(post)
    async with session(peer) as (faults, driver):
        slow = await driver.request("slow")
        await driver.request("refused")
        item = await driver.settled(slow)
        assert isinstance(item, JSONRPCResponse)
        assert item.result == {"slow": True}
        await driver.lost()


async def test_a_second_400_in_a_row_without_a_reason_lets_the_next_call_start_anew() -> None:
    async with session(SseServer(refusing(400))) as (server, driver):
        for _ in range(2):
            assert isinstance(await driver.fault(), httpx2.HTTPStatusError)
        fault = await driver.fault()
        assert isinstance(fault, SessionLostError)
        assert (fault.reason, fault.refused) == ("expired", True)
        assert len(server.of("POST")) == 2
        await driver.lost()


async def test_an_acknowledgement_between_two_bad_requests_shows_that_the_session_is_known() -> None:
    peer = SseServer()

    async def post(talk: Talk) -> None:
        await (talk.reply(400) if talk.received.rpc_method == "bad" else peer.answered(talk))

    peer.post = post
    async with session(peer) as (_, driver):
        for _ in range(3):
            assert isinstance(await driver.fault("bad"), httpx2.HTTPStatusError)
            assert await driver.result() == {"works": True}


async def test_a_stream_that_ends_behind_the_refusal_leaves_the_session_expired() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(404)
        assert peer.stream is not None
        await peer.stream.close()

    peer = SseServer(post)
    async with session(peer) as (_, driver):
        await driver.request()
        assert (await driver.lost()).error.reason == "expired"


async def test_an_error_on_the_stream_that_denies_the_session_is_that_of_one_call_only() -> None:
    async def post(talk: Talk) -> None:
        await talk.reply(202)
        await peer.say(error_answer(talk.id, -32002, "Server not initialized"))

    peer = SseServer(post)
    async with session(peer) as (server, driver):
        item = await driver.call()
        assert not isinstance(item, RequestFault | JSONRPCResponse)
        fault = await driver.fault()
        assert isinstance(fault, SessionLostError)
        assert fault.refused
        assert len(server.of("POST")) == 1


async def test_a_refusal_behind_the_answer_does_not_end_the_session() -> None:
    async def post(talk: Talk) -> None:
        await peer.say(answer(talk.id, {"early": True}))
        await talk.reply(404)

    peer = SseServer(post)
    async with session(peer) as (_, driver):
        for _ in range(3):
            assert await driver.result() == {"early": True}


async def test_a_client_is_as_good_as_new_behind_a_restarted_server() -> None:
    forgotten: set[str] = set()

    async def serve(talk: Talk) -> None:
        if talk.received.method == "GET":
            await name_endpoint(talk)
            await talk.hang()
        elif talk.received.target in forgotten:
            await talk.reply(404, b"Could not find session", "text/plain")
        else:
            assert result_of("legacy", talk.received.rpc_method or "ping") is not None or talk.id is None
            await talk.reply(202)
            await say_answer(talk)
            if talk.received.rpc_method == "tools/call":
                assert stream_of(talk) is not None
                forgotten.add(talk.received.target)

    with anyio.fail_after(10):
        async with fault_server(serve) as server, Client(SSETransport(server.url)) as client:
            for _ in range(3):
                assert (await client.call_tool("echo", {})).content[0].text == "echo"
    assert len(server.of("GET")) == 3


@pytest.mark.parametrize(
    "text",
    [
        "No transport found for sessionId",
        "unknown sessionid 17",
        "InvalidSessionError: session not found",
        '{"error":"SessionNotFound"}',
        "Session ID missing in message endpoint",
    ],
)
def test_a_session_is_denied_in_any_spelling(text: str) -> None:
    assert denies(text, "17")


@pytest.mark.parametrize("text", ["no tool found", "this session has a transport", "no words for sessions"])
def test_other_words_deny_no_session(text: str) -> None:
    assert not denies(text, "17")


def test_an_invalid_argument_may_be_a_session_of_the_tools_own() -> None:
    assert verdict("17", status=400, code=-32602, text="Invalid session ID") == "doubtful"
    assert verdict("17", code=-32602, text="Invalid session ID") == "known"

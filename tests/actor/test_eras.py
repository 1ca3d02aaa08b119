"""Which era a server speaks: what counts as evidence, and what is raised instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.types import METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION

from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import ConnectError, DeadlineExceededError, RequestFailedError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest, silence
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

MODERN, LEGACY = "2026-07-28", "2025-11-25"


def status(code: int) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "http://127.0.0.1/mcp")
    response = httpx2.Response(code, request=request)
    return httpx2.HTTPStatusError(f"status {code}", request=request, response=response)


def raises(error: Exception) -> Callable[[PeerRequest], None]:
    def handler(request: PeerRequest) -> None:
        raise error

    return handler


def refuses(code: int, data: Any = None) -> Callable[[PeerRequest], None]:
    return lambda request: request.refuse(code, "no", data)


def with_status(error: MCPError, code: int) -> Callable[[PeerRequest], None]:
    """An MCP error body that came with an HTTP status, as the HTTP transport raises it."""
    error.__cause__ = status(code)
    return lambda request: request.fault(error)


def lost(request: PeerRequest) -> None:
    request.connection.lose("eof")


def discovers(versions: list[str]) -> dict[str, Any]:
    return {"supportedVersions": versions, "capabilities": {}}


# What the server does with the probe, and the era that follows from it.
EVIDENCE = [
    pytest.param(discovers([MODERN]), MODERN, id="modern"),
    pytest.param(discovers(["2099-01-01", MODERN]), MODERN, id="modern-and-newer"),
    pytest.param(discovers([LEGACY]), LEGACY, id="discover-names-only-older-versions"),
    pytest.param(discovers([]), LEGACY, id="discover-names-no-version"),
    pytest.param({"nonsense": True}, LEGACY, id="nonsense"),
    pytest.param({"supportedVersions": MODERN, "capabilities": {}}, LEGACY, id="versions-no-list"),
    pytest.param(refuses(METHOD_NOT_FOUND), LEGACY, id="method-not-found"),
    pytest.param(refuses(-32600), LEGACY, id="invalid-request"),
    pytest.param(refuses(-32000, "some old server's text"), LEGACY, id="some-error"),
    pytest.param(refuses(UNSUPPORTED_PROTOCOL_VERSION), LEGACY, id="unsupported-without-data"),
    pytest.param(refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": 5}), LEGACY, id="unsupported-nonsense"),
    pytest.param(
        refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": [LEGACY], "requested": MODERN}),
        LEGACY,
        id="unsupported-names-older-versions",
    ),
    pytest.param(silence, LEGACY, id="silence"),
    pytest.param(raises(status(400)), LEGACY, id="400"),
    pytest.param(raises(status(404)), LEGACY, id="404"),
    pytest.param(raises(status(405)), LEGACY, id="405"),
    pytest.param(raises(status(406)), LEGACY, id="406"),
    pytest.param(with_status(MCPError(METHOD_NOT_FOUND, "no"), 400), LEGACY, id="400-with-error"),
    pytest.param(raises(RequestFailedError("202 to a request", reason="violation")), LEGACY, id="violation"),
]


@pytest.mark.parametrize(("answer", "version"), EVIDENCE)
@in_time
async def test_the_probe_settles_the_era(answer: Any, version: str) -> None:
    peer = ScriptedPeer(era="legacy")
    if callable(answer):
        peer.on("server/discover", answer)
    else:
        complete = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        peer.on("server/discover", {**complete, **answer})
    async with Client(peer.transport) as client:
        assert client.protocol_version == version
        assert client.is_connected()
    assert len(peer.requests_of("initialize")) == (0 if version == MODERN else 1)


# What says nothing about the era: raised, and never taken for an old server.
NO_EVIDENCE = [
    *(pytest.param(raises(status(code)), httpx2.HTTPStatusError, id=str(code)) for code in (401, 403, 429)),
    *(pytest.param(raises(status(code)), httpx2.HTTPStatusError, id=str(code)) for code in (408, 500, 503)),
    pytest.param(with_status(MCPError(-32001, "who are you?"), 401), MCPError, id="401-with-error"),
    pytest.param(with_status(MCPError(-32603, "broken"), 500), MCPError, id="500-with-error"),
    pytest.param(
        raises(RequestFailedError("refused", reason="transport", cause=OSError(111, "refused"))),
        ConnectError,
        id="refused-post",
    ),
    pytest.param(raises(RequestFailedError("r", reason="redirect")), ConnectError, id="redirect"),
    pytest.param(raises(RequestFailedError("o", reason="oversized")), ConnectError, id="oversized"),
    pytest.param(lost, ConnectError, id="lost"),
    pytest.param(
        refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": ["2099-01-01"], "requested": MODERN}),
        MCPError,
        id="modern-without-a-common-version",
    ),
    pytest.param(
        refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": [MODERN], "requested": MODERN}),
        MCPError,
        id="modern-and-contradicting-itself",
    ),
]


@pytest.mark.parametrize(("answer", "error"), NO_EVIDENCE)
@in_time
async def test_what_is_no_evidence_is_raised_and_never_downgrades(
    answer: Any, error: type[Exception]
) -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", answer)
    client = Client(peer.transport)
    began = anyio.current_time()
    with pytest.raises(error):
        await client.__aenter__()
    assert anyio.current_time() == began
    assert peer.requests_of("initialize") == []
    assert peer.open_connections == 0
    check_at_rest(client)


@in_time
async def test_a_status_keeps_its_response_and_an_error_its_status() -> None:
    peer = ScriptedPeer()
    peer.on("server/discover", raises(status(429)))
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        await Client(peer.transport).__aenter__()
    assert caught.value.response.status_code == 429
    peer.on("server/discover", with_status(MCPError(-32001, "no", {"why": 1}), 401))
    with pytest.raises(MCPError) as refused:
        await Client(peer.transport).__aenter__()
    assert refused.value.error.data == {"why": 1}
    assert isinstance(refused.value.__cause__, httpx2.HTTPStatusError)


@in_time
async def test_a_probe_without_an_answer_leaves_time_for_the_handshake() -> None:
    for connect, patience in ((30.0, 10.0), (6.0, 2.0), (None, 10.0)):
        peer = ScriptedPeer(era="legacy")
        peer.on("server/discover", silence)
        began = anyio.current_time()
        async with Client(peer.transport, timeouts=Timeouts(connect=connect)) as client:
            assert anyio.current_time() - began == pytest.approx(patience)
            assert client.protocol_version == LEGACY


@in_time
async def test_a_server_that_answers_nothing_at_all_is_a_connect_deadline() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", silence)
    peer.on("initialize", silence)
    began = anyio.current_time()
    with pytest.raises(DeadlineExceededError) as caught:
        await Client(peer.transport).__aenter__()
    assert caught.value.phase == "connect"
    assert anyio.current_time() - began == pytest.approx(30)
    # `initialize` must never be cancelled (2025-11-25, cancellation).
    assert peer.notifications_of("notifications/cancelled") == []


@in_time
async def test_a_server_that_turns_out_to_be_modern_after_all() -> None:
    peer = ScriptedPeer(era="modern")
    supported = {"supported": [MODERN], "requested": LEGACY}
    peer.on("initialize", refuses(UNSUPPORTED_PROTOCOL_VERSION, supported))
    answers = iter([silence, lambda request: request.answer(discovers([MODERN]))])
    peer.on("server/discover", lambda request: next(answers)(request))
    async with Client(peer.transport) as client:
        assert client.protocol_version == MODERN


@in_time
async def test_legacy_asks_no_probe() -> None:
    peer = ScriptedPeer(era="legacy")
    async with Client(peer.transport, mode="legacy") as client:
        assert client.protocol_version == LEGACY
    assert [request.method for request in peer.requests] == ["initialize"]
    assert len(peer.notifications_of("notifications/initialized")) == 1


@in_time
async def test_a_pinned_modern_version_asks_nothing() -> None:
    peer = ScriptedPeer(era="modern")
    async with Client(peer.transport, mode=MODERN) as client:
        assert peer.requests == []
        assert client.protocol_version == MODERN
        await client.call_tool_mcp("echo")
    (request,) = peer.requests_of("tools/call")
    assert request.params["_meta"]["io.modelcontextprotocol/protocolVersion"] == MODERN


@pytest.mark.parametrize(
    "result",
    [
        {"protocolVersion": "1999-01-01", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}},
        {"protocolVersion": LEGACY, "capabilities": {}},
        {"protocolVersion": 5, "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}},
        {},
    ],
)
@in_time
async def test_an_absurd_handshake_is_a_connect_error(result: dict[str, Any]) -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("initialize", result)
    with pytest.raises(ConnectError):
        await Client(peer.transport).__aenter__()
    assert peer.open_connections == 0


@in_time
async def test_an_older_version_may_be_negotiated() -> None:
    peer = ScriptedPeer(era="legacy")
    info = {"name": "x", "version": "1"}
    peer.on("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": info})
    async with Client(peer.transport) as client:
        assert client.protocol_version == "2025-03-26"
        assert client.server_info is not None
        assert client.server_info.name == "x"

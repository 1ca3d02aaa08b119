"""Which era a server speaks: what counts as evidence, and what is raised instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
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


def discovers(versions: list[Any]) -> dict[str, Any]:
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
    *(pytest.param(raises(status(code)), LEGACY, id=str(code)) for code in (500, 501, 502, 503, 504)),
    pytest.param(with_status(MCPError(METHOD_NOT_FOUND, "no"), 500), LEGACY, id="500-with-error"),
    pytest.param(lost, LEGACY, id="lost"),
    pytest.param(discovers([MODERN]) | {"capabilities": None}, MODERN, id="capabilities-null"),
    pytest.param(discovers([MODERN]) | {"capabilities": [], "instructions": 5}, MODERN, id="partly-odd"),
    pytest.param(
        discovers([MODERN, 5, None]) | {"ttlMs": None, "cacheScope": "all"}, MODERN, id="odd-in-places"
    ),
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
    *(pytest.param(raises(status(code)), httpx2.HTTPStatusError, id=str(code)) for code in (408, 425, 451)),
    pytest.param(with_status(MCPError(-32001, "who are you?"), 401), MCPError, id="401-with-error"),
    pytest.param(
        raises(RequestFailedError("refused", reason="transport", cause=OSError(111, "refused"))),
        ConnectError,
        id="refused-post",
    ),
    pytest.param(raises(RequestFailedError("r", reason="redirect")), ConnectError, id="redirect"),
    pytest.param(raises(RequestFailedError("o", reason="oversized")), ConnectError, id="oversized"),
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
        {"capabilities": {}, "serverInfo": {"name": "x", "version": "1"}},
        {"protocolVersion": None, "capabilities": {}},
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


# A probe that fails, and then the handshake.


@in_time
async def test_a_handshake_that_fails_behind_a_failed_probe_is_what_is_raised() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", raises(status(500)))
    peer.on("initialize", raises(status(503)))
    with pytest.raises(httpx2.HTTPStatusError) as caught:
        await Client(peer.transport).__aenter__()
    assert caught.value.response.status_code == 503
    assert peer.open_connections == 0


@in_time
async def test_a_server_that_ends_over_the_probe_is_reached_anew_within_the_same_deadline() -> None:
    peer = ScriptedPeer(era="legacy")

    async def ends_late(request: PeerRequest) -> None:
        await anyio.sleep(2)
        lost(request)

    peer.on("server/discover", ends_late)
    client = Client(peer.transport, timeouts=Timeouts(connect=12), restart=None)
    async with client:
        assert client.protocol_version == LEGACY
        assert await client.ping()
    assert peer.attempts == 2
    # And again with a handshake that is never answered: the deadline is that of the first attempt.
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", ends_late)
    peer.on("initialize", silence)
    began = anyio.current_time()
    with pytest.raises(DeadlineExceededError) as caught:
        await Client(peer.transport, timeouts=Timeouts(connect=12)).__aenter__()
    assert caught.value.phase == "connect"
    assert anyio.current_time() - began == pytest.approx(12)
    assert (peer.attempts, peer.open_connections) == (2, 0)


@in_time
async def test_a_server_that_ends_over_everything_is_tried_twice_and_its_last_error_raised() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", lost)
    peer.on("initialize", lost)
    client = Client(peer.transport)
    for attempts in (2, 4):
        with pytest.raises(ConnectError):
            await client.__aenter__()
        assert peer.attempts == attempts
    assert peer.open_connections == 0
    check_at_rest(client)


@in_time
async def test_everybody_who_waits_for_a_session_that_the_probe_ended_gets_the_next() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", lost)
    versions: list[str | None] = []

    async def enter() -> None:
        async with client:
            versions.append(client.protocol_version)

    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        for _ in range(5):
            tg.start_soon(enter)
    assert versions == [LEGACY] * 5


@in_time
async def test_a_negotiation_that_is_asked_for_survives_the_probe_as_well() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", lost)
    async with Client(peer.transport, auto_initialize=False, restart=None) as client:
        assert (await client.initialize()).protocol_version == LEGACY
        assert await client.ping()
    assert peer.attempts == 2


# The era is remembered


@pytest.mark.parametrize("answer", [silence, refuses(METHOD_NOT_FOUND), lost, raises(status(500))])
@in_time
async def test_what_one_session_has_found_out_the_next_ones_know(answer: Any) -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", answer)
    client = Client(peer.transport)
    async with client:
        peer.connection.lose()
        while client.is_connected():
            await anyio.lowlevel.checkpoint()
        began = anyio.current_time()
        assert await client.ping()
        assert anyio.current_time() == began
    async with client, client.new() as other:
        assert other.protocol_version == LEGACY
    assert len(peer.requests_of("server/discover")) == 1


@in_time
async def test_what_a_gateway_said_for_its_server_is_not_remembered() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("server/discover", raises(status(502)))
    client = Client(peer.transport)
    for probes in (1, 2):
        async with client:
            assert client.protocol_version == LEGACY
        assert len(peer.requests_of("server/discover")) == probes


@pytest.mark.parametrize(
    "refusal",
    [
        refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": [MODERN], "requested": LEGACY}),
        refuses(METHOD_NOT_FOUND),
        raises(status(404)),
    ],
)
@in_time
async def test_a_server_that_has_become_modern_is_asked_again(refusal: Any) -> None:
    peer = ScriptedPeer(era="legacy")
    client = Client(peer.transport)
    async with client:
        assert client.protocol_version == LEGACY
    peer.on("initialize", refusal)
    peer.on("server/discover", discovers([MODERN]))
    async with client:
        assert client.protocol_version == MODERN


@in_time
async def test_a_failure_to_connect_forgets_the_era() -> None:
    peer = ScriptedPeer(era="legacy")
    client = Client(peer.transport)
    async with client:
        assert client.protocol_version == LEGACY
    peer.on("initialize", raises(status(503)))
    with pytest.raises(httpx2.HTTPStatusError):
        await client.__aenter__()
    peer.on("server/discover", discovers([MODERN]))
    async with client:
        assert client.protocol_version == MODERN


# The version is negotiated down


@pytest.mark.parametrize(
    "refusal",
    [
        refuses(-32602, {"supported": ["2024-11-05", "2025-03-26"], "requested": LEGACY}),
        refuses(UNSUPPORTED_PROTOCOL_VERSION, {"supported": ["2025-03-26"]}),
        refuses(-32000, ["2025-03-26", "1999-01-01"]),
        lambda request: request.refuse(-32602, f"version {LEGACY} is none of: 2024-11-05, 2025-03-26"),
    ],
)
@pytest.mark.parametrize("mode", ["legacy", "auto"])
@in_time
async def test_a_refused_version_is_negotiated_down_to_the_newest_that_is_named(
    refusal: Any, mode: str
) -> None:
    peer = ScriptedPeer(era="legacy")

    def initialize(request: PeerRequest) -> None:
        if request.params["protocolVersion"] == LEGACY:
            refusal(request)
        else:
            version = request.params["protocolVersion"]
            request.answer({"protocolVersion": version, "capabilities": {}, "serverInfo": {}})

    peer.on("initialize", initialize)
    async with Client(peer.transport, mode=mode) as client:
        assert client.protocol_version == "2025-03-26"
    assert [each.params["protocolVersion"] for each in peer.requests_of("initialize")] == [
        LEGACY,
        "2025-03-26",
    ]


@pytest.mark.parametrize(
    "data", [None, {"supported": []}, {"supported": ["1999-01-01"]}, {"requested": LEGACY}]
)
@in_time
async def test_a_refusal_that_names_no_version_of_ours_is_raised(data: Any) -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("initialize", refuses(-32602, data))
    with pytest.raises(MCPError) as caught:
        await Client(peer.transport).__aenter__()
    assert caught.value.code == -32602
    assert len(peer.requests_of("initialize")) == 1


# What a server says of itself

ODD_INTRODUCTIONS = [
    {"capabilities": {}},
    {"capabilities": None, "serverInfo": None},
    {"capabilities": [], "serverInfo": []},
    {"capabilities": {"tools": [], "logging": True, "prompts": None}, "serverInfo": {"name": "x"}},
    {"capabilities": {"tools": {"listChanged": []}}, "serverInfo": {"name": "x", "version": 5, "icons": 7}},
    {"capabilities": {"experimental": {"a": None, "b": 5}}, "serverInfo": "x", "instructions": []},
    {"capabilities": {"tools": {}}, "serverInfo": {"name": "x", "title": 5, "icons": [{}]}, "_meta": []},
]


@pytest.mark.parametrize("introduction", ODD_INTRODUCTIONS)
@in_time
async def test_one_bad_field_of_what_a_server_says_of_itself_spoils_no_handshake(
    introduction: dict[str, Any],
) -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("initialize", {"protocolVersion": LEGACY, **introduction})
    async with Client(peer.transport, mode="legacy") as client:
        assert client.server_info is not None
        has_tools = (introduction["capabilities"] or {"tools": None}).get("tools") is not None
        assert client.server_capabilities is not None
        assert (client.server_capabilities.tools is not None) == has_tools
        if isinstance(introduction.get("serverInfo"), dict):
            assert client.server_info.name == "x"
        assert client.initialize_result.protocol_version == LEGACY


@pytest.mark.parametrize("introduction", ODD_INTRODUCTIONS)
@in_time
async def test_nor_an_answer_to_the_probe(introduction: dict[str, Any]) -> None:
    peer = ScriptedPeer()
    peer.on("server/discover", {"supportedVersions": [MODERN], **introduction})
    async with Client(peer.transport) as client:
        assert client.protocol_version == MODERN
        if isinstance(introduction.get("serverInfo"), dict):
            assert client.server_info is not None
            assert client.server_info.name == "x"

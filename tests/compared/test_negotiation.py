"""A modern server that is known already is used without being asked."""

from __future__ import annotations

from typing import Any

import anyio.lowlevel
import pytest
from mcp.types import DiscoverResult

from anyio_mcp import SessionState
from anyio_mcp.client import Client
from anyio_mcp.errors import NotConnectedError
from anyio_mcp.testing import ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

VERSION = "2026-07-28"


@in_time
async def test_what_a_server_said_of_itself_can_be_kept_and_saves_the_question() -> None:
    peer = ScriptedPeer()
    peer.on(
        "server/discover",
        {
            "supportedVersions": [VERSION],
            "capabilities": {"tools": {"listChanged": True}},
            "instructions": "Be kind.",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "kind", "version": "7"}},
        },
    )
    async with Client(peer.transport) as client:
        assert client.discover_result is not None
        kept = client.discover_result.model_dump_json()
    prior = DiscoverResult.model_validate_json(kept)
    for initialized in (True, False):
        known = Client(peer.transport, mode=VERSION, prior_discover=prior, auto_initialize=initialized)
        async with known as client:
            await client.initialize()
            assert client.protocol_version == VERSION
            assert client.instructions == "Be kind."
            assert client.server_info is not None
            assert client.server_info.name == "kind"
            assert client.server_capabilities is not None
            assert client.server_capabilities.tools is not None
            assert await client.call_tool("echo")
    assert len(peer.requests_of("server/discover")) == 1


@in_time
async def test_the_session_that_replaces_a_lost_one_asks_nothing_either() -> None:
    peer = ScriptedPeer()
    async with Client(peer.transport) as client:
        prior = client.discover_result
    async with Client(peer.transport, mode=VERSION, prior_discover=prior) as client:
        peer.connection.lose()
        while client.is_connected():
            await anyio.lowlevel.checkpoint()
        assert await client.call_tool("echo")
    assert peer.attempts == 3
    assert len(peer.requests_of("server/discover")) == 1


@in_time
async def test_outside_a_context_nothing_is_known_and_that_is_said() -> None:
    peer = ScriptedPeer()
    client = Client(peer.transport)

    def nothing_is_known() -> None:
        assert not client.is_connected()
        for name in ("protocol_version", "server_info", "server_capabilities", "instructions", "session"):
            with pytest.raises(NotConnectedError):
                getattr(client, name)

    nothing_is_known()
    assert client.state is SessionState.NEW
    assert peer.attempts == 0
    async with client:
        assert client.is_connected()
        assert client.protocol_version == VERSION
        assert client.server_info is None, "this server says nothing of itself"
    nothing_is_known()


def of(*versions: str) -> DiscoverResult:
    return DiscoverResult.model_validate(
        {
            "supportedVersions": versions,
            "capabilities": {},
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "private",
        }
    )


@pytest.mark.parametrize(
    ("mode", "prior", "error", "says"),
    [
        ("auto", of(VERSION), ValueError, "goes with a modern version"),
        ("legacy", of(VERSION), ValueError, "goes with a modern version"),
        (VERSION, of("2099-01-01"), ValueError, "does not settle on '2026-07-28'"),
        (VERSION, {"supportedVersions": [VERSION]}, TypeError, "DiscoverResult, not dict"),
    ],
)
def test_a_prior_answer_that_would_be_of_no_use_is_refused(
    mode: str, prior: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Client(ScriptedPeer().transport, mode=mode, prior_discover=prior)

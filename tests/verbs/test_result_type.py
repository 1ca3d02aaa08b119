"""`resultType` says what kind of result an answer is (2026-07-28); servers of earlier revisions lack it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from anyio_mcp.client import Client
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.testing import PeerRequest, ScriptedPeer
from tests.verbs.servers import BOUND

pytestmark = pytest.mark.anyio


async def test_a_result_that_does_not_say_its_type_is_complete() -> None:
    peer = ScriptedPeer()

    def answer(request: PeerRequest) -> None:
        request.connection.answer(request.id, {"content": [{"type": "text", "text": "done"}]})

    peer.on("tools/call", answer)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert client.protocol_version == "2026-07-28"
            assert (await client.call_tool("x")).content[0].text == "done"  # type: ignore[union-attr]
            assert len(peer.requests_of("tools/call")) == 1


@pytest.mark.parametrize("kind", ["riddle", 5, ["complete"]])
async def test_a_result_of_a_type_nobody_claims_is_none(kind: Any) -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"resultType": kind, "content": []})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            with pytest.raises(RequestFailedError) as caught:
                await client.call_tool("x")
            assert caught.value.reason == "violation"
            assert caught.value.result["resultType"] == kind, "what a tool did is not lost"
            assert await client.ping()


async def test_a_result_type_of_null_is_none() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"resultType": None, "content": [{"type": "text", "text": "done"}]})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert (await client.call_tool("x")).content[0].text == "done"  # type: ignore[union-attr]


async def test_in_the_era_before_it_is_a_field_like_any_other() -> None:
    peer = ScriptedPeer(era="legacy")
    peer.on("tools/call", {"resultType": "riddle", "content": [{"type": "text", "text": "done"}]})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert (await client.call_tool("x")).content[0].text == "done"  # type: ignore[union-attr]

"""`resultType` says what kind of result an answer is (2026-07-28); servers of earlier revisions lack it."""

from __future__ import annotations

import anyio
import pytest

from anyio_mcp.client import Client
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

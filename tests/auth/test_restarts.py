"""What a failed sign-in means for the restart of a session: a person is not asked again and again."""

from __future__ import annotations

import anyio
import pytest
from mcp.client.auth import OAuthFlowError

from anyio_mcp import Client, ConnectError, RequestFailedError
from anyio_mcp.testing import ScriptedPeer

pytestmark = pytest.mark.anyio


class Refusal:
    """Lets the first connection be made; before each further one a person says no."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, attempt: int) -> None:
        if attempt > 1:
            self.asked += 1
            denied = OAuthFlowError("signing in was refused: 'access_denied'")
            raise RequestFailedError("the exchange failed", reason="sign_in", cause=denied)


async def test_one_call_asks_a_person_once() -> None:
    refusal = Refusal()
    peer = ScriptedPeer(on_connect=refusal)
    with anyio.fail_after(10):
        async with Client(peer.transport) as client:
            peer.connection.lose()
            await peer.until(lambda: peer.open_connections == 0)
            for asked in (1, 2):
                with pytest.raises(ConnectError):
                    await client.ping()
                assert refusal.asked == asked

"""The connections kept for later: what becomes of the others when closing one fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import anyio
import httpx2
import pytest

from anyio_mcp.testing import VirtualTime
from anyio_mcp.transports._lanes import LaneTransport

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    return request.param, VirtualTime(request.param).options


class Line(httpx2.AsyncBaseTransport):
    """One connection. `fails`: closing it does, as when a native cancellation of asyncio pierces it."""

    def __init__(self, *, fails: bool) -> None:
        self.fails = fails
        self.closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=httpx2.ByteStream(b""))

    async def aclose(self) -> None:
        if self.fails:
            raise OSError("pierced")
        self.closed = True


async def test_a_connection_that_cannot_be_closed_costs_no_other_its_closing() -> None:
    lines = [Line(fails=number == 0) for number in range(4)]
    unused = iter(lines)
    lanes = LaneTransport(lambda: cast("Any", next(unused)), idle=10, idle_seconds=4.0)
    request = httpx2.Request("GET", "http://127.0.0.1/")
    responses = [await lanes.handle_async_request(request) for _ in lines]
    for response in responses[:3]:
        await response.aclose()
    # Then the fourth finds three that nobody has used for too long.
    await anyio.sleep(5)
    with pytest.raises(OSError, match="pierced"):
        await responses[3].aclose()
    await lanes.aclose()
    assert [line.closed for line in lines] == [False, True, True, True]

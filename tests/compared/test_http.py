"""What the other clients take as arguments, and here is part of an HTTP client of the user's."""

from __future__ import annotations

import ssl
from typing import Any

import anyio
import httpx2
import pytest

from anyio_mcp.client import Client
from anyio_mcp.transports import StreamableHttpTransport
from tests.faults.http_server import CERTIFICATE, Talk, fault_server

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Sockets know no virtual time."""
    return request.param


async def modern(talk: Talk) -> None:
    """A server of 2026-07-28 that answers every call."""
    discovered: dict[str, Any] = {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "ttlMs": 0,
        "cacheScope": "private",
    }
    answer = discovered if talk.received.rpc_method == "server/discover" else {"content": []}
    await talk.result({"resultType": "complete", **answer})


@pytest.mark.parametrize("verify", [ssl.create_default_context(cafile=str(CERTIFICATE)), False])
async def test_which_certificates_are_trusted_is_said_by_the_users_http_client(verify: Any) -> None:
    async with fault_server(modern, tls=True) as server:
        async with httpx2.AsyncClient(verify=verify, headers={"x-mine": "yes"}) as http:
            transport = StreamableHttpTransport(server.url, http_client=http)
            with anyio.fail_after(20):
                async with Client(transport) as client:
                    assert (await client.call_tool("x")).content == []
        assert {received.headers["x-mine"] for received in server.requests} == {"yes"}

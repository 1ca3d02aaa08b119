"""A client whose id is the URL of a document about it registers nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anyio
import anyio.abc
import httpx2
import pytest
from mcp.shared.auth import OAuthClientInformationFull

from anyio_mcp import Client, MemoryTokenStore, OAuth, StreamableHttpTransport
from tests.auth.conftest import Browser
from tests.auth.server import GuardedServer, guarded_server
from tests.servers import free_port

pytestmark = pytest.mark.anyio

ME = "https://example.org/oauth/me.json"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Sockets know no virtual time."""
    return request.param


@pytest.fixture
def server() -> Iterator[GuardedServer]:
    with guarded_server() as running:
        yield running


class Advertising(httpx2.AsyncHTTPTransport):
    """Has the authorization server say whether it takes such URLs, which the SDK's does not say."""

    def __init__(self, *, takes_urls: bool) -> None:
        super().__init__()
        self.takes_urls = takes_urls

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if "oauth-authorization-server" not in request.url.path:
            return response
        said = json.loads(await response.aread())
        await response.aclose()
        return httpx2.Response(200, json={**said, "client_id_metadata_document_supported": self.takes_urls})


@pytest.mark.parametrize("takes_urls", [True, False])
async def test_the_url_is_the_id_where_the_server_takes_one_and_elsewhere_a_client_is_registered(
    server: GuardedServer, takes_urls: bool
) -> None:
    port, browser = free_port(), Browser()
    server.authority.clients[ME] = OAuthClientInformationFull.model_validate(
        {
            "client_id": ME,
            "redirect_uris": [f"http://127.0.0.1:{port}/callback"],
            "token_endpoint_auth_method": "none",
            "scope": "user",
        }
    )
    auth = OAuth(
        token_store=MemoryTokenStore(), open_browser=browser, client_metadata_url=ME, callback_port=port
    )
    with anyio.fail_after(20):
        async with httpx2.AsyncClient(transport=Advertising(takes_urls=takes_urls)) as http:
            transport = StreamableHttpTransport(server.url, auth=auth, http_client=http)
            async with Client(transport) as client:
                result = await client.call_tool("add", {"a": 1, "b": 2})
    assert result.structured_content == {"result": 3}
    assert browser.visits == 1
    assert server.authority.requests["/register"] == (0 if takes_urls else 1)
    assert ("me.json" in browser.urls[0]) == takes_urls

"""A proxy that is dead or refuses: the error names the proxy, and none of its secrets."""

from __future__ import annotations

from typing import Literal

import anyio
import httpx
import httpx2
import pytest

from anyio_mcp import Client, ConnectError, StreamableHttpTransport
from tests.faults.http_server import Talk, close, fault_server
from tests.servers import free_port

pytestmark = pytest.mark.anyio

SECRET = "s3cret"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
Given = Literal["client", "classic client", "environment"]


async def _error(proxy: str, url: str, given: Given, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a session through `proxy`, which is given in one of the ways there are."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with anyio.fail_after(10), pytest.raises(ConnectError) as caught:
        if given == "environment":
            monkeypatch.setenv("http_proxy", proxy)
            monkeypatch.setenv("https_proxy", proxy)
            async with Client(StreamableHttpTransport(url)):
                pytest.fail("entered")
        library = httpx if given == "classic client" else httpx2
        async with (
            library.AsyncClient(proxy=proxy) as client,
            Client(StreamableHttpTransport(url, http_client=client)),
        ):
            pytest.fail("entered")
    return str(caught.value) + repr(caught.value.cause)


@pytest.mark.parametrize("given", ["client", "classic client", "environment"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_dead_proxy_is_what_cannot_be_reached(
    scheme: str, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://user:{SECRET}@127.0.0.1:{free_port()}"
    text = await _error(proxy, f"{scheme}://mcp.invalid/mcp", given, monkeypatch)
    assert f"the proxy on the way to {scheme}://mcp.invalid" in text
    assert "cannot be reached" in text
    assert SECRET not in text


@pytest.mark.parametrize("given", ["client", "classic client", "environment"])
@pytest.mark.parametrize("status", [407, 502, 503])
async def test_a_proxy_that_refuses_to_connect_is_named(
    status: int, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(talk: Talk) -> None:
        await talk.reply(status)

    async with fault_server(refuse) as server:
        proxy = f"http://user:{SECRET}@127.0.0.1:{server.port}"
        text = await _error(proxy, "https://mcp.invalid/mcp", given, monkeypatch)
    assert f"by way of a proxy failed: ProxyError: {status}" in text
    assert SECRET not in text


@pytest.mark.parametrize("given", ["client", "classic client", "environment"])
async def test_a_proxy_that_hangs_up_is_named(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    async with fault_server(close) as server:
        proxy = f"http://user:{SECRET}@127.0.0.1:{server.port}"
        text = await _error(proxy, "http://mcp.invalid/mcp", given, monkeypatch)
    assert "by way of a proxy failed" in text
    assert SECRET not in text


async def test_a_server_that_is_not_there_is_no_proxy() -> None:
    with anyio.fail_after(10), pytest.raises(ConnectError) as caught:
        async with (
            httpx2.AsyncClient(trust_env=False) as client,
            Client(StreamableHttpTransport(f"http://127.0.0.1:{free_port()}/mcp", http_client=client)),
        ):
            pytest.fail("entered")
    assert "proxy" not in str(caught.value)

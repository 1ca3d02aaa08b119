"""Which addresses a sign-in may lead to, however they are spelled: no network."""

from __future__ import annotations

import socket
from typing import Any

import anyio
import pytest
from mcp.client.auth import OAuthFlowError

from anyio_mcp.auth import origins
from anyio_mcp.auth.hosts import Reach, canonical_host, reach
from anyio_mcp.auth.origins import Origins

HERE = "http://127.0.0.1:8000/mcp"
PUBLIC = "https://mcp.example.com/mcp"
PRIVATE = "https://10.0.0.5/mcp"


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("localhost", "local"),
        ("LOCALHOST.", "local"),
        ("app.localhost", "local"),
        ("127.0.0.1", "local"),
        ("127.1", "local"),
        ("0x7f.1", "local"),
        ("0177.0.0.1", "local"),
        ("2130706433", "local"),
        ("::1", "local"),
        ("::ffff:127.0.0.1", "local"),
        ("64:ff9b::7f00:1", "local"),
        ("127.0.0.2", "special"),
        ("0.0.0.0", "special"),
        ("0", "special"),
        ("::", "special"),
        ("169.254.169.254", "special"),
        ("0xa9fea9fe", "special"),
        ("::ffff:169.254.169.254", "special"),
        ("fe80::1", "special"),
        ("fe80::1%eth0", "special"),
        ("224.0.0.1", "special"),
        ("255.255.255.255", "special"),
        ("2002:a9fe:a9fe::", "special"),
        ("10.0.0.1", "private"),
        ("10.1", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
        ("example.com", "name"),
        ("127.0.0.1.example.com", "name"),
        ("999.1.1.1.1", "name"),
    ],
)
def test_a_host_is_known_for_what_it_is_however_it_is_spelled(host: str, where: Reach) -> None:
    assert reach(host) == where


def test_one_host_has_one_spelling() -> None:
    assert canonical_host("LocalHost.") == "localhost"
    assert canonical_host("127.1") == canonical_host("2130706433") == "127.0.0.1"


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (HERE, "http://127.0.0.1:9000/token"),
        (HERE, "http://localhost:9000/token"),
        (HERE, "http://[::1]/token"),
        (HERE, "https://login.example.com/token"),
        (HERE, "https://10.0.0.7/token"),
        ("http://127.0.0.2:8000/mcp", "http://127.0.0.2:9000/token"),
        ("http://localhost:8000/mcp", "http://127.0.0.1:9000/token"),
        (PUBLIC, "https://login.example.org:8443/token"),
        (PUBLIC, "https://8.8.8.8/token"),
        (PRIVATE, "https://10.0.0.7/token"),
        (PRIVATE, "https://[fd00::1]/token"),
        ("https://169.254.1.1/mcp", "https://169.254.1.1/token"),
    ],
)
def test_what_a_server_may_lead_to(server: str, url: str) -> None:
    Origins(server_url=server).check(url)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        (PUBLIC, "http://login.example.org/token"),
        (PUBLIC, "http://127.0.0.1/token"),
        (PUBLIC, "https://127.0.0.1/token"),
        (PUBLIC, "https://localhost/token"),
        (PUBLIC, "https://[::1]/token"),
        (PUBLIC, "https://127.1/token"),
        (PUBLIC, "https://2130706433/token"),
        (PUBLIC, "https://[::ffff:7f00:1]/token"),
        (PUBLIC, "https://169.254.169.254/latest/meta-data"),
        (PUBLIC, "https://10.0.0.1/token"),
        (PUBLIC, "https://[fd00::1]/token"),
        (PUBLIC, "https://user:pw@login.example.org/token"),
        (PRIVATE, "https://127.0.0.1/token"),
        (PRIVATE, "https://169.254.169.254/token"),
        (PRIVATE, "http://10.0.0.5/token"),
        (HERE, "http://127.0.0.2/token"),
        (HERE, "https://127.0.0.2/token"),
        (HERE, "http://0.0.0.0:9000/token"),
        (HERE, "http://169.254.169.254/token"),
        (HERE, "http://login.example.com/token"),
        (HERE, "http://10.0.0.1/token"),
        (HERE, "file:///etc/passwd"),
        (HERE, "javascript:alert(1)"),
        (HERE, "gopher://127.0.0.1:1/x"),
        (HERE, "://nonsense"),
        (HERE, "/token"),
        (HERE, "http://"),
        (HERE, "http://127.0.0.1:99999/"),
        (HERE, "http://127.0.0.1/" + "x" * 5000),
        (HERE, ""),
    ],
)
def test_what_a_server_may_not_lead_to(server: str, url: str) -> None:
    with pytest.raises(OAuthFlowError, match="signing in leads to"):
        Origins(server_url=server).check(url)


@pytest.mark.parametrize("server", ["http://mcp.example.com/mcp", "http://10.0.0.5/mcp"])
def test_a_server_without_tls_elsewhere_is_refused_unless_the_user_allows_it(server: str) -> None:
    with pytest.raises(OAuthFlowError, match="allow_plain_http"):
        Origins(server_url=server).check(server)
    allowed = Origins(server_url=server, plain_http=True)
    allowed.check(server)
    allowed.check("https://login.example.com/token")
    with pytest.raises(OAuthFlowError):
        allowed.check("http://127.0.0.1/token")


def test_the_host_of_the_users_issuer_needs_no_other_permission() -> None:
    rules = Origins(server_url=PUBLIC, issuer="https://10.0.0.7/realm")
    rules.check("https://10.0.0.7/token")
    with pytest.raises(OAuthFlowError):
        rules.check("https://10.0.0.8/token")
    with pytest.raises(OAuthFlowError, match="without TLS"):
        rules.check("http://10.0.0.7/token")


NAMES = {
    "public.example": "8.8.8.8",
    "inner.example": "10.0.0.7",
    "metadata.example": "169.254.169.254",
    "me.example": "127.0.0.1",
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(host: str, *_: Any, **__: Any) -> Any:
        if host == "slow.example":
            await anyio.sleep_forever()
        if host not in NAMES:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NAMES[host], 0))]

    monkeypatch.setattr(origins, "RESOLVE_SECONDS", 0.05)
    monkeypatch.setattr(anyio, "getaddrinfo", found)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("server", "url", "may"),
    [
        ("https://public.example/mcp", "https://public.example/token", True),
        ("https://public.example/mcp", "https://unknown.example/token", True),
        ("https://public.example/mcp", "https://slow.example/token", True),
        ("https://public.example/mcp", "https://inner.example/token", False),
        ("https://public.example/mcp", "https://metadata.example/token", False),
        ("https://public.example/mcp", "https://me.example/token", False),
        ("https://inner.example/mcp", "https://inner.example/token", True),
        ("https://me.example/mcp", "https://inner.example/token", True),
        ("https://inner.example/mcp", "https://me.example/token", False),
        ("http://127.0.0.1/mcp", "https://me.example/token", True),
        ("http://127.0.0.1/mcp", "https://metadata.example/token", False),
    ],
)
async def test_a_name_is_what_it_stands_for(names: None, server: str, url: str, may: bool) -> None:
    rules = Origins(server_url=server)
    if may:
        await rules.check_resolved(url)
    else:
        with pytest.raises(OAuthFlowError, match="private network"):
            await rules.check_resolved(url)
    # A client of the user's may not look names up here at all.
    await Origins(server_url=server, resolves=False).check_resolved(url)

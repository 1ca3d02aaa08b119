"""Tokens, codes, verifiers and client secrets: in no log, no exception, no pickle, no repr."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any

import anyio
import pytest
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull

from anyio_mcp import Client, MemoryTokenStore, OAuth, ServerTokens, Timeouts
from anyio_mcp.errors import MCPClientError
from tests.auth.conftest import Browser
from tests.auth.server import GuardedServer
from tests.auth.test_sign_in import adds

pytestmark = pytest.mark.anyio

FAULTS = ["500", "refuse", "garbage", "no token", "echo", "redirect", "flood", None]


SERVERS = ("mcp.server", "uvicorn", "python_multipart", "sse_starlette")
"""Loggers of the other side, which is in this process as well."""


def logged(logs: pytest.LogCaptureFixture) -> str:
    """All that this side has logged, tracebacks included."""
    return "".join(
        logs.handler.format(record) for record in logs.records if not record.name.startswith(SERVERS)
    )


def texts(error: BaseException, logs: pytest.LogCaptureFixture) -> str:
    """Everything a user, a log or a crash report could show of `error`."""
    pickled = pickle.dumps(error)
    again = pickle.loads(pickled)
    formatted = "".join(traceback.format_exception(error))
    return f"{error} {error!r} {again} {again!r} {formatted} {logged(logs)} {pickled.decode('latin-1')}"


def check(server: GuardedServer, text: str, *more: str) -> None:
    hidden = {*server.authority.secrets, *more}
    assert len(hidden) >= 2
    assert [secret for secret in hidden if secret in text] == []


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_sign_in_that_fails_shows_no_secret(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    server.authority.token_fault = fault
    server.authority.denies = fault is None
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    client = Client(server.url, auth=auth, restart=None)
    with anyio.fail_after(20), pytest.raises(MCPClientError) as caught:
        async with client:
            pytest.fail("connected")
    assert browser.visits == 1
    assert "oauth" in caplog.text.lower()
    shown = texts(caught.value, caplog) + f"{client!r} {client.transport!r} {auth!r}"
    check(server, shown)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_refresh_that_fails_shows_no_secret(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_access()
            server.authority.token_fault = fault
            server.authority.denies = True
            if fault is None:
                assert await adds(client)
                shown = logged(caplog)
            else:
                with pytest.raises(MCPClientError) as caught:
                    await adds(client)
                shown = texts(caught.value, caplog)
    check(server, shown)


@pytest.mark.parametrize("fault", [*FAULTS[:-1], "hang"])
async def test_a_program_that_is_refused_shows_no_secret(
    server: GuardedServer, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    server.authority.token_fault = fault
    store = MemoryTokenStore()
    auth = ClientCredentialsOAuthProvider(
        server_url=server.url,
        storage=ServerTokens(store, server.url),
        client_id="robot",
        client_secret=server.authority.secret,
        token_endpoint_auth_method="client_secret_post",
        issuer=server.base,
    )
    timeouts = Timeouts(connect=0.5 if fault == "hang" else 10)
    with anyio.fail_after(20), pytest.raises(MCPClientError) as caught:
        async with Client(server.url, auth=auth, restart=None, timeouts=timeouts):
            pytest.fail("connected")
    check(server, texts(caught.value, caplog))


@pytest.mark.parametrize("fault", ["500", "garbage"])
async def test_a_registration_that_fails_shows_no_secret(
    server: GuardedServer, caplog: pytest.LogCaptureFixture, fault: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    server.authority.registration_fault = fault
    auth = OAuth(token_store=MemoryTokenStore())
    with anyio.fail_after(20), pytest.raises(MCPClientError) as caught:
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")
    shown = texts(caught.value, caplog)
    assert server.authority.secret not in shown


async def test_a_session_that_works_logs_no_secret(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store = MemoryTokenStore()
    server.authority.clients["known"] = OAuthClientInformationFull(
        client_id="known",
        client_secret=server.authority.secret,
        redirect_uris=None,
        token_endpoint_auth_method="client_secret_post",
    )
    auth = OAuth(token_store=store, open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            assert await adds(client)
            server.authority.revoke_access()
            assert await adds(client)
            shown = f"{client!r} {client.transport!r} {auth!r} {store!r}"
    check(server, shown + logged(caplog))


async def test_the_token_endpoint_that_cannot_be_reached_shows_no_secret(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_access()
            server.authority.token_fault = "hang"
            with pytest.raises(MCPClientError) as caught:
                await client.call_tool("add", {"a": 1, "b": 2}, timeout=0.3)
            server.authority.token_fault = None
    check(server, texts(caught.value, caplog))

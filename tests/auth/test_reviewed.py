"""What a review found: browsers nobody waits for, files that hang, secrets that came back in disguise."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError
from mcp.shared.auth import OAuthToken

from anyio_mcp import (
    Client,
    ConnectError,
    DeadlineExceededError,
    FileTokenStore,
    MemoryTokenStore,
    OAuth,
    SSETransport,
    Timeouts,
)
from anyio_mcp.auth import provider, store
from anyio_mcp.auth.answers import token_answer
from anyio_mcp.auth.browser import Browser as SignInBrowser
from anyio_mcp.auth.callback import bind_callback, listen_for_callback
from anyio_mcp.auth.driver import FlowDriver
from anyio_mcp.auth.origins import Origins
from anyio_mcp.auth.provider import TokenAuth
from anyio_mcp.auth.records import AuthorizationRecord
from anyio_mcp.auth.sharing import Authorization
from tests.auth.conftest import Browser, fetch
from tests.auth.server import GuardedServer
from tests.auth.test_sign_in import adds

pytestmark = pytest.mark.anyio

URL = "https://example.org/mcp"


async def test_only_a_call_opens_a_browser_and_neither_its_cancellation_nor_leaving_does(
    server: GuardedServer, browser: Browser
) -> None:
    opened = 0

    async def first_time(url: str) -> None:
        nonlocal opened
        opened += 1
        if opened == 1:
            await browser(url)

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=first_time)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth, mode="legacy") as client:
            assert await adds(client)
            server.authority.revoke_everything()
            posts = server.authority.requests["/mcp"]
            with pytest.raises(DeadlineExceededError):
                await client.call_tool("add", {"a": 1, "b": 2}, timeout=0.2)
            # The call, and the notification of its cancellation.
            while server.authority.requests["/mcp"] < posts + 2:
                await anyio.sleep(0.001)
        assert opened == 2


@pytest.mark.parametrize(
    ("method", "headers", "content", "attended"),
    [
        ("POST", {}, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', True),
        ("POST", {}, b'{"jsonrpc":"2.0","id":"anyio-mcp-sign-in","method":"ping"}', True),
        ("POST", {}, b'{"jsonrpc":"2.0","id":1,"method":"ping"}', False),
        ("POST", {}, b'{"jsonrpc":"2.0","id":"a\\"b","method":"tools/list"}', True),
        ("POST", {}, b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"id":1}}', False),
        ("POST", {}, b'{"jsonrpc":"2.0","id":1,"result":{"method":"x"}}', False),
        ("GET", {}, b"", True),
        ("GET", {"mcp-session-id": "s"}, b"", False),
        ("DELETE", {"mcp-session-id": "s"}, b"", False),
    ],
)
async def test_who_waits_for_a_token_without_a_caller_waits_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch, method: str, headers: dict[str, str], content: bytes, attended: bool
) -> None:
    monkeypatch.setattr(provider, "UNATTENDED_SECONDS", 0.01)
    request = httpx2.Request(method, URL, headers=headers, content=content)

    class Never(TokenAuth):
        def _authorization(self) -> str | None:
            return None

        async def wait(self) -> bool:
            return await self._renewed(request, "any", anyio.sleep_forever)

    async with httpx2.AsyncClient() as client, anyio.create_task_group() as tg:
        auth = Never(client, tg, Authorization(None, None))
        with anyio.move_on_after(0.05 if attended else 5) as patience:
            with pytest.raises(OAuthFlowError, match="no token was obtained"):
                await auth.wait()
        assert patience.cancelled_caught is attended
        assert not auth.waiting
        # Nobody waits for it any more, so that it has ended.


async def test_two_sessions_that_refresh_at_once_need_no_browser(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as one, Client(server.url, auth=auth) as other:
            server.authority.revoke_access()
            async with anyio.create_task_group() as tg:
                tg.start_soon(adds, one)
                tg.start_soon(adds, other)
    assert browser.visits == 1


async def test_a_browser_that_stays_open_holds_up_nobody(server: GuardedServer) -> None:
    left = threading.Event()

    def stays(url: str) -> None:
        fetch(url)
        left.wait(20)

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=stays)
    try:
        with anyio.fail_after(10):
            async with Client(server.url, auth=auth) as client:
                assert await adds(client)
    finally:
        left.set()


async def test_the_query_of_an_endpoint_is_kept() -> None:
    urls: list[str] = []

    def same(fields: dict[str, str]) -> dict[str, str]:
        return fields

    async with listen_for_callback(await bind_callback()) as listener:
        shown = SignInBrowser(lambda url: urls.append(url), listener, amend=same)
        await shown.open("https://as/go?p=1?state=s&client_id=me")
        await shown.open("https://as/go?state=s")
        assert parse_qs(urlsplit(urls[0]).query) == {"p": ["1"], "state": ["s"], "client_id": ["me"]}
        assert urls[1] == "https://as/go?state=s"
        await anyio.to_thread.run_sync(fetch, f"{listener.redirect_uri}?code=c&state=s")
        assert (await listener.wait()).code == "c"


@pytest.mark.parametrize("verb", ["_read", "_write", "_remove"])
async def test_a_file_system_that_hangs_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
) -> None:
    mounted = threading.Event()
    monkeypatch.setattr(store, verb, lambda *_: mounted.wait(20))
    monkeypatch.setattr(store, "FILE_SECONDS", 0.05)
    files = FileTokenStore(tmp_path)
    try:
        with anyio.fail_after(5), pytest.raises(TimeoutError):
            match verb:
                case "_read":
                    await files.get(URL)
                case "_write":
                    await files.set(URL, "hush")
                case _:
                    await files.delete(URL)
    finally:
        mounted.set()


async def test_nobody_else_can_replace_a_directory_above_the_tokens(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        await FileTokenStore(tmp_path / "a" / "b" / "tokens").set(URL, "hush")
    finally:
        os.umask(previous)
    assert [path.stat().st_mode & 0o777 for path in sorted(tmp_path.rglob("*")) if path.is_dir()] == [
        0o700
    ] * 3


async def test_a_token_is_kept_although_its_call_is_given_up(tmp_path: Path) -> None:
    files = FileTokenStore(tmp_path)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await files.set(URL, "kept")
    assert await files.get(URL) == "kept"
    assert [path.name for path in tmp_path.iterdir()] == [files.path(URL).name]


async def test_a_store_that_hangs_ends_with_the_connect_deadline(
    server: GuardedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounted = threading.Event()
    monkeypatch.setattr(store, "_read", lambda _: mounted.wait(20))
    auth = OAuth(token_store=FileTokenStore(tmp_path))
    try:
        with anyio.fail_after(2), pytest.raises(DeadlineExceededError):
            async with Client(server.url, auth=auth, timeouts=Timeouts(connect=0.2), restart=None):
                pytest.fail("connected")
    finally:
        mounted.set()


class Downgrade(httpx2.Auth):
    """A provider that was told of a token endpoint without TLS."""

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        yield httpx2.Request("POST", "http://127.0.0.1:1/token", data={"code": "hush"})


async def test_the_secrets_of_a_server_with_tls_are_sent_nowhere_without() -> None:
    async with httpx2.AsyncClient() as client:
        for url, why in ((URL, "without TLS"), ("http://127.0.0.1:1/mcp", "exchange")):
            origins = Origins(server_url=url)
            driver = FlowDriver(Downgrade(), client, origins, own=False, pkce=True)
            with pytest.raises(OAuthFlowError, match=why):
                await driver.run(httpx2.Request("POST", url))


def test_no_secret_comes_back_from_a_token_endpoint_however_it_is_spelled() -> None:
    basic = base64.b64encode(b"me:hu%2Fsh").decode()
    request = httpx2.Request(
        "POST", "https://as/token", data={"code": "c0/d+e"}, headers={"authorization": f"Basic {basic}"}
    )
    for text in ("hu/sh", "hu%2Fsh", basic, "c0/d+e", request.content.decode()):
        body: Any = {"error": "no", "error_description": f"not {text}!"}
        shown = token_answer(request, httpx2.Response(400, json=body))[1].decode()
        assert "***!" in shown
        assert not [secret for secret in ("hu/sh", "hu%2Fsh", basic, "c0/d", "c0%2F") if secret in shown]


def test_a_record_shows_rich_no_secret() -> None:
    record = AuthorizationRecord(tokens=OAuthToken(access_token="hush"))
    assert list(record.__rich_repr__()) == ["with tokens"]


async def test_the_query_of_the_server_is_nobody_elses(
    server: GuardedServer, caplog: pytest.LogCaptureFixture
) -> None:
    # The SDK's server names one resource only, and this is another one: its error quotes both.
    transport = SSETransport(f"{server.sse_url}?key=hush", auth=OAuth(token_store=MemoryTokenStore()))
    with anyio.fail_after(10), pytest.raises(ConnectError, match="does not match expected") as caught:
        async with Client(transport, restart=None):
            pytest.fail("connected")
    causes = (caught.value, caught.value.cause, getattr(caught.value.cause, "cause", None))
    logged = [f"{log.getMessage()} {log.exc_info}" for log in caplog.records if "oauth" in log.name]
    assert "hush" not in f"{causes!r} {logged}"

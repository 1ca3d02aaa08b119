"""Signing in with a browser against a real authorization server: when it happens, and when it need not."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import anyio
import anyio.to_thread
import httpx2
import pytest
from mcp.client.auth import OAuthFlowError

from anyio_mcp import (
    Client,
    ConnectError,
    DeadlineExceededError,
    FileTokenStore,
    Heartbeat,
    MCPConfig,
    MemoryTokenStore,
    OAuth,
    RequestFailedError,
    SSETransport,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.auth import records
from anyio_mcp.auth.oauth import ClientAuth
from anyio_mcp.auth.records import AuthorizationRecord
from tests.auth.conftest import Browser
from tests.auth.server import GuardedServer
from tests.faults.http_server import Talk, fault_server
from tests.leaks import open_sockets
from tests.servers import free_port

pytestmark = pytest.mark.anyio


async def adds(client: Client) -> bool:
    return (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


def listening() -> int:
    """How many sockets of this process listen."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text("ascii").splitlines()[1:]]
    mine = open_sockets()
    return sum(1 for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in mine)


async def closed(before: set[str]) -> None:
    """Wait until all sockets are closed again; the server, in this process as well, closes its own."""
    with anyio.fail_after(5):
        while not open_sockets() <= before:
            await anyio.sleep(0.001)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_user_signs_in_once_and_every_request_is_authorized(
    server: GuardedServer, browser: Browser, mode: str
) -> None:
    before = open_sockets()
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser, client_name="the test")
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth, mode=mode) as client:
            assert await adds(client)
            assert await adds(client)
    assert browser.visits == 1
    assert "You can close this window" in browser.pages[0]
    assert server.authority.grants == {"authorization_code": 1}
    (registered,) = server.authority.clients.values()
    assert registered.client_name == "the test"
    assert "code_challenge_method=S256" in browser.urls[0]
    await closed(before)


async def test_a_user_signs_in_over_sse(server: GuardedServer, browser: Browser) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    # The SDK's server names one resource only, and this is another path of it.
    transport = SSETransport(server.sse_url, auth=auth)
    with anyio.fail_after(20), pytest.raises(ConnectError, match="does not match expected"):
        async with Client(transport, restart=None):
            pytest.fail("connected")
    assert browser.visits == 0


async def test_the_stream_and_the_posts_of_sse_share_one_token(
    server: GuardedServer, browser: Browser
) -> None:
    store = MemoryTokenStore()
    auth = OAuth(token_store=store, open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth):
            pass
        record = await store.get(server.url)
        assert record is not None
        await store.set(server.sse_url, record)
        async with Client(SSETransport(server.sse_url, auth=auth)) as client:
            assert await adds(client)
            # A token that is void is replaced without the stream, or the user, noticing.
            server.authority.revoke_access()
            assert await adds(client)
    assert browser.visits == 1
    assert server.authority.grants["refresh_token"] == 1


async def test_calls_side_by_side_lead_to_one_sign_in(server: GuardedServer, browser: Browser) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_everything()
            async with anyio.create_task_group() as tg:
                for _ in range(10):
                    tg.start_soon(adds, client)
            assert await adds(client)
    assert browser.visits == 2


async def test_a_slow_call_does_not_hold_up_the_others(server: GuardedServer, browser: Browser) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client, anyio.create_task_group() as tg:
            tg.start_soon(client.call_tool, "slow", {"seconds": 60})
            while client.stats().calls_in_flight == 0:
                await anyio.sleep(0.001)
            assert await adds(client)
            assert await client.ping()
            tg.cancel_scope.cancel()


async def test_tokens_are_reused_by_every_client_of_the_store(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        client = Client(server.url, auth=auth)
        async with client:
            assert await adds(client)
        async with client:
            assert await adds(client)
        async with client.new() as another:
            assert await adds(another)
    assert browser.visits == 1
    assert server.authority.grants == {"authorization_code": 1}


async def test_tokens_outlive_the_process_in_a_file(
    server: GuardedServer, browser: Browser, tmp_path: Path
) -> None:
    with anyio.fail_after(20):
        for _ in range(2):
            store = FileTokenStore(tmp_path / "tokens")
            async with Client(server.url, auth=OAuth(token_store=store, open_browser=browser)) as client:
                assert await adds(client)
    assert browser.visits == 1
    assert store.path(server.url).stat().st_mode & 0o777 == 0o600


async def test_the_word_oauth_means_the_defaults(
    server: GuardedServer, browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    def show(url: str) -> bool:
        # In a worker thread, as a real browser would be started.
        response = httpx2.get(url, follow_redirects=True)
        return response.is_success

    monkeypatch.setattr("webbrowser.open", show)
    with anyio.fail_after(20):
        async with Client(server.url, auth="oauth") as client:
            assert await adds(client)
        config = MCPConfig.parse({"mcpServers": {"a": {"url": server.url, "auth": "oauth"}}})
        async with Client(config) as client:
            assert isinstance(client.transport, StreamableHttpTransport)
            assert await adds(client)
    assert server.authority.grants == {"authorization_code": 1}
    assert FileTokenStore().directory.stat().st_mode & 0o777 == 0o700


async def test_a_server_that_asks_for_nothing_is_connected_to_without_a_browser(browser: Browser) -> None:
    async def open_to_all(talk: Talk) -> None:
        if talk.id is None:
            await talk.reply(202)
        elif talk.received.rpc_method == "initialize":
            info = {"name": "open", "version": "1"}
            await talk.result({"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": info})
        else:
            await talk.result()

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    async with fault_server(open_to_all) as faults:
        with anyio.fail_after(10):
            async with Client(faults.url, auth=auth, mode="legacy") as client:
                assert await client.ping()
        assert all("authorization" not in received.headers for received in faults.requests)
    assert browser.visits == 0


# --- what is asked for -----------------------------------------------------------------------------


async def test_the_scopes_of_the_users_choice_are_asked_for(server: GuardedServer, browser: Browser) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser, scopes="user admin")
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            assert await adds(client)
    assert server.authority.asked_scopes == ["user", "admin"]


async def test_a_scope_that_is_missing_is_asked_for_beside_those_there_are(
    server: GuardedServer, browser: Browser
) -> None:
    store = MemoryTokenStore()
    tokens = server.authority.grant("earlier", ["admin"], refreshable=True)
    await records.ServerTokens(store, server.url).set_tokens(tokens)
    with anyio.fail_after(20):
        async with Client(server.url, auth=OAuth(token_store=store, open_browser=browser)) as client:
            assert await adds(client)
    assert server.authority.asked_scopes == ["admin", "user"]
    assert browser.visits == 1
    assert server.authority.grants == {"authorization_code": 1}


@pytest.mark.parametrize("how", ["client_secret_basic", "client_secret_post"])
async def test_a_client_registered_beforehand_registers_no_other(
    server: GuardedServer, browser: Browser, how: ClientAuth
) -> None:
    from mcp.shared.auth import OAuthClientInformationFull

    port = free_port()
    server.authority.clients["known"] = OAuthClientInformationFull.model_validate(
        {
            "client_id": "known",
            "client_secret": server.authority.secret,
            "redirect_uris": [f"http://127.0.0.1:{port}/callback"],
            "token_endpoint_auth_method": how,
            "scope": "user",
        }
    )
    auth = OAuth(
        token_store=MemoryTokenStore(),
        open_browser=browser,
        client_id="known",
        client_secret=server.authority.secret,
        issuer=server.base,
        client_auth=how,
        callback_port=port,
    )
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_access()
            assert await adds(client)
    assert list(server.authority.clients) == ["known"]
    assert server.authority.grants == {"authorization_code": 1, "refresh_token": 1}


async def test_a_port_that_is_taken_is_said_so(server: GuardedServer, browser: Browser) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as taken:
        port = taken.extra(anyio.abc.SocketAttribute.local_port)
        auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser, callback_port=port)
        with anyio.fail_after(20), pytest.raises(ConnectError, match=f"cannot listen on port {port}"):
            async with Client(server.url, auth=auth, restart=None):
                pytest.fail("connected")
    assert browser.visits == 0


async def test_a_second_sign_in_comes_back_to_the_port_of_the_first(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        for _ in range(2):
            async with Client(server.url, auth=auth) as client:
                assert await adds(client)
            server.authority.revoke_everything()
    assert browser.visits == 2
    assert len(server.authority.clients) == 1


async def test_a_port_somebody_else_has_meanwhile_leads_to_another_registration(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            assert await adds(client)
        server.authority.revoke_everything()
        (first,) = server.authority.clients.values()
        assert first.redirect_uris is not None
        port = first.redirect_uris[0].port
        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port or 0),
            Client(server.url, auth=auth) as client,
        ):
            assert await adds(client)
    assert len(server.authority.clients) == 2


# --- refreshing ------------------------------------------------------------------------------------


async def test_an_expired_token_is_refreshed_before_it_is_used(
    server: GuardedServer, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            monkeypatch.setattr(records, "time", SimpleNamespace(time=lambda: time.time() + 3595))
            assert await adds(client)
            assert await adds(client)
    assert browser.visits == 1
    assert server.authority.grants["refresh_token"] == 1


async def test_a_stored_token_that_expired_meanwhile_costs_no_sign_in(
    server: GuardedServer, browser: Browser
) -> None:
    store = MemoryTokenStore()
    auth = OAuth(token_store=store, open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth):
            pass
        record = AuthorizationRecord.model_validate_json(await store.get(server.url) or "")
        record.expires_at = time.time() - 10
        await store.set(server.url, record.model_dump_json())
        server.authority.revoke_access()
        async with Client(server.url, auth=auth) as client:
            assert await adds(client)
    assert browser.visits == 1
    assert server.authority.grants["refresh_token"] == 1


async def test_a_token_revoked_in_the_middle_of_a_session_is_refreshed_under_the_call(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            started = client.stats().sessions_started
            server.authority.revoke_access()
            assert await adds(client)
            assert client.stats().sessions_started == started
    assert browser.visits == 1
    assert server.authority.grants["refresh_token"] == 1


async def test_a_refresh_token_that_is_refused_leads_to_a_sign_in(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_everything()
            assert await adds(client)
    assert browser.visits == 2


async def test_what_another_client_of_the_store_has_renewed_is_taken_over(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as one, Client(server.url, auth=auth) as other:
            server.authority.revoke_access()
            assert await adds(one)
            assert await adds(other)
    assert browser.visits == 1
    assert server.authority.grants["refresh_token"] == 1


async def test_an_outage_of_the_token_endpoint_is_no_reason_to_ask_the_user(
    server: GuardedServer, browser: Browser
) -> None:
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_access()
            server.authority.token_fault = "500"
            with pytest.raises(RequestFailedError, match=r"not refreshed.* answered with status 500"):
                await adds(client)
            server.authority.token_fault = None
            assert await adds(client)
    assert browser.visits == 1


# --- when it does not work -------------------------------------------------------------------------


async def test_a_user_who_refuses_is_an_error_that_says_so(server: GuardedServer, browser: Browser) -> None:
    server.authority.denies = True
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(20), pytest.raises(ConnectError, match="access_denied") as caught:
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")
    assert isinstance(caught.value.cause, RequestFailedError)
    assert caught.value.cause.reason == "sign_in"
    assert isinstance(caught.value.cause.cause, OAuthFlowError)
    assert "Not signed in" in browser.pages[0]


async def nobody(_: str) -> None:
    """A browser whose user walks away."""


async def test_a_user_who_never_comes_back_ends_with_the_connect_deadline(server: GuardedServer) -> None:
    before, ports = open_sockets(), listening()
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=nobody)
    with anyio.fail_after(10), pytest.raises(DeadlineExceededError) as caught:
        async with Client(server.url, auth=auth, timeouts=Timeouts(connect=0.5), restart=None):
            pytest.fail("connected")
    assert caught.value.phase == "connect"
    await closed(before)
    assert listening() == ports


async def test_another_state_counts_as_nobody(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    server.authority.wrong_state = True
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(10), pytest.raises(DeadlineExceededError):
        async with Client(server.url, auth=auth, timeouts=Timeouts(connect=0.7), restart=None):
            pytest.fail("connected")
    assert "Not for this sign-in" in browser.pages[0]
    assert "another state was turned away" in caplog.text


async def test_a_call_that_needs_the_user_again_ends_with_its_own_deadline(
    server: GuardedServer, browser: Browser
) -> None:
    away = False

    async def sometimes(url: str) -> None:
        if not away:
            await browser(url)

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=sometimes)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            ports = listening()
            server.authority.revoke_everything()
            away = True
            with pytest.raises(DeadlineExceededError) as caught:
                await client.call_tool("add", {"a": 1, "b": 2}, timeout=0.3)
            assert caught.value.phase == "call"
            while listening() != ports:
                await anyio.sleep(0.001)
            away = False
            assert await adds(client)
    assert browser.visits == 2


async def test_a_sign_in_goes_on_for_those_who_wait_when_the_first_gives_up(
    server: GuardedServer, browser: Browser
) -> None:
    shown, back = anyio.Event(), anyio.Event()

    async def later(url: str) -> None:
        if browser.visits:
            shown.set()
            await back.wait()
        await browser(url)

    async def impatient(client: Client) -> None:
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("add", {"a": 1, "b": 2}, timeout=0.5)
        back.set()

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=later)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth) as client:
            server.authority.revoke_everything()
            async with anyio.create_task_group() as tg:
                tg.start_soon(impatient, client)
                await shown.wait()
                for _ in range(3):
                    tg.start_soon(adds, client)
    assert browser.visits == 2
    assert server.authority.grants["authorization_code"] == 2


async def test_a_person_who_takes_long_is_no_silence_of_the_server(
    server: GuardedServer, browser: Browser
) -> None:
    async def slowly(url: str) -> None:
        if browser.visits:
            await anyio.sleep(1.0)
        await browser(url)

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=slowly)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth, heartbeat=Heartbeat(interval=0.1, timeout=0.1)) as client:
            server.authority.revoke_everything()
            assert await adds(client)
    assert browser.visits == 2


async def test_cancelling_a_sign_in_leaves_nothing(server: GuardedServer) -> None:
    before, ports = open_sockets(), listening()
    waiting = anyio.Event()

    async def forgotten(_: str) -> None:
        waiting.set()

    async def connect() -> None:
        auth = OAuth(token_store=MemoryTokenStore(), open_browser=forgotten)
        async with Client(server.url, auth=auth):
            pytest.fail("connected")

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tg:
            tg.start_soon(connect)
            await waiting.wait()
            assert listening() == ports + 1
            tg.cancel_scope.cancel()
    await closed(before)
    assert listening() == ports


@pytest.mark.parametrize("answer", [False, True])
async def test_a_browser_that_cannot_be_opened_is_an_error_at_once(
    server: GuardedServer, answer: bool
) -> None:
    async def coroutine(_: str) -> bool:
        return False

    def plain(_: str) -> bool:
        return False

    auth = OAuth(token_store=MemoryTokenStore(), open_browser=coroutine if answer else plain)
    with anyio.fail_after(10), pytest.raises(ConnectError, match="no browser could be opened"):
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("500", "Token exchange failed \\(500\\)"),
        ("refuse", "it is stale"),
        ("garbage", "something that is no token"),
        ("no token", "something that is no token"),
        ("redirect", "Token exchange failed \\(404\\)"),
        ("flood", "too much"),
    ],
)
async def test_a_token_endpoint_that_fails_is_an_error_that_says_so(
    server: GuardedServer, browser: Browser, fault: str, why: str
) -> None:
    server.authority.token_fault = fault  # type: ignore[assignment]
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(10), pytest.raises(ConnectError, match=why) as caught:
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")
    assert isinstance(caught.value.cause, RequestFailedError)
    assert caught.value.cause.reason == "sign_in"
    assert isinstance(caught.value.cause.cause, OAuthFlowError)


@pytest.mark.parametrize(("fault", "why"), [("500", "Registration failed: 500"), ("garbage", "is no client")])
async def test_a_registration_that_fails_is_an_error_that_says_so(
    server: GuardedServer, browser: Browser, fault: str, why: str
) -> None:
    server.authority.registration_fault = fault  # type: ignore[assignment]
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(10), pytest.raises(ConnectError, match=why):
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")
    assert browser.visits == 0


async def test_a_token_endpoint_that_hangs_ends_with_the_connect_deadline(
    server: GuardedServer, browser: Browser
) -> None:
    server.authority.token_fault = "hang"
    auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
    with anyio.fail_after(10), pytest.raises(DeadlineExceededError) as caught:
        async with Client(server.url, auth=auth, timeouts=Timeouts(connect=1.0), restart=None):
            pytest.fail("connected")
    assert caught.value.phase == "connect"
    assert browser.visits == 1


async def test_a_store_that_fails_costs_a_sign_in_and_no_call(
    server: GuardedServer, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryTokenStore.__mro__[1]):  # type: ignore[misc]
        async def get(self, server_url: str) -> str | None:
            raise LookupError("hush")

        async def set(self, server_url: str, record: str) -> None:
            raise OSError(f"hush {record}")

        async def delete(self, server_url: str) -> None:
            raise NotImplementedError

    with anyio.fail_after(20):
        async with Client(server.url, auth=OAuth(token_store=Broken(), open_browser=browser)) as client:
            assert await adds(client)
    assert browser.visits == 1
    assert "could not be read: LookupError" in caplog.text
    assert "could not be stored: OSError" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.parametrize("record", ["", "no json", "[]", '{"tokens": {"access_token": 5}}', '{"tokens": []}'])
async def test_a_record_that_is_damaged_costs_a_sign_in(
    server: GuardedServer, browser: Browser, record: str
) -> None:
    store = MemoryTokenStore()
    await store.set(server.url, record)
    with anyio.fail_after(20):
        async with Client(server.url, auth=OAuth(token_store=store, open_browser=browser)) as client:
            assert await adds(client)
    assert browser.visits == 1

"""The SDK's own OAuth providers as `auth=`: programs that sign in without a person, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from anyio_mcp import (
    Client,
    ConnectError,
    Heartbeat,
    MemoryTokenStore,
    OAuth,
    RequestFailedError,
    ServerTokens,
    SSETransport,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.auth.callback import bind_callback, listen_for_callback
from tests.auth.server import GuardedServer, identity_client
from tests.auth.test_sign_in import adds
from tests.faults.http_server import Talk, fault_server

pytestmark = pytest.mark.anyio

Provider = Callable[[GuardedServer, ServerTokens], httpx2.Auth]


def client_credentials(server: GuardedServer, storage: ServerTokens) -> httpx2.Auth:
    return ClientCredentialsOAuthProvider(
        server_url=server.url,
        storage=storage,
        client_id="robot",
        client_secret=server.authority.secret,
        issuer=server.base,
    )


def private_key_jwt(server: GuardedServer, storage: ServerTokens) -> httpx2.Auth:
    key = ec.generate_private_key(ec.SECP256R1())
    server.authority.public_key = key.public_key()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = SignedJWTParameters(
        issuer="robot", subject="robot", signing_key=pem.decode(), signing_algorithm="ES256"
    )
    return PrivateKeyJWTOAuthProvider(
        server_url=server.url,
        storage=storage,
        client_id="robot",
        assertion_provider=signed.create_assertion_provider(),
        issuer=server.base,
    )


def identity_assertion(server: GuardedServer, storage: ServerTokens) -> httpx2.Auth:
    async def assertion(audience: str, resource: str) -> str:
        assert (audience, resource) == (server.base, server.url)
        await anyio.sleep(0)
        return server.authority.id_jag

    return IdentityAssertionOAuthProvider(
        server_url=server.url,
        storage=storage,
        client_id=identity_client(server.authority),
        client_secret=server.authority.secret,
        issuer=server.base,
        assertion_provider=assertion,
    )


PROVIDERS = [client_credentials, private_key_jwt, identity_assertion]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_program_signs_in_without_a_person(
    server: GuardedServer, provider: Provider, mode: str
) -> None:
    storage = ServerTokens(MemoryTokenStore(), server.url)
    with anyio.fail_after(20):
        async with Client(server.url, auth=provider(server, storage), mode=mode) as client:
            assert await adds(client)
            assert await adds(client)
    assert storage.record.tokens is not None
    assert server.authority.requests["/token"] == 1
    assert server.authority.requests["/authorize"] == 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_token_revoked_in_the_middle_of_a_session_is_replaced_under_the_call(
    server: GuardedServer, provider: Provider
) -> None:
    storage = ServerTokens(MemoryTokenStore(), server.url)
    with anyio.fail_after(20):
        async with Client(server.url, auth=provider(server, storage)) as client:
            server.authority.revoke_everything()
            async with anyio.create_task_group() as tg:
                for _ in range(10):
                    tg.start_soon(adds, client)
            assert client.stats().sessions_started == 1
    assert server.authority.requests["/token"] == 2


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_stored_token_serves_the_next_client(server: GuardedServer, provider: Provider) -> None:
    store = MemoryTokenStore()
    with anyio.fail_after(20):
        for _ in range(2):
            auth = provider(server, ServerTokens(store, server.url))
            async with Client(server.url, auth=auth) as client:
                assert await adds(client)
    assert server.authority.requests["/token"] == 1


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_one_provider_serves_many_connections_at_a_time(
    server: GuardedServer, provider: Provider
) -> None:
    auth = provider(server, ServerTokens(MemoryTokenStore(), server.url))
    with anyio.fail_after(20):
        client = Client(server.url, auth=auth)
        async with client, client.new() as other:
            server.authority.revoke_everything()
            async with anyio.create_task_group() as tg:
                for each in (client, other) * 5:
                    tg.start_soon(adds, each)
    assert server.authority.requests["/token"] == 2


async def test_a_slow_call_holds_up_neither_the_others_nor_the_heartbeat(server: GuardedServer) -> None:
    auth = client_credentials(server, ServerTokens(MemoryTokenStore(), server.url))
    # A provider in the exchange itself would let nobody pass before the slow call is answered.
    heartbeat = Heartbeat(interval=0.1, timeout=0.3)
    with anyio.fail_after(20):
        async with Client(server.url, auth=auth, heartbeat=heartbeat) as client:
            async with anyio.create_task_group() as tg:
                tg.start_soon(client.call_tool, "slow", {"seconds": 1})
                while client.stats().calls_in_flight == 0:
                    await anyio.sleep(0.001)
                assert await adds(client)
            assert client.stats().sessions_started == 1


async def test_an_sdk_provider_with_a_browser_signs_in_before_the_era_is_asked_for(
    server: GuardedServer,
) -> None:
    async with listen_for_callback(await bind_callback()) as listener:

        async def show(url: str) -> None:
            listener.expect(url.partition("state=")[2].partition("&")[0])
            async with httpx2.AsyncClient(follow_redirects=True, trust_env=False) as browser:
                # Longer than the probe for the era may take.
                await anyio.sleep(0.8)
                await browser.get(url)

        async def come_back() -> AuthorizationCodeResult:
            found = await listener.wait()
            return AuthorizationCodeResult(code=found.code, state=found.state)

        auth = OAuthClientProvider(
            server.url,
            OAuthClientMetadata(redirect_uris=[AnyUrl(listener.redirect_uri)]),
            ServerTokens(MemoryTokenStore(), server.url),
            redirect_handler=show,
            callback_handler=come_back,
        )
        with anyio.fail_after(20):
            async with Client(server.url, auth=auth, timeouts=Timeouts(connect=2.0)) as client:
                assert client.protocol_version == "2026-07-28"
                assert await adds(client)
    assert server.authority.requests["/authorize"] == 1


@pytest.mark.parametrize("provider", [client_credentials, private_key_jwt])
async def test_a_program_nobody_knows_is_an_error_that_says_so(
    server: GuardedServer, provider: Provider
) -> None:
    auth = provider(server, ServerTokens(MemoryTokenStore(), server.url))
    server.authority.token_fault = "refuse"
    with anyio.fail_after(20), pytest.raises(ConnectError, match="invalid_grant") as caught:
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")
    assert isinstance(caught.value.cause, RequestFailedError)
    assert caught.value.cause.reason == "sign_in"
    assert isinstance(caught.value.cause.cause, OAuthFlowError)


async def test_an_assertion_that_cannot_be_made_is_the_error_of_the_connect(server: GuardedServer) -> None:
    async def broken(_: str) -> str:
        raise LookupError("no key today")

    auth = PrivateKeyJWTOAuthProvider(
        server_url=server.url,
        storage=ServerTokens(MemoryTokenStore(), server.url),
        client_id="robot",
        assertion_provider=broken,
        issuer=server.base,
    )
    with anyio.fail_after(20), pytest.raises(ConnectError, match="no key today"):
        async with Client(server.url, auth=auth, restart=None):
            pytest.fail("connected")


async def test_a_provider_over_sse_authorizes_stream_and_posts(server: GuardedServer) -> None:
    store = MemoryTokenStore()
    with anyio.fail_after(20):
        async with Client(server.url, auth=client_credentials(server, ServerTokens(store, server.url))):
            pass
        auth = client_credentials(server, ServerTokens(store, server.url))
        async with Client(SSETransport(server.sse_url, auth=auth)) as client:
            assert await adds(client)
    assert server.authority.requests["/token"] == 1


async def test_the_users_http_client_makes_the_requests_of_the_sign_in(server: GuardedServer) -> None:
    seen: list[str] = []

    async def record(request: httpx2.Request) -> None:
        seen.append(request.url.path)

    auth = client_credentials(server, ServerTokens(MemoryTokenStore(), server.url))
    async with httpx2.AsyncClient(event_hooks={"request": [record]}, auth=("me", "hush")) as http_client:
        transport = StreamableHttpTransport(server.url, auth=auth, http_client=http_client)
        with anyio.fail_after(20):
            async with Client(transport) as client:
                assert await adds(client)
    assert {"/mcp", "/token", "/.well-known/oauth-authorization-server"} <= set(seen)


async def test_a_refusal_without_an_end_is_not_read() -> None:
    async def endless(talk: Talk) -> None:
        if talk.received.headers["authorization"] == "Bearer old":
            await talk.head(401, {"transfer-encoding": "chunked", "content-encoding": "gzip"})
            while True:
                await talk.chunk(b"x" * 65536)
        elif talk.id is None:
            await talk.reply(202)
        else:
            await talk.result({"content": [], "resultType": "complete"})

    class Hopeful(OAuthClientProvider):
        """Has another token for every refusal."""

        async def async_auth_flow(self, request: httpx2.Request) -> Any:
            request.headers["authorization"] = "Bearer old"
            yield request
            request.headers["authorization"] = "Bearer new"
            yield request

    async with fault_server(endless) as faults:
        storage = ServerTokens(MemoryTokenStore(), faults.url)
        auth = Hopeful(faults.url, OAuthClientMetadata(redirect_uris=None), storage)
        with anyio.fail_after(10):
            async with Client(faults.url, auth=auth, mode="2026-07-28") as client:
                assert (await client.call_tool_mcp("any")).content == []
        await faults.until(lambda s: s.open == 0)
        assert [r.headers["authorization"] for r in faults.requests][:2] == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize("auth", ["oauth", OAuth(token_store=MemoryTokenStore())])
def test_signing_in_needs_a_client_of_httpx2(auth: Any) -> None:
    with pytest.raises(TypeError, match=r"httpx2\.AsyncClient"):
        StreamableHttpTransport("https://example.org/mcp", auth=auth, http_client=httpx.AsyncClient())
    with pytest.raises(TypeError, match=r"httpx2\.AsyncClient"):
        SSETransport("https://example.org/sse", auth=auth, http_client=httpx.AsyncClient())

"""Whom a sign-in asks: hints, metadata, issuers, PKCE, addresses, over real sockets."""

from __future__ import annotations

import ssl
from typing import Any

import anyio
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from anyio_mcp import (
    Client,
    ConnectError,
    MCPClientError,
    MemoryTokenStore,
    OAuth,
    RequestFailedError,
    ServerTokens,
    SSETransport,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.auth import driver
from tests.auth.odd_server import (
    OPENID,
    RESOURCE,
    SERVER,
    OddServer,
    Person,
    client_of,
    odd_server,
    signing_in,
)
from tests.faults.http_server import CERTIFICATE, Talk, fault_server

pytestmark = pytest.mark.anyio


async def signs_in(odd: OddServer, person: Person | None = None, **settings: Any) -> None:
    with anyio.fail_after(20):
        async with client_of(odd.url, signing_in(person, **settings)) as client:
            await client.ping()


async def fails(odd: OddServer, why: str, person: Person | None = None, **settings: Any) -> None:
    """Connecting fails as a sign-in does, before anybody is asked."""
    person = person or Person()
    with anyio.fail_after(20), pytest.raises(ConnectError, match=why) as caught:
        async with client_of(odd.url, signing_in(person, **settings)):
            pytest.fail("connected")
    assert isinstance(caught.value.cause, RequestFailedError)
    assert caught.value.cause.reason == "sign_in"
    assert isinstance(caught.value.cause.cause, OAuthFlowError)
    assert person.urls == []


# --- hints ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hint",
    [
        "",
        "Bearer",
        f'Bearer resource_metadata="{RESOURCE}/mcp"',
        f"Bearer resource_metadata='{RESOURCE}'",
        'Bearer resource_metadata="://nonsense"',
        'Bearer resource_metadata="http://127.0.0.1:1/x"',
        'Bearer resource_metadata="http://127.0.0.1:99999/x"',
        'Bearer resource_metadata="http://127.0.0.2/x"',
        'Bearer resource_metadata="http://169.254.169.254/x"',
        'Bearer resource_metadata="https://127.0.0.1:1/x"',
        'Bearer resource_metadata="file:///etc/passwd"',
        'Bearer resource_metadata="javascript:alert(1)"',
        'Bearer resource_metadata="http://user:pw@127.0.0.1/x"',
        'Bearer resource_metadata="/missing"',
        'Bearer resource_metadata="/broken"',
        'Bearer resource_metadata="/garbage"',
        'Bearer resource_metadata="/flood"',
        'Bearer resource_metadata="/hang"',
        'Bearer resource_metadata="/away"',
        'Bearer resource_metadata="/.well-known/openid-configuration"',
    ],
)
async def test_a_hint_that_is_of_no_use_does_not_stop_what_works_without(
    monkeypatch: pytest.MonkeyPatch, hint: str
) -> None:
    monkeypatch.setattr(driver, "HINT_SECONDS", 0.2)

    async def hang(talk: Talk) -> None:
        await talk.hang()

    async def away(talk: Talk) -> None:
        await talk.reply(307, headers={"location": "http://127.0.0.2:1/x"})

    async with odd_server() as odd:
        odd.challenge = hint
        odd.replaced["/missing"] = None
        odd.replaced["/broken"] = (503, {})
        odd.replaced["/garbage"] = (200, b"<html>")
        odd.replaced["/flood"] = (200, b" " * (driver.MAX_ANSWER_BYTES + 1))
        odd.replaced["/hang"] = hang
        odd.replaced["/away"] = away
        await signs_in(odd)


async def test_a_server_whose_own_metadata_is_broken_says_so() -> None:
    async with odd_server() as odd:
        odd.replaced[f"{RESOURCE}/mcp"] = odd.replaced[RESOURCE] = (503, {})
        await fails(odd, "HTTP 503")


@pytest.mark.parametrize("path", [RESOURCE, SERVER])
async def test_metadata_that_never_comes_ends_in_time(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(driver, "ANSWER_SECONDS", 0.2)

    async def trickle(talk: Talk) -> None:
        await talk.head(200, {"transfer-encoding": "chunked"}, "application/json")
        while True:
            await talk.chunk(b" ")
            await anyio.sleep(0.01)

    async with odd_server() as odd:
        odd.replaced[path] = odd.replaced[f"{path}/mcp"] = trickle
        await fails(odd, "did not answer in")


# --- PKCE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", [..., None, [], "", ["plain"], "plain", ["s256"], 5, {"S256": True}])
@pytest.mark.parametrize("described", [True, False])
async def test_a_server_that_does_not_say_that_it_supports_pkce_is_refused(
    methods: Any, described: bool
) -> None:
    async with odd_server() as odd:
        odd.metadata["code_challenge_methods_supported"] = methods
        if not described:
            odd.replaced[RESOURCE] = odd.replaced[f"{RESOURCE}/mcp"] = None
        await fails(odd, "does not say that PKCE with S256 is supported")
        assert odd.paths["/register"] == 0
        # Of an authorization server whose support is known otherwise.
        await signs_in(odd, issuer=odd.base, assume_pkce=True)


async def test_another_document_of_the_server_may_say_that_it_supports_pkce() -> None:
    async with odd_server() as odd:
        said = dict(odd._metadata())
        del said["code_challenge_methods_supported"]
        odd.replaced[SERVER] = said
        await signs_in(odd)
        assert odd.paths[OPENID] == 1


async def test_a_server_of_2025_03_26_without_any_metadata_is_signed_in_to_at_its_default_addresses() -> None:
    async with odd_server() as odd:
        for path in (RESOURCE, f"{RESOURCE}/mcp", SERVER, OPENID):
            odd.replaced[path] = None
        person = Person()
        await signs_in(odd, person)
        assert person.urls[0].startswith(f"{odd.base}/authorize?")
        assert person.asked["code_challenge_method"] == "S256"


@pytest.mark.parametrize("answer", [None, (500, {}), (200, b"<html>"), (200, {"issuer": 5})])
async def test_an_authorization_server_that_is_named_needs_metadata(answer: Any) -> None:
    async with odd_server() as odd:
        odd.replaced[SERVER] = odd.replaced[OPENID] = answer
        await fails(odd, "no metadata of the authorization server")
        assert odd.paths["/register"] == odd.paths["/token"] == 0


async def test_a_provider_of_the_sdk_for_a_person_is_held_to_the_same() -> None:
    async with odd_server() as odd:
        odd.metadata["code_challenge_methods_supported"] = ["plain"]

        async def never(*_: str) -> Any:
            pytest.fail("a person was asked")

        provider = OAuthClientProvider(
            odd.url,
            OAuthClientMetadata(redirect_uris=[AnyUrl("http://127.0.0.1:1/callback")]),
            ServerTokens(MemoryTokenStore(), odd.url),
            redirect_handler=never,
            callback_handler=never,
        )
        with anyio.fail_after(20), pytest.raises(ConnectError, match="PKCE"):
            async with client_of(odd.url, provider):
                pytest.fail("connected")


# --- issuers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["", "/"])
@pytest.mark.parametrize("named", ["", "/"])
@pytest.mark.parametrize("brings", [True, False])
async def test_an_issuer_with_and_without_a_final_slash_is_one(stated: str, named: str, brings: bool) -> None:
    async with odd_server() as odd:
        odd.metadata["issuer"] = odd.base + stated
        odd.resource["authorization_servers"] = [odd.base + named]
        await signs_in(odd, Person(**({"iss": odd.base + named} if brings else {})))


async def test_the_issuer_that_a_browser_brings_is_compared_letter_by_letter() -> None:
    async with odd_server() as odd:
        odd.metadata["issuer"] = odd.base
        odd.resource["authorization_servers"] = [odd.base]
        with anyio.fail_after(20), pytest.raises(ConnectError, match="iss"):
            async with client_of(odd.url, signing_in(Person(iss=f"{odd.base}/"))):
                pytest.fail("connected")


async def test_metadata_of_another_issuer_is_refused() -> None:
    async with odd_server() as odd:
        odd.metadata["issuer"] = "http://127.0.0.1:1"
        await fails(odd, "issuer mismatch")


@pytest.mark.parametrize("brings", [{"iss": "http://127.0.0.1:1"}, {}])
async def test_a_browser_that_comes_from_another_issuer_is_refused(brings: dict[str, str]) -> None:
    async with odd_server() as odd:
        odd.metadata["authorization_response_iss_parameter_supported"] = True
        with anyio.fail_after(20), pytest.raises(ConnectError, match="iss"):
            async with client_of(odd.url, signing_in(Person(**brings))):
                pytest.fail("connected")
        assert odd.grants == []


async def test_a_secret_goes_to_its_issuer_alone_whomever_the_server_names() -> None:
    async with odd_server() as mine, odd_server() as odd:
        mine_alone = {"client_id": "app", "client_secret": "s3cret", "issuer": mine.base}
        # The server names itself, somebody else, or nobody; its metadata says the issuer is mine.
        await fails(odd, "not of the issuer", **mine_alone)
        odd.metadata["issuer"] = mine.base
        await fails(odd, "not of the issuer", **mine_alone)
        odd.resource["authorization_servers"] = ["http://127.0.0.1:1"]
        await fails(odd, "not of the issuer", **mine_alone)
        assert odd.grants == mine.grants == []
        # It names mine among others, or says nothing: there is where the user said.
        odd.resource["authorization_servers"] = [odd.base, mine.base]
        await signs_in(odd, **mine_alone)
        odd.replaced[RESOURCE] = odd.replaced[f"{RESOURCE}/mcp"] = None
        await signs_in(odd, **mine_alone)
        assert odd.grants == []
        assert len(mine.grants) == 2


async def test_a_secret_without_an_issuer_makes_no_client() -> None:
    auth = signing_in(client_id="app", client_secret="s3cret")
    for make in (Client, StreamableHttpTransport, SSETransport):
        made: Any = make
        with pytest.raises(ValueError, match="issuer="):
            made("https://example.org/mcp", auth=auth)


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "not a URL"},
        {"issuer": "http://as.example.com"},
        {"issuer": "https://user:pw@as.example.com"},
        {"issuer": "https://as.example.com?x=1"},
        {"issuer": "file:///etc"},
        {"assume_pkce": True},
        {"redirect_host": "example.org"},
        {"redirect_host": "0.0.0.0"},
        {"redirect_host": "https://localhost/cb"},
        {"redirect_host": "http://example.org/cb"},
        {"redirect_host": "http://localhost/cb?x=1"},
        {"redirect_host": "http://localhost:99999/cb"},
        {"redirect_host": "myapp://callback"},
        {"redirect_host": "http://localhost:1234/cb", "callback_port": 1235},
        {"resource": "relative"},
    ],
)
def test_settings_that_could_never_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="OAuth"):
        OAuth(**settings)


@pytest.mark.parametrize(
    "settings", [{"issuer": ""}, {"redirect_host": None}, {"resource": 5}, {"allow_plain_http": 1}]
)
def test_settings_of_another_type_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="OAuth"):
        OAuth(**settings)


# --- where it leads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "registration_endpoint"])
async def test_an_endpoint_elsewhere_on_this_machine_is_not_asked(name: str) -> None:
    async with odd_server() as odd:
        odd.metadata[name] = "http://127.0.0.2:1/x"
        await fails(odd, "signing in leads to")


async def test_an_authorization_server_elsewhere_on_this_machine_is_not_asked() -> None:
    async with odd_server() as odd:
        odd.resource["authorization_servers"] = ["http://127.0.0.2:1"]
        await fails(odd, "signing in leads to")


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "registration_endpoint"])
@pytest.mark.parametrize("kind", ["oauth", "provider"])
async def test_a_server_with_tls_leads_nowhere_without(name: str, kind: str) -> None:
    async with odd_server(tls=True) as odd, odd_server() as plain:
        odd.metadata[name] = f"{plain.base}/x"
        auth: Any = signing_in(person := Person())
        if kind == "provider":
            auth = ClientCredentialsOAuthProvider(
                odd.url, ServerTokens(MemoryTokenStore(), odd.url), "me", "s3cret", issuer=odd.base
            )
        context = ssl.create_default_context(cafile=CERTIFICATE)
        async with httpx2.AsyncClient(verify=context, trust_env=False) as http:
            transport = StreamableHttpTransport(odd.url, auth=auth, http_client=http)
            with anyio.fail_after(20), pytest.raises(ConnectError, match="without TLS"):
                async with client_of(transport):
                    pytest.fail("connected")
        assert person.urls == []
        assert plain.faults.requests == []


@pytest.mark.parametrize("kind", ["oauth", "provider"])
async def test_a_server_without_tls_elsewhere_is_sent_nothing(kind: str) -> None:
    seen: list[str] = []

    def network(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.path)
        assert "authorization" not in request.headers
        return httpx2.Response(401, headers={"www-authenticate": "Bearer"})

    url = "http://mcp.example/mcp"
    auth: Any = signing_in()
    if kind == "provider":
        storage = ServerTokens(MemoryTokenStore(), url)
        auth = ClientCredentialsOAuthProvider(url, storage, "me", "s3cret", issuer="http://mcp.example")
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(network)) as http:
        transport = StreamableHttpTransport(url, auth=auth, http_client=http)
        with anyio.fail_after(20), pytest.raises(ConnectError, match="without TLS"):
            async with client_of(transport):
                pytest.fail("connected")
    assert set(seen) == {"/mcp"}


async def test_a_server_on_this_machine_is_signed_in_to_at_an_authorization_server_with_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with odd_server(tls=True) as secure, odd_server() as odd:
        odd.resource["authorization_servers"] = [secure.base]
        person = Person()
        # The browser's part; its way to the authorization server is not what is tested.
        await signs_in(odd, person)
        assert person.urls[0].startswith(f"{secure.base}/authorize")
        assert len(secure.grants) == 1
        assert odd.grants == []


@pytest.mark.parametrize("path", [f"{RESOURCE}/mcp", SERVER, "/register", "/token"])
async def test_a_redirect_to_another_origin_is_not_followed(path: str) -> None:
    async with odd_server() as odd, fault_server(_unexpected) as other:

        async def away(talk: Talk) -> None:
            await talk.reply(307, headers={"location": f"http://127.0.0.1:{other.port}{path}"})

        odd.replaced[path] = away
        auth = signing_in()
        with anyio.fail_after(20):
            try:
                async with client_of(odd.url, auth) as client:
                    await client.ping()
            except MCPClientError:
                assert path not in (f"{RESOURCE}/mcp",)
        assert other.requests == []


async def test_a_redirect_without_an_end_ends() -> None:
    async with odd_server() as odd:

        async def again(talk: Talk) -> None:
            await talk.reply(307, headers={"location": talk.received.target})

        odd.replaced[SERVER] = odd.replaced[OPENID] = again
        await fails(odd, "no metadata")
        assert odd.paths[SERVER] < 20


async def _unexpected(talk: Talk) -> None:
    await talk.reply(500)


# --- registering ---------------------------------------------------------------------------------------


async def test_a_server_that_registers_nobody_says_so_and_what_to_do() -> None:
    async with odd_server() as other, odd_server() as odd:
        odd.resource["authorization_servers"] = [other.base]
        other.metadata["registration_endpoint"] = ...
        await fails(odd, r"registers no clients.*client_id=")
        other.metadata["registration_endpoint"] = f"{other.base}/register"
        other.replaced["/register"] = (403, {"error": "access_denied", "error_description": "not for you"})
        await fails(odd, r"403.*access_denied: not for you.*client_id=")
        await signs_in(odd, client_id="known")


# --- what servers insist on ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "begins", "ends"),
    [
        ("127.0.0.1", "http://127.0.0.1:", "/callback"),
        ("localhost", "http://localhost:", "/callback"),
        ("http://localhost/oauth/back", "http://localhost:", "/oauth/back"),
        ("http://127.0.0.1", "http://127.0.0.1:", "/"),
    ],
)
async def test_the_browser_is_sent_back_where_the_user_says(host: str, begins: str, ends: str) -> None:
    async with odd_server() as odd:
        person = Person()
        await signs_in(odd, person, redirect_host=host)
        uri = person.asked["redirect_uri"]
        assert uri.startswith(begins)
        assert uri.endswith(ends)
        assert odd.grants[0]["redirect_uri"] == uri


@pytest.mark.parametrize("how", ["sign in", "refresh"])
@pytest.mark.parametrize("resource", ["auto", None, "urn:mine"])
async def test_the_resource_is_named_as_the_user_says(how: str, resource: str | None) -> None:
    async with odd_server() as odd:
        person = Person()
        odd.replaced["/token"] = {"access_token": "key1", "refresh_token": "again", "token_type": "Bearer"}
        settings = {} if resource == "auto" else {"resource": resource}
        auth = signing_in(person, **settings)
        expected = {"auto": odd.url, None: None}.get(resource, resource)
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as client:
                await client.ping()
                if how == "refresh":
                    odd.replaced["/token"] = {"access_token": "key2", "token_type": "Bearer"}
                    odd.accepts = lambda talk: talk.received.headers.get("authorization") == "Bearer key2"
                    await client.ping()
        assert person.asked.get("resource") == expected
        assert odd.grants[0].get("resource") == expected
        if how == "refresh":
            assert odd.grants[1]["grant_type"] == "refresh_token"
            assert odd.grants[1].get("resource") in (expected, None if resource == "auto" else expected)
        assert odd.headers[0]["accept"] == "application/json"


async def test_a_token_for_none_of_the_scopes_the_user_chose_is_not_taken() -> None:
    async with odd_server() as odd:
        for granted, works in (("admin", False), ("read,admin", True), ("https://x/read", True), ("", True)):
            odd.replaced["/token"] = {"access_token": "key", "token_type": "Bearer", "scope": granted}
            if works:
                await signs_in(odd, scopes="read write")
            else:
                with pytest.raises(ConnectError, match="none of the scopes"):
                    await signs_in(odd, scopes="read write")


async def test_a_token_that_no_header_can_hold_is_neither_kept_nor_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryTokenStore()
    async with odd_server() as odd:
        odd.replaced["/token"] = {"access_token": "S3CRET\n", "token_type": "Bearer", "refresh_token": "r"}
        auth = signing_in(token_store=store)
        with anyio.fail_after(20), pytest.raises(ConnectError, match="cannot be sent") as caught:
            async with client_of(odd.url, auth, timeouts=Timeouts(connect=5)):
                pytest.fail("connected")
        assert "S3CRET" not in f"{caught.value!r} {caught.value.cause!r} {caplog.text}"
        assert "S3CRET" not in (await store.get(odd.url) or "")
        # One that somebody else has stored is not sent either.
        await store.set(odd.url, '{"tokens": {"access_token": "S3CRET\\n"}}')
        odd.replaced.pop("/token")
        await signs_in(odd, token_store=store)

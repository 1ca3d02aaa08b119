"""One attempt to obtain a token at a time: for all calls, all sessions, all clients of a store."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx2
import pytest
from mcp import MCPError
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from anyio_mcp import (
    Client,
    ConnectError,
    DeadlineExceededError,
    FileTokenStore,
    MCPClientError,
    MemoryTokenStore,
    RequestFailedError,
    ServerTokens,
)
from anyio_mcp.auth import records, sharing
from anyio_mcp.auth.records import AuthorizationRecord
from anyio_mcp.auth.sharing import Renewal
from tests.auth.odd_server import OddServer, Person, client_of, odd_server, signing_in
from tests.faults.http_server import Talk

pytestmark = pytest.mark.anyio


class Family:
    """Grants tokens whose refresh token is good once (RFC 9700, 4.14.2)."""

    def __init__(self, odd: OddServer) -> None:
        self.count = 0
        self.reused = 0
        self.void = False
        self.expires_in: Any = 3600
        self.slow: anyio.Event | None = None
        self.asked = anyio.Event()
        self._odd = odd
        odd.replaced["/token"] = self.grant
        odd.accepts = lambda talk: (
            self.count > 0 and talk.received.headers.get("authorization") == (f"Bearer key{self.count}")
        )

    async def grant(self, talk: Talk) -> None:
        form = self._odd.grants[-1]
        if form["grant_type"] == "refresh_token" and (
            self.void or form["refresh_token"] != f"refresh{self.count}"
        ):
            self.reused += 1
            await talk.reply(400, b'{"error": "invalid_grant"}', "application/json")
            return
        self.void = False
        self.count += 1
        token = {"access_token": f"key{self.count}", "refresh_token": f"refresh{self.count}"}
        if form["grant_type"] == "refresh_token":
            self.asked.set()
            if self.slow is not None:
                await self.slow.wait()
        body = json.dumps({**token, "token_type": "Bearer", "expires_in": self.expires_in}).encode()
        await talk.reply(200, body, "application/json")

    def revoke(self) -> None:
        """The access tokens are void, the refresh token is not."""
        self._odd.accepts = lambda talk: (
            talk.received.headers.get("authorization") == f"Bearer key{self.count}"
            and self.count > self._before
        )
        self._before = self.count

    @property
    def refreshes(self) -> int:
        return sum(grant["grant_type"] == "refresh_token" for grant in self._odd.grants)


async def call(client: Client) -> None:
    await client.call_tool_mcp("any", {})


# --- refreshing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["expired", "revoked"])
@pytest.mark.parametrize("store", ["one object", "one directory"])
async def test_clients_of_a_store_spend_a_refresh_token_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: str, why: str
) -> None:
    shared = MemoryTokenStore()

    def auth(person: Person) -> Any:
        return signing_in(person, token_store=shared if store == "one object" else FileTokenStore(tmp_path))

    person = Person()
    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(20):
            async with (
                client_of(odd.url, auth(person)) as one,
                client_of(odd.url, auth(person)) as two,
                client_of(odd.url, auth(person)) as three,
            ):
                if why == "expired":
                    late = SimpleNamespace(time=lambda: time.time() + 3595)
                    monkeypatch.setattr(records, "time", late)
                family.revoke()
                async with anyio.create_task_group() as tg:
                    for client in (one, two, three) * 4:
                        tg.start_soon(call, client)
                monkeypatch.undo()
        assert (family.refreshes, family.reused) == (1, 0)
        assert len(person.urls) == 1


async def test_a_refresh_goes_on_for_the_others_when_the_call_that_began_it_is_cancelled() -> None:
    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person())) as client:
                family.revoke()
                family.slow = anyio.Event()
                async with anyio.create_task_group() as tg:
                    with anyio.CancelScope() as first:
                        async with anyio.create_task_group() as caller:
                            caller.start_soon(call, client)
                            await family.asked.wait()
                            first.cancel()
                    tg.start_soon(call, client)
                    tg.start_soon(call, client)
                    family.slow.set()
        assert (family.refreshes, family.reused, len(person.urls)) == (1, 0, 1)


async def test_a_refresh_that_nobody_waits_for_any_more_still_brings_its_token() -> None:
    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person())) as client:
                family.revoke()
                family.slow = anyio.Event()
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tg:
                        tg.start_soon(call, client)
                        await family.asked.wait()
                        scope.cancel()
                family.slow.set()
                await call(client)
        assert (family.refreshes, family.reused, len(person.urls)) == (1, 0, 1)


async def test_a_refresh_that_nobody_waits_for_any_more_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "QUIET_SECONDS", 0.2)
    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in()) as client:
                family.revoke()
                family.slow = anyio.Event()
                with pytest.raises(RequestFailedError, match="no token was obtained in"):
                    await call(client)


async def test_a_session_that_is_closed_leaves_a_refresh_a_moment_and_the_next_session_its_token() -> None:
    async with odd_server() as odd:
        family = Family(odd)
        auth = signing_in(person := Person())
        closing = anyio.Event()

        async def session() -> None:
            async with client_of(odd.url, auth) as client, anyio.create_task_group() as tg:
                family.revoke()
                tg.start_soon(call, client)
                await family.asked.wait()
                tg.cancel_scope.cancel()
                closing.set()

        with anyio.fail_after(20):
            family.slow = anyio.Event()
            async with anyio.create_task_group() as sessions:
                sessions.start_soon(session)
                await closing.wait()
                await anyio.wait_all_tasks_blocked()
                family.slow.set()
            async with client_of(odd.url, auth) as client:
                await call(client)
        assert (family.refreshes, family.reused, len(person.urls)) == (1, 0, 1)


async def test_closing_waits_only_a_moment_for_a_refresh_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "GRACE_SECONDS", 0.1)
    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(5):
            async with client_of(odd.url, signing_in()) as client, anyio.create_task_group() as tg:
                family.revoke()
                family.slow = anyio.Event()
                tg.start_soon(call, client)
                await family.asked.wait()
                tg.cancel_scope.cancel()


async def test_a_session_takes_over_when_the_one_that_refreshes_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "GRACE_SECONDS", 0.05)
    async with odd_server() as odd:
        family = Family(odd)
        auth = signing_in(person := Person())
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as other, anyio.create_task_group() as tg:
                async with client_of(odd.url, auth) as client, anyio.create_task_group() as own:
                    family.revoke()
                    family.slow = anyio.Event()
                    own.start_soon(call, client)
                    await family.asked.wait()
                    tg.start_soon(call, other)
                    own.cancel_scope.cancel()
                # What the first one was to be given is lost with it: a person is asked.
                family.slow.set()
        assert len(person.urls) == 2


async def test_who_was_slower_than_another_process_looks_into_the_store_before_a_person_is_asked() -> None:
    store = MemoryTokenStore()
    async with odd_server() as odd:
        family = Family(odd)
        auth = signing_in(person := Person(), token_store=store)
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as client:
                family.revoke()
                before = family.grant

                async def somebody_else_is_faster(talk: Talk) -> None:
                    record = AuthorizationRecord.model_validate_json(await store.get(odd.url) or "")
                    family.count += 1
                    record.tokens = OAuthToken(
                        access_token=f"key{family.count}", refresh_token=f"refresh{family.count}"
                    )
                    await store.set(odd.url, record.model_dump_json())
                    await before(talk)

                odd.replaced["/token"] = somebody_else_is_faster
                await call(client)
        assert (family.reused, len(person.urls)) == (1, 1)


async def test_a_store_that_takes_nothing_costs_no_refresh() -> None:
    class Full(MemoryTokenStore.__mro__[1]):  # type: ignore[misc]
        async def get(self, server_url: str) -> str | None:
            return None

        async def set(self, server_url: str, record: str) -> None:
            raise OSError("full")

        async def delete(self, server_url: str) -> None:
            raise NotImplementedError

    async with odd_server() as odd:
        family = Family(odd)
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person(), token_store=Full())) as client:
                family.revoke()
                await call(client)
        assert (family.refreshes, family.reused, len(person.urls)) == (1, 0, 1)


@pytest.mark.parametrize("odd_life", [10**400, -1, 0, "", None, 0.5, "x"])
async def test_a_life_of_any_length_costs_no_refresh_for_each_call(odd_life: Any) -> None:
    async with odd_server() as odd:
        family = Family(odd)
        family.expires_in = odd_life
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in()) as client:
                for _ in range(3):
                    await call(client)
        assert family.refreshes <= (3 if odd_life == 0.5 else 0)


@pytest.mark.parametrize("word", ["invalid_client", "unauthorized_client"])
async def test_a_client_that_the_server_has_forgotten_is_registered_anew(word: str) -> None:
    async with odd_server() as odd:
        family = Family(odd)
        person = Person()

        async def forgotten(talk: Talk) -> None:
            if odd.grants[-1]["grant_type"] == "refresh_token":
                await talk.reply(401, json.dumps({"error": word}).encode(), "application/json")
            else:
                await family.grant(talk)

        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person)) as client:
                family.revoke()
                odd.replaced["/token"] = forgotten
                await call(client)
        assert odd.paths["/register"] == 2
        assert len(person.urls) == 2


# --- whose tokens --------------------------------------------------------------------------------------


async def test_each_client_and_each_choice_of_scopes_has_tokens_of_its_own() -> None:
    store, person = MemoryTokenStore(), Person()
    async with odd_server() as odd:
        choices: list[dict[str, Any]] = [
            {},
            {"client_id": "a"},
            {"client_id": "b"},
            {"client_id": "a", "scopes": "read"},
            {"client_id": "a", "scopes": "read write"},
            {"scopes": "read"},
            {"client_id": "a", "issuer": odd.base},
        ]
        with anyio.fail_after(30):
            for _ in range(2):
                for choice in choices:
                    async with client_of(odd.url, signing_in(person, token_store=store, **choice)) as client:
                        await call(client)
            # The order in which they are named is none of the server's business.
            again = signing_in(person, token_store=store, client_id="a", scopes=["write", "read"])
            async with client_of(odd.url, again) as client:
                await call(client)
        assert len(person.urls) == len(choices)
        bearers = {received.headers.get("authorization") for received in odd.faults.requests}
        assert len(bearers - {None}) >= len(choices)


async def test_tokens_of_the_sdks_providers_can_be_kept_apart_as_well() -> None:
    store = MemoryTokenStore()
    one = ServerTokens(store, "https://example.org/mcp", client_id="a")
    await one.set_tokens(OAuthToken(access_token="secret"))
    assert await ServerTokens(store, "https://example.org/mcp", client_id="a").get_tokens() is not None
    for other in ({"client_id": "b"}, {}, {"client_id": "a", "scopes": "x"}):
        assert await ServerTokens(store, "https://example.org/mcp", **other).get_tokens() is None


# --- how often a person is asked -----------------------------------------------------------------------


async def test_a_server_that_no_token_is_good_enough_for_opens_one_browser() -> None:
    async with odd_server() as odd:
        good = odd.accepts
        odd.accepts = lambda talk: good(talk) and talk.received.rpc_method != "tools/call"
        auth = signing_in(person := Person())
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as client:
                for _ in range(10):
                    with pytest.raises(httpx2.HTTPStatusError, match="401"):
                        await call(client)
            # Nor does another session of the store.
            async with client_of(odd.url, auth) as client:
                with pytest.raises(httpx2.HTTPStatusError, match="401"):
                    await call(client)
        assert len(person.urls) == 2  # to connect, and once more to no avail


async def test_a_pause_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PAUSE_SECONDS", 0.1)
    async with odd_server() as odd:
        good = odd.accepts
        odd.accepts = lambda talk: good(talk) and talk.received.rpc_method != "tools/call"
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person())) as client:
                for _ in range(2):
                    with pytest.raises(httpx2.HTTPStatusError):
                        await call(client)
                await anyio.sleep(0.15)
                odd.accepts = lambda talk: talk.received.headers.get("authorization") == "Bearer key3"
                await call(client)
        assert len(person.urls) == 3


async def test_a_server_that_always_wants_another_scope_is_asked_for_one() -> None:
    asked = 0

    def refusal(talk: Talk) -> tuple[int, str]:
        nonlocal asked
        if "authorization" not in talk.received.headers:
            return 401, "Bearer"
        asked += 1
        return 403, f'Bearer error="insufficient_scope", scope="s{asked}"'

    async with odd_server() as odd:
        good = odd.accepts
        odd.accepts = lambda talk: good(talk) and talk.received.rpc_method != "tools/call"
        odd.refusal = refusal
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person())) as client:
                for _ in range(8):
                    with pytest.raises(httpx2.HTTPStatusError, match="403"):
                        await call(client)
        assert len(person.urls) == 2
        assert person.asked["scope"] == "s1"


async def test_scopes_that_help_are_asked_for_as_often_as_they_are_needed() -> None:
    async with odd_server() as odd:
        needed = 0

        def accepts(talk: Talk) -> bool:
            words = talk.received.headers.get("authorization", "")
            return words.startswith("Bearer key") and int(words.removeprefix("Bearer key")) > needed

        odd.accepts = accepts
        odd.refusal = lambda talk: (
            (403, f'Bearer error="insufficient_scope", scope="s{needed}"')
            if "authorization" in talk.received.headers
            else (401, "Bearer")
        )
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person := Person())) as client:
                for needed in range(1, 6):  # noqa: B007
                    await call(client)
        assert len(person.urls) == 6


@pytest.mark.parametrize("how", ["refused", "broken"])
async def test_calls_that_wait_share_one_browser_and_its_failure(how: str) -> None:
    async with odd_server() as odd:
        family = Family(odd)
        person = Person()
        auth = signing_in(person)
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as one, client_of(odd.url, auth) as two:
                family.revoke()
                family.void = True
                if how == "refused":
                    person.brings = {"error": "access_denied", "error_description": "no\x1b[2J", "code": ""}
                else:
                    odd.replaced["/token"] = (400, {"error": "invalid_grant"})
                errors: list[Exception] = []

                async def fail(client: Client) -> None:
                    with pytest.raises(RequestFailedError, match=r"access_denied|invalid_grant") as caught:
                        await call(client)
                    errors.append(caught.value)

                async with anyio.create_task_group() as tg:
                    for client in (one, two) * 5:
                        tg.start_soon(fail, client)
        assert len(person.urls) == 2
        assert len({id(error) for error in errors}) == 10
        assert all(error.reason == "sign_in" for error in errors if isinstance(error, RequestFailedError))
        assert not [error for error in errors if "\x1b" in str(error)]


async def test_sign_ins_that_fail_again_and_again_are_not_asked_for_for_ever() -> None:
    async with odd_server() as odd:
        family = Family(odd)
        person = Person()
        with anyio.fail_after(20):
            async with client_of(odd.url, signing_in(person)) as client:
                family.revoke()
                family.void = True
                person.brings = {"error": "access_denied", "code": ""}
                for attempt in range(8):
                    why = "access_denied" if attempt < 3 else "3 times in a row.*access_denied"
                    with pytest.raises(RequestFailedError, match=why):
                        await call(client)
        assert len(person.urls) == 4


async def test_no_browser_opens_for_a_ping() -> None:
    """Nobody would know why, and for the heartbeat it would open again with each beat."""
    async with odd_server() as odd:
        family = Family(odd)
        auth = signing_in(person := Person())
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as client:
                family.revoke()
                family.void = True
                with pytest.raises(httpx2.HTTPStatusError, match="401"):
                    await client.ping()
                assert len(person.urls) == 1
                await call(client)
                assert len(person.urls) == 2


# --- what is unexpected --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["browser", "store"])
@pytest.mark.parametrize("problem", [LookupError("mine"), UnicodeError("mine"), MCPError(1, "mine")])
async def test_what_is_unexpected_in_a_sign_in_is_the_fault_of_the_request(
    where: str, problem: Exception
) -> None:
    async def breaks(*_: Any) -> None:
        raise problem

    async with odd_server() as odd:
        family = Family(odd)
        person = Person()
        store = MemoryTokenStore()
        opened = 0

        async def opens(url: str) -> None:
            nonlocal opened
            opened += 1
            await (person(url) if opened == 1 or where == "store" else breaks())

        auth = signing_in(token_store=store, open_browser=opens)
        with anyio.fail_after(20):
            async with client_of(odd.url, auth) as client:
                family.revoke()
                family.void = True
                if where == "store":
                    odd.metadata["issuer"] = "http://127.0.0.1:1"
                with pytest.raises(RequestFailedError) as caught:
                    await call(client)
                assert caught.value.reason == "sign_in"
                assert isinstance(caught.value.cause, OAuthFlowError)
                odd.metadata.clear()
                opened = 0
                await call(client)


async def test_an_attempt_that_its_last_waiter_leaves_is_given_up() -> None:
    renewal = Renewal("any", lasting=False, asks_a_person=True)
    async with anyio.create_task_group() as tg:
        tg.start_soon(renewal.run, anyio.sleep_forever)
        with anyio.move_on_after(0.01):
            await renewal.wait()
    assert not renewal.finished


# --- providers of the SDK ------------------------------------------------------------------------------


class Storage:
    """Tokens of two providers."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = OAuthToken(
            access_token="key1", refresh_token="refresh1", expires_in=1
        )
        self.client = OAuthClientInformationFull(client_id="me", redirect_uris=None)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def provider_of(odd: OddServer, storage: Any) -> OAuthClientProvider:
    return OAuthClientProvider(odd.url, OAuthClientMetadata(redirect_uris=None), storage)


async def test_providers_of_one_storage_spend_a_refresh_token_once() -> None:
    async with odd_server() as odd:
        family = Family(odd)
        family.count = 1
        storage = Storage()
        first, second = provider_of(odd, storage), provider_of(odd, storage)
        with anyio.fail_after(20):
            async with client_of(odd.url, first) as one, client_of(odd.url, second) as two:
                for provider in (first, second):
                    provider.context.token_expiry_time = 1.0
                async with anyio.create_task_group() as tg:
                    for client in (one, two) * 4:
                        tg.start_soon(call, client)
        assert (family.refreshes, family.reused) == (1, 0)


async def test_a_provider_with_a_person_is_asked_no_more_once_that_did_not_help() -> None:
    person = Person()

    async def back() -> Any:
        from mcp.client.auth import AuthorizationCodeResult

        return AuthorizationCodeResult(code="c0de", state=person.asked["state"])

    async def show(url: str) -> None:
        person.urls.append(url)

    async with odd_server() as odd:
        good = odd.accepts
        odd.accepts = lambda talk: good(talk) and talk.received.rpc_method != "tools/call"
        provider = OAuthClientProvider(
            odd.url,
            OAuthClientMetadata.model_validate({"redirect_uris": ["http://127.0.0.1:1/callback"]}),
            ServerTokens(MemoryTokenStore(), odd.url),
            redirect_handler=show,
            callback_handler=back,
        )
        with anyio.fail_after(20):
            async with client_of(odd.url, provider) as client:
                for _ in range(6):
                    with pytest.raises(httpx2.HTTPStatusError, match="401"):
                        await call(client)
        assert len(person.urls) == 2


@pytest.mark.parametrize("problem", [LookupError("mine"), RecursionError("mine")])
async def test_a_storage_of_the_users_that_fails_is_the_fault_of_the_request(problem: Exception) -> None:
    class Broken(Storage):
        async def get_tokens(self) -> OAuthToken | None:
            raise problem

    async with odd_server() as odd:
        with anyio.fail_after(20), pytest.raises(ConnectError, match="mine") as caught:
            async with client_of(odd.url, provider_of(odd, Broken())):
                pytest.fail("connected")
        assert isinstance(caught.value, MCPClientError)
        assert not isinstance(caught.value, DeadlineExceededError)

"""Authorization by a person in a browser, for one connection.

The protocol is the SDK's `OAuthClientProvider`; one is made for each time a token has to be obtained, from
what the store holds at that moment, so that connections and processes share what one of them obtained.
This file decides when that is, and what it is done with.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, final
from urllib.parse import urlsplit

import httpx2
from anyio.abc import Listener, SocketStream, TaskGroup
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthTokenError, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from anyio_mcp.auth.answers import quotable
from anyio_mcp.auth.browser import Browser
from anyio_mcp.auth.callback import bind_callback, listen_for_callback
from anyio_mcp.auth.challenges import Challenge, challenge_of
from anyio_mcp.auth.driver import FlowDriver, described
from anyio_mcp.auth.oauth import AUTO, OAuth
from anyio_mcp.auth.origins import Origins
from anyio_mcp.auth.provider import QUIET, TokenAuth, attended, drop, give_up, stand_in_for
from anyio_mcp.auth.records import ServerTokens
from anyio_mcp.auth.sharing import MAX_FAILURES, PAUSE_SECONDS, authorization_for

_LONG_AGO: Final = 1.0
_UNKNOWN_CLIENT: Final = ("invalid_client", "unauthorized_client")
_QUIET_ATTEMPTS: Final = 3
"""Tokens of a store, or for a refresh token, that one request tries before a person is asked."""


@final
class OAuthFlow(TokenAuth):
    """`OAuth` at work for one connection to one server."""

    def __init__(
        self, settings: OAuth, server_url: str, client: httpx2.AsyncClient, tasks: TaskGroup, *, own: bool
    ) -> None:
        parts = urlsplit(server_url)
        # Neither user info nor fragment is part of the name of a resource. A query may be, but then the
        # server says so itself; one that holds a secret is not for authorization servers and browsers.
        named = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        self._server_url = named._replace(query="").geturl()
        self._settings = settings
        self._client_of_ours = own
        self._origins = Origins(
            server_url=self._server_url,
            issuer=settings.issuer,
            plain_http=settings.allow_plain_http,
            resolves=own,
        )
        tokens = ServerTokens(
            settings.token_store,
            named.geturl(),
            client_id=settings.client_id or settings.client_metadata_url,
            scopes=settings.scopes,
            issuer=settings.issuer,
        )
        # Sessions of one store share the record too: what the last of them has obtained needs no reading.
        shared = authorization_for(settings.token_store, tokens.key, lambda: tokens)
        super().__init__(client, tasks, shared)
        self._tokens: ServerTokens = shared.state
        self._loaded = False
        self._refused_refresh: str | None = None

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        await self._prepare(request)
        response = yield request
        for _ in range(_QUIET_ATTEMPTS):
            challenge = challenge_of(response)
            # A token that was refused for its scopes is good: only what another process has obtained helps.
            if challenge is None or not await self._renewed_quietly(request, challenge.status == 401):
                break
            await drop(response)
            self._bear(request)
            response = yield request
        challenge = challenge_of(response)
        # A browser is for those who wait: of the others nobody would know why it opens, or when to stop.
        if challenge is None or not attended(request) or self._is_paused(challenge):
            return
        if not await self._signed_in(request, challenge):
            return
        await drop(response)
        self._bear(request)
        response = yield request
        if challenge_of(response) is None:
            self._shared.helped()
        else:
            give_up(self._shared, challenge.status, request)

    async def _prepare(self, request: httpx2.Request) -> None:
        """Give the request the token there is, if there is one; nobody is asked to sign in yet."""
        if not self._loaded or self._tokens.record.stale:
            await self._renewed_quietly(request, refresh=True)
            self._loaded = True
        self._bear(request)

    def _bear(self, request: httpx2.Request) -> None:
        token = self._tokens.record.access_token
        if token is not None:
            self._origins.check_server()
            request.headers["authorization"] = f"Bearer {token}"

    def _authorization(self) -> str | None:
        record = self._tokens.record
        return None if record.access_token is None or record.stale else f"Bearer {record.access_token}"

    def _is_paused(self, challenge: Challenge) -> bool:
        """Whether nobody is to be asked now. Raises what the last sign-ins came to, if they failed."""
        if not self._shared.paused(challenge.status):
            return False
        failure = self._shared.last_failure
        if failure is not None:
            raise OAuthFlowError(
                f"signing in has failed {MAX_FAILURES} times in a row and is not tried again "
                f"within {PAUSE_SECONDS:g} s: {failure}"
            )
        return True

    # Two ways to another token.

    async def _renewed_quietly(self, request: httpx2.Request, refresh: bool) -> bool:
        refused = request.headers.get("authorization", "").removeprefix("Bearer ") or None

        async def obtain() -> None:
            await self._obtain_quietly(request, refused, refresh)

        return await self._renewed(request, QUIET, obtain, lasting=True)

    async def _obtain_quietly(self, request: httpx2.Request, refused: str | None, refresh: bool) -> None:
        """What another process has stored meanwhile; or a new token for the old one, nobody noticing."""
        record = await self._tokens.load()
        if record.access_token not in (None, refused) and not record.stale:
            return
        old = None if record.tokens is None else record.tokens.refresh_token
        if not refresh or old is None or old == self._refused_refresh:
            return
        before = record.access_token
        storage = _FlowStorage(self._tokens, self._settings, None)
        provider = self._provider(storage)
        provider.context.oauth_metadata = record.metadata
        # The SDK refreshes what it takes for expired, and cannot know the age of what was stored.
        provider.context.token_expiry_time = _LONG_AGO
        driver = self._driver(provider)
        await driver.run(stand_in_for(request))
        if self._tokens.record.access_token != before:
            return
        # Refused: another process may have been faster with it. If not, it is not presented again.
        self._refused_refresh = old
        record = await self._tokens.load()
        if record.access_token == before and record.tokens is not None and record.stale:
            record.tokens = None
        if driver.token_error in _UNKNOWN_CLIENT:
            # The server has forgotten the client, as it is registered here: the next sign-in registers one
            # more.
            record.client = None

    async def _signed_in(self, request: httpx2.Request, challenge: Challenge) -> bool:
        async def obtain() -> None:
            helped = False
            failure: Exception | None = None
            try:
                await self._sign_in(request, challenge)
                helped = True
            except Exception as error:
                failure = described(error)
                raise
            finally:
                # Also when it was given up: the user has looked at a browser to no avail.
                if not helped:
                    self._shared.failed(failure or OAuthFlowError("nobody has finished it"))

        need = ("sign in", challenge.status, challenge.scope if challenge.is_step_up else None)
        return await self._renewed(request, need, obtain, asks_a_person=True)

    async def _sign_in(self, request: httpx2.Request, challenge: Challenge) -> None:
        """A token for the word of the user, in a browser."""
        self._origins.check_server()
        settings, redirect = self._settings, self._settings.redirect
        async with listen_for_callback(await self._bind(), redirect.path) as listener:
            storage = _FlowStorage(self._tokens, settings, AnyUrl(redirect.uri(listener.port)))
            storage.hides_tokens = not challenge.is_step_up
            storage.chosen = () if challenge.is_step_up else tuple(settings.scopes or ())
            browser = Browser(settings.open_browser, listener, amend=self._amended)
            provider = self._provider(storage, browser)
            driver = self._driver(provider)
            browser.check = driver.check_metadata
            refused = request.headers.get("authorization") if challenge.is_step_up else None
            await driver.run(stand_in_for(request), self._asked(challenge), refused)

    async def _bind(self) -> list[Listener[SocketStream]]:
        """Where the browser will be sent back to: where the client is registered, if that is still free."""
        redirect = self._settings.redirect
        try:
            return await bind_callback(redirect.port or self._registered_port(), redirect.host)
        except OSError as error:
            if redirect.port:
                where = f"port {redirect.port} of {redirect.host}"
                raise OAuthFlowError(f"cannot listen on {where}: {error.strerror}") from None
        # A client registered for a port that somebody else has now is of no use: one more is registered.
        return await bind_callback(0, redirect.host)

    def _registered_port(self) -> int:
        """The port a client was registered for; 0 if it was not by us."""
        client, redirect = self._tokens.record.client, self._settings.redirect
        for uri in (client and client.redirect_uris) or ():
            if uri.port is not None and str(uri) == str(AnyUrl(redirect.uri(uri.port))):
                return uri.port
        return 0

    def _asked(self, challenge: Challenge) -> Challenge:
        """The challenge, naming the scopes of the user's choice if there are any."""
        scopes = self._settings.scopes
        if challenge.is_step_up or not scopes:
            return challenge
        return Challenge(challenge.status, " ".join(scopes), challenge.resource_metadata)

    def _amended(self, fields: dict[str, str]) -> dict[str, str]:
        """The parameters of a request, with the `resource` of the user's choice."""
        resource = self._settings.resource
        if resource == AUTO:
            return fields
        rest = {name: value for name, value in fields.items() if name != "resource"}
        return rest if resource is None else {**rest, "resource": resource}

    def _provider(self, storage: _FlowStorage, browser: Browser | None = None) -> OAuthClientProvider:
        metadata = OAuthClientMetadata(
            redirect_uris=None if storage.redirect is None else [storage.redirect],
            client_name=self._settings.client_name,
        )
        provider = OAuthClientProvider(
            self._server_url,
            metadata,
            storage,
            redirect_handler=None if browser is None else browser.open,
            callback_handler=None if browser is None else browser.wait,
            client_metadata_url=self._settings.client_metadata_url,
        )
        storage.provider = provider
        return provider

    def _driver(self, provider: OAuthClientProvider) -> FlowDriver:
        settings = self._settings
        return FlowDriver(
            provider,
            self._client,
            self._origins,
            own=self._client_of_ours,
            pkce=not settings.assume_pkce,
            amend=None if settings.resource == AUTO else self._amended,
            registers=settings.client_id is None,
        )


@final
class _FlowStorage(TokenStorage):
    """What one run of the SDK's flow may know of the record, and where it leaves what it obtained."""

    def __init__(self, tokens: ServerTokens, settings: OAuth, redirect: AnyUrl | None) -> None:
        self.redirect = redirect
        self.provider: OAuthClientProvider | None = None
        self.hides_tokens = False
        """A token that was refused must not keep the flow from asking for another one."""
        self.chosen: tuple[str, ...] = ()
        """The scopes of the user's choice, where they are asked for."""
        self._tokens = tokens
        self._settings = settings

    async def get_tokens(self) -> OAuthToken | None:
        return None if self.hides_tokens else self._tokens.record.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        if tokens.scope and self.chosen and not _grants_any(tokens.scope, self.chosen):
            # Whoever has agreed to it has agreed to something else than what this program is to do.
            raise OAuthTokenError(
                f"the token is for {quotable(tokens.scope)!r}, for none of the scopes that were asked for"
            )
        metadata = None if self.provider is None else self.provider.context.oauth_metadata
        if metadata is not None:
            self._tokens.record.metadata = metadata
        await self._tokens.set_tokens(tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        settings, client = self._settings, self._tokens.record.client
        if settings.client_id is not None:
            return OAuthClientInformationFull(
                client_id=settings.client_id,
                client_secret=settings.client_secret,
                redirect_uris=None if self.redirect is None else [self.redirect],
                token_endpoint_auth_method="none" if settings.client_secret is None else settings.client_auth,
            )
        if client is None or self.redirect is None or self.redirect in (client.redirect_uris or ()):
            return client
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        if not client_info.redirect_uris and self.redirect is not None:
            # A server may leave them out of its answer; the next session has to know its port.
            client_info.redirect_uris = [self.redirect]
        await self._tokens.set_client_info(client_info)


def _grants_any(granted: str, chosen: tuple[str, ...]) -> bool:
    """Whether a granted scope is one of `chosen`, or what a server makes of one: Google grants
    `https://www.googleapis.com/auth/userinfo.email` for `email`, and GitHub separates them by commas."""
    names = granted.replace(",", " ").split()
    return any(name.endswith(each) or each.endswith(name) for name in names for each in chosen)

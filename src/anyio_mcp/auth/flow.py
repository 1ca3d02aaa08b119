"""Authorization by a person in a browser, for one connection.

The protocol is the SDK's `OAuthClientProvider`; one is made for each time a token has to be obtained, from
what the store holds at that moment, so that connections and processes share what one of them obtained.
This file decides when that is, opens the browser, and waits for its return.
"""

from __future__ import annotations

import re
import webbrowser
from collections.abc import AsyncGenerator
from typing import Final, final
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from anyio.abc import Listener, SocketStream
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, OAuthFlowError, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from anyio_mcp.auth.callback import HOST, CallbackListener, bind_callback, listen_for_callback
from anyio_mcp.auth.oauth import OAuth, OpenBrowser
from anyio_mcp.auth.provider import TokenAuth, attended, challenged, drop
from anyio_mcp.auth.records import ServerTokens
from anyio_mcp.handlers.handler import Handler

_SCOPE_PARAMETER: Final = re.compile(r'\bscope=("[^"]*"|[^\s,]+)\s*,?\s*')
_LONG_AGO: Final = 1.0
_CLOSING_SECONDS: Final = 1.0
"""For what shows a browser to end by itself, once that has come back."""


@final
class OAuthFlow(TokenAuth):
    """`OAuth` at work for one connection to one server."""

    def __init__(self, settings: OAuth, server_url: str, client: httpx2.AsyncClient) -> None:
        super().__init__(client)
        parts = urlsplit(server_url)
        # Neither user info nor fragment is part of the name of a resource. A query may be, but then the
        # server says so itself; one that holds a secret is not for authorization servers and browsers.
        named = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        self._server_url = named._replace(query="").geturl()
        self._settings = settings
        self._tokens = ServerTokens(settings.token_store, named.geturl())
        self._loaded = False

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        await self._start(request)
        response = yield request
        # Adopted once more: a refresh is refused as well when somebody else was faster with it.
        for renew in (self._adopt, self._refresh, self._adopt, self._sign_in):
            # A browser is for those who wait: of the others nobody would know why it opens, or when to stop.
            if not challenged(response) or (renew == self._sign_in and not attended(request)):
                return
            async with self.turn(request):
                # Another request may have renewed it while this one waited.
                renewed = self._is_news(request) or await renew(request, response)
            if renewed:
                await drop(response)
                self._bear(request)
                response = yield request

    async def _start(self, request: httpx2.Request) -> None:
        """Give the request the token there is, if there is one; nobody is asked to sign in yet."""
        if not self._loaded or self._tokens.record.stale:
            async with self.turn(request):
                if not self._loaded or self._tokens.record.stale:
                    record = await self._tokens.load()
                    self._loaded = True
                    if record.stale:
                        await self._refresh(request)
        self._bear(request)

    def _bear(self, request: httpx2.Request) -> None:
        token = self._tokens.record.access_token
        if token is not None:
            request.headers["authorization"] = f"Bearer {token}"

    def _is_news(self, request: httpx2.Request) -> bool:
        token = self._tokens.record.access_token
        return token is not None and request.headers.get("authorization") != f"Bearer {token}"

    # Three ways to another token, from the cheapest on. Each returns whether there is one.

    async def _adopt(self, request: httpx2.Request, _: httpx2.Response) -> bool:
        """What another connection, or another process, has stored meanwhile."""
        record = await self._tokens.load()
        return self._is_news(request) and not record.stale

    async def _refresh(self, request: httpx2.Request, challenge: httpx2.Response | None = None) -> bool:
        """A new token for the old one, without anybody noticing."""
        record = self._tokens.record
        if not record.refreshable or (challenge is not None and challenge.status_code != 401):
            return False
        before = record.access_token
        storage = _FlowStorage(self._tokens, self._settings, None)
        provider = self._provider(storage)
        provider.context.oauth_metadata = record.metadata
        # The SDK refreshes what it takes for expired, and cannot know the age of what was stored.
        provider.context.token_expiry_time = _LONG_AGO
        await self.pump(provider, request)
        if record.access_token == before and record.tokens is not None:
            # Refused. What expired and cannot be refreshed is of no use; what has not may be.
            record.tokens = None if record.stale else record.tokens.model_copy(update={"refresh_token": None})
        return record.access_token not in (None, before)

    async def _sign_in(self, request: httpx2.Request, challenge: httpx2.Response) -> bool:
        """A token for the word of the user, in a browser."""
        before = self._tokens.record.access_token
        async with listen_for_callback(await self._bind()) as listener:
            storage = _FlowStorage(self._tokens, self._settings, AnyUrl(listener.redirect_uri))
            storage.hides_tokens = challenge.status_code == 401
            provider = self._provider(storage, _Browser(self._settings.open_browser, listener))
            await self.pump(provider, request, self._asking(challenge))
        return self._tokens.record.access_token not in (None, before)

    async def _bind(self) -> Listener[SocketStream]:
        """Where the browser will be sent back to: where the client is registered, if that is still free."""
        port = self._settings.callback_port
        try:
            return await bind_callback(port or _registered_port(self._tokens.record.client))
        except OSError as error:
            if port is not None:
                raise OAuthFlowError(f"cannot listen on port {port} of 127.0.0.1: {error.strerror}") from None
        # A client registered for a port that somebody else has now is of no use: one more is registered.
        return await bind_callback()

    def _asking(self, challenge: httpx2.Response) -> httpx2.Response:
        """The challenge, naming the scopes of the user's choice if there are any."""
        scopes = self._settings.scopes
        if challenge.status_code != 401 or not scopes:
            return challenge
        named = _SCOPE_PARAMETER.sub("", challenge.headers.get("www-authenticate", "Bearer"))
        value = f'Bearer scope="{" ".join(scopes)}", {named.removeprefix("Bearer").strip()}'.rstrip(", ")
        return httpx2.Response(401, headers={"www-authenticate": value}, request=challenge.request)

    def _provider(self, storage: _FlowStorage, browser: _Browser | None = None) -> OAuthClientProvider:
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


@final
class _FlowStorage(TokenStorage):
    """What one run of the SDK's flow may know of the record, and where it leaves what it obtained."""

    def __init__(self, tokens: ServerTokens, settings: OAuth, redirect: AnyUrl | None) -> None:
        self.redirect = redirect
        self.provider: OAuthClientProvider | None = None
        self.hides_tokens = False
        """A token that was refused must not keep the flow from asking for another one."""
        self._tokens = tokens
        self._settings = settings

    async def get_tokens(self) -> OAuthToken | None:
        return None if self.hides_tokens else self._tokens.record.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
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


@final
class _Browser:
    """Sends the user to a URL, and waits for what comes back."""

    def __init__(self, opener: OpenBrowser | None, listener: CallbackListener) -> None:
        self._show = Handler("browser", opener or webbrowser.open)
        self._listener = listener

    async def open(self, url: str) -> None:
        # An endpoint may have a query of its own (RFC 6749, 3.1), and the SDK puts its "?" behind that.
        endpoint, _, query = url.rpartition("?")
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"
        (state,) = parse_qs(query)["state"]
        self._listener.expect(state)
        shown: object = None
        failure: Exception | None = None
        async with anyio.create_task_group() as showing:
            showing.start_soon(self._until_back, showing.cancel_scope, name="anyio_mcp oauth browser")
            try:
                shown = await self._show(url)
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            showing.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if shown is False:
            raise OAuthFlowError("no browser could be opened to sign in; OAuth(open_browser=) is how else")

    async def _until_back(self, showing: anyio.CancelScope) -> None:
        """Some browsers return only when they are left: whoever has signed in does not wait for that."""
        await self._listener.wait()
        await anyio.sleep(_CLOSING_SECONDS)
        showing.cancel()

    async def wait(self) -> AuthorizationCodeResult:
        callback = await self._listener.wait()
        if callback.error is not None:
            raise OAuthFlowError(f"signing in was refused: {callback.error[:80]!r}")
        return AuthorizationCodeResult(code=callback.code, state=callback.state, iss=callback.issuer)


def _registered_port(client: OAuthClientInformationFull | None) -> int:
    """The port a client was registered for; 0 if it was not by us."""
    for uri in (client and client.redirect_uris) or ():
        if uri.host == HOST and uri.port is not None:
            return uri.port
    return 0

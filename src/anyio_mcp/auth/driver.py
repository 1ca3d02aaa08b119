"""A flow of the SDK, driven up to where it would send the request it authenticates.

The flow decides what is asked next; here it is asked: where that may be (`origins.py`), bounded in bytes
and in time, without the user's and the connection's own authentication, and answered to the flow as it can
understand (`answers.py`). What is unexpected ends the flow with a typed error, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, final
from urllib.parse import urlencode, urljoin, urlsplit

import anyio
import anyio.to_thread
import httpx2
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthRegistrationError
from pydantic import ValidationError

from anyio_mcp._text import get_logger
from anyio_mcp.auth.answers import (
    client_answer,
    form,
    quotable,
    resource_answer,
    same_issuer,
    server_answer,
    token_answer,
)
from anyio_mcp.auth.challenges import Challenge
from anyio_mcp.auth.origins import Origins
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import request_timeout
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports._url import visible

logger = get_logger(__name__)

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Of an authorization server. Metadata and tokens are a few kilobytes."""

ANSWER_SECONDS: Final = 30.0
"""For one answer of an authorization server, its body included."""

HINT_SECONDS: Final = 5.0
"""For what a refusal says is the metadata. There are other places to look for it, within the same
deadline."""

_RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"
_SERVER_METADATA: Final = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
_NOT_OURS: Final = frozenset({"host", "content-length", "accept-encoding", "connection"})


@final
class FlowDriver:
    """Drives the flows of one provider, for one server. `own`: the client is one that was made for the
    server alone."""

    def __init__(
        self,
        provider: httpx2.Auth,
        client: httpx2.AsyncClient,
        origins: Origins,
        *,
        own: bool,
        pkce: bool,
        amend: Callable[[dict[str, str]], dict[str, str]] | None = None,
        registers: bool = True,
    ) -> None:
        self._provider = provider
        self._context = provider.context if isinstance(provider, OAuthClientProvider) else None
        self._client = client
        self._origins = origins
        self._own = own
        self._pkce = pkce
        self._amend = amend
        self._registers = registers
        self.token_error: str | None = None
        """The word of the authorization server for why it gave no token in the last run."""
        self._trouble: str | None = None
        """Why there is no metadata of the authorization server, or none that may be used."""
        self._stops = False
        """Whether that ends the sign-in also where a server of 2025-03-26 would need no metadata."""

    async def run(
        self, request: httpx2.Request, challenge: Challenge | None = None, refused: str | None = None
    ) -> None:
        """Have the flow put its token on `request`, which is not sent.

        With a `challenge`, that is what the flow gets as the response to it, unless the flow has another
        token than the one that was `refused`. Raises `OAuthFlowError`.
        """
        self.token_error, self._trouble, self._stops = None, None, False
        flow = self._provider.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            while True:
                if outgoing is not request:
                    answer = await self._answer(outgoing)
                elif challenge is None or request.headers.get("authorization") != refused:
                    return
                else:
                    answer, challenge = self._asking(challenge, request), None
                outgoing = await flow.asend(answer)
        except StopAsyncIteration:
            return  # it gave up, and the response stays what it was
        except OAuthFlowError:
            raise
        except ValidationError as error:
            raise described(error) from None  # its text quotes what was validated
        except Exception as error:  # of the flow, or of a function of the user's that it calls
            raise described(error) from error
        finally:
            await flow.aclose()

    def check_metadata(self) -> None:
        """Raises `OAuthFlowError` unless it is known whom a secret, or the user, is sent to."""
        context, issuer = self._context, self._origins.issuer
        if context is None:
            return  # a provider whose authorization server is a setting
        metadata = context.oauth_metadata
        if metadata is None and (self._stops or context.protected_resource_metadata is not None):
            where = context.auth_server_url or self._origins.server_url
            raise OAuthFlowError(
                f"no metadata of the authorization server {visible(where)} can be used"
                f"{f': {self._trouble}' if self._trouble else ''}"
            )
        named = urljoin(self._origins.server_url, "/") if metadata is None else str(metadata.issuer)
        if issuer is not None and not same_issuer(named, issuer):
            raise OAuthFlowError(
                f"{visible(self._origins.server_url)} wants tokens of {visible(named)}, "
                f"not of the issuer {visible(issuer)}"
            )

    def _asking(self, challenge: Challenge, request: httpx2.Request) -> httpx2.Response:
        """The challenge with what of its hint can be used."""
        hint = challenge.resource_metadata
        if hint is not None:
            hint = urljoin(self._origins.server_url, hint)
            try:
                hint = str(self._origins.check(hint))
            except OAuthFlowError as error:
                logger.warning("a hint at metadata is passed over: %s", error)
                hint = None
        return challenge.response(request, challenge.scope, hint)

    async def _answer(self, outgoing: httpx2.Request) -> httpx2.Response:
        if outgoing.method != "GET":
            self.check_metadata()
            return await (self._token(outgoing) if form(outgoing) else self._registration(outgoing))
        if any(part in outgoing.url.path for part in _SERVER_METADATA):
            return await self._server_metadata(outgoing)
        return await self._resource_metadata(outgoing)

    async def _resource_metadata(self, outgoing: httpx2.Request) -> httpx2.Response:
        origins, url = self._origins, str(outgoing.url)
        own = urlsplit(urljoin(origins.server_url, "/"))
        well_known = url.startswith(f"{own.scheme}://{own.netloc}{_RESOURCE_METADATA}")
        try:
            response = await self._ask(outgoing, ANSWER_SECONDS if well_known else HINT_SECONDS)
        except OAuthFlowError as error:
            if well_known:
                raise
            logger.warning("a hint at metadata is passed over: %s", error)
            return _reply(404, outgoing)
        status = response.status_code
        found = resource_answer(response.content, well_known, origins) if status == 200 else None
        if found is not None:
            return _reply(200, outgoing, found)
        if status >= 500 and well_known:
            return _reply(status, outgoing)
        if origins.issuer is not None and well_known and outgoing.url.path == _RESOURCE_METADATA:
            # The last place to look. The server says nothing, and the user does.
            said = {"resource": origins.server_url, "authorization_servers": [origins.issuer]}
            return _reply(200, outgoing, said)
        return _reply(404, outgoing)

    async def _server_metadata(self, outgoing: httpx2.Request) -> httpx2.Response:
        where = visible(str(outgoing.url))
        response = await self._ask(outgoing, ANSWER_SECONDS)
        status = response.status_code
        if status != 200:
            self._trouble = f"{where} answered with status {status}"
            # An outage is no reason to go by the addresses that metadata would have replaced.
            self._stops = self._stops or status >= 500 or status == 429
            return _reply(status, outgoing)
        expected = None if self._context is None else self._context.auth_server_url
        found = server_answer(response.content, expected, self._origins, registers=self._registers)
        if found is None:
            self._trouble = f"{where} answered with something that is no metadata"
            return _reply(404, outgoing)
        if self._pkce and "S256" not in found.get("code_challenge_methods_supported", ()):
            # https://modelcontextprotocol.io/specification/2025-11-25/basic/authorization#authorization-code-protection
            # has clients refuse. Another well-known address of the server may have a document that says it.
            self._trouble = f"{where} does not say that PKCE with S256 is supported"
            self._stops = True
            return _reply(404, outgoing)
        return _reply(200, outgoing, found)

    async def _token(self, outgoing: httpx2.Request) -> httpx2.Response:
        if self._amend is not None:
            fields = self._amend(form(outgoing))
            headers = {name: value for name, value in outgoing.headers.items() if name not in _NOT_OURS}
            content = urlencode(fields).encode()
            outgoing = httpx2.Request(outgoing.method, outgoing.url, headers=headers, content=content)
        response = await self._ask(outgoing, ANSWER_SECONDS)
        status, body = token_answer(outgoing, response)
        if status != 200 and body:
            self.token_error = json.loads(body)["error"]
        return httpx2.Response(status, content=body, request=outgoing)

    async def _registration(self, outgoing: httpx2.Request) -> httpx2.Response:
        metadata = None if self._context is None else self._context.oauth_metadata
        if metadata is not None and metadata.registration_endpoint is None:
            issuer = str(metadata.issuer)
            if urlsplit(issuer).netloc != urlsplit(self._origins.server_url).netloc:
                raise OAuthRegistrationError(
                    f"{visible(issuer)} registers no clients; one that is registered already is named by "
                    "OAuth(client_id=)"
                )
        response = await self._ask(outgoing, ANSWER_SECONDS)
        return httpx2.Response(201, content=client_answer(outgoing, response), request=outgoing)

    async def _ask(self, outgoing: httpx2.Request, seconds: float) -> httpx2.Response:
        """The response to a request of the flow itself: bounded, complete, and of an address that may be
        asked."""
        url = str(outgoing.url)
        await self._origins.check_resolved(url)
        headers = {name: value for name, value in outgoing.headers.items() if name not in _NOT_OURS}
        headers["accept"] = "application/json"
        with anyio.move_on_after(seconds):
            async with self._client_for(url) as client:
                http = HttpRequester(
                    client,
                    url,
                    headers={},
                    auth=_anonymous,
                    timeout=request_timeout(client),
                    policy=HttpPolicy(),
                )
                try:
                    async with http.open(outgoing.method, headers, outgoing.content or None) as response:
                        body = bytes(await http.read(response, MAX_ANSWER_BYTES))
                        status, kind = response.status_code, response.headers.get("content-type", "")
                except RequestFailedError as error:
                    if error.reason == "redirect":
                        # The flow looks elsewhere if it can, and says that this was nothing if it cannot.
                        logger.warning("a redirect ends here: %s", error)
                        return _reply(404, outgoing)
                    big = error.reason == "oversized"
                    # Without the cause: it holds the request, and with it the client's secrets.
                    raise OAuthFlowError(
                        f"{visible(url)} answered with too much" if big else str(error)
                    ) from None
            return httpx2.Response(status, headers={"content-type": kind}, content=body, request=outgoing)
        raise OAuthFlowError(f"{visible(url)} did not answer in {seconds:g} s")

    @asynccontextmanager
    async def _client_for(self, url: str) -> AsyncGenerator[httpx2.AsyncClient]:
        """The connection's client; one with CA certificates where ours was made for a server that needs
        none."""
        if (
            not self._own
            or urlsplit(self._origins.server_url).scheme == "https"
            or not url.startswith("https:")
        ):
            yield self._client
            return
        # In a thread: reading the certificates takes longer than the event loop may be kept from everything
        # else.
        verify = await anyio.to_thread.run_sync(httpx2.create_ssl_context, abandon_on_cancel=True)
        client = httpx2.AsyncClient(verify=verify, timeout=self._client.timeout, follow_redirects=False)
        try:
            yield client
        finally:
            # Shielded: sockets would be left behind. Closing them does not wait for the peer.
            with anyio.move_on_after(HttpPolicy().release_seconds, shield=True):
                await client.aclose()


def described(error: Exception) -> OAuthFlowError:
    """What stopped a flow, as the error it raises: whatever it was, it is the sign-in that failed."""
    if isinstance(error, OAuthFlowError):
        return error
    if isinstance(error, ValidationError):
        return OAuthFlowError(f"an authorization server's {error.title} is not valid")
    return OAuthFlowError(f"signing in failed: {type(error).__name__}: {quotable(str(error))}")


def _reply(status: int, outgoing: httpx2.Request, members: dict[str, Any] | None = None) -> httpx2.Response:
    content = b"" if members is None else json.dumps(members).encode()
    return httpx2.Response(status, content=content, request=outgoing)


def _anonymous(request: Any) -> Any:
    """The authentication of a request that has its own or none: neither the user's nor the connection's."""
    return request

"""An OAuth provider of the SDK as the authentication of one connection.

A provider holds its lock until the response to the request it authenticates has begun, so that every
call, the heartbeat too, would wait for the slowest. Here it only obtains tokens: its flow is driven up to
the point where it would send the request, and the request is sent without it. What the flow asks of
authorization servers is read up to a limit, and what may be secret in it reaches no exception and no log.
Must not know of browsers or stores.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, cast, final
from urllib.parse import parse_qsl, quote, quote_plus, unquote

import anyio
import httpx2
from mcp.client.auth import OAuthFlowError, OAuthRegistrationError, OAuthTokenError
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import BaseModel, ValidationError

from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._headers import SESSION_ID
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import request_timeout
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports._url import visible

MAX_ANSWER_BYTES: Final = 1024 * 1024
"""Of an authorization server. Metadata and tokens are a few kilobytes."""

UNATTENDED_SECONDS: Final = 30.0
"""How long a request without a caller may take to obtain a token, while everybody else's waits for it."""

# As our transports write them. To parse a message, which may be large, would cost more.
_REQUEST: Final = re.compile(rb'\{"jsonrpc":"2\.0","id":(?:-?\d+|"(?:[^"\\]|\\.)*"),"method":')
_FORM: Final = "application/x-www-form-urlencoded"
_SECRET_FIELDS: Final = frozenset(
    {"code", "code_verifier", "refresh_token", "client_secret", "client_assertion", "assertion"}
)
_NOT_OURS: Final = frozenset({"host", "content-length", "accept-encoding", "connection"})
_WORDS: Final = 200


class TokenAuth(httpx2.Auth):
    """The authentication of one connection by tokens that have to be obtained.

    Everything runs in the task of the request that needs a token, so whatever bounds or cancels the
    request does so with the authorization.
    """

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client
        self._waiting = 0
        self._turn: anyio.Event | None = None
        """Set when the request that obtains a token is done with that; None while none does."""

    @property
    def waiting(self) -> bool:
        """Whether a request waits for a token, which may be for a person: no silence of the server."""
        return self._waiting > 0

    @asynccontextmanager
    async def turn(self, request: httpx2.Request) -> AsyncGenerator[None]:
        """Around obtaining a token for `request`. One at a time does; the others wait, and have to look
        first whether there is one by now. Raises `OAuthFlowError` for one that nobody else would end."""
        self._waiting += 1
        try:
            while self._turn is not None:
                await self._turn.wait()
            # No await between the check and this.
            mine = self._turn = anyio.Event()
            seconds = None if attended(request) else UNATTENDED_SECONDS
            try:
                with anyio.move_on_after(seconds) as scope:
                    yield
            finally:
                self._turn = None
                mine.set()
            if scope.cancelled_caught:
                raise OAuthFlowError(f"no token was obtained in {seconds} s")
        finally:
            self._waiting -= 1

    async def pump(
        self, provider: httpx2.Auth, request: httpx2.Request, challenge: httpx2.Response | None = None
    ) -> None:
        """Drive the flow of `provider` until it would send `request`, and leave its token on that.

        With a `challenge`, the refusal of `request`, that is what the flow gets as its response, unless
        it has another token by now.
        """
        refused = request.headers.get("authorization")
        flow = provider.async_auth_flow(request)
        try:
            outgoing = await anext(flow)
            while True:
                if outgoing is not request:
                    if request.url.scheme == "https" != outgoing.url.scheme:
                        # RFC 6749, 3.2: no metadata is a reason to send secrets in the clear.
                        raise OAuthFlowError(f"signing in leads to {visible(str(outgoing.url))}, without TLS")
                    answer = await self._ask(outgoing)
                elif challenge is None or request.headers.get("authorization") != refused:
                    return
                else:
                    answer, challenge = challenge, None
                outgoing = await flow.asend(answer)
        except StopAsyncIteration:
            return  # it gave up, and the response stays what it was
        except ValidationError as error:
            # Its text quotes what was validated.
            raise OAuthFlowError(f"an authorization server's {error.title} is not valid") from None
        finally:
            await flow.aclose()

    async def _ask(self, outgoing: httpx2.Request) -> httpx2.Response:
        """The response to a request of the flow itself: bounded, complete, and fit to be quoted."""
        url = str(outgoing.url)
        http = HttpRequester(
            self._client,
            url,
            headers={},
            auth=_anonymous,
            timeout=request_timeout(self._client),
            policy=HttpPolicy(),
        )
        headers = {name: value for name, value in outgoing.headers.items() if name not in _NOT_OURS}
        try:
            async with http.open(outgoing.method, headers, outgoing.content or None) as response:
                body = bytes(await http.read(response, MAX_ANSWER_BYTES))
                status, kept = response.status_code, dict(response.headers)
        except RequestFailedError as error:
            if error.reason == "redirect":
                # The SDK's flow looks elsewhere if it can, and says that this was nothing if it cannot.
                return httpx2.Response(404, request=outgoing)
            text = str(error) if error.reason == "transport" else f"{visible(url)} answered with too much"
            # Without the cause: it holds the request, and with it the client's secrets.
            raise OAuthFlowError(text) from None
        fields = form(outgoing)
        if (status >= 500 or status == 429) and fields.get("grant_type") == "refresh_token":
            # An outage says nothing about the refresh token: signing in anew would not end it.
            raise OAuthTokenError(
                f"the token was not refreshed: {visible(url)} answered with status {status}"
            )
        body = screened(outgoing, status, body)
        kind = {"content-type": kept["content-type"]} if "content-type" in kept else {}
        return httpx2.Response(status, headers=kind, content=body, request=outgoing)


@final
class ProviderAuth(TokenAuth):
    """Bears the tokens of a provider of the SDK, which takes no part in the exchanges themselves."""

    def __init__(self, provider: httpx2.Auth, client: httpx2.AsyncClient) -> None:
        super().__init__(client)
        self._provider = provider

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        async with self.turn(request):
            await self.pump(self._provider, request)
        response = yield request
        if not challenged(response):
            return
        async with self.turn(request):
            await self.pump(self._provider, request, response)
        await drop(response)
        yield request


def attended(request: httpx2.Request) -> bool:
    """Whether a caller waits for the answer, whose deadline ends the wait for a token as well: not for that
    to a notification, to the end of a session, or to a GET in one, which listens."""
    if request.method == "POST":
        return _REQUEST.match(request.content) is not None
    return request.method == "GET" and SESSION_ID not in request.headers


def challenged(response: httpx2.Response) -> bool:
    """Whether another token could change the answer."""
    if response.status_code == 403:
        return "insufficient_scope" in response.headers.get("www-authenticate", "")
    return response.status_code == 401


async def drop(response: httpx2.Response) -> None:
    """Have httpx not read the body of a refusal, which may have no end, before it sends the request again."""
    await cast("httpx2.AsyncByteStream", response.stream).aclose()
    response.headers.pop("content-encoding", None)
    response.stream = httpx2.ByteStream(b"")


def form(request: httpx2.Request) -> Mapping[str, str]:
    """The fields of a request to a token endpoint; empty for any other request."""
    if not request.headers.get("content-type", "").startswith(_FORM):
        return {}
    return dict(parse_qsl(request.content.decode("utf-8", "replace")))


def screened(outgoing: httpx2.Request, status: int, body: bytes) -> bytes:
    """`body` as the SDK may see it, whose exceptions and logs quote what they do not like.

    Raises `OAuthTokenError` or `OAuthRegistrationError` for a success that is none.
    """
    if outgoing.method != "POST":
        return body
    fields = form(outgoing)
    if status in (200, 201):
        model: type[BaseModel] = OAuthToken if fields else OAuthClientInformationFull
        try:
            model.model_validate_json(body)
        except ValidationError:
            where = visible(str(outgoing.url))
            if fields:
                raise OAuthTokenError(f"{where} answered with something that is no token") from None
            raise OAuthRegistrationError(f"{where} answered with something that is no client") from None
        return body
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return b""
    members = cast("dict[str, object]", found) if isinstance(found, dict) else {}
    kept: dict[str, str] = {}
    for name in ("error", "error_description"):
        text = members.get(name)
        if isinstance(text, str):
            for secret in _secrets(outgoing, fields):
                text = text.replace(secret, "***")
            kept[name] = text[:_WORDS]
    return json.dumps(kept).encode()


def _secrets(outgoing: httpx2.Request, fields: Mapping[str, str]) -> list[str]:
    """What of a request to a token endpoint its answer may not repeat, as it is and as it was sent."""
    found = {value for key, value in fields.items() if key in _SECRET_FIELDS and value}
    credentials = outgoing.headers.get("authorization", "").rpartition(" ")[2]
    if credentials:
        found.add(credentials)
        with suppress(ValueError):
            _, _, secret = base64.b64decode(credentials).decode().partition(":")
            found.update({secret, unquote(secret)} - {""})
    spelled = {form for value in found for form in (value, quote(value, safe=""), quote_plus(value))}
    # The longest first: one may be a part of another.
    return sorted(spelled, key=len, reverse=True)


def _anonymous(request: Any) -> Any:
    """The authentication of a request that has its own or none: neither the user's nor the connection's."""
    return request

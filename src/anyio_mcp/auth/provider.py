"""The authentication of one connection by tokens that have to be obtained, and the SDK's providers as one.

A request waits for a token in its own task, within its own deadline; the token is obtained in a task of the
connection, for all requests of all connections that wait for the same (`sharing.py`). What a flow of the
SDK asks is asked by `driver.py`. Must not know of browsers or stores.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, TypeVar, cast, final

import anyio
import httpx2
from anyio.abc import TaskGroup
from mcp.client.auth import OAuthClientProvider, OAuthFlowError

from anyio_mcp._text import get_logger
from anyio_mcp.auth.challenges import Challenge, challenge_of
from anyio_mcp.auth.driver import FlowDriver, described
from anyio_mcp.auth.origins import Origins
from anyio_mcp.auth.records import ServerTokens
from anyio_mcp.auth.sharing import Authorization, Need, Renewal, authorization_for
from anyio_mcp.errors import fresh
from anyio_mcp.transports._headers import SESSION_ID
from anyio_mcp.transports._url import visible

logger = get_logger(__name__)

UNATTENDED_SECONDS: Final = 30.0
"""How long a request without a caller waits for a token."""

# As our transports write them. To parse a message, which may be large, would cost more.
_REQUEST: Final = re.compile(rb'\{"jsonrpc":"2\.0","id":(-?\d+|"(?:[^"\\]|\\.)*"),"method":("ping")?')
SIGN_IN_ID: Final = "anyio-mcp-sign-in"
"""Of the ping by which a connection asks for a sign-in."""
_VERSION: Final = "mcp-protocol-version"

StateT = TypeVar("StateT")
QUIET: Final = "quiet"


class TokenAuth(httpx2.Auth):
    """The authentication of one connection. `tasks` is where tokens are obtained: it ends with the
    connection."""

    def __init__(self, client: httpx2.AsyncClient, tasks: TaskGroup, shared: Authorization[Any]) -> None:
        self._client = client
        self._tasks = tasks
        self._shared = shared
        self._waiting = 0

    @property
    def waiting(self) -> bool:
        """Whether a request waits for a token, which may be for a person: no silence of the server."""
        return self._waiting > 0

    @abstractmethod
    def _authorization(self) -> str | None:
        """The header of a request that may be expected to be accepted; None while there is none."""

    def _is_news(self, request: httpx2.Request) -> bool:
        """Whether there is a token that `request` has not been refused with."""
        value = self._authorization()
        return value is not None and request.headers.get("authorization") != value

    async def _renewed(
        self,
        request: httpx2.Request,
        need: Need,
        obtain: Callable[[], Awaitable[None]],
        *,
        lasting: bool = False,
        asks_a_person: bool = False,
    ) -> bool:
        """Have a token obtained, or wait for it where that is under way, and say whether there is another
        one now.

        Waits for one attempt of this need, and for those of another need that are in the way. Raises what the
        attempt raised. Cancelled, it leaves the attempt to the others who wait.
        """
        self._waiting += 1
        try:
            with anyio.move_on_after(None if attended(request) else UNATTENDED_SECONDS) as patience:
                while not self._is_news(request):
                    renewal = self._shared.renewal
                    if renewal is None:
                        if self._tasks.cancel_scope.cancel_called:
                            return False  # the session is over: its last request goes as it is
                        renewal = self._shared.start(
                            self._tasks, need, obtain, lasting=lasting, asks_a_person=asks_a_person
                        )
                    await renewal.wait()
                    if self._is_news(request):
                        break
                    if _serves(renewal, need):
                        if renewal.error is not None:
                            raise fresh(renewal.error)
                        if renewal.finished:
                            return False
            if patience.cancelled_caught:
                raise OAuthFlowError(f"no token was obtained in {UNATTENDED_SECONDS:g} s")
            return True
        finally:
            self._waiting -= 1


def _serves(renewal: Renewal, need: Need) -> bool:
    """Whether what has become of `renewal` is what `need` has to be content with. A person who was asked,
    and did not sign in, is not asked again for those who were about to find out that they need that too."""
    return renewal.need == need or (renewal.asks_a_person and need == QUIET)


@final
class ProviderAuth(TokenAuth):
    """Bears the tokens of a provider of the SDK, which takes no part in the exchanges themselves.

    A provider holds its lock until the response to the request it authenticates has begun, so that every
    call, the heartbeat too, would wait for the slowest. Here it only obtains tokens, for a request that is
    never sent.
    """

    def __init__(
        self, provider: httpx2.Auth, client: httpx2.AsyncClient, url: str, tasks: TaskGroup, *, own: bool
    ) -> None:
        # Providers of one storage share what it keeps: a refresh token that rotates is good for one of them.
        context = provider.context if isinstance(provider, OAuthClientProvider) else None
        self._person = context is not None and context.redirect_handler is not None
        storage = None if context is None else context.storage
        shared = (
            authorization_for(provider, "", _Header)
            if storage is None
            else authorization_for(
                storage.store if isinstance(storage, ServerTokens) else storage,
                f"provider {storage.key if isinstance(storage, ServerTokens) else ''}",
                _Header,
            )
        )
        super().__init__(client, tasks, shared)
        self._header = shared.state
        self._provider = provider
        self._context = context
        self._driver = FlowDriver(
            provider, client, Origins(server_url=url, resolves=own), own=own, pkce=self._person
        )

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if not await self._bears(request):
            await self._renewed(request, QUIET, self._obtaining(request, None), lasting=True)
            self._bear(request)
        response = yield request
        challenge = challenge_of(response)
        if challenge is None or (self._person and self._shared.paused(challenge.status)):
            return
        need = (challenge.status, challenge.scope)
        obtain = self._obtaining(request, challenge)
        if not await self._renewed(request, need, obtain, asks_a_person=self._person):
            return
        await drop(response)
        self._bear(request)
        response = yield request
        if self._person and challenge_of(response) is not None:
            give_up(self._shared, challenge.status, request)

    def _authorization(self) -> str | None:
        return self._header.value

    def _bear(self, request: httpx2.Request) -> None:
        if self._header.value is not None:
            request.headers["authorization"] = self._header.value

    async def _bears(self, request: httpx2.Request) -> bool:
        """Have the provider sign `request`, if it can without asking anybody."""
        self._waiting += 1  # its lock may be taken
        before = self._header.value
        flow = self._provider.async_auth_flow(request)
        try:
            bears = await anext(flow) is request
            if bears:
                self._header.value = request.headers.get("authorization")
            elif self._header.value == before:
                self._header.value = None  # it is to be replaced
            return bears
        except StopAsyncIteration:
            return True
        except Exception as error:
            raise described(error) from error
        finally:
            self._waiting -= 1
            await flow.aclose()

    def _obtaining(
        self, request: httpx2.Request, challenge: Challenge | None
    ) -> Callable[[], Awaitable[None]]:
        refused = request.headers.get("authorization")

        async def obtain() -> None:
            await self._catch_up()
            stand_in = stand_in_for(request)
            await self._driver.run(stand_in, challenge, refused)
            self._header.value = stand_in.headers.get("authorization")

        return obtain

    async def _catch_up(self) -> None:
        """Take over what another provider has left in the storage."""
        context = self._context
        if context is None or context.current_tokens is None:
            return
        stored = await context.storage.get_tokens()
        if stored is not None and stored.access_token != context.current_tokens.access_token:
            context.current_tokens = stored
            context.update_token_expiry(stored)


@final
class _Header:
    """What a provider has a request bear."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: str | None = None


def stand_in_for(request: httpx2.Request) -> httpx2.Request:
    """What a flow of the SDK is shown for `request`, which belongs to the call that waits."""
    headers = {_VERSION: request.headers[_VERSION]} if _VERSION in request.headers else {}
    return httpx2.Request(request.method, request.url, headers=headers)


def give_up(shared: Authorization[Any], status: int, request: httpx2.Request) -> None:
    """A token that was just obtained is refused: a person asked for another one would get the same."""
    where = visible(str(request.url))
    logger.warning(
        "%s refuses with %d a token that was obtained for it just now; nobody is asked again", where, status
    )
    shared.pause(status)


def attended(request: httpx2.Request) -> bool:
    """Whether a caller waits for the answer, whose deadline ends the wait for a token as well: not for that
    to a notification, to the end of a session, or to a GET in one, which listens. Nor to a ping: the
    heartbeat would open a browser in the middle of the night, and whatever the answer is, the server is
    alive."""
    if request.method == "POST":
        found = _REQUEST.match(request.content)
        return found is not None and (found[2] is None or found[1] == f'"{SIGN_IN_ID}"'.encode())
    return request.method == "GET" and SESSION_ID not in request.headers


async def drop(response: httpx2.Response) -> None:
    """Have httpx not read the body of a refusal, which may have no end, before it sends the request again."""
    await cast("httpx2.AsyncByteStream", response.stream).aclose()
    response.headers.pop("content-encoding", None)
    response.stream = httpx2.ByteStream(b"")

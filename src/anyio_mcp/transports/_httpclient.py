"""One HTTP request as this library needs it: whose client, which redirects, how errors look, bounded bodies.

Works with an `httpx2.AsyncClient` or a classic `httpx.AsyncClient` and uses only what both share; types
are written for the first. Must not know about JSON-RPC, sessions or streams of events.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, cast, final

import anyio
import httpx2
from anyio import lowlevel

from anyio_mcp._text import get_logger
from anyio_mcp.errors import RequestFailedError
from anyio_mcp.transports._boundary import clear_frames
from anyio_mcp.transports._budget import Pace
from anyio_mcp.transports._decode import ACCEPT_ENCODING, decoder
from anyio_mcp.transports._http2 import Http2Streams, StreamUse, http2_streams
from anyio_mcp.transports._httperrors import failed_at, fault_reason, reason_of, rebuilt_error
from anyio_mcp.transports._httppool import DELAYED
from anyio_mcp.transports._httpsettings import chosen_encoding, pool_timeouts, status_errors
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports._url import DEFAULT_PORTS, redact, visible

logger = get_logger(__name__)

# One read of 64 KiB holds some ten thousand chunks of a byte each.
_BUFFERED_PIECES: Final = 100_000
_PIECES_A_STEP: Final = 256
# Our own URL with each method, and a few that redirects led to; others are made anew each time.
_BARE_REQUESTS: Final = 8
# Tries of a request of which nothing was sent, while others take the streams that become free.
_UNSENT: Final = 4
_KEEPS_METHOD: Final = frozenset({307, 308})


@final
class HttpRequester:
    """Makes the requests of one connection. Shared by its tasks; holds no response."""

    __slots__ = (
        "_bare",
        "_brief",
        "_client",
        "_headers",
        "_last_traffic",
        "_options",
        "_own",
        "_streams",
        "_timeout",
        "_url",
        "describe",
        "make_room",
        "policy",
    )

    def __init__(
        self,
        client: Any,
        url: str,
        *,
        headers: Mapping[str, str],
        auth: Any | None,
        timeout: Any,
        policy: HttpPolicy,
        own: bool = False,
    ) -> None:
        self._client = cast("httpx2.AsyncClient", client)
        # Whether its pool of connections is ours, which has one for each exchange.
        self._own = own
        self._url = url
        self.describe = visible(url)
        # Ours speaks HTTP/1.1, and is nobody else's.
        self._streams = Http2Streams() if own else http2_streams(client, _origin(httpx2.URL(url)))
        # Made once: with a thousand calls in flight to a server that is gone, making it takes longest.
        self._bare: dict[tuple[str, str], Any] = {}
        self._headers = {name.lower(): value for name, value in headers.items()}
        if "accept-encoding" not in self._headers and (own or chosen_encoding(client) is None):
            # What can be undone here; a user who asks for something else gets that, or an error that says so.
            self._headers["accept-encoding"] = ACCEPT_ENCODING
        # Without `auth` the client's own applies, so the argument must not be passed at all.
        self._options: dict[str, Any] = {} if auth is None else {"auth": auth}
        self._timeout = timeout
        self._brief = type(timeout)(
            connect=timeout.connect, read=None, write=timeout.write, pool=policy.pool_seconds
        )
        self.make_room: Callable[[], None] = lambda: None
        """Called when the pool of a user's client has no connection free for a request that somebody waits
        for. It must not wait."""
        self.policy = policy
        self._last_traffic = anyio.current_time()

    @property
    def auth(self) -> object:
        """What every request is signed with; None where that is left to the client."""
        return self._options.get("auth")

    @property
    def last_traffic(self) -> float:
        """When the server was last heard of. While a person signs in it has nothing to say."""
        if getattr(self.auth, "waiting", False):
            self._last_traffic = anyio.current_time()
        return self._last_traffic

    @asynccontextmanager
    async def open(
        self,
        method: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
        *,
        url: str | None = None,
        waits: bool = True,
        lasting: bool = False,
        delayed: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[httpx2.Response]:
        """The response to one request, its body unread. Closed when left, and with it its connection
        unless the body was read to the end.

        Waits for the response's head. Raises `RequestFailedError` when there is none, and for a
        redirect that is not followed; any other status is the caller's to judge. Without `waits` it fails
        where the pool of a user's client has no connection free. `lasting`: a stream of which no end is
        expected, and that may break. `delayed` is that of `Outgoing`.
        """
        # One that lasts is counted by itself: it may break at any time, so no connection is kept for it.
        use = StreamUse(Http2Streams() if lasting else self._streams, self.policy)
        await use.enter()
        try:
            response = await self._send(method, url or self._url, headers, content, use, waits, delayed)
            try:
                yield response
            finally:
                use.over = response.is_closed  # which it is by itself once it is read to its end
                await self._release(response)
        finally:
            await use.leave()

    async def chunks(
        self, response: httpx2.Response, received: Callable[[int], None] | None = None
    ) -> AsyncGenerator[bytes]:
        """The decoded body as it arrives, in pieces of at most 16 KiB. Raises `RequestFailedError` where it
        breaks off. `received` is told how many bytes have come from the network.

        To be used inside `aclosing`, like every generator that holds a connection.
        """
        pace = Pace()
        try:
            if response.is_stream_consumed:
                # An event hook, the authentication or a mock has read it, and decoded it.
                for piece in decoder("")(response.content):
                    yield piece
                return
            decode = decoder(response.headers.get("content-encoding", ""))
            raw = response.aiter_raw()
            try:
                async for data in raw:
                    self._last_traffic = anyio.current_time()
                    if received is not None:
                        received(len(data))
                    for piece in decode(data):
                        await pace.spend(len(piece))
                        if piece:
                            yield piece
            finally:
                await (raw.aclose() if self._own else _unwind(raw))
        except Exception as error:
            raise self.failure(error) from error

    async def read(self, response: httpx2.Response, limit: int) -> bytearray:
        """The whole body. Raises `RequestFailedError(reason="oversized")` as soon as it cannot fit."""
        async with aclosing(self.chunks(response)) as chunks:
            return await self.collect(response, chunks, limit)

    async def collect(self, response: httpx2.Response, chunks: AsyncIterable[bytes], limit: int) -> bytearray:
        """The same of a body that is read already, as `chunks`."""
        body = bytearray()
        fits = announced_bytes(response) <= limit
        if fits:
            async for chunk in chunks:
                fits = len(body) + len(chunk) <= limit
                if not fits:
                    break
                body += chunk
        if not fits:
            raise RequestFailedError(
                f"the answer of {self.describe} exceeds Limits.max_message_bytes ({limit})",
                reason="oversized",
            )
        return body

    async def discard(self, response: httpx2.Response) -> None:
        """Read the rest, if it is short and comes at once, so that the connection can be used again."""
        left = self.policy.drain_bytes
        with anyio.move_on_after(self.policy.drain_seconds):
            try:
                async with aclosing(self.chunks(response)) as chunks:
                    async for chunk in chunks:
                        left -= len(chunk)
                        if left < 0:
                            break
            except RequestFailedError as error:
                logger.debug("a response broke off behind what mattered: %s", error)

    async def status_error(self, response: httpx2.Response) -> tuple[Exception, bytes]:
        """The `HTTPStatusError` of a response, with as much of its body as arrives in short time."""
        left = self.policy.error_body_bytes
        body = bytearray()
        with anyio.move_on_after(self.policy.error_body_seconds):
            try:
                async with aclosing(self.chunks(response)) as chunks:
                    async for chunk in chunks:
                        body += chunk[:left]
                        left -= len(chunk)
                        if left <= 0:
                            break
            except RequestFailedError as error:
                logger.debug("the body of an error status broke off: %s", error)
        return rebuilt_error(response, bytes(body)), bytes(body)

    def failure(self, error: Exception) -> RequestFailedError:
        """What went wrong below HTTP, as a caller gets to see it."""
        self._forget_secrets(error)
        what = failed_at(error, self.describe)
        # They are over, and their locals hold the request.
        clear_frames(error)
        return RequestFailedError(
            f"{what}: {type(error).__name__}: {reason_of(error)}",
            reason=fault_reason(error),
            cause=error,
        )

    def _forget_secrets(self, error: Any) -> None:
        """Leave of the request that an error of the client carries what may be logged and pickled.

        Its headers, its body, and the query and user info of its URL hold what the user keeps secret.
        """
        # Asked for without one, the attribute of either library's errors raises.
        with suppress(AttributeError, RuntimeError):
            request = error.request
            error.request = self._bare_request(type(request), request.method, str(request.url))

    def _bare_request(self, kind: Any, method: str, url: str) -> Any:
        bare = self._bare.get((method, url))
        if bare is None:
            bare = kind(method, visible(url))
            if len(self._bare) < _BARE_REQUESTS:
                self._bare[method, url] = bare
        return bare

    async def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        use: StreamUse,
        waits: bool,
        delayed: Callable[[str], None] | None,
    ) -> httpx2.Response:
        # The user's come first: what the protocol says in a header is not theirs to change.
        merged = {**self._headers, **headers}
        target = url
        for _ in range(self.policy.max_redirects + 1):
            try:
                # Bytes: an event id or a header may hold more than ASCII, which httpx would refuse.
                encoded = [(name.encode(), value.encode()) for name, value in merged.items()]
                response = await self._request(method, target, encoded, content, use, waits, delayed)
            except status_errors() as error:
                # The user's event hook has judged the status. It is ours to judge all the same: a lost
                # session and a redirect look like errors to a hook. The body is gone.
                response = error.response
            except Exception as error:
                use.over = True
                raise self.failure(error) from error
            self._last_traffic = anyio.current_time()
            self._streams.heard(response)
            if not response.has_redirect_location:
                return response
            try:
                target = self._redirected(method, response)
                await self.discard(response)
            finally:
                await self._release(response)
        raise RequestFailedError(
            f"more than {self.policy.max_redirects} redirects, the last to {visible(target)}",
            reason="redirect",
        )

    async def _request(
        self,
        method: str,
        target: str,
        headers: list[tuple[bytes, bytes]],
        content: bytes | None,
        use: StreamUse,
        waits: bool,
        delayed: Callable[[str], None] | None,
    ) -> httpx2.Response:
        async def attempt(timeout: Any) -> httpx2.Response:
            request = self._client.build_request(
                method, target, headers=headers, content=content, timeout=timeout, extensions=extensions
            )
            use.watch(request)
            response: httpx2.Response | None = None
            try:
                async with use.writing():
                    response = await self._client.send(
                        request, stream=True, follow_redirects=False, **self._options
                    )
            except BaseException:
                # It came while a cancellation waited for the request to be written.
                if response is not None:
                    await self._release(response)
                raise
            return response

        async def send(timeout: Any) -> httpx2.Response:
            for _ in range(_UNSENT):
                try:
                    return await attempt(timeout)
                except Exception as error:
                    if not await use.is_unsent(error):
                        raise
            return await attempt(timeout)

        extensions: dict[str, Any] = {}
        if self._own:
            if delayed is not None:
                extensions[DELAYED] = delayed
            return await send(self._timeout)
        try:
            return await send(self._brief)
        except pool_timeouts():
            # It was not sent. What holds a connection for nobody's sake gives it up.
            if not waits:
                raise
            self.make_room()
        if delayed is None:
            return await send(self._timeout)
        # Whether it has left the pool meanwhile shows when it is answered.
        delayed("no connection of the http_client was free for it")
        response = await send(self._timeout)
        delayed("")
        return response

    def _redirected(self, method: str, response: httpx2.Response) -> str:
        """Where to send the request again. Only where its credentials are meant for, and unchanged."""
        here = response.request.url
        location = response.headers["location"]
        try:
            there = here.join(location)
        except Exception as error:
            raise RequestFailedError(
                f"{self.describe} redirects to a location that is no URL: {redact(location, 200)!r}",
                reason="redirect",
                cause=error,
            ) from error
        refusal = None
        if _origin(there) != _origin(here):
            refusal = "another origin"
        elif there.userinfo and there.userinfo != here.userinfo:
            refusal = "a location with credentials"
        elif method != "GET" and response.status_code not in _KEEPS_METHOD:
            refusal = f"status {response.status_code}, which would turn the {method} into a GET"
        if refusal is not None:
            raise RequestFailedError(
                f"{self.describe} redirects to {visible(str(there))}; not followed: {refusal}",
                reason="redirect",
            )
        return str(there)

    async def _release(self, response: httpx2.Response) -> None:
        # Shielded: the exchange may be leaving because it was cancelled, and its connection must not
        # stay with the pool as busy. Closing a socket does not wait; the bound is for foreign transports.
        with anyio.move_on_after(self.policy.release_seconds, shield=True):
            try:
                await response.aclose()
            except Exception as error:  # whatever a foreign transport raises, the answer is in already
                logger.debug("closing a response failed: %s", redact(str(error)))


def announced_bytes(response: httpx2.Response) -> int:
    """How long the body is going to be, as far as the server says; 0 if it does not."""
    length = response.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


async def _unwind(raw: AsyncGenerator[bytes]) -> None:
    """End a body of a pool that is not ours, which may have been left before its end.

    httpcore does not close the innermost of its generators when the outermost is closed, and trio rightly
    complains when one is collected. An exception from within ends all of them, so one is provoked: the
    next read happens in a cancelled scope. Shielded only so that this scope is the one that catches it.
    """
    with anyio.CancelScope(shield=True) as scope:
        scope.cancel()
        # What was read from the network already comes without a wait; it is never more than this.
        for count in range(_BUFFERED_PIECES):
            try:
                await anext(raw)
            except Exception:  # also the one that says that it ended long ago
                return
            if count % _PIECES_A_STEP == _PIECES_A_STEP - 1:
                await lowlevel.cancel_shielded_checkpoint()
    with suppress(Exception):  # of a foreign transport, whose body has been judged already
        await raw.aclose()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or DEFAULT_PORTS.get(url.scheme)

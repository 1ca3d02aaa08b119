"""The connections of our own HTTP client: one for each exchange, and the free ones kept for later.

An exchange never waits for another: there are as many connections as exchanges under way. What a connection
says is `_http11.py`'s business; what the exchanges are about must not be known here.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final, TypeAlias, cast, final

import anyio
import httpx2
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from anyio_mcp._text import get_logger
from anyio_mcp.transports._http11 import Http11Connection
from anyio_mcp.transports._url import DEFAULT_PORTS

logger = get_logger(__name__)

CLOSE_SECONDS: Final = 1.0
"""Closing a socket waits for no peer. A bound because it is shielded."""

DELAYED: Final = "anyio_mcp.delayed"
"""The extension of a request that is a function to be told what the request waits for; "" as it goes out."""

SocketOption: TypeAlias = tuple[int, int, int]


@final
class ConnectionPool(httpx2.AsyncBaseTransport):
    """A transport for `httpx2.AsyncClient`, for HTTP/1.1 without proxies.

    At most `idle` free connections are kept for later, and none that nobody has used for `idle_seconds`:
    a server closes idle connections too, and a request on one that it is closing is lost.
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None,
        idle: int,
        idle_seconds: float,
        socket_options: Sequence[SocketOption] = (),
    ) -> None:
        self._ssl_context = ssl_context
        self._idle = idle
        self._idle_seconds = idle_seconds
        self._socket_options = socket_options
        # As many as there are exchanges at once.
        self._busy: set[Http11Connection] = set()
        # Freed last at the right. When it is full the one freed first is closed.
        self._free: deque[Http11Connection] = deque()
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and wait for the head of its response. Raises `httpx2.TransportError`s.

        The body is to be read from the response, which holds its connection until it is closed.
        """
        url = request.url
        origin = (url.scheme, url.host, url.port or DEFAULT_PORTS[url.scheme])
        content = await request.aread()
        connection = await self._take(origin) or await self._connect(origin, request)
        self._busy.add(connection)
        try:
            head = await connection.request(
                request.method.encode(), url.raw_path, request.headers.raw, content
            )
        except BaseException:
            await self._discard(connection)
            raise
        return httpx2.Response(
            head.status,
            headers=list(head.headers),
            stream=_Body(self, connection),
            extensions={"http_version": head.http_version, "reason_phrase": head.reason},
        )

    async def release(self, connection: Http11Connection) -> None:
        """The exchange on a connection is over. Kept if it can be used again, else closed."""
        if connection not in self._busy:
            return
        if self._closed or not connection.is_reusable:
            await self._discard(connection)
            return
        try:
            connection.start_next()
        except Exception:
            await self._discard(connection)
            raise
        self._busy.discard(connection)
        now = connection.idle_since = anyio.current_time()
        self._free.append(connection)
        while self._free and (
            len(self._free) > self._idle or now - self._free[0].idle_since > self._idle_seconds
        ):
            await _close(self._free.popleft())

    async def aclose(self) -> None:
        """Close every connection. Responses that are still open break off."""
        self._closed = True
        connections = [*self._free, *self._busy]
        self._free.clear()
        self._busy.clear()
        for connection in connections:
            await _close(connection)

    async def _take(self, origin: object) -> Http11Connection | None:
        """The free connection to `origin` that was used last, if it is still good."""
        oldest = anyio.current_time() - self._idle_seconds
        for connection in reversed(tuple(self._free)):
            if connection.origin != origin or connection not in self._free:
                continue
            # Before anything is waited for: nobody else may take it.
            self._free.remove(connection)
            if connection.idle_since >= oldest and not connection.is_readable():
                return connection
            await _close(connection)
        return None

    async def _discard(self, connection: Http11Connection) -> None:
        self._busy.discard(connection)
        await _close(connection)

    async def _connect(self, origin: tuple[str, str, int], request: httpx2.Request) -> Http11Connection:
        scheme, host, port = origin
        timeouts = cast("dict[str, Any]", request.extensions.get("timeout", {}))
        delayed = cast("Callable[[str], None]", request.extensions.get(DELAYED, _tell_nobody))
        delayed("there is no connection to the server yet")
        try:
            with anyio.fail_after(timeouts.get("connect")):
                stream = await self._open(scheme, host, port)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time", request=request) from error
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError, ValueError) as error:
            raise httpx2.ConnectError(_reason(error), request=request) from error
        delayed("")
        return Http11Connection(stream, origin)

    async def _open(self, scheme: str, host: str, port: int) -> ByteStream:
        # Both families of addresses are tried, the second shortly behind the first (RFC 8305).
        stream = await anyio.connect_tcp(host, port)
        try:
            raw_socket = stream.extra(SocketAttribute.raw_socket)
            for option in self._socket_options:
                raw_socket.setsockopt(*option)
            if scheme == "http":
                return stream
            # Not `standard_compatible`: many servers close without the closing handshake. Where a body ends
            # is known from its own framing.
            return await TLSStream.wrap(
                stream, hostname=host, ssl_context=self._ssl_context, standard_compatible=False
            )
        except BaseException:
            # A handshake that failed or was cancelled leaves the socket to whoever opened it.
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await stream.aclose()
            raise


@final
class _Body(httpx2.AsyncByteStream):
    """The body of one response. Closing it frees the connection."""

    def __init__(self, pool: ConnectionPool, connection: Http11Connection) -> None:
        self._pool = pool
        self._connection = connection
        self._over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = None if self._over else await self._connection.read()
        if piece is None:
            self._over = True
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        self._over = True
        await self._pool.release(self._connection)


def _tell_nobody(by: str) -> None:
    """Of a request that nobody waits for."""


async def _close(connection: Http11Connection) -> None:
    # Shielded: an exchange is often left because it was cancelled, and its socket must not stay behind.
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        try:
            await connection.aclose()
        except Exception as error:  # the socket is closed all the same, and the others are to be
            logger.debug("closing a connection failed: %r", error)


def _reason(error: BaseException) -> str:
    """Why a connection could not be opened: anyio says that all attempts failed, their errors say why."""
    cause = error.__cause__ or error.__context__
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    return str(error if cause is None else cause) or type(error).__name__

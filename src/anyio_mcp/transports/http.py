"""Streamable HTTP, both eras: the configuration of a server's address, and a connection to it.

This file owns the life of a connection: it starts a task per exchange, ends them all, and says goodbye.
What happens in an exchange is `_exchange.py`; it must not appear here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, final

import anyio
from anyio import lowlevel
from anyio.abc import ObjectReceiveStream, TaskGroup
from mcp.types import JSONRPCNotification, JSONRPCRequest, RequestId

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import RequestFailedError, SessionLostError, fresh
from anyio_mcp.transports._authentication import Auth, authentication, check_auth, sign_in
from anyio_mcp.transports._exchange import DeliveryExchange, RequestExchange, Wire
from anyio_mcp.transports._headers import SessionHeaders
from anyio_mcp.transports._headstart import HeadStart
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import (
    AsyncHttpClient,
    check_headers,
    check_url,
    default_client,
    request_timeout,
)
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._listen import Listener
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports._url import redact, visible
from anyio_mcp.transports.base import Connection, ConnectionLost, Incoming, Outgoing, RequestFault, Transport

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StreamableHttpTransport(Transport):
    """A server at a URL, reached by Streamable HTTP.

    * `headers` go with every request; those the protocol itself defines cannot be replaced.
    * `auth` is a bearer token, `"oauth"` or `OAuth(...)`, or an `httpx2.Auth` such as the SDK's providers.
    * `http_client` is an `httpx2.AsyncClient`, or a classic `httpx.AsyncClient`, to make the requests
      with. It is never closed, its timeouts for reading and for its pool are not used (deadlines are
      the session's), and redirects are followed within the origin whatever it says.

    Raises `TypeError` and `ValueError` for arguments that could never work.
    """

    url: str
    headers: Mapping[str, str] | None = field(default=None, kw_only=True)
    auth: Auth | None = field(default=None, kw_only=True)
    http_client: AsyncHttpClient | None = field(default=None, kw_only=True)
    _policy: HttpPolicy = field(default_factory=HttpPolicy, kw_only=True)

    def __post_init__(self) -> None:
        check_url(self.url)
        object.__setattr__(self, "headers", MappingProxyType(check_headers(self.headers)))
        check_auth(self.auth, self.http_client)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe!r})"

    @property
    def kind(self) -> Literal["tcp"]:
        return "tcp"

    @property
    def describe(self) -> str:
        return visible(self.url)

    def connect(self, *, timeouts: Timeouts, limits: Limits) -> AbstractAsyncContextManager[Connection]:
        """A connection of its own: one session id, one GET stream, one pool of sockets.

        Entering waits for nothing but a sign-in: an HTTP server is first spoken to by the first message.
        Leaving aborts what is in flight and waits at most `timeouts.close` for the server to hear of it.
        """
        return self._connect(timeouts, limits)

    @asynccontextmanager
    async def _connect(self, timeouts: Timeouts, limits: Limits) -> AsyncGenerator[Connection]:
        client: Any = self.http_client or default_client(self.url, timeouts)
        auth = authentication(self.auth, client, self.url)
        requester = HttpRequester(
            client,
            self.url,
            headers=self.headers or {},
            auth=auth,
            timeout=request_timeout(client),
            policy=self._policy,
            own=self.http_client is None,
        )
        failure: Exception | None = None
        # The goodbye is a child task, not code in a `finally` here: asyncio's native cancellation, once
        # or repeatedly, reaches only the task that is leaving, and its task groups wait all the same.
        async with anyio.create_task_group() as farewell:
            exchanges = anyio.create_task_group()
            connection = HttpConnection(exchanges, requester, limits)
            try:
                async with exchanges:
                    try:
                        await sign_in(auth, requester)
                        yield connection
                    except Exception as error:
                        # Not through the task groups, which would wrap it.
                        failure = error
                    finally:
                        connection.close()
                        exchanges.cancel_scope.cancel()
            finally:
                farewell.start_soon(self._leave, connection, client, timeouts, name="anyio_mcp http farewell")
        if failure is not None:
            raise failure

    async def _leave(self, connection: HttpConnection, client: Any, timeouts: Timeouts) -> None:
        try:
            # Shielded: a server that is not told keeps the session, and leaving is often a cancellation.
            with anyio.move_on_after(timeouts.close_seconds, shield=True):
                await connection.farewell()
        finally:
            connection.release()
            if self.http_client is None:
                # Shielded: sockets would be left behind. Closing them does not wait for the peer.
                with anyio.move_on_after(self._policy.release_seconds, shield=True):
                    await client.aclose()


@final
class HttpConnection(Connection):
    """One connection: a registry of exchanges in flight. Everything that decides is synchronous."""

    __slots__ = (
        "_deliveries",
        "_ended",
        "_inbox",
        "_listener",
        "_lost",
        "_requests",
        "_session",
        "_settled",
        "_tasks",
        "_wire",
    )

    def __init__(self, tasks: TaskGroup, requester: HttpRequester, limits: Limits) -> None:
        self._tasks = tasks
        self._inbox = Inbox()
        self._session = SessionHeaders()
        self._wire = Wire(
            http=requester,
            session=self._session,
            inbox=self._inbox,
            max_message_bytes=limits.max_message_bytes,
            head_start=HeadStart(tasks, requester.policy.head_start),
            lose=self._lose,
        )
        # As many as the session has calls in flight, and messages without a receipt yet.
        self._requests: dict[RequestId, RequestExchange] = {}
        self._deliveries: set[DeliveryExchange] = set()
        self._listener: Listener | None = None
        self._lost: SessionLostError | None = None
        """The session has expired; requests under way may still be answered."""
        self._ended: SessionLostError | None = None
        self._settled = anyio.Event()

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._inbox.stream

    @property
    def last_traffic(self) -> float:
        return self._wire.http.last_traffic

    async def send(self, outgoing: Outgoing) -> None:
        """Start the exchange of one message. Does not wait for the network.

        Cancelled, it has not taken the message.
        """
        await lowlevel.checkpoint()
        if self._ended is not None:
            # A request needs no answer of its own any more: the loss of the connection is on its way.
            if outgoing.receipt is not None:
                outgoing.receipt(_fresh(self._ended))
            return
        if self._lost is not None:
            await self._turn_away(outgoing, self._lost)
            return
        stamp = self._session.stamp(outgoing)
        message = outgoing.message
        if isinstance(message, JSONRPCRequest):
            # An id used again belongs to the new request: the old exchange must not answer it.
            self.abandon(message.id)
            request = RequestExchange(self._wire, outgoing, message, stamp, self._forget)
            self._requests[message.id] = request
            self._tasks.start_soon(self._request, request, name=f"anyio_mcp http {message.method[:40]}")
            return
        listen = isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized"
        delivery = DeliveryExchange(self._wire, outgoing, stamp, self._listen if listen else None)
        self._deliveries.add(delivery)
        self._tasks.start_soon(self._deliver, delivery, name="anyio_mcp http delivery")

    async def _turn_away(self, outgoing: Outgoing, lost: SessionLostError) -> None:
        """The session has expired and is about to end: nothing is sent in it any more."""
        refused = SessionLostError(str(lost), reason=lost.reason, refused=True, cause=lost.cause)
        if outgoing.receipt is not None:
            outgoing.receipt(refused)
        elif isinstance(outgoing.message, JSONRPCRequest):
            await self._inbox.put(RequestFault(outgoing.message.id, refused))

    def abandon(self, request_id: RequestId) -> bool:
        exchange = self._requests.pop(request_id, None)
        if exchange is None:
            return self._session.modern
        exchange.scope.cancel()
        return exchange.stamp.modern

    def close(self) -> None:
        """Settle and abort everything. Does not wait."""
        self._end(_closed())

    async def farewell(self) -> None:
        """Tell the server that the session is over, if it has one. To be bounded by the caller."""
        if self._session.session_id is None or self._expired:
            return
        http = self._wire.http
        try:
            async with http.open("DELETE", self._session.stamp_delete().headers) as response:
                # Not every server lets its sessions be ended: whatever the status, this was all.
                logger.debug("%s answered DELETE with %d", http.describe, response.status_code)
                await http.discard(response)
        except RequestFailedError as error:
            logger.debug("the end of the session was not delivered: %s", redact(str(error)))

    def release(self) -> None:
        self._inbox.close()

    @property
    def _expired(self) -> bool:
        return self._lost is not None and self._lost.reason == "expired"

    def _listen(self) -> None:
        if self._session.session_id is not None and self._listener is None and not self._session.modern:
            self._listener = Listener(self._wire)
            self._tasks.start_soon(self._listener.run, name="anyio_mcp http listener")

    def _lose(self, error: SessionLostError) -> None:
        if self._ended is None and self._lost is None:
            self._lost = SessionLostError(str(error), reason=error.reason, cause=error.cause)
            # A task of its own: the exchange that found out may be abandoned while the inbox is full.
            self._tasks.start_soon(self._end_soon, self._lost, name="anyio_mcp http loss")

    async def _end_soon(self, error: SessionLostError) -> None:
        # Each request under way learns from its own answer whether the server has looked at it, which
        # decides whether it may be sent again. One that gets none in time is lost with the session.
        with anyio.move_on_after(self._wire.http.policy.expiry_seconds):
            while self._requests:
                self._settled = anyio.Event()
                await self._settled.wait()
        self._end(error)
        await self._inbox.put_last(ConnectionLost(error))

    def _end(self, error: SessionLostError) -> None:
        # The first reason stays: a connection that expired is not "closed" when it is left.
        if self._ended is None:
            self._ended = error
        self._inbox.end()
        for delivery in tuple(self._deliveries):
            delivery.settle(_fresh(error))
            delivery.scope.cancel()
        for request in self._requests.values():
            request.scope.cancel()
        self._requests.clear()
        if self._listener is not None:
            self._listener.scope.cancel()

    def _forget(self, exchange: RequestExchange) -> None:
        if self._requests.get(exchange.request.id) is exchange:
            del self._requests[exchange.request.id]
            self._settled.set()

    async def _request(self, request: RequestExchange) -> None:
        if self._listener is not None:
            # What a server asks where nobody listens yet is lost in many, and with it the call it was for.
            with anyio.move_on_after(self._wire.http.policy.listen_patience):
                await self._listener.answered.wait()
            self._listener.answered.set()
        await request.run()

    async def _deliver(self, delivery: DeliveryExchange) -> None:
        try:
            await delivery.run()
        finally:
            # A cancellation from outside reaches this task before it reaches whoever closes the connection.
            delivery.settle(_closed())
            self._deliveries.discard(delivery)


def _closed() -> SessionLostError:
    return SessionLostError("the connection is closed", reason="closed")


def _fresh(error: SessionLostError) -> SessionLostError:
    clone = fresh(error)
    return clone if isinstance(clone, SessionLostError) else error

"""Streamable HTTP, both eras: a session, its requests under way, and how it is lost or taken leave of.

What happens in an exchange is `_exchange.py`, how a connection begins and ends `_urltransport.py`; neither
must appear here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import final

import anyio
from anyio import lowlevel
from anyio.abc import TaskGroup
from mcp.types import JSONRPCNotification, JSONRPCRequest, RequestId

from anyio_mcp._text import get_logger
from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._authentication import sign_in
from anyio_mcp.transports._delivery import DeliveryExchange
from anyio_mcp.transports._exchange import RequestExchange
from anyio_mcp.transports._headers import SessionHeaders
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._listen import Listener
from anyio_mcp.transports._url import redact
from anyio_mcp.transports._urltransport import UrlConnection, UrlTransport
from anyio_mcp.transports._wire import Wire
from anyio_mcp.transports.base import Outgoing, RequestFault

logger = get_logger(__name__)


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StreamableHttpTransport(UrlTransport):
    """A server at a URL, reached by Streamable HTTP.

    * `headers` go with every request; those the protocol itself defines cannot be replaced.
    * `auth` is a bearer token, `"oauth"` or `OAuth(...)`, or an `httpx2.Auth` such as the SDK's providers.
    * `http_client` is an `httpx2.AsyncClient`, or a classic `httpx.AsyncClient`, to make the requests
      with. It is never closed, its timeouts for reading and for its pool are not used (deadlines are
      the session's), and redirects are followed within the origin whatever it says.

    A connection is one session id, one GET stream, one pool of sockets. Entering it waits for nothing but a
    sign-in: an HTTP server is first spoken to by the first message. Leaving it sends a DELETE.

    Raises `TypeError` and `ValueError` for arguments that could never work.
    """

    def _connection(
        self, tasks: TaskGroup, requester: Callable[[str], HttpRequester], limits: Limits
    ) -> HttpConnection:
        return HttpConnection(tasks, requester(self.url), limits)


@final
class HttpConnection(UrlConnection[RequestExchange]):
    """One session: its exchanges in flight, and the stream of what belongs to none of them."""

    def __init__(self, tasks: TaskGroup, requester: HttpRequester, limits: Limits) -> None:
        super().__init__(tasks)
        self._session = SessionHeaders()
        self._wire = Wire(
            http=requester,
            session=self._session,
            inbox=self._inbox,
            limits=limits,
            lose=self._lose,
            doubt=self._doubt,
        )
        self._listener: Listener | None = None
        self._lost: SessionLostError | None = None
        """The session has expired; requests under way may still be answered."""
        self._doubted: SessionLostError | None = None
        """It has probably expired: it ends with the first message that would be sent in it."""
        self._settled = anyio.Event()

    @property
    def last_traffic(self) -> float:
        return self._wire.http.last_traffic

    async def send(self, outgoing: Outgoing) -> None:
        """Start the exchange of one message. Does not wait for the network.

        Cancelled, it has not taken the message.
        """
        await lowlevel.checkpoint()
        if self._turned_away(outgoing):
            return
        lost = self._lost or self._doubted
        if lost is not None:
            await self._refuse(outgoing, lost)
            self._lose(lost)
            return
        stamp = self._session.stamp(outgoing)
        message = outgoing.message
        if isinstance(message, JSONRPCRequest):
            # An id used again belongs to the new request: the old exchange must not answer it.
            self.abandon(message.id)
            request = RequestExchange(self._wire, outgoing, message, stamp, self._forget)
            self._requests[message.id] = request
            self._start(partial(self._request, request), f"anyio_mcp http {message.method[:40]}")
            return
        listen = isinstance(message, JSONRPCNotification) and message.method == "notifications/initialized"
        self._start_delivery(DeliveryExchange(self._wire, outgoing, stamp, self._listen if listen else None))

    async def _refuse(self, outgoing: Outgoing, lost: SessionLostError) -> None:
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

    async def open(self) -> None:
        await sign_in(self._wire.http)

    async def farewell(self) -> None:
        """A DELETE, if the server has given the session an id."""
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

    @property
    def _expired(self) -> bool:
        return self._lost is not None and self._lost.reason == "expired" and self._doubted is None

    def _listen(self) -> None:
        if self._session.session_id is not None and self._listener is None and not self._session.modern:
            self._listener = Listener(self._wire)
            self._wire.http.make_room = self._listener.pause
            self._start(self._listener.run, "anyio_mcp http listener")

    def _doubt(self, error: SessionLostError) -> None:
        if self._ended is None and self._lost is None and self._doubted is None:
            self._doubted = SessionLostError(str(error), reason=error.reason, cause=error.cause)

    def _lose(self, error: SessionLostError) -> None:
        if self._ended is None and self._lost is None:
            self._lost = SessionLostError(str(error), reason=error.reason, cause=error.cause)
            # A task of its own: the exchange that found out may be abandoned while the inbox is full.
            self._start(partial(self._end_soon, self._lost), "anyio_mcp http loss")

    async def _end_soon(self, error: SessionLostError) -> None:
        # Each request under way learns from its own answer whether the server has looked at it, which
        # decides whether it may be sent again. One that gets none in time is lost with the session.
        policy = self._wire.http.policy
        seconds = policy.expiry_seconds
        if self._doubted is not None:
            # What is sent at the same time as the first message that is refused is to be refused as well: it
            # may be sent again, which is not known of what is lost.
            await anyio.sleep(policy.refusal_seconds)
            seconds = policy.doubt_seconds
        with anyio.move_on_after(seconds):
            while self._requests:
                self._settled = anyio.Event()
                await self._settled.wait()
        await self._break_off(error)

    def _end(self, error: SessionLostError) -> None:
        super()._end(error)
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

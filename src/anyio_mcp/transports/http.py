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
from anyio_mcp.transports.base import Outgoing

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
        super().__init__(tasks, requester.policy)
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

    @property
    def last_traffic(self) -> float:
        return self._wire.http.last_traffic

    async def send(self, outgoing: Outgoing) -> None:
        """Start the exchange of one message. Does not wait for the network.

        Cancelled, it has not taken the message.
        """
        await lowlevel.checkpoint()
        if await self._turned_away(outgoing):
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

    def abandon(self, request_id: RequestId) -> bool:
        exchange = self._requests.pop(request_id, None)
        if exchange is None:
            return self._session.modern
        exchange.scope.cancel()
        self._settled.set()
        return exchange.stamp.modern

    async def open(self) -> None:
        await sign_in(self._wire.http)

    async def farewell(self) -> None:
        """A DELETE, if the server has given the session an id."""
        if self._session.session_id is None or self.is_expired:
            return
        http = self._wire.http
        try:
            async with http.open("DELETE", self._session.stamp_delete().headers) as response:
                # Not every server lets its sessions be ended: whatever the status, this was all.
                logger.debug("%s answered DELETE with %d", http.describe, response.status_code)
                await http.discard(response)
        except RequestFailedError as error:
            logger.debug("the end of the session was not delivered: %s", redact(str(error)))

    def _listen(self) -> None:
        if self._session.session_id is not None and self._listener is None and not self._session.modern:
            self._listener = Listener(self._wire)
            self._wire.http.make_room = self._listener.pause
            self._start(self._listener.run, "anyio_mcp http listener")

    def _end(self, error: SessionLostError) -> None:
        super()._end(error)
        if self._listener is not None:
            self._listener.scope.cancel()

    async def _request(self, request: RequestExchange) -> None:
        if self._listener is not None:
            # What a server asks where nobody listens yet is lost in many, and with it the call it was for.
            with anyio.move_on_after(self._wire.http.policy.listen_patience):
                await self._listener.answered.wait()
            self._listener.answered.set()
        await request.run()

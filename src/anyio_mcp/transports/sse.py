"""HTTP+SSE, the transport of protocol version 2024-11-05: one GET stream that carries every answer, and
a POST for every message.

The stream is the session: it names the address for the POSTs, and when it ends the session is lost. A
POST is one message's own affair. Which era a server speaks is no question here: this transport is older
than the modern one. Must not know of session ids or resumption, which this transport does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, final
from urllib.parse import SplitResult, parse_qsl, urljoin, urlsplit

import anyio
import httpx2
from anyio import lowlevel
from anyio.abc import TaskGroup
from mcp.shared.dispatcher import coerce_request_id
from mcp.types import (
    METHOD_NOT_FOUND,
    ErrorData,
    JSONRPCError,
    JSONRPCRequest,
    RequestId,
)

from anyio_mcp.config import Limits
from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._attribution import answered_request
from anyio_mcp.transports._body import Body
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._delivery import DeliveryExchange
from anyio_mcp.transports._headers import SessionHeaders
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import check_url
from anyio_mcp.transports._messages import named_request, read_event, size_of
from anyio_mcp.transports._post import RequestPost
from anyio_mcp.transports._reading import Received
from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser
from anyio_mcp.transports._url import DEFAULT_PORTS, visible
from anyio_mcp.transports._urltransport import UrlConnection, UrlTransport
from anyio_mcp.transports._wire import Wire
from anyio_mcp.transports.base import (
    INBOX_SIZE,
    Outgoing,
    RequestFault,
    Violation,
)

LONGEST_ENDPOINT: Final = 8192
"""Bytes of the address a server may name. Longer ones no server would accept as a request line."""


@final
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SSETransport(UrlTransport):
    """A server at a URL, reached by HTTP+SSE, which Streamable HTTP has replaced.

    * `headers` go with every request; those the protocol itself defines cannot be replaced.
    * `auth` is a bearer token, `"oauth"` or `OAuth(...)`, or an `httpx2.Auth` such as the SDK's providers.
    * `http_client` is an `httpx2.AsyncClient`, or a classic `httpx.AsyncClient`, to make the requests
      with. It is never closed, its timeouts for reading and for its pool are not used (deadlines are
      the session's), and redirects are followed within the origin whatever it says.

    A connection is one stream of events and one pool of sockets. Entering it waits for the stream and for
    the address it names. Leaving it closes the stream, which is all a server can be told.

    Raises `TypeError` and `ValueError` for arguments that could never work.
    """

    def _connection(
        self, tasks: TaskGroup, requester: Callable[[str], HttpRequester], limits: Limits
    ) -> SseConnection:
        return SseConnection(tasks, self.url, requester, limits)


def _session_in(address: SplitResult) -> str:
    """What in the address of its messages names the session, or is as good as that: it only has to be told
    from the words that a server says about it."""
    values = [value for _, value in parse_qsl(address.query)]
    return max(values, key=len) if values else address.path.rpartition("/")[2]


@final
class SseConnection(UrlConnection[RequestPost]):
    """One stream, and the POSTs in flight beside it."""

    def __init__(
        self, tasks: TaskGroup, url: str, requester: Callable[[str], HttpRequester], limits: Limits
    ) -> None:
        source = requester(url)
        super().__init__(tasks, source.policy)
        self._url = url
        self._requester = requester
        self._source = source
        self._limits = limits
        self._headers = SessionHeaders(is_in_address=True)
        self._begun = False
        self._opened = anyio.Event()
        self._refused: Exception | None = None
        self._wire: Wire | None = None
        """How messages are POSTed, once the server has said where."""

    @property
    def last_traffic(self) -> float:
        stream = self._source.last_traffic
        return stream if self._wire is None else max(stream, self._wire.http.last_traffic)

    async def open(self) -> None:
        """Wait until the server has named the address for messages. Raises why it did not."""
        self._start(self._listen, "anyio_mcp sse stream")
        await self._opened.wait()
        if self._refused is not None:
            raise self._refused

    async def send(self, outgoing: Outgoing) -> None:
        """Start the POST of one message. Does not wait for the network.

        Cancelled, it has not taken the message.
        """
        await lowlevel.checkpoint()
        wire, message = self._wire, outgoing.message
        if wire is None or await self._turned_away(outgoing):
            return
        first, self._begun = not self._begun, True
        stamp = self._headers.stamp(outgoing)
        if not isinstance(message, JSONRPCRequest):
            self._start_delivery(DeliveryExchange(wire, outgoing, stamp))
            return
        if first and message.method == "server/discover":
            # The probe for the modern era. Servers of this transport are older than the question: some
            # never answer it, some break on any request before the handshake.
            error = ErrorData(code=METHOD_NOT_FOUND, message="HTTP+SSE is older than server/discover")
            await self._inbox.put(JSONRPCError(jsonrpc="2.0", id=message.id, error=error))
            return
        # An id used again belongs to the new request: the old POST must not fail it.
        self.abandon(message.id)
        post = RequestPost(wire, message, stamp, self._forget, probe=outgoing.probe, delayed=outgoing.delayed)
        self._requests[message.id] = post
        self._start(post.run, f"anyio_mcp sse {message.method[:40]}")

    def abandon(self, request_id: RequestId) -> bool:
        """Free the POST of a request. The server does not learn of it: its answer has no stream to close."""
        post = self._requests.pop(request_id, None)
        if post is not None:
            post.scope.cancel()
            self._settled.set()
        return False

    async def farewell(self) -> None:
        """Nothing: that the stream is closed is all that a server of this transport is told."""

    async def _listen(self) -> None:
        """Read the stream to its end, which is the end of the session, and say so behind all it carried."""
        broken: Exception | None = None
        try:
            headers = self._headers.stamp_get("").headers
            async with self._source.open("GET", headers) as response:
                if not response.is_success:
                    broken, _ = await self._source.status_error(response)
                elif not await self._follow(response):
                    broken = self._violation("answered the GET with something else than a stream of events")
        except Exception as error:
            broken = contained(error, self._source.describe)
        if self._wire is None:
            text = f"{self._source.describe} ended the stream before it named an endpoint"
            self._refused = broken or SessionLostError(text, reason="eof")
            self._opened.set()
            return
        text = f"{self._source.describe} ended the stream of events" if broken is None else str(broken)
        # A session that the server has denied is over by that, though its stream went first.
        await self._break_off(self._lost or SessionLostError(text, reason="eof", cause=broken))

    async def _follow(self, response: httpx2.Response) -> bool:
        """Read the stream to its end. False if it is none."""
        limit = self._limits.max_message_bytes
        async with Body(self._source, response, limit) as body:
            if await body.kind() != "events":
                return False
            async with aclosing(body.events(SseParser(limit))) as events:
                async for event in events:
                    await self._on_event(event, str(response.request.url))
        return True

    async def _on_event(self, event: SseEvent | SseOverflow, base: str) -> None:
        items: list[Received]
        if isinstance(event, SseOverflow):
            items = [self._oversized(event)]
        elif event.event != "endpoint":
            items = read_event(event, self._limits)
        elif self._wire is None:
            self._wire = self._aim(bytes(event.data), base)
            self._opened.set()
            return
        else:
            items = [Violation("a second endpoint on one stream")]
        for item in items:
            self._answered(item)
            if self._wire is None and self._inbox.is_full:
                # Nobody reads before the endpoint is named: to wait for room would be to wait for ever.
                raise self._violation(f"named no endpoint in {INBOX_SIZE} messages")
            await self._inbox.put(item, size_of(event))

    def _oversized(self, event: SseOverflow) -> RequestFault | Violation:
        """Whose answer it was, as far as its beginning tells, or because only one is waited for."""
        request_id = answered_request(event.head, b"")
        if request_id is None and len(self._requests) == 1:
            (request_id,) = self._requests
        if request_id is None:
            return Violation("an event larger than Limits.max_message_bytes")
        limit = self._limits.max_message_bytes
        text = f"an event of {self._source.describe} exceeds Limits.max_message_bytes ({limit})"
        return RequestFault(request_id, RequestFailedError(text, reason="oversized"))

    def _aim(self, endpoint: bytes, base: str) -> Wire:
        """POST to where the server says, if that is at home: messages bear the user's credentials."""
        here = urlsplit(self._url)
        if not endpoint:
            # As a reference it would be the address of the stream itself, which takes no messages.
            raise self._violation("named an endpoint that is empty")
        if len(endpoint) > LONGEST_ENDPOINT:
            raise self._violation(f"named an endpoint of more than {LONGEST_ENDPOINT} bytes")
        try:
            there = urlsplit(urljoin(base, endpoint.decode()))
            origin = (there.scheme, there.hostname, there.port or DEFAULT_PORTS.get(there.scheme))
            # With the user info of the URL, and no other.
            url = there._replace(netloc=here.netloc, fragment="").geturl()
            check_url(url)
            self._headers.session_id = _session_in(there)
        except ValueError as error:
            raise self._violation(f"named an endpoint that is no URL: {error}") from error
        if origin != (here.scheme, here.hostname, here.port or DEFAULT_PORTS[here.scheme]):
            raise self._violation(
                f"named an endpoint at another origin, where nothing is sent: {visible(there.geturl())}"
            )
        return Wire(
            http=self._requester(url),
            session=self._headers,
            inbox=self._inbox,
            limits=self._limits,
            lose=self._lose,
            doubt=self._doubt,
        )

    def _answered(self, item: Received) -> None:
        request_id = named_request(item)
        if request_id is None:
            return
        # Ours are numbers, and a server may echo them as text.
        post = self._requests.get(request_id) or self._requests.get(coerce_request_id(request_id))
        if post is None or self._wire is None:
            return
        self._forget(post)
        post.give_up_soon()
        if isinstance(item, JSONRPCError):
            # A server behind a bridge may have been restarted, and the bridge keeps the stream.
            self._wire.judge(item.error, post.stamp.session_id)

    def _violation(self, what: str) -> RequestFailedError:
        return RequestFailedError(f"{self._source.describe} {what}", reason="violation")

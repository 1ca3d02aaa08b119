"""What the transports to a URL share: their settings, and the life of a connection from its first task to
its last socket. Must not know what is said in it, nor which of the two protocols says it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

import anyio
from anyio.abc import ObjectReceiveStream, TaskGroup
from mcp.types import JSONRPCRequest, RequestId

from anyio_mcp._text import get_logger
from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import SessionLostError, fresh
from anyio_mcp.transports._authentication import Auth, authentication, check_auth
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._delivery import DeliveryExchange
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._httpsettings import (
    AsyncHttpClient,
    check_headers,
    check_url,
    default_client,
    is_proxied,
    request_timeout,
)
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports._url import visible
from anyio_mcp.transports.base import (
    Connection,
    ConnectionLost,
    Incoming,
    Liveness,
    Outgoing,
    RequestFault,
    Transport,
)

logger = get_logger(__name__)


class _Exchange(Protocol):
    """What answers a request, or is to: it can be cancelled."""

    @property
    def request(self) -> JSONRPCRequest: ...

    @property
    def scope(self) -> anyio.CancelScope: ...


ExchangeT = TypeVar("ExchangeT", bound=_Exchange)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class UrlTransport(Transport):
    """A server at a URL, and with what to reach it."""

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

    @abstractmethod
    def _connection(
        self, tasks: TaskGroup, requester: Callable[[str], HttpRequester], limits: Limits
    ) -> UrlConnection[Any]:
        """A connection whose tasks run in `tasks`, and that makes its requests by `requester(url)`."""

    @asynccontextmanager
    async def connect(self, *, timeouts: Timeouts, limits: Limits) -> AsyncGenerator[Connection]:
        """A connection of its own, with a pool of sockets of its own.

        Leaving aborts what is in flight and waits at most `timeouts.close` for the server to hear of it.
        """
        client: Any = self.http_client or default_client(self.url, timeouts)
        own_pool = self.http_client is None and not is_proxied(self.url)
        tasks = anyio.create_task_group()
        auth = authentication(self.auth, client, self.url, tasks, own=self.http_client is None)

        def requester(url: str) -> HttpRequester:
            return HttpRequester(
                client,
                url,
                headers=self.headers or {},
                auth=auth,
                timeout=request_timeout(client),
                policy=self._policy,
                own=own_pool,
            )

        failure: Exception | None = None
        # The goodbye is a child task, not code in a `finally` here: asyncio's native cancellation, once
        # or repeatedly, reaches only the task that is leaving, and its task groups wait all the same.
        async with anyio.create_task_group() as farewell:
            connection = self._connection(tasks, requester, limits)
            try:
                async with tasks:
                    try:
                        await self._open(connection)
                        yield connection
                    except Exception as error:
                        # Not through the task groups, which would wrap it.
                        failure = error
                    finally:
                        connection.close()
                        tasks.cancel_scope.cancel()
            finally:
                farewell.start_soon(self._leave, connection, client, timeouts, name="anyio_mcp http farewell")
        if failure is not None:
            raise failure

    async def _open(self, connection: UrlConnection[Any]) -> None:
        try:
            await connection.open()
        except Exception as error:
            raise contained(error, self.describe) from error.__cause__

    async def _leave(self, connection: UrlConnection[Any], client: Any, timeouts: Timeouts) -> None:
        try:
            # Shielded: a server that is not told keeps the session, and leaving is often a cancellation.
            with anyio.move_on_after(timeouts.close_seconds, shield=True):
                await self._contain(connection.farewell)
        finally:
            connection.release()
            if self.http_client is None:
                # Shielded: sockets would be left behind. Closing them does not wait for the peer.
                with anyio.move_on_after(self._policy.release_seconds, shield=True):
                    await self._contain(client.aclose)

    async def _contain(self, leave: Callable[[], Awaitable[None]]) -> None:
        """What goes wrong in leaving is nobody's fault: the connection is over."""
        try:
            await leave()
        except Exception as error:
            logger.debug("leaving failed: %s", contained(error, self.describe))


class UrlConnection(Connection, Generic[ExchangeT]):
    """What is under way, and how its session is lost. Everything that decides is synchronous."""

    def __init__(self, tasks: TaskGroup, policy: HttpPolicy) -> None:
        self._tasks = tasks
        self._policy = policy
        self._inbox = Inbox()
        # As many as the session has calls in flight, and messages without a receipt yet.
        self._requests: dict[RequestId, ExchangeT] = {}
        self._deliveries: set[DeliveryExchange] = set()
        self._lost: SessionLostError | None = None
        """The session has expired; requests under way may still be answered."""
        self._doubted: SessionLostError | None = None
        """It has probably expired: it ends with the first message that would be sent in it."""
        self._settled = anyio.Event()
        self._ended: SessionLostError | None = None

    @property
    def is_expired(self) -> bool:
        """Whether the server has said that the session is gone."""
        return self._lost is not None and self._lost.reason == "expired" and self._doubted is None

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._inbox.stream

    def liveness(self) -> Liveness:
        """A connection that stands is evidence of life until TCP says otherwise. What stands may end at a
        proxy, whose answer to a question tells whether the session behind it is still there."""
        return Liveness.ASK

    @abstractmethod
    async def open(self) -> None:
        """Wait until messages can be sent. Raises why they cannot."""

    @abstractmethod
    async def farewell(self) -> None:
        """Tell the server that the session is over, as far as there is a way to. The caller bounds it."""

    def close(self) -> None:
        """Settle and abort everything. Does not wait."""
        self._end(closed())

    def release(self) -> None:
        """Nothing runs any more, and nothing will be read."""
        self._inbox.close()

    def _start(self, work: Callable[[], Awaitable[None]], name: str) -> None:
        """Run a task of the connection. Each gives the faults of its messages; should even that fail, the
        connection is lost, and the task group it runs in is not."""
        self._tasks.start_soon(self._contained, work, name=name)

    async def _contained(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            fault = contained(error, "the server")
            await self._break_off(SessionLostError(str(fault), reason="violation", cause=error))

    async def _break_off(self, error: SessionLostError) -> None:
        """The connection is lost: end it for everybody, and say so behind all that it carried."""
        try:
            self._end(error)
            await self._inbox.put_last(ConnectionLost(error))
        except Exception as bug:
            contained(bug, "the server")
            # Without a last item, the end of `incoming` is the end of the session.
            self._inbox.finish()

    async def _turned_away(self, outgoing: Outgoing) -> bool:
        """Whether nothing more is sent in the session, and with it this message is not."""
        if self._ended is not None:
            # A request needs no answer of its own any more: the loss of the connection is on its way.
            if outgoing.receipt is not None:
                outgoing.receipt(fresh(self._ended))
            return True
        lost = self._lost or self._doubted
        if lost is None:
            return False
        refused = SessionLostError(str(lost), reason=lost.reason, refused=True, cause=lost.cause)
        if outgoing.receipt is not None:
            outgoing.receipt(refused)
        elif isinstance(outgoing.message, JSONRPCRequest):
            await self._inbox.put(RequestFault(outgoing.message.id, refused))
        self._lose(lost)
        return True

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
        seconds = self._policy.expiry_seconds
        if self._doubted is not None:
            # What is sent at the same time as the first message that is refused is to be refused as well: it
            # may be sent again, which is not known of what is lost.
            await anyio.sleep(self._policy.refusal_seconds)
            seconds = self._policy.doubt_seconds
        with anyio.move_on_after(seconds):
            while self._requests:
                self._settled = anyio.Event()
                await self._settled.wait()
        await self._break_off(error)

    def _forget(self, exchange: ExchangeT) -> bool:
        """The request is settled. False if its id belongs to another one by now, or to none."""
        if self._requests.get(exchange.request.id) is not exchange:
            return False
        del self._requests[exchange.request.id]
        self._settled.set()
        return True

    def _start_delivery(self, delivery: DeliveryExchange) -> None:
        self._deliveries.add(delivery)
        self._start(partial(self._deliver, delivery), "anyio_mcp http delivery")

    async def _deliver(self, delivery: DeliveryExchange) -> None:
        try:
            await delivery.run()
        finally:
            # A cancellation from outside reaches this task before it reaches whoever closes the connection.
            delivery.settle(closed())
            self._deliveries.discard(delivery)

    def _end(self, error: SessionLostError) -> None:
        # The first reason stays: a connection that was lost is not "closed" when it is left.
        if self._ended is None:
            self._ended = error
        self._inbox.end()
        for delivery in tuple(self._deliveries):
            delivery.settle(fresh(error))
            delivery.scope.cancel()
        for request in self._requests.values():
            request.scope.cancel()
        self._requests.clear()


def closed() -> SessionLostError:
    return SessionLostError("the connection is closed", reason="closed")

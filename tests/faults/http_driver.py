"""Drives an HTTP transport as a session would: sends messages, and takes what arrives for each."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports.base import Connection, ConnectionLost, Incoming, Outgoing, RequestFault, Violation
from anyio_mcp.transports.http import StreamableHttpTransport
from tests.faults.http_server import Handler, Talk, fault_server

LEGACY = {"mcp-protocol-version": "2025-11-25"}
MODERN = {"mcp-protocol-version": "2026-07-28"}

# The bounds of the product, shortened so that a test that runs into one of them is still a fast test.
QUICK = HttpPolicy(
    error_body_seconds=0.1,
    drain_seconds=0.1,
    delivery_seconds=2.0,
    retry_default=0.01,
    retry_floor=0.005,
    retry_ceiling=0.05,
)


class Receipt:
    """The receipt of one message, and how often it was given."""

    def __init__(self) -> None:
        self.given: list[Exception | None] = []
        self._event = anyio.Event()

    def __call__(self, error: Exception | None) -> None:
        self.given.append(error)
        self._event.set()

    async def wait(self) -> Exception | None:
        await self._event.wait()
        return self.given[0]


class Driver:
    """One connection. `seen` collects what arrived while something else was waited for."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.seen: list[Incoming] = []
        self._ids = itertools.count(1)

    async def request(
        self,
        method: str = "tools/call",
        params: dict[str, Any] | None = None,
        *,
        era: Mapping[str, str] | None = LEGACY,
        request_id: RequestId | None = None,
    ) -> RequestId:
        """Send a request and do not wait for its answer."""
        identity = next(self._ids) if request_id is None else request_id
        message = JSONRPCRequest(jsonrpc="2.0", id=identity, method=method, params=params)
        await self.connection.send(Outgoing(message, headers=era))
        return identity

    async def settled(self, request_id: RequestId) -> JSONRPCResponse | JSONRPCError | RequestFault:
        """What became of a request."""
        while True:
            item = await self.connection.incoming.receive()
            match item:
                case RequestFault(request_id=identity) if identity == request_id:
                    return item
                case JSONRPCResponse() | JSONRPCError() if item.id == request_id:
                    return item
                case _:
                    self.seen.append(item)

    async def call(
        self,
        method: str = "tools/call",
        params: dict[str, Any] | None = None,
        *,
        era: Mapping[str, str] | None = LEGACY,
    ) -> JSONRPCResponse | JSONRPCError | RequestFault:
        return await self.settled(await self.request(method, params, era=era))

    async def result(
        self, method: str = "tools/call", params: dict[str, Any] | None = None, **era: Any
    ) -> Any:
        """The result of a call that is expected to work."""
        item = await self.call(method, params, **era)
        assert isinstance(item, JSONRPCResponse), item
        return item.result

    async def fault(self, method: str = "tools/call", *, era: Mapping[str, str] | None = LEGACY) -> Exception:
        """The error of a call that is expected to fail."""
        item = await self.call(method, era=era)
        assert isinstance(item, RequestFault), item
        return item.error

    async def notify(
        self, method: str = "notifications/x", *, era: Mapping[str, str] | None = LEGACY
    ) -> Receipt:
        """Send a notification and do not wait for its receipt."""
        receipt = Receipt()
        message = JSONRPCNotification(jsonrpc="2.0", method=method)
        await self.connection.send(Outgoing(message, headers=era, receipt=receipt))
        return receipt

    async def initialize(self) -> None:
        """The legacy handshake, to its end."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "driver", "version": "1"},
        }
        await self.result("initialize", params, era=None)
        receipt = await self.notify("notifications/initialized")
        assert await receipt.wait() is None

    async def lost(self) -> ConnectionLost:
        """The loss of the connection, which has to be the last item."""
        while True:
            item = await self.connection.incoming.receive()
            if isinstance(item, ConnectionLost):
                break
            self.seen.append(item)
        try:
            after = await self.connection.incoming.receive()
        except anyio.EndOfStream:
            return item
        raise AssertionError(f"{after} came behind the loss of the connection")

    async def arrived(self, kind: type[Any]) -> Any:
        """The first item of a kind that was not taken yet."""
        for item in self.seen:
            if isinstance(item, kind):
                self.seen.remove(item)
                return item
        while True:
            item = await self.connection.incoming.receive()
            if isinstance(item, kind):
                return item
            self.seen.append(item)

    @property
    def violations(self) -> list[str]:
        return [item.detail for item in self.seen if isinstance(item, Violation)]


@asynccontextmanager
async def connected(
    url: str,
    *,
    policy: HttpPolicy = QUICK,
    limits: Limits | None = None,
    timeouts: Timeouts | None = None,
    seconds: float = 5.0,
    **options: Any,
) -> AsyncGenerator[Driver]:
    """A connection to `url`; whatever waits longer than `seconds` in it fails the test."""
    transport = StreamableHttpTransport(url, _policy=policy, **options)
    with anyio.fail_after(seconds):
        async with transport.connect(
            timeouts=timeouts or Timeouts(close=1.0), limits=limits or Limits()
        ) as connection:
            yield Driver(connection)


async def the_fault(handler: Handler, *, era: Any = LEGACY, **options: Any) -> Exception:
    """The error of one call answered by `handler`, after which the connection still works."""
    broken = True

    async def first_wrong_then_right(talk: Talk) -> None:
        nonlocal broken
        if broken:
            await handler(talk)
        elif talk.received.method == "POST":
            await talk.result({"works": True})

    async with fault_server(first_wrong_then_right) as server, connected(server.url, **options) as driver:
        error = await driver.fault(era=era)
        broken = False
        assert await driver.result(era=era) == {"works": True}
    return error

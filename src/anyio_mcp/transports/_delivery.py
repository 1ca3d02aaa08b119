"""The POST of what nobody answers: a notification, or an answer to a request of the server.

It always ends by giving the message's receipt; what goes wrong in it stays in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import anyio
from mcp.types import JSONRPCError, JSONRPCResponse

from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._headers import Stamp
from anyio_mcp.transports._wire import Wire, encode, refusal
from anyio_mcp.transports.base import Outgoing


@final
class DeliveryExchange:
    """The POST of a notification, or of an answer to a request of the server."""

    __slots__ = ("_outgoing", "_stamp", "_wire", "delivered", "scope", "settled")

    def __init__(
        self, wire: Wire, outgoing: Outgoing, stamp: Stamp, delivered: Callable[[], None] | None = None
    ) -> None:
        self.scope = anyio.CancelScope()
        self.settled = False
        self.delivered = delivered
        self._wire = wire
        self._outgoing = outgoing
        self._stamp = stamp

    async def run(self) -> None:
        """Ends when the receipt was given and the connection is free, or when `scope` is cancelled."""
        policy = self._wire.http.policy
        # Nobody can abandon a notification: without a bound, a server that never acknowledges them
        # would take one more connection for each.
        self.scope.deadline = anyio.current_time() + policy.delivery_seconds
        with self.scope:
            try:
                fault = await self._deliver()
            except Exception as error:  # named nowhere else, as in `_exchange.py`
                self.settle(contained(error, self._wire.http.describe))
            else:
                if isinstance(fault, SessionLostError):
                    self._wire.lose(fault)
                if fault is not None:
                    self.settle(fault)
        if self.scope.cancelled_caught:
            self.settle(
                RequestFailedError(
                    f"{self._wire.http.describe} acknowledged no message in {policy.delivery_seconds} s",
                    reason="transport",
                )
            )

    def settle(self, error: Exception | None) -> None:
        """Give the receipt, the first time. Does not wait."""
        if self.settled:
            return
        if error is None and self.delivered is not None:
            self.delivered()
        self.settled = True
        if self._outgoing.receipt is not None:
            self._outgoing.receipt(error)

    async def _deliver(self) -> Exception | None:
        message = self._outgoing.message
        async with self._wire.http.open("POST", self._stamp.headers, encode(message)) as response:
            if not response.is_success:
                own = None if not isinstance(message, JSONRPCResponse | JSONRPCError) else message.id
                return await refusal(self._wire, response, self._stamp, own)
            self.settle(None)
            await self._wire.http.discard(response)
        return None

"""The receive loop: what arrives, sorted to the call, the handler or the counter it belongs to.

Nothing in it waits for anybody: a slow caller or handler must not delay what comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.shared.dispatcher import OnNotifyIntercept, as_request_id, run_notify_intercept
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp._session.correlation import Correlation, Progress
from anyio_mcp._session.inbound import Inbound
from anyio_mcp._text import get_logger
from anyio_mcp.errors import ServerError, SessionLostError
from anyio_mcp.transports.base import ConnectionLost, Incoming, RequestFault, Violation

logger = get_logger(__name__)

KEPT_VIOLATIONS: Final = 5
"""How many of the peer's violations are kept for an error message; the rest are only counted."""


@final
@dataclass(slots=True, eq=False)
class Violations:
    """What the peer sent that was no message."""

    count: int = 0
    first: list[str] = field(default_factory=list[str])

    def add(self, detail: str) -> None:
        self.count += 1
        if len(self.first) < KEPT_VIOLATIONS:
            self.first.append(detail)
        logger.debug("the peer broke the protocol: %s", detail)


@final
class Receiver:
    """Reads one connection to its end."""

    def __init__(
        self,
        calls: Correlation,
        inbound: Inbound,
        *,
        intercept: OnNotifyIntercept | None,
        observers: Mapping[str, Callable[[Mapping[str, Any]], None]],
        violations: Violations,
        unclaimed: Callable[[dict[str, Any]], None],
        end: Callable[[Exception], None],
    ) -> None:
        self._calls = calls
        self._inbound = inbound
        self._intercept = intercept
        self._observers = observers
        self._violations = violations
        self._unclaimed = unclaimed
        self._end = end

    async def run(self, incoming: ObjectReceiveStream[Incoming]) -> None:
        """Sort what arrives until the connection is lost; then end the session."""
        async for first in incoming:
            # A task that reads a stream gets one item each time it is its turn. A thousand calls that fail
            # together would wait for a thousand turns, each behind whatever else is to be done by then.
            item: Incoming | None = first
            # While this waits for the next, it would keep an error, and all the frames that one holds.
            del first
            while isinstance(item, JSONRPCResponse | JSONRPCError | RequestFault):
                self._settle(item)
                item = _at_hand(incoming)
            match item:
                case None:
                    pass
                case JSONRPCNotification():
                    self._take_notification(item)
                case JSONRPCRequest():
                    self._inbound.take_request(item)
                case Violation():
                    self._violations.add(item.detail)
                case ConnectionLost():
                    self._end(item.error)
                    return
        self._end(SessionLostError("the server ended the connection", reason="eof"))

    def _settle(self, item: JSONRPCResponse | JSONRPCError | RequestFault) -> None:
        match item:
            case JSONRPCResponse():
                if not self._calls.resolve(item.id, item.result):
                    self._unclaimed(item.result)
            case JSONRPCError(id=None):
                self._violations.add(f"an error for no request: {item.error.message[:200]}")
            case JSONRPCError():
                self._calls.reject(cast("str | int", item.id), ServerError.from_error_data(item.error))
            case RequestFault():
                self._calls.reject(item.request_id, item.error)

    def _take_notification(self, item: JSONRPCNotification) -> None:
        params = item.params
        if item.method == "notifications/progress" and params is not None:
            self._take_progress(params)
        elif item.method == "notifications/cancelled":
            request_id = as_request_id((params or {}).get("requestId"))
            if request_id is not None:
                self._inbound.cancel(request_id)
        observer = self._observers.get(item.method)
        if observer is not None:
            observer(params or {})
        # In the order of the wire, before anything that comes later is looked at: subscriptions
        # depend on it.
        if not run_notify_intercept(self._intercept, item.method, params):
            self._inbound.take_notification(item.method, params)

    def _take_progress(self, params: dict[str, Any]) -> None:
        token = as_request_id(params.get("progressToken"))
        total, message = params.get("total"), params.get("message")
        if token is None or not (message is None or isinstance(message, str)):
            self._violations.add("a malformed progress notification")
            return
        try:
            update = Progress(
                _number(params.get("progress")), None if total is None else _number(total), message
            )
        except ValueError as error:
            self._violations.add(f"a malformed progress notification: {error}")
            return
        self._calls.report_progress(token, update)


def _at_hand(incoming: ObjectReceiveStream[Incoming]) -> Incoming | None:
    """What can be had without waiting. Streams of other makes cannot say, and are asked one by one."""
    if isinstance(incoming, MemoryObjectReceiveStream):
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            return incoming.receive_nowait()
    return None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number beyond all measure") from None

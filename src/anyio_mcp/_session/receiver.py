"""The receive loop: what arrives, sorted to the call, the handler or the counter it belongs to.

Nothing in it waits for anybody: a slow caller or handler must not delay what comes next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.shared.dispatcher import OnNotifyIntercept, as_request_id, run_notify_intercept
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp._session.boundary import Bugs
from anyio_mcp._session.correlation import Correlation, Progress
from anyio_mcp._session.inbound import Inbound
from anyio_mcp._session.notifications import AT_ONCE, BYTES_AT_ONCE, Notifications
from anyio_mcp._text import BoundedLog, get_logger
from anyio_mcp.errors import MCPError, RequestFailedError, SessionLostError
from anyio_mcp.transports._inbox import IncomingStream
from anyio_mcp.transports.base import INBOX_SIZE, ConnectionLost, Incoming, RequestFault, Violation

logger = get_logger(__name__)

KEPT_VIOLATIONS: Final = 5
"""How many of the peer's violations are kept for an error message; the rest are only counted."""

VIOLATION_CHARACTERS: Final = 300
"""Characters that are kept of each."""


@final
@dataclass(slots=True, eq=False)
class Violations:
    """What the peer sent that was no message."""

    count: int = 0
    first: list[str] = field(default_factory=list[str])
    _log: BoundedLog = field(default_factory=BoundedLog)

    def add(self, detail: str, count: int = 1) -> None:
        self.count += count
        detail = detail[:VIOLATION_CHARACTERS]
        if len(self.first) < KEPT_VIOLATIONS:
            self.first.append(detail)
        self._log.skip(count - 1)
        if logger.isEnabledFor(logging.DEBUG) and (more := self._log.line()) is not None:
            logger.debug("the peer broke the protocol: %s%s", detail, more)


@final
@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Receiver:
    """Reads one connection to its end. Whatever is raised about an item is the fault of that item."""

    calls: Correlation
    inbound: Inbound
    notifications: Notifications
    intercept: OnNotifyIntercept | None
    observers: Mapping[str, Callable[[Mapping[str, Any]], None]]
    violations: Violations
    unclaimed: Callable[[dict[str, Any]], None]
    bugs: Bugs
    end: Callable[[Exception], None]

    async def run(self, incoming: ObjectReceiveStream[Incoming]) -> None:
        """Sort what arrives until the connection is lost; then end the session."""
        try:
            async for first in incoming:
                # A task that reads a stream gets one item each time it is its turn. A thousand calls that
                # fail together would wait for a thousand turns, each behind whatever else is to be done, and
                # a flood of notifications would cost as many.
                item: Incoming | None = first
                # While this waits for the next, it would keep an error, and all the frames that one holds.
                del first
                most = self.notifications.weighed + BYTES_AT_ONCE
                others = 0
                while isinstance(item, JSONRPCResponse | JSONRPCError | RequestFault | JSONRPCNotification):
                    self._take(item)
                    if isinstance(item, JSONRPCNotification):
                        others += 1
                        if others >= AT_ONCE or self.notifications.weighed > most:
                            item = None
                            break
                    item = _at_hand(incoming)
                if isinstance(item, ConnectionLost):
                    self.end(item.error)
                    return
                if item is not None:
                    self._take(item)
        except Exception as error:  # of a connection that breaks its contract
            self.bugs.report("the reading of the connection", error)
            self.end(SessionLostError(f"the connection broke: {error!r}", reason="eof", cause=error))
            return
        self.end(SessionLostError("the server ended the connection", reason="eof"))

    def take_notifications_at_hand(self, incoming: ObjectReceiveStream[Incoming]) -> None:
        """The session is over. What the server has said by now is still said. Does not wait."""
        for _ in range(INBOX_SIZE):
            item = _at_hand(incoming)
            if item is None:
                return
            if isinstance(item, JSONRPCNotification):
                self._take(item)

    def _take(self, item: Incoming) -> None:
        """Sort one item. Raises nothing."""
        try:
            match item:
                case JSONRPCResponse() | JSONRPCError() | RequestFault():
                    self._settle(item)
                case JSONRPCNotification():
                    self._take_notification(item)
                case JSONRPCRequest():
                    self.inbound.take_request(item)
                case Violation():
                    self.violations.add(item.detail, item.count)
                case ConnectionLost():
                    self.end(item.error)
        except Exception as error:
            self.bugs.report(f"the sorting of a {type(item).__name__}", error)
            self._contain(item, error)

    def _contain(self, item: Incoming, bug: Exception) -> None:
        """Who waits because of `item` is told, if need be by the end of the session. Raises nothing."""
        request_id = None
        if isinstance(item, RequestFault):
            request_id = item.request_id
        elif isinstance(item, JSONRPCResponse | JSONRPCError):
            request_id = item.id
        try:
            if request_id is not None:
                text = f"the answer could not be taken: {type(bug).__name__}: {bug}"
                self.calls.reject(request_id, RequestFailedError(text, reason="violation", cause=bug))
            elif isinstance(item, JSONRPCRequest):
                self.inbound.refuse(item, "the client could not handle this")
        except Exception as error:
            self.bugs.report("telling of a bug", error)
            if request_id is None:
                return  # the server's affair alone
            self.end(SessionLostError(f"the session broke: {bug!r}", reason="closed", cause=bug))

    def _settle(self, item: JSONRPCResponse | JSONRPCError | RequestFault) -> None:
        match item:
            case JSONRPCResponse():
                if not self.calls.resolve(item.id, item.result):
                    self.unclaimed(item.result)
            case JSONRPCError(id=None):
                self.violations.add(f"an error for no request: {item.error.message[:200]}")
            case JSONRPCError():
                self.calls.reject(cast("str | int", item.id), MCPError.from_error_data(item.error))
            case RequestFault():
                known = self.calls.reject(item.request_id, item.error)
                if not known and getattr(item.error, "reason", None) == "violation":
                    self.violations.add(str(item.error))

    def _take_notification(self, item: JSONRPCNotification) -> None:
        params = item.params
        if item.method == "notifications/progress" and params is not None:
            if not self._take_progress(params):
                return  # counted, and nothing that a handler could read
        elif item.method == "notifications/cancelled":
            request_id = as_request_id((params or {}).get("requestId"))
            if request_id is not None:
                self.inbound.cancel(request_id)
        observer = self.observers.get(item.method)
        if observer is not None:
            try:
                observer(params or {})
            except Exception as error:  # its handler hears of it all the same
                self.bugs.report(f"the observer of {item.method!r}", error)
        # In the order of the wire, before anything that comes later is looked at: subscriptions
        # depend on it.
        if not run_notify_intercept(self.intercept, item.method, params):
            self.notifications.take(item.method, params)

    def _take_progress(self, params: dict[str, Any]) -> bool:
        """Hand progress to the call it is about. False if it is malformed, which is counted."""
        token = as_request_id(params.get("progressToken"))
        progress = _number(params.get("progress"))
        if token is None or progress is None:
            self.violations.add("a malformed progress notification")
            return False
        message: object = params.get("message")
        update = Progress(
            progress, _number(params.get("total")), message if isinstance(message, str) else None
        )
        self.calls.report_progress(token, update)
        return True


def _at_hand(incoming: ObjectReceiveStream[Incoming]) -> Incoming | None:
    """What can be had without waiting. Streams of other makes cannot say, and are asked one by one."""
    if isinstance(incoming, MemoryObjectReceiveStream | IncomingStream):
        with suppress(anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            return incoming.receive_nowait()
    return None


def _number(value: object) -> float | None:
    """None for what is no number, or one beyond all measure."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None

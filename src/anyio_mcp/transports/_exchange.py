"""One POST and what becomes of it: the answer to a request, the receipt of anything else.

An exchange runs as a task of the connection and always ends by settling its own message; what goes wrong
in it stays in it. Must not know of the other exchanges, nor when the connection begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, final

import anyio
import httpx2
from mcp import MCPError
from mcp.types import JSONRPCError, JSONRPCMessage, JSONRPCRequest, JSONRPCResponse, RequestId

from anyio_mcp.errors import RequestFailedError, SessionLostError
from anyio_mcp.transports._headers import (
    EVENT_STREAM,
    JSON,
    SESSION_ID,
    SessionHeaders,
    Stamp,
    is_initialize,
    media_type,
    resumable,
)
from anyio_mcp.transports._headstart import HeadStart
from anyio_mcp.transports._httpclient import HttpRequester
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._messages import encode_message, read_event, same_id, settles
from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser
from anyio_mcp.transports._trace import Part
from anyio_mcp.transports.base import Outgoing, RequestFault, Violation, parse_message

# What servers on the TypeScript SDK's examples, and Python ones before they said 404, answer with a 400
# to a session they do not know. Taken for a fault of the request, it would fail every call from then on.
_NO_SESSION: Final = re.compile(rb"\b(no valid|invalid|invalid or missing|unknown) session\b", re.IGNORECASE)


@final
@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Wire:
    """What the tasks of one connection share."""

    http: HttpRequester
    session: SessionHeaders
    inbox: Inbox
    max_message_bytes: int
    head_start: HeadStart
    lose: Callable[[SessionLostError], None]
    """Ends the connection for everybody. Does not wait."""


@final
class RequestExchange:
    """One request: its POST, the body or stream that answers it, the GETs that resume that stream."""

    __slots__ = (
        "_done",
        "_outgoing",
        "_parser",
        "_progress",
        "_settled",
        "_wire",
        "request",
        "scope",
        "stamp",
    )

    def __init__(
        self,
        wire: Wire,
        outgoing: Outgoing,
        request: JSONRPCRequest,
        stamp: Stamp,
        done: Callable[[RequestExchange], None],
    ) -> None:
        self.request = request
        self.stamp = stamp
        self.scope = anyio.CancelScope()
        self._wire = wire
        self._outgoing = outgoing
        self._done = done
        self._settled = False
        self._parser: SseParser | None = None
        """Of the stream that is read, or was the last one: it knows where the next has to begin."""
        self._progress = False

    async def run(self) -> None:
        """Ends when the request is settled and its connection is free, or when `scope` is cancelled."""
        with self.scope:
            try:
                fault = await self._converse()
            except RequestFailedError as error:
                fault = error
            try:
                if isinstance(fault, SessionLostError):
                    self._wire.lose(fault)
                if fault is not None:
                    await self._settle(RequestFault(self.request.id, fault))
            finally:
                # It was raised through this frame, which would keep it, and it this frame, until the
                # garbage collector finds the two.
                del fault
        self._done(self)

    async def _converse(self) -> Exception | None:
        """The request's fault, unless it was settled by an answer."""
        content = encode(self.request)
        async with self._wire.http.open(
            "POST", self.stamp.headers, content, on_break=self._on_break
        ) as response:
            if not response.is_success:
                return await refusal(self._wire, response, self.stamp, self.request.id, unseen=True)
            if is_initialize(self._outgoing):
                await self._adopt_session(response)
            kind = media_type(response.headers.get("content-type", ""))
            if kind == JSON:
                await self._read_json(response)
                return None
            if kind != EVENT_STREAM:
                raise self._violation(
                    f"answered with status {response.status_code} and content-type {kind[:80]!r}"
                )
            broken = await self._follow(response)
        if self._settled:
            return None
        if self._resumable:
            return await self._resume(broken)
        return self._unanswered(broken)

    async def _on_break(self, part: Part, error: RequestFailedError) -> None:
        """The POST's connection broke: tell the caller before anything else is done about it."""
        if part == "head":
            fault = error
        elif self._parser is not None and not self._settled and not self._resumable:
            fault = self._unanswered(error)
        else:
            return
        await self._settle(RequestFault(self.request.id, fault))
        await self._wire.head_start.wait()

    @property
    def _last_event_id(self) -> str:
        return "" if self._parser is None else self._parser.last_event_id

    @property
    def _retry(self) -> int | None:
        return None if self._parser is None else self._parser.retry

    @property
    def _resumable(self) -> bool:
        return not self.stamp.modern and resumable(self._last_event_id)

    def _unanswered(self, broken: Exception | None) -> RequestFailedError:
        return RequestFailedError(
            f"the stream of {self._wire.http.describe} ended without an answer",
            reason="transport",
            cause=broken,
        )

    async def _adopt_session(self, response: httpx2.Response) -> None:
        session_id = response.headers.get(SESSION_ID)
        if session_id and not self._wire.session.adopt(session_id):
            await self._wire.inbox.put(Violation("a session id that is not visible ASCII"))

    async def _read_json(self, response: httpx2.Response) -> None:
        body = await self._wire.http.read(response, self._wire.max_message_bytes)
        if not body:
            raise self._violation(f"answered with status {response.status_code} and an empty body")
        try:
            message = parse_message(body)
        except ValueError as error:
            raise self._violation(f"answered with something else: {error}") from error
        if not isinstance(message, JSONRPCResponse | JSONRPCError):
            raise self._violation(f"answered with a message of its own ({message.method[:80]!r})")
        settled = settles(message, self.request.id)
        if settled is None:
            raise self._violation(f"answered another request ({str(message.id)[:80]!r})")
        await self._settle(settled)

    async def _follow(self, response: httpx2.Response) -> RequestFailedError | None:
        """Read a stream to its end. Returns how it broke off, None if it was ended.

        Behind the answer it is read on only for its connection's sake: briefly, then it is closed.
        """
        policy = self._wire.http.policy
        began = self._last_event_id
        parser = SseParser(self._wire.max_message_bytes, last_event_id=began, retry=self._retry)
        self._parser = parser
        left = policy.drain_bytes
        try:
            with anyio.CancelScope() as drain:
                async with aclosing(self._wire.http.chunks(response)) as chunks:
                    async for chunk in chunks:
                        if self._settled:
                            left -= len(chunk)
                        for event in parser.feed(chunk):
                            if parser.last_event_id != began or carries_data(event):
                                self._progress = True
                            await self._on_event(event)
                        if self._settled:
                            drain.deadline = min(drain.deadline, anyio.current_time() + policy.drain_seconds)
                        if left < 0:
                            break
        except RequestFailedError as error:
            if error.reason != "transport":
                raise
            return error
        return None

    async def _on_event(self, event: SseEvent | SseOverflow) -> None:
        if isinstance(event, SseOverflow) and not self._settled:
            # It may have been the answer, and nobody could tell the caller if it was.
            raise RequestFailedError(
                f"an event in the answer of {self._wire.http.describe} exceeds "
                f"Limits.max_message_bytes ({self._wire.max_message_bytes})",
                reason="oversized",
            )
        item = read_event(event)
        if isinstance(item, JSONRPCResponse | JSONRPCError):
            settled = settles(item, self.request.id)
            if self._settled:
                item = Violation("a second answer on the stream of one request")
            elif settled is None:
                item = Violation("an answer to another request on the stream of this one")
            else:
                await self._settle(settled)
                return
        if item is not None:
            await self._wire.inbox.put(item)

    async def _resume(self, broken: Exception | None) -> Exception | None:
        """Ask for the rest of the stream, behind its last event, until the request is settled."""
        policy = self._wire.http.policy
        failures = attempts = 0
        while failures < policy.resume_attempts and attempts < policy.resume_total:
            await anyio.sleep(policy.retry_delay(self._retry))
            attempts += 1
            self._progress = False
            stamp = self._wire.session.stamp_get(self._last_event_id)
            try:
                async with self._wire.http.open("GET", stamp.headers) as response:
                    if not response.is_success:
                        broken = await refusal(self._wire, response, stamp, self.request.id)
                        if response.status_code < 500:
                            return broken
                    elif media_type(response.headers.get("content-type", "")) != EVENT_STREAM:
                        raise self._violation("resumed the stream of a request with something else")
                    else:
                        broken = await self._follow(response) or broken
            except RequestFailedError as error:
                if error.reason != "transport":
                    raise
                broken = error
            if self._settled:
                return None
            failures = 0 if self._progress else failures + 1
        return RequestFailedError(
            f"the stream of {self._wire.http.describe} ended without an answer, and so did {attempts} "
            "attempts to resume it",
            reason="transport",
            cause=broken,
        )

    async def _settle(self, item: JSONRPCResponse | JSONRPCError | RequestFault) -> None:
        if not self._settled:
            self._settled = True
            await self._wire.inbox.settle(item)
            self._done(self)

    def _violation(self, what: str) -> RequestFailedError:
        return RequestFailedError(
            f"{self._wire.http.describe} {what}, not with an answer to this request", reason="violation"
        )


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
            except RequestFailedError as error:
                fault = error
            try:
                if isinstance(fault, SessionLostError):
                    self._wire.lose(fault)
                if fault is not None:
                    self.settle(fault)
            finally:
                del fault  # as above
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
        self.settled = True
        if error is None and self.delivered is not None:
            self.delivered()
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


def carries_data(event: SseEvent | SseOverflow) -> bool:
    """Whether a stream that brought this event got further by it. The same id again is no progress."""
    return isinstance(event, SseOverflow) or bool(event.data)


async def refusal(
    wire: Wire,
    response: httpx2.Response,
    stamp: Stamp,
    message_id: RequestId | None = None,
    *,
    unseen: bool = False,
) -> Exception:
    """What a status that is no success means: the end of the session, the server's own error in its
    body, or the status itself. `unseen`: it answers the message itself, not the wait for its answer."""
    error, body = await wire.http.status_error(response)
    denied = response.status_code == 400 and unseen and _NO_SESSION.search(body) is not None
    if (response.status_code == 404 or denied) and stamp.in_session:
        text = f"{wire.http.describe} does not know the session any more"
        return SessionLostError(text, reason="expired", refused=unseen, cause=error)
    try:
        message = parse_message(body)
    except ValueError:
        return error
    if not isinstance(message, JSONRPCError) or not (message.id is None or same_id(message.id, message_id)):
        return error
    reason = MCPError.from_jsonrpc_error(message)
    reason.__cause__ = error
    return reason


def encode(message: JSONRPCMessage) -> bytes:
    try:
        return encode_message(message)
    except ValueError as error:
        raise RequestFailedError(
            f"the message cannot be written as JSON: {error}", reason="transport", cause=error
        ) from error

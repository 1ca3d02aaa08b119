"""One request: its POST, and the answer, the stream or the fault that it ends with.

An exchange runs as a task of the connection and always ends by settling its own message; what goes wrong
in it stays in it. Must not know of the other exchanges, nor when the connection begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import final

import anyio
import httpx2
from mcp.types import ErrorData, JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.errors import MCPError, RequestFailedError, SessionLostError, fresh
from anyio_mcp.transports._body import Body
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._headers import SESSION_ID, Stamp, is_initialize, media_type, resumable
from anyio_mcp.transports._messages import named_request, read_event, settles, size_of
from anyio_mcp.transports._reading import read_messages
from anyio_mcp.transports._sse import SseEvent, SseOverflow, SseParser, carries_data
from anyio_mcp.transports._wire import Wire, encode, refusal
from anyio_mcp.transports.base import Outgoing, RequestFault, Violation


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
        done: Callable[[RequestExchange], object],
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
            # What is raised through this frame is named in the `except` alone: kept beyond it, the error
            # and the frame would hold each other until the garbage collector finds the two.
            try:
                fault = await self._converse()
            except Exception as error:
                await self._fail(contained(error, self._wire.http.describe))
            else:
                if fault is not None:
                    await self._fail(fault)
        self._done(self)

    async def _fail(self, fault: Exception) -> None:
        if isinstance(fault, SessionLostError):
            self._wire.lose(fault)
        await self._settle(RequestFault(self.request.id, fault))

    async def _converse(self) -> Exception | None:
        """The request's fault, unless it was settled by an answer."""
        content = encode(self.request)
        async with self._wire.http.open(
            "POST",
            self.stamp.headers,
            content,
            waits=not self._outgoing.probe,
            delayed=self._outgoing.delayed,
        ) as response:
            if not response.is_success:
                return await refusal(self._wire, response, self.stamp, self.request.id, unseen=True)
            self._wire.bad_requests.answered()
            if is_initialize(self._outgoing):
                await self._adopt_session(response)
            async with Body(self._wire.http, response, self._wire.limits.max_message_bytes) as body:
                kind = await body.kind()
                if kind == "json":
                    await self._read_json(response, body)
                    return None
                if kind == "other":
                    named = media_type(response.headers.get("content-type", ""))
                    raise self._violation(
                        f"answered with status {response.status_code} and content-type {named[:80]!r}"
                    )
                broken = await self._follow(body)
                if not self._settled and not self._resumable:
                    # Before the connection is closed: when a server goes, a thousand of them break at once.
                    await self._settle(RequestFault(self.request.id, self._unanswered(broken)))
        return None if self._settled else await self._resume(broken)

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

    async def _read_json(self, response: httpx2.Response, body: Body) -> None:
        data = await body.read()
        if not data:
            raise self._violation(f"answered with status {response.status_code} and an empty body")
        wrong = ""
        for item in read_messages(data, self._wire.limits):
            settled = settles(item, self.request.id)
            if settled is not None:
                await self._settle(settled)
            elif isinstance(item, Violation):
                wrong = f"answered with something else: {item.detail}"
            elif isinstance(item, JSONRPCRequest | JSONRPCNotification):
                wrong = f"answered with a message of its own ({item.method[:80]!r})"
                await self._wire.inbox.put(item, len(data))
            else:
                wrong = f"answered another request ({str(named_request(item))[:80]!r})"
        if not self._settled:
            raise self._violation(wrong)

    async def _follow(self, body: Body) -> RequestFailedError | None:
        """Read a stream to its end. Returns how it broke off, None if it was ended.

        Behind the answer it is read on only for its connection's sake: briefly, then it is closed.
        """
        policy = self._wire.http.policy
        began = self._last_event_id
        parser = SseParser(self._wire.limits.max_message_bytes, last_event_id=began, retry=self._retry)
        self._parser = parser
        try:
            with anyio.CancelScope() as drain:
                async with aclosing(body.events(parser)) as events:
                    async for event in events:
                        if parser.last_event_id != began or carries_data(event):
                            self._progress = True
                        await self._on_event(event)
                        if self._settled:
                            body.left = min(body.left, policy.drain_bytes)
                            drain.deadline = min(drain.deadline, anyio.current_time() + policy.drain_seconds)
        except RequestFailedError as error:
            if error.reason != "transport":
                raise
            return error
        return None

    async def _on_event(self, event: SseEvent | SseOverflow) -> None:
        if isinstance(event, SseOverflow) and not self._settled:
            # It may have been the answer, and nobody could tell the caller if it was. Told at once: the
            # rest of the stream may break while it is left, which is not the reason.
            fault = RequestFailedError(
                f"an event in the answer of {self._wire.http.describe} exceeds "
                f"Limits.max_message_bytes ({self._wire.limits.max_message_bytes})",
                reason="oversized",
            )
            await self._settle(RequestFault(self.request.id, fault))
            raise fresh(fault)  # a copy: the caller raises the other one, in its own task
        for item in read_event(event, self._wire.limits):
            if isinstance(item, JSONRPCResponse | JSONRPCError | RequestFault):
                settled = settles(item, self.request.id)
                if self._settled:
                    item = Violation("a second answer on the stream of one request")
                elif settled is None:
                    item = Violation("an answer to another request on the stream of this one")
                else:
                    await self._settle(settled)
                    continue
            await self._wire.inbox.put(item, size_of(event))

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
                    else:
                        async with Body(
                            self._wire.http, response, self._wire.limits.max_message_bytes
                        ) as body:
                            if await body.kind() != "events":
                                raise self._violation("resumed the stream of a request with something else")
                            broken = await self._follow(body) or broken
            except RequestFailedError as error:
                if error.reason not in ("transport", "sign_in"):
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
        self._judge(item)
        # Abandoned, it has nothing to say any more: its id may belong to another request by now.
        if not self._settled and not self.scope.cancel_called:
            self._settled = True
            try:
                await self._wire.inbox.settle(item)
            except Exception:
                self._settled = False  # its fault is due
                raise
            self._done(self)

    def _judge(self, item: JSONRPCResponse | JSONRPCError | RequestFault) -> None:
        """An error that a server answers which does not know the session is this request's; the next one is
        made in a session of its own."""
        said = getattr(item, "error", None)
        if isinstance(said, ErrorData | MCPError) and not self._settled:
            self._wire.judge(said, self.stamp.session_id)

    def _violation(self, what: str) -> RequestFailedError:
        return RequestFailedError(
            f"{self._wire.http.describe} {what}, not with an answer to this request", reason="violation"
        )

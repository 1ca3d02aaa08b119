"""The SDK's `Dispatcher`, on top of the session's outbox and the connection's inbox.

The one place where a caller meets the session: each request waits here inside one cancel scope that
carries both its deadline and the session's failure, so code that uses `client.session` directly is
protected as well. It knows JSON-RPC, not MCP, apart from the two notifications JSON-RPC lacks:
`cancelled` and `progress`, and `resultType`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, cast, final

import anyio
import anyio.abc
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import MCPError
from mcp.shared.dispatcher import (
    CallOptions,
    Dispatcher,
    OnNotify,
    OnNotifyIntercept,
    OnRequest,
    ProgressFnT,
)
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.transport_context import TransportContext
from mcp.types import (
    CONNECTION_CLOSED,
    CORE_RESULT_TYPES,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from anyio_mcp._sendable import check_sendable
from anyio_mcp._session.boundary import Bugs
from anyio_mcp._session.correlation import Correlation, PendingCall, Progress
from anyio_mcp._session.courtesies import Courtesies
from anyio_mcp._session.errands import Errands
from anyio_mcp._session.inbound import Inbound, RequestContext
from anyio_mcp._session.notifications import Notifications
from anyio_mcp._session.receiver import Receiver, Violations
from anyio_mcp._session.slots import HandlerSlots
from anyio_mcp._session.watchdog import (
    CallDeadline,
    RequestFacts,
    SessionFailure,
    current_deadline,
    guard,
    probing,
)
from anyio_mcp._text import get_logger
from anyio_mcp.config import Timeouts
from anyio_mcp.errors import DeadlineExceededError, RequestFailedError, SessionLostError
from anyio_mcp.telemetry import inject_trace_context
from anyio_mcp.transports.base import Connection, Outgoing

logger = get_logger(__name__)

_LISTEN: Final = "subscriptions/listen"
_CALL: Final = "tools/call"

OUTBOX_SIZE: Final = 256
"""Messages waiting for the transport. When it is full, callers wait, each within its own deadline."""

INITIALIZED_PATIENCE: Final = 5.0
"""Seconds to wait until `notifications/initialized` is delivered. A server that took it and never says
so is served all the same."""


@final
class _Doorbell:
    """Wakes one waiter, any number of times: each wait gets an event of its own, none is reset."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = anyio.Event()


@final
class SessionDispatcher(Dispatcher[TransportContext]):
    """Requests out, answers in, for the lifetime of one connection."""

    def __init__(
        self,
        connection: Connection,
        *,
        failure: SessionFailure,
        end: Callable[[Exception], None],
        timeouts: Timeouts,
    ) -> None:
        self._connection = connection
        self._failure = failure
        self._end = end
        self._timeouts = timeouts
        self._calls = Correlation()
        self._busy_since = 0.0
        self._outbox: MemoryObjectSendStream[tuple[Outgoing, PendingCall | None]]
        self._outbox_reader: MemoryObjectReceiveStream[tuple[Outgoing, PendingCall | None]]
        self._outbox, self._outbox_reader = anyio.create_memory_object_stream[
            tuple[Outgoing, PendingCall | None]
        ](OUTBOX_SIZE)
        self.bugs = Bugs()
        self.errands = Errands()
        self.slots = HandlerSlots()
        self.notifications = Notifications(RequestContext(self), self.bugs)
        self.courtesies = Courtesies(lambda message: self._deliver(message, {}), self.bugs)
        self.on_unclaimed: Callable[[dict[str, Any]], None] = lambda result: None
        """Called with a result that came too late for its caller. It must not wait."""
        self.refused_requests = 0
        self.violations = Violations()
        self.observers: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        """By method: told of a notification's params in the order of the wire, ahead of its handler."""
        self.result_types = CORE_RESULT_TYPES
        """Values of `resultType` that the client understands (2026-07-28), those of its extensions too."""
        self.tell: OnNotify | None = None
        """Who is told of notifications, in place of the handler that `run` is given."""

    @property
    def calls(self) -> Correlation:
        return self._calls

    def quiet_since(self) -> float | None:
        """When the last bytes came while calls wait for some; None while no call does, or while the server
        may be waiting for a handler of ours."""
        if not len(self._calls) or self.slots.taken:
            return None
        return max(self._busy_since, self._connection.last_traffic, self.slots.freed_at)

    # Callers' side

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request and wait for its answer.

        The deadline covers all of it, queueing and writing included: that of the public call this
        belongs to, or `opts["timeout"]` seconds, or `Timeouts.call`, which every progress update
        extends up to `Timeouts.total`.

        Raises the server's `MCPError`, what the transport made of this request (`RequestFailedError`,
        `HTTPStatusError`), `DeadlineExceededError`, or the reason the session is gone. A cancelled
        caller returns at once; the server is told later, if the request had been written, and a late
        answer is dropped.
        """
        # Not everybody who sends comes through the typed layer.
        check_sendable(params, method)
        if method == _LISTEN:
            return await self._listen(params, opts or {})
        result = await self._send(method, params, opts or {}, self._deadline(opts or {}))
        if (opts or {}).get("headers", {}).get(MCP_PROTOCOL_VERSION_HEADER) in MODERN_PROTOCOL_VERSIONS:
            # The specification's default (basic, resultType). The SDK's models of the modern era have none,
            # and would refuse what a tool has answered that has run.
            kind = result.get("resultType")
            if not kind:
                kind = result["resultType"] = "complete"
            if not isinstance(kind, str) or kind not in self.result_types:
                # Not to be taken for the result itself: only an extension that was not asked for knows.
                raise RequestFailedError(
                    f"{method!r} was answered with a result of the unknown type {str(kind)[:80]!r}",
                    reason="violation",
                    result=result,
                )
        return result

    async def _listen(self, params: Mapping[str, Any] | None, opts: CallOptions) -> dict[str, Any]:
        """A subscription's request is answered when the subscription ends, so no deadline applies.

        The SDK's driver runs it in a task of the session and expects nothing but `MCPError` of it.
        """
        try:
            return await self._send(_LISTEN, params, opts, CallDeadline(math.inf, math.inf))
        except MCPError:
            raise
        except Exception as error:
            raise MCPError(CONNECTION_CLOSED, str(error)) from error

    async def _send(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions, deadline: CallDeadline
    ) -> dict[str, Any]:
        self._failure.check()
        if deadline.remaining() <= 0:
            raise self._exceeded(deadline, method, None)
        bell = _Doorbell()
        on_progress = opts.get("on_progress")
        if not len(self._calls):
            self._busy_since = anyio.current_time()
        call = self._calls.open(
            method,
            bell.ring,
            request_id=opts.get("request_id"),
            wants_progress=on_progress is not None,
            # Progress extends a call whether or not anybody looks at it.
            has_token=method == _CALL and "progressToken" not in _meta_of(params),
        )
        scope = anyio.CancelScope(deadline=deadline.expires)
        self._failure.attach(scope)
        try:
            with scope:
                await self._outbox.send((self._request(call, params, opts), call))
                while not call.settled:
                    await bell.wait()
                    # Run by the caller itself: in order, finished before the result is returned, and
                    # a slow handler delays nobody else.
                    while call.progressed or call.progress:
                        call.progressed = False
                        deadline.extend()
                        scope.deadline = deadline.expires
                        update = self._calls.next_progress(call)
                        if update is not None and on_progress is not None:
                            await _report(on_progress, update)
                await self.notifications.wait_handled()
        except BaseException:
            if call.result is not None:
                self._give_up(call.result)
            raise
        finally:
            self._failure.detach(scope)
            if self._calls.leave(call):
                self._forsake(call, opts)
        if call.error is not None:
            raise call.take_error()
        if call.result is not None:
            return call.result
        self._failure.check()
        raise self._exceeded(deadline, method, call)

    def _exceeded(
        self, deadline: CallDeadline, method: str, call: PendingCall | None
    ) -> DeadlineExceededError:
        now = anyio.current_time()
        if call is None:
            held_up = "the deadline had passed before"
        elif call.written:
            held_up = "the server does not read what is being written to it"
        else:
            held_up = "what is to be sent before it was not taken yet"
        delayed_by = "" if call is None else call.delayed_by
        sent_at = None if call is None or delayed_by else call.sent_at
        facts = RequestFacts(
            method=method,
            sent_seconds=None if sent_at is None else now - sent_at,
            heard_seconds=now - self._connection.last_traffic,
            held_up=delayed_by or held_up,
            may_be_sent=bool(delayed_by),
        )
        return deadline.exceeded(f"{method!r}", facts)

    def _deadline(self, opts: CallOptions) -> CallDeadline:
        """The public call's deadline if there is one, cut by the request's own; else the defaults."""
        seconds = opts.get("timeout")
        ambient = current_deadline.get()
        if ambient is None:
            if seconds is None:
                return CallDeadline(self._timeouts.call_seconds, self._timeouts.total_seconds)
            return CallDeadline(seconds, seconds)
        if seconds is None or anyio.current_time() + seconds >= ambient.expires:
            return ambient
        return CallDeadline(seconds, seconds)

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        """Send a notification and wait until it is delivered: written, or accepted by the server.

        Bounded like a request. Raises what stopped it from being delivered.
        """
        self._failure.check()
        check_sendable(params, method)
        opts = opts or {}
        if method == "notifications/initialized":
            await self._notify_initialized(params, opts)
            return
        deadline = self._deadline(opts)
        with guard(self._failure, deadline, what=f"{method!r}"):
            await self._deliver(
                JSONRPCNotification(jsonrpc="2.0", method=method, params=_plain(params)), opts
            )

    async def deliver_answer(self, answer: JSONRPCResponse | JSONRPCError) -> None:
        """Answer a request of the server. A failure to deliver it is logged: nobody here waits."""
        try:
            with guard(self._failure, self._deadline({}), what="an answer"):
                await self._deliver(answer, {})
        except Exception as error:  # the transport's, the deadline's or the session's word; all end here
            logger.warning("an answer to the server was not delivered: %s", error)

    def refuse(self, request_id: RequestId, why: str) -> None:
        """Answer a request of the server with an error, unless there are many of them. Does not wait."""
        self.refused_requests += 1
        self.courtesies.refuse(request_id, why)

    async def _notify_initialized(self, params: Mapping[str, Any] | None, opts: CallOptions) -> None:
        message = JSONRPCNotification(
            jsonrpc="2.0", method="notifications/initialized", params=_plain(params)
        )
        # Bounded like a request; the patience only says when to go on without the server's word.
        with (
            guard(self._failure, self._deadline(opts), what="'notifications/initialized'"),
            anyio.move_on_after(INITIALIZED_PATIENCE) as patience,
        ):
            try:
                await self._deliver(message, opts)
            except RequestFailedError as error:
                # Lost on the way: no reason to refuse a server that answered `initialize`.
                logger.warning("notifications/initialized was not delivered: %s", error)
        if patience.cancelled_caught:
            logger.warning(
                "the server has not taken notifications/initialized within %g s; going on",
                INITIALIZED_PATIENCE,
            )

    async def _deliver(
        self, message: JSONRPCNotification | JSONRPCResponse | JSONRPCError, opts: CallOptions
    ) -> None:
        done = anyio.Event()
        failure: list[Exception] = []

        def receipt(error: Exception | None) -> None:
            if error is not None:
                failure.append(error)
            done.set()

        await self._outbox.send((Outgoing(message, opts.get("headers"), receipt), None))
        await done.wait()
        if failure:
            raise failure.pop()  # this frame, which the error will hold, does not hold the error

    def _request(self, call: PendingCall, params: Mapping[str, Any] | None, opts: CallOptions) -> Outgoing:
        sent = _plain(params)
        if call.has_token:
            # The id doubles as the token: unique among requests in flight, as the spec demands.
            sent = {**(sent or {}), "_meta": {**_meta_of(sent), "progressToken": call.request_id}}
        sent = inject_trace_context(sent)
        message = JSONRPCRequest(jsonrpc="2.0", id=call.request_id, method=call.method, params=sent)
        return Outgoing(message, opts.get("headers"), probe=probing.get(), delayed=partial(_delay, call))

    def _forsake(self, call: PendingCall, opts: CallOptions) -> None:
        """The caller left before the answer: free the exchange now, have the server told later."""
        try:
            told = self._connection.abandon(call.request_id)
        except Exception as error:  # not the caller's affair, who may be leaving with something else
            self.bugs.report("abandoning a request", error)
            told = False
        unwanted = opts.get("cancel_on_abandon", True) and not probing.get()
        if not told and unwanted and self._failure.error is None:
            # Not awaited: a cancelled task must return at once, the telling is the session's work.
            self.courtesies.cancelled(call.request_id)

    def _give_up(self, result: dict[str, Any]) -> None:
        """Nobody takes this result any more."""
        try:
            self.on_unclaimed(result)
        except Exception as error:  # the caller is leaving with something else
            self.bugs.report("giving up a result", error)

    # The session's side

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Move messages both ways until the connection is lost; then end the session."""
        self.notifications.handle_with(self.tell or on_notify)
        async with anyio.create_task_group() as tg:
            inbound = Inbound(self, tg, on_request=on_request, slots=self.slots, bugs=self.bugs)
            receiver = Receiver(
                calls=self._calls,
                inbound=inbound,
                notifications=self.notifications,
                intercept=on_notify_intercept,
                observers=self.observers,
                violations=self.violations,
                unclaimed=self.on_unclaimed,
                bugs=self.bugs,
                end=self._end,
            )
            self.errands.run_in(tg)
            try:
                tg.start_soon(self._write, name="anyio_mcp outbox")
                tg.start_soon(self.courtesies.run, name="anyio_mcp courtesies")
                task_status.started()
                await receiver.run(self._connection.incoming)
                tg.cancel_scope.cancel()
            finally:
                # Before the group is left: it takes no new tasks from then on, which trio says by an error.
                self.errands.run_in(None)
                receiver.take_notifications_at_hand(self._connection.incoming)
                self.notifications.close()
        # On asyncio a handler that lets a cancellation of its own escape cancels the tasks of the group:
        # nobody would read any more, and nobody would know.
        self._end(SessionLostError("a handler has cancelled the tasks of the session", reason="closed"))

    async def _write(self) -> None:
        # The reader stays open until the session is over: closed when this task is cancelled, it would
        # tell callers of a broken stream before anybody has told them why.
        async for outgoing, call in self._outbox_reader:
            try:
                await self._write_one(outgoing, call)
            except Exception as error:  # of a connection that breaks its contract
                self.bugs.report("the sending of a message", error)
                text = f"the message could not be sent: {type(error).__name__}: {error}"
                self._not_sent(outgoing, call, RequestFailedError(text, reason="transport", cause=error))

    async def _write_one(self, outgoing: Outgoing, call: PendingCall | None) -> None:
        if call is None:
            await self._connection.send(outgoing)
        elif self._calls.is_waiting(call.request_id):  # or its caller has left while it was queued
            call.written = True
            await self._connection.send(outgoing)
            call.sent_at = anyio.current_time()

    def _not_sent(self, outgoing: Outgoing, call: PendingCall | None, failure: Exception) -> None:
        """Tell who waits for the delivery, or for the answer."""
        try:
            if outgoing.receipt is not None:
                outgoing.receipt(failure)
            elif call is not None:
                self._calls.reject(call.request_id, failure)
        except Exception as error:
            self.bugs.report("telling of a message that was not sent", error)
            self._end(SessionLostError(f"the session broke: {error!r}", reason="closed", cause=error))

    def close(self) -> None:
        """Release the streams. Called once nothing runs any more, so it never waits."""
        self._calls.abandon_all()
        self.notifications.close()
        self._outbox.close()
        self._outbox_reader.close()


def _delay(call: PendingCall, by: str) -> None:
    """What the transport waits for before it sends the request; "" that it was sent."""
    call.delayed_by = by
    if not by:
        call.sent_at = anyio.current_time()


async def _report(on_progress: ProgressFnT, update: Progress) -> None:
    try:
        await on_progress(update.progress, update.total, update.message)
    except Exception:  # a user's handler: its failure is not the call's
        logger.exception("a progress handler raised")


def _plain(params: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if params is None else dict(params)


def _meta_of(params: Mapping[str, Any] | None) -> dict[str, Any]:
    meta: object = (params or {}).get("_meta")
    return cast("dict[str, Any]", meta) if isinstance(meta, dict) else {}

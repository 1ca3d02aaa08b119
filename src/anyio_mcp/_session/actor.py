"""The session: one task in a task group somebody else owns, from connecting to the last goodbye.

It puts the parts together (connection, dispatcher, the SDK's typed layer, negotiation, heartbeat),
decides once why the session ended, and lets everybody know before it says goodbye to the server. It
does not know who holds the session or whether there will be another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, cast, final

import anyio
import anyio.abc
from mcp import MCPError
from mcp.types import DiscoverResult

from anyio_mcp._session.dispatcher import SessionDispatcher
from anyio_mcp._session.lifecycle import Lifecycle, SessionState
from anyio_mcp._session.negotiation import KnownServer, probe_seconds, refuses_transport
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import (
    CallDeadline,
    SessionFailure,
    call_deadline,
    current_deadline,
    probing,
    watch_for_silence,
)
from anyio_mcp._text import get_logger
from anyio_mcp.config import Heartbeat, Limits, Timeouts
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    MCPClientError,
    NotConnectedError,
    SessionLostError,
)
from anyio_mcp.telemetry import record_session, server_attributes
from anyio_mcp.transports.base import Connection, Remarks, Transport

logger = get_logger(__name__)

LAST_WORDS_SECONDS: Final = 1.0
"""The longest a connect that failed over a pipe waits to hear what became of the process behind it. The
transport has bounds of its own, and they are shorter."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What one session is made of."""

    name: str
    transport: Transport
    older_transport: Transport | None
    """What to try once if the server refuses `transport` as one that it does not speak."""
    known: KnownServer
    mode: str
    prior_discover: DiscoverResult | None
    timeouts: Timeouts
    limits: Limits
    heartbeat: Heartbeat | None
    auto_initialize: bool
    typed_layer: Callable[[SessionDispatcher, SessionFailure], TypedSession]
    """Builds the SDK's typed layer, with the user's callbacks, on a dispatcher."""


@final
class SessionActor:
    """One session. Run it once; a new connection is a new actor."""

    def __init__(
        self,
        settings: SessionSettings,
        *,
        on_state: Callable[[SessionState], None],
        after: SessionActor | None = None,
    ) -> None:
        """`after` is the session before if it `has_another_way`, which is the one that this session goes."""
        self._settings = settings
        self._lifecycle = Lifecycle()
        self._on_state = on_state
        self._failure = SessionFailure()
        self._ready = anyio.Event()
        self._closed = anyio.Event()
        now = anyio.current_time()
        self.connect_by = now + settings.timeouts.connect_seconds
        """When it must be ready: an `anyio.current_time()`."""
        self.has_another_way = False
        """The server ended over `server/discover`, or refused the transport: the session that replaces this
        one begins with the handshake, or uses the other transport."""
        self.refusal: Exception | None = None
        """What the server said to the transport that was tried first, if it refused that."""
        self._is_first = after is None
        self._is_on_older = settings.known.is_on_older_transport
        if after is not None:
            if after.connect_by > now:
                # The way that failed has had its part of the time to connect: one deadline for both.
                self.connect_by = after.connect_by
            self.refusal = after.refusal
            self._is_on_older = after._is_on_older != (after.refusal is not None)
        self._open_by = self.connect_by
        if self.refusal is not None:
            # A server that speaks no HTTP+SSE may answer the GET with a stream on which it says nothing: what
            # it said to the first transport must not wait for that until the connect deadline.
            self._open_by = min(self.connect_by, now + probe_seconds(settings.timeouts.connect_seconds))
        self._transport = (settings.older_transport if self._is_on_older else None) or settings.transport
        self._handled = anyio.Event()
        self._closing_by = math.inf
        self._ready_at = 0.0
        self._session: TypedSession | None = None
        self._dispatcher: SessionDispatcher | None = None
        self._connection: Connection | None = None

    @property
    def state(self) -> SessionState:
        return self._lifecycle.state

    @property
    def failure(self) -> SessionFailure:
        """Fires when no call can succeed any more."""
        return self._failure

    @property
    def is_over(self) -> bool:
        return self._failure.error is not None

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set() and not self.is_over

    @property
    def session(self) -> TypedSession:
        """The SDK's session, once ready. Raises why not otherwise."""
        self._failure.check()
        if self._session is None or not self._ready.is_set():
            raise NotConnectedError(f"the session {self._settings.name!r} is not connected yet")
        return self._session

    @property
    def cache_hits(self) -> int:
        return 0 if self._session is None else self._session.cache_hits

    @property
    def dispatcher(self) -> SessionDispatcher | None:
        return self._dispatcher

    async def wait_ready(self, deadline: CallDeadline) -> TypedSession:
        """Wait until requests succeed.

        Raises what stopped the session from connecting, or `DeadlineExceededError` (phase `call`) when
        the caller's own deadline passes first. Cancelling the wait leaves the session alone.
        """
        if not self._ready.is_set():
            # The connect deadline is kept here as well: the transport that exceeds it may take a while
            # to clean up, and nobody has to wait for that.
            with anyio.CancelScope(deadline=min(deadline.expires, self.connect_by)) as scope:
                self._failure.attach(scope)
                try:
                    await self._ready.wait()
                finally:
                    self._failure.detach(scope)
            if scope.cancelled_caught and not self.is_over:
                if deadline.expires < self.connect_by:
                    raise deadline.exceeded("waiting for the session")
                self._end(self._too_slow())
        return self.session

    async def wait_closed(self) -> None:
        """Wait until nothing is left of the session but what its handlers have to do. Bounded by the close
        deadline."""
        await self._closed.wait()

    async def wait_handled(self) -> None:
        """Wait until the handlers have been told what the server has said. Bounded by the same deadline.

        One of those handlers, which would wait for itself, does not wait.
        """
        here = self._dispatcher is not None and self._dispatcher.notifications.is_here
        # Set, it is not waited for: it may be of an event loop that is over.
        if not here and not self._handled.is_set():
            await self._handled.wait()

    def close(self, error: Exception | None = None) -> None:
        """End the session now, for everybody; the goodbye to the server follows in its own task."""
        if self._failure.fire(error or SessionLostError("the client was closed", reason="closed")):
            self._enter(SessionState.CLOSING)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Live from connecting to goodbye.

        Returns normally however the session ends: why is in `failure`. Only cancellation and an interrupt
        leave as exceptions; a bug in this library is logged, and the reason of every call that fails for it.
        """
        # A call may have started this session, and a task begins in the context of who started it: the
        # call's deadline would bound every request of the session's own, for ever.
        current_deadline.set(None)
        try:
            # What the server has said is handed to the handlers while the transport takes its leave, and
            # behind that: the group is left when they are done, or the close deadline has passed.
            async with anyio.create_task_group() as handlers:
                await self._live_and_end(handlers, task_status)
                handlers.cancel_scope.deadline = self._closing_by
        finally:
            self._handled.set()

    async def _live_and_end(
        self, handlers: anyio.abc.TaskGroup, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        try:
            if not self.is_over:
                self._enter(SessionState.CONNECTING)
                await self._live(handlers, task_status)
        except anyio.get_cancelled_exc_class():
            self._end(self._cancelled())
            raise
        except Exception as error:
            # The group the session runs in is the caller's, and what leaves here would cancel it.
            logger.exception("a bug in anyio_mcp, please report it: the session broke")
            self._end(SessionLostError(f"the session broke: {error!r}", reason="closed", cause=error))
        except BaseException as error:
            # A KeyboardInterrupt: never swallowed, and everybody is told.
            self._end(SessionLostError(f"the session broke: {error!r}", reason="closed", cause=error))
            raise
        finally:
            if self._dispatcher is not None:
                self._dispatcher.close()
            self._enter(SessionState.CLOSED)
            self._closed.set()

    async def _live(self, handlers: anyio.abc.TaskGroup, task_status: anyio.abc.TaskStatus[None]) -> None:
        settings = self._settings
        # One scope bounds connecting, and lets a close() in the meantime take effect at once. When
        # the session is ready its deadline is lifted and nothing cancels it any more, so that leaving
        # the contexts below is a goodbye, not an abort.
        connecting = anyio.CancelScope(deadline=self._open_by)
        self._failure.attach(connecting)
        try:
            with connecting:
                async with AsyncExitStack() as stack:
                    try:
                        connection = await stack.enter_async_context(
                            self._transport.connect(timeouts=settings.timeouts, limits=settings.limits)
                        )
                    except Exception as error:
                        self._end(self._connect_error(error))
                        return
                    self._connection = connection
                    connecting.deadline = self.connect_by
                    self._dispatcher = SessionDispatcher(
                        connection, failure=self._failure, end=self._end, timeouts=settings.timeouts
                    )
                    handlers.start_soon(self._dispatcher.notifications.run, name="anyio_mcp notifications")
                    session = await stack.enter_async_context(
                        settings.typed_layer(self._dispatcher, self._failure)
                    )
                    try:
                        await self._serve(session, connection, connecting, task_status)
                    except anyio.get_cancelled_exc_class():
                        # Settled here, before the goodbyes that leaving the stack says.
                        self._end(self._too_slow() if connecting.cancel_called else self._cancelled())
                        raise
                    except Exception as error:
                        if self._ready.is_set():
                            raise  # nobody connects any more: a bug
                        if self._transport.kind == "pipe":
                            # A pipe that broke under a message is about to say why, and that is the
                            # better error: an exit code, a last line.
                            with anyio.move_on_after(LAST_WORDS_SECONDS):
                                await self._failure.wait()
                        self._end(self._connect_error(error))
        finally:
            self._failure.detach(connecting)
        if connecting.cancelled_caught:
            self._end(self._too_slow())

    async def _serve(
        self,
        session: TypedSession,
        connection: Connection,
        connecting: anyio.CancelScope,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        settings = self._settings
        self._session = session
        if settings.auto_initialize:
            # Bounded by the connect scope alone: with `Timeouts.call`, which is about what users call, a
            # server slow to start would be given up before its time.
            with call_deadline(CallDeadline(math.inf, math.inf)):
                await session.negotiate(
                    settings.mode,
                    CallDeadline(math.inf, math.inf),
                    seconds=self.connect_by - anyio.current_time(),
                    prior=settings.prior_discover,
                )
        connecting.deadline = math.inf
        self._failure.detach(connecting)
        if self.is_over:
            return
        self._enter(SessionState.READY)
        self._ready.set()
        task_status.started()
        if settings.heartbeat is None or self._dispatcher is None:
            await self._failure.wait()
        else:
            async with anyio.create_task_group() as tg:
                tg.start_soon(
                    self._beat, settings.heartbeat, connection, self._dispatcher, name="anyio_mcp heartbeat"
                )
                await self._failure.wait()
                tg.cancel_scope.cancel()

    async def _beat(
        self, heartbeat: Heartbeat, connection: Connection, dispatcher: SessionDispatcher
    ) -> None:
        probing.set(True)
        try:
            silence = await watch_for_silence(
                heartbeat, quiet_since=dispatcher.quiet_since, liveness=connection.liveness, ask=self._ask
            )
        except Exception as error:  # the session lives on without its heartbeat
            dispatcher.bugs.report("the heartbeat", error)
            return
        text = f"the server process is stopped (SIGSTOP) and has been silent for {silence:g} seconds"
        self._end(SessionLostError(text, reason="silent"))

    async def _ask(self) -> None:
        """Put a question to the server. What the answer tells of the session, the transport says."""
        if self._session is None or self._dispatcher is None:
            return
        method = "ping" if self._session.discover_result is None else "server/discover"
        try:
            if method == "ping":
                await self._dispatcher.send_raw_request("ping", None)
            else:
                await self._session.send_discover(self._session.protocol_version or "")
        except Exception as error:  # the server's or the transport's word
            logger.debug("%s failed: %s", method, error)

    def _connect_error(self, error: Exception) -> Exception:
        """What stopped the session from connecting, as its users meet it."""
        describe = self._transport.describe
        if isinstance(error, ExceptionGroup):
            # Contexts of SDK-style transports wrap what they raise; users never meet a group.
            return self._connect_error(_first(cast("ExceptionGroup[Exception]", error)))
        if isinstance(error, SessionLostError):
            return ConnectError(
                f"could not connect to {describe}: {error}",
                cause=error,
                exit_code=error.exit_code,
                stderr_tail=error.stderr_tail,
                stray_lines=error.stray_lines,
            )
        if isinstance(error, MCPError | ConnectError | DeadlineExceededError) or _is_status(error):
            return error
        text = str(error) or type(error).__name__
        return ConnectError(f"could not connect to {describe}: {text}", cause=error)

    def _too_slow(self) -> DeadlineExceededError:
        settings = self._settings
        seconds = settings.timeouts.connect_seconds
        text = f"connecting to {self._transport.describe} did not finish within {seconds:g} seconds"
        remarks = Remarks() if self._connection is None else self._connection.remarks()
        return DeadlineExceededError(
            f"{text}: {remarks}" if str(remarks) else text,
            phase="connect",
            seconds=seconds,
            stderr_tail=remarks.stderr_tail,
            stray_lines=remarks.stray_lines,
        )

    def _cancelled(self) -> MCPClientError:
        text = "the task group of the session was cancelled"
        return SessionLostError(text, reason="closed") if self._ready.is_set() else NotConnectedError(text)

    def _end(self, error: Exception) -> None:
        """Settle why the session is over, unless that is settled already."""
        if self.is_over:
            return
        lost = isinstance(error, SessionLostError) and error.reason in ("eof", "exited")
        if lost and self._is_first and self._session is not None:
            # Once: a server that ends over the handshake as well is no server.
            self.has_another_way = self._session.blames_the_probe()
        if not self._ready.is_set() and not isinstance(error, NotConnectedError):
            self._settings.known.is_on_older_transport = False
            error = self._unconnected(error)
        self.close(error)

    def _unconnected(self, error: Exception) -> Exception:
        """What a session ends with that failed to become ready by `error`."""
        if self.is_refused_by(error):
            return error
        if self.refusal is not None and self._connection is None:
            logger.debug("%s: the other transport failed as well: %s", self._transport.describe, error)
            return self.refusal
        return self._connect_error(error) if isinstance(error, SessionLostError) else error

    def is_refused_by(self, error: Exception) -> bool:
        """Whether the server, by its first answer, refuses this transport, and the other one is left. If so,
        the session that replaces this one uses that."""
        refused = self._is_first and self._settings.older_transport is not None and refuses_transport(error)
        if refused:
            self.has_another_way, self.refusal = True, error
        return refused

    def _enter(self, state: SessionState) -> None:
        if state is SessionState.CLOSED and self._lifecycle.state is not SessionState.CLOSING:
            self._enter(SessionState.CLOSING)
        if state is SessionState.CLOSING:
            self._closing_by = anyio.current_time() + self._settings.timeouts.close_seconds
        if state is SessionState.READY:
            self._ready_at = anyio.current_time()
            self._settings.known.is_on_older_transport = self._is_on_older
        elif state is SessionState.CLOSING and self._ready.is_set():
            self._record()
        self._lifecycle.advance(state)
        self._on_state(state)

    def _record(self) -> None:
        error = self._failure.error
        ordinary = isinstance(error, SessionLostError) and error.reason == "closed"
        record_session(
            anyio.current_time() - self._ready_at,
            server=server_attributes(self._transport),
            protocol_version=None if self._session is None else self._session.protocol_version,
            error=None if ordinary else type(error).__qualname__,
        )


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first error inside nested groups: what a user can act on."""
    first = group.exceptions[0]
    return _first(cast("ExceptionGroup[Exception]", first)) if isinstance(first, ExceptionGroup) else first


def _is_status(error: Exception) -> bool:
    """Whether it is an `HTTPStatusError`, of httpx2 or of the caller's classic httpx."""
    return hasattr(error, "response") and hasattr(error, "request")

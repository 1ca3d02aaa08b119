"""Which session is current: leases open it, a call replaces it when it died, the last lease ends it.

Every decision is synchronous, so two tasks that need a session at once find one decision made. There
is no lock and no count that somebody resets. It does not know what a session says to the server.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, final

import anyio
import anyio.abc
from anyio.lowlevel import EventLoopToken, current_token
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from anyio_mcp._session.actor import SessionActor
from anyio_mcp._session.correlation import Correlation
from anyio_mcp._session.lifecycle import Lease, Leases, SessionState
from anyio_mcp._session.typed import TypedSession
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, guard
from anyio_mcp.config import Restart
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    NotConnectedError,
    RequestFailedError,
    SessionLostError,
)
from anyio_mcp.telemetry import SessionStats

STATE_BACKLOG: Final = 64
"""State changes kept for a watcher that does not look. When full the oldest is dropped: what counts is
where the session is, not where it has been."""

_Watcher = tuple[MemoryObjectSendStream[SessionState], MemoryObjectReceiveStream[SessionState]]

_Make = Callable[[Callable[[SessionState], None], SessionActor | None], SessionActor]
"""Makes a session that reports its states and, if one before it is given, goes the other way that it has."""


@final
class SessionKeeper:
    """The sessions of one client, one at a time."""

    def __init__(
        self,
        name: str,
        make: _Make,
        *,
        restart: Restart | None,
    ) -> None:
        self._name = name
        self._make = make
        self._restart = restart
        self._leases = Leases()
        self._leases_gone = anyio.Event()
        self._closing = SessionFailure()
        """Fires when the leases there were are gone or void, and with it every wait for a session."""
        self._actor: SessionActor | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: EventLoopToken | None = None
        self._failures = 0
        """Consecutive sessions that never became ready."""
        self._not_before = -math.inf
        self._watchers: set[_Watcher] = set()
        self.sessions_started = 0

    @property
    def actor(self) -> SessionActor | None:
        """The newest session, alive or dead."""
        return self._actor

    @property
    def leases(self) -> Leases:
        return self._leases

    def run_in(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """Where sessions run from now on; None when the group they ran in is going away."""
        self._tasks = tasks

    # Leases

    def take(self, holder: str) -> Lease:
        """Claim the session. `connect()` makes the claim good."""
        self.check_loop()
        if not len(self._leases):
            # Made anew here, in the event loop they will be waited in.
            self._leases_gone = anyio.Event()
            self._closing = SessionFailure()
            self._loop = current_token()
        return self._leases.take(holder)

    def give_back(self, lease: Lease) -> None:
        """Drop a claim; the last one ends the session."""
        if self._leases.give_back(lease):
            self._leases_gone.set()
            if self._actor is not None:
                self._actor.close()
            # A call without a lease of its own may be waiting to start a session for nobody.
            self._closing.fire(NotConnectedError(f"{self._name} was left"))

    def close(self, error: Exception | None = None) -> None:
        """End the session for everybody, at once; every lease is void."""
        if self._actor is not None and not self._actor.is_over:
            self.check_loop()
            self._actor.close(error)
        self._leases.revoke_all()
        self._leases_gone.set()
        self._closing.fire(NotConnectedError(f"{self._name} was closed"))

    async def wait_closed(self) -> None:
        """Wait for the goodbye of the newest session; it is bounded by the close deadline."""
        if self._actor is not None and self._actor.state is not SessionState.CLOSED:
            await self._actor.wait_closed()
        if self._actor is not None:
            await self._actor.wait_handled()

    async def wait_until_unleased(self) -> None:
        """Wait until nobody holds a lease."""
        # Again, because somebody may have entered since: each first lease makes a new event.
        while len(self._leases):
            await self._leases_gone.wait()

    async def wait_until_void(self, lease: Lease) -> None:
        """Wait until `close()` has voided `lease`."""
        if lease in self._leases:
            await self._closing.wait()

    # Sessions

    async def connect(self, lease: Lease) -> TypedSession:
        """A ready session for a new `lease`: the current one, or one started afresh.

        Bounded by the connect deadline of the session, preceded by the goodbye of the one before.
        """
        unlimited = CallDeadline(math.inf, math.inf)
        while True:
            actor = await self._current(lease, unlimited)
            try:
                return await actor.wait_ready(unlimited)
            except Exception:
                if not actor.has_another_way:
                    raise
                # The other way is within the same deadline, and behind the goodbye of the first.
                with anyio.CancelScope(deadline=actor.connect_by):
                    await actor.wait_closed()
                if anyio.current_time() >= actor.connect_by:
                    raise

    async def _current(self, lease: Lease, unlimited: CallDeadline) -> SessionActor:
        """The session that is alive, started if there is none."""
        while (actor := self._actor) is not None and actor.is_over and actor.state is not SessionState.CLOSED:
            # One session at a time: a server may allow no second one, a port, file or device neither.
            with guard(self._closing, unlimited, what="waiting for the session before"):
                await actor.wait_closed()
        if actor is None or actor.is_over:
            if lease not in self._leases:
                # Closed in the very moment the wait was over: nobody holds what would be started.
                raise NotConnectedError(f"{self._name} was closed")
            actor = self._start(actor)
        return actor

    async def session(self, deadline: CallDeadline) -> TypedSession:
        """A ready session for a call. One that died is replaced, as `Restart` allows."""
        self.check_loop()
        actor = self._actor
        if actor is not None and actor.is_ready:
            return actor.session
        while True:
            if not len(self._leases):
                raise NotConnectedError(
                    f"{self._name} is not connected: use it inside `async with client`, or start client.run"
                )
            actor = self._actor
            if actor is None:
                raise NotConnectedError(f"{self._name} has no session yet")
            if not actor.is_over:
                try:
                    return await actor.wait_ready(deadline)
                except Exception as error:
                    if not actor.has_another_way and not self._may_try_again(error):
                        raise
                continue
            if self._restart is None and not actor.has_another_way:
                actor.failure.check()
            await self._before_replacing(actor, deadline)
            if self._actor is actor and actor.is_over and len(self._leases):
                self._start(actor)

    def goes_another_way_after(self, error: Exception) -> bool:
        """Whether `error`, by which negotiating failed in a session that was ready before, leaves another way
        for the session that replaces it."""
        actor = self._actor
        if actor is None or actor.is_over:
            return actor is not None and actor.has_another_way
        if actor.is_refused_by(error):
            actor.close(SessionLostError(f"the server refuses this transport: {error}", reason="closed"))
        return actor.has_another_way

    def check_loop(self) -> None:
        """A client in use can be reached from the event loop it is used in, and from no other."""
        in_use = len(self._leases) > 0 or (self._actor is not None and not self._actor.is_over)
        if in_use and self._loop != current_token():
            raise NotConnectedError(
                f"{self._name} is in use in another event loop, or was never left there; "
                "use client.new() in this one"
            )

    def _may_try_again(self, error: Exception) -> bool:
        """Whether a failed attempt leaves one more to the calls that waited for it."""
        if not isinstance(error, ConnectError | DeadlineExceededError):
            return False  # the server's own word
        if self._restart is None or self._failures >= self._restart.max_attempts:
            return False
        cause = error.__cause__
        if isinstance(cause, RequestFailedError) and cause.reason == "sign_in":
            return False  # a person may have been asked: one call asks once
        # The caller's own deadline, not the session's, is nothing another attempt could help.
        return not isinstance(error, DeadlineExceededError) or error.phase == "connect"

    async def _before_replacing(self, dead: SessionActor, deadline: CallDeadline) -> None:
        with guard(self._closing, deadline, what="waiting for a new session"):
            await dead.wait_closed()
            # Shared by all who wait, so that they do not add up to a storm of attempts.
            await anyio.sleep_until(self._not_before)

    def _start(self, dead: SessionActor | None) -> SessionActor:
        tasks = self._tasks
        if tasks is None:
            raise NotConnectedError(f"{self._name} has no task group to run in any more")
        # On trio a group has no scope before it is entered; `start_soon` below says so.
        scope = getattr(tasks, "cancel_scope", None)
        if scope is not None and scope.cancel_called:
            raise NotConnectedError(f"the task group of {self._name} is cancelled")
        became_ready = False

        def on_state(state: SessionState) -> None:
            nonlocal became_ready
            if state is SessionState.READY:
                became_ready = True
                self._failures = 0
            elif state is SessionState.CLOSING and not became_ready and not actor.has_another_way:
                self._failures += 1
                if self._restart is not None:
                    # Past the last attempt each call makes one of its own; its wait grows no further.
                    counted = min(self._failures, self._restart.max_attempts)
                    delay = self._restart.delay(counted, random.random())
                    self._not_before = anyio.current_time() + delay
            for send, receive in self._watchers:
                _push(send, receive, state)

        actor = self._make(on_state, dead if dead is not None and dead.has_another_way else None)
        try:
            tasks.start_soon(actor.run, name=f"anyio_mcp session {self._name}")
        except RuntimeError as error:
            raise NotConnectedError(f"the task group of {self._name} is not open", cause=error) from error
        self._actor = actor
        self.sessions_started += 1
        return actor

    @contextmanager
    def watch(self) -> Generator[MemoryObjectReceiveStream[SessionState]]:
        """A stream of the states that sessions enter from now on."""
        watcher = anyio.create_memory_object_stream[SessionState](STATE_BACKLOG)
        self._watchers.add(watcher)
        try:
            yield watcher[1]
        finally:
            self._watchers.discard(watcher)
            for end in watcher:
                end.close()

    def stats(self) -> SessionStats:
        """A snapshot; zeros where there is no session."""
        dispatcher = None if self._actor is None else self._actor.dispatcher
        calls = Correlation() if dispatcher is None else dispatcher.calls
        return SessionStats(
            sessions_started=self.sessions_started,
            leases=len(self._leases),
            calls_in_flight=len(calls),
            waiters=0 if self._actor is None else len(self._actor.failure),
            late_replies=calls.counters.late_replies,
            unknown_replies=calls.counters.unknown_replies,
            dropped_progress=calls.counters.dropped_progress,
            dropped_notifications=0 if dispatcher is None else dispatcher.notifications.dropped,
            refused_requests=0 if dispatcher is None else dispatcher.refused_requests,
            violations=0 if dispatcher is None else dispatcher.violations.count,
            unsent_cancellations=0 if dispatcher is None else dispatcher.courtesies.unsent_cancellations,
            cache_hits=0 if self._actor is None else self._actor.cache_hits,
        )


def _push(
    send: MemoryObjectSendStream[SessionState],
    receive: MemoryObjectReceiveStream[SessionState],
    state: SessionState,
) -> None:
    try:
        send.send_nowait(state)
    except anyio.WouldBlock:
        receive.receive_nowait()
        send.send_nowait(state)

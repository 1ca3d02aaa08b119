"""What keeps every wait finite: the failure event, the deadlines, the heartbeat.

All of it is cancel scopes and clocks. It does not know what a session is, why one fails, or how a
message travels.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, final

import anyio

from anyio_mcp.config import Heartbeat
from anyio_mcp.errors import DeadlineExceededError, Phase, fresh
from anyio_mcp.transports.base import Liveness

_LOOKS: Final = 10
"""How often a peer that is stopped is looked at before that is taken for its end."""


@final
@dataclass(slots=True, eq=False)
class SessionFailure:
    """Fires once, with the reason, and cancels every scope attached to it in that very moment.

    Synchronous throughout, so that all waiters of a dead session wake in one scheduler pass.
    """

    error: Exception | None = None
    """Why, once it has fired. Waiters raise a fresh copy of it."""
    _scopes: set[anyio.CancelScope] = field(default_factory=set[anyio.CancelScope])
    _fired: anyio.Event = field(default_factory=anyio.Event)

    def fire(self, error: Exception) -> bool:
        """Fail with `error`. False, and nothing changes, if it has fired already."""
        if self.error is not None:
            return False
        self.error = error
        self._fired.set()
        while self._scopes:
            self._scopes.pop().cancel()
        return True

    def attach(self, scope: anyio.CancelScope) -> None:
        """Cancel `scope` when the session fails; at once if it has."""
        if self.error is not None:
            scope.cancel()
        else:
            self._scopes.add(scope)

    def detach(self, scope: anyio.CancelScope) -> None:
        """Whoever attached a scope detaches it on every path, or the set would grow."""
        self._scopes.discard(scope)

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.error is not None:
            raise fresh(self.error)

    async def wait(self) -> None:
        """Return when it has fired."""
        await self._fired.wait()

    def __len__(self) -> int:
        """How many scopes are attached; zero when nobody waits."""
        return len(self._scopes)


def deadline_exceeded(
    what: str, *, seconds: float, phase: Phase, known: RequestFacts | None = None
) -> DeadlineExceededError:
    """The error of `what` having taken longer than `seconds`."""
    text = f"{what} did not finish within {seconds:g} seconds"
    if known is None:
        return DeadlineExceededError(text, phase=phase, seconds=seconds)
    return DeadlineExceededError(
        f"{text}: {known}",
        phase=phase,
        seconds=seconds,
        method=known.method,
        sent_seconds=known.sent_seconds,
        heard_seconds=known.heard_seconds,
    )


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    """What is known of a request that was not answered in time."""

    method: str
    sent_seconds: float | None
    """How long ago it was sent; None if it never was, or may not have been."""
    heard_seconds: float
    """How long ago the server was last heard of."""
    held_up: str = ""
    """By what it was kept from being sent."""
    may_be_sent: bool = False
    """Nobody can say whether it was kept from that to the end."""

    def __str__(self) -> str:
        if self.sent_seconds is not None:
            sent = f"it was sent {_rounded(self.sent_seconds)} s ago"
        else:
            sent = f"it {'may not have been' if self.may_be_sent else 'was never'} sent: {self.held_up}"
        return f"{sent}, the server was last heard of {_rounded(self.heard_seconds)} s ago"


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.1f}"


@final
@dataclass(slots=True, eq=False)
class CallDeadline:
    """The one deadline of a public call, shared by every request the call makes.

    `idle` seconds from the start or from the last progress, but never more than `total` from the
    start. Equal, they are a deadline that no progress moves.
    """

    idle: float
    total: float
    started: float = field(default_factory=anyio.current_time)
    expires: float = field(init=False)
    _extended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.expires = self.started + min(self.idle, self.total)

    def extend(self) -> None:
        """Progress was made."""
        self._extended = True
        self.expires = min(anyio.current_time() + self.idle, self.started + self.total)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.expires - anyio.current_time())

    def exceeded(self, what: str, known: RequestFacts | None = None) -> DeadlineExceededError:
        """The error of the deadline having passed; its seconds are those the user set, if they were
        not extended."""
        seconds = min(self.idle, self.total)
        if self._extended:
            seconds = self.expires - self.started
        return deadline_exceeded(what, seconds=seconds, phase="call", known=known)


current_deadline: ContextVar[CallDeadline | None] = ContextVar("anyio_mcp_deadline", default=None)
"""The deadline of the public call this code runs for. Set by every public call, read by the
dispatcher, so that it reaches requests made through the SDK's typed layer."""


probing: ContextVar[bool] = ContextVar("anyio_mcp_probing", default=False)
"""Whether this code puts a question of the heartbeat. Read by the dispatcher, like the deadline."""


@contextmanager
def call_deadline(deadline: CallDeadline) -> Generator[CallDeadline]:
    """Every request made in the block counts against `deadline`."""
    token = current_deadline.set(deadline)
    try:
        yield deadline
    finally:
        current_deadline.reset(token)


@contextmanager
def guard(failure: SessionFailure, deadline: CallDeadline, *, what: str) -> Generator[None]:
    """Bound the block by the session's failure and by `deadline`, with one cancel scope for both.

    Raises the failure's reason, or `DeadlineExceededError`. A cancellation from outside passes
    through untouched. If the block ended before the scope could take effect, its outcome stands.
    """
    with anyio.CancelScope(deadline=deadline.expires) as scope:
        failure.attach(scope)
        try:
            yield
        finally:
            failure.detach(scope)
    if scope.cancelled_caught:
        failure.check()
        raise deadline.exceeded(what)


async def watch_for_silence(
    heartbeat: Heartbeat,
    *,
    quiet_since: Callable[[], float | None],
    liveness: Callable[[], Liveness],
    ask: Callable[[], Awaitable[None]],
) -> float:
    """Return how many seconds the peer has been silent, once it is known that it cannot answer.

    `quiet_since()` is when the last bytes came, or None while nobody waits for any. `liveness()` is asked
    after `interval` seconds of quiet, and has to say for `timeout` seconds that the peer is stopped. `ask()`
    puts a question to the peer, one at a time, and is cancelled after `timeout` seconds: what its answer
    tells, the connection says; that there is none proves nothing.
    """
    while True:
        since = quiet_since()
        if since is None:
            await anyio.sleep(heartbeat.interval)
        elif anyio.current_time() - since < heartbeat.interval:
            await anyio.sleep_until(since + heartbeat.interval)
        elif (evidence := liveness()) is Liveness.STOPPED:
            if await _stays_stopped(heartbeat.timeout, liveness) and quiet_since() == since:
                return anyio.current_time() - since
        else:
            if evidence is Liveness.ASK:
                with anyio.move_on_after(heartbeat.timeout):
                    await ask()
            await anyio.sleep(heartbeat.interval)


async def _stays_stopped(seconds: float, liveness: Callable[[], Liveness]) -> bool:
    """Whether the peer is found stopped each time it is looked at. Not only in the end: the host may have
    been stopped with it, and its clock may have run on."""
    for _ in range(_LOOKS):
        await anyio.sleep(seconds / _LOOKS)
        if liveness() is not Liveness.STOPPED:
            return False
    return True

"""The states of one session and the leases that keep it open.

Plain state machines without a single await: they decide, others act. A session goes one way and
never back; connecting again makes a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, final


class SessionState(Enum):
    """Where a session is. `NEW -> CONNECTING -> READY -> CLOSING -> CLOSED`, never backwards."""

    NEW = "new"
    """Made, not yet running."""
    CONNECTING = "connecting"
    READY = "ready"
    """Requests succeed."""
    CLOSING = "closing"
    """Over for every caller; saying goodbye."""
    CLOSED = "closed"
    """Nothing of it is left."""


_NEXT: Final = {
    SessionState.NEW: {SessionState.CONNECTING, SessionState.CLOSING},
    SessionState.CONNECTING: {SessionState.READY, SessionState.CLOSING},
    SessionState.READY: {SessionState.CLOSING},
    SessionState.CLOSING: {SessionState.CLOSED},
    SessionState.CLOSED: set[SessionState](),
}


class IllegalTransitionError(Exception):
    """A bug in this library: a session was told to go where it cannot."""


@final
@dataclass(slots=True, eq=False)
class Lifecycle:
    """The state of one session."""

    state: SessionState = SessionState.NEW

    def advance(self, to: SessionState) -> None:
        """Take one legal step; `IllegalTransitionError` otherwise."""
        if to not in _NEXT[self.state]:
            raise IllegalTransitionError(f"a session cannot go from {self.state.value} to {to.value}")
        self.state = to

    @property
    def is_over(self) -> bool:
        """No call can succeed any more."""
        return self.state in (SessionState.CLOSING, SessionState.CLOSED)


@final
@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """One holder's claim on the session. Compared by identity: two of one task are two claims."""

    holder: str


@final
@dataclass(slots=True, eq=False)
class Leases:
    """Who needs the session. A set of claims, not a count: nothing to reset, nothing to go negative."""

    _held: dict[Lease, None] = field(default_factory=dict[Lease, None])

    def take(self, holder: str) -> Lease:
        lease = Lease(holder)
        self._held[lease] = None
        return lease

    def give_back(self, lease: Lease) -> bool:
        """Return a lease, once or more often. True when this was the last one out."""
        if lease not in self._held:
            return False
        del self._held[lease]
        return not self._held

    def revoke_all(self) -> None:
        """Everybody out: giving back later is then a no-op."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, lease: object) -> bool:
        return lease in self._held

    def holders(self) -> Iterator[str]:
        """The names of the holders, oldest first."""
        return (lease.holder for lease in self._held)

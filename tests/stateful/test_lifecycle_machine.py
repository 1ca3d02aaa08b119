"""A session goes one way and never back; leases are counted by who holds them, in any order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from anyio_mcp._session.lifecycle import IllegalTransitionError, Lease, Leases, Lifecycle, SessionState

ORDER = list(SessionState)


def is_legal(now: SessionState, to: SessionState) -> bool:
    """One step forward; or to the end from wherever it is not over yet."""
    here, there = ORDER.index(now), ORDER.index(to)
    return there == here + 1 or (to is SessionState.CLOSING and here < there)


class LifecycleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lifecycle = Lifecycle()
        self.state = SessionState.NEW

    @rule(to=st.sampled_from(ORDER))
    def advance(self, to: SessionState) -> None:
        if is_legal(self.state, to):
            self.lifecycle.advance(to)
            self.state = to
        else:
            with pytest.raises(IllegalTransitionError, match=f"from {self.state.value} to {to.value}"):
                self.lifecycle.advance(to)

    @invariant()
    def the_state_is_the_last_legal_one(self) -> None:
        assert self.lifecycle.state is self.state

    @invariant()
    def it_is_over_from_closing_on(self) -> None:
        assert self.lifecycle.is_over is (ORDER.index(self.state) >= ORDER.index(SessionState.CLOSING))


class LeasesMachine(RuleBasedStateMachine):
    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.held: list[Lease] = []
        self.returned: list[Lease] = []

    @rule(target=taken, holder=st.sampled_from(["a", "b", "c"]))
    def take(self, holder: str) -> Lease:
        lease = self.leases.take(holder)
        assert all(lease is not other for other in [*self.held, *self.returned])
        self.held.append(lease)
        return lease

    @rule(lease=taken)
    def give_back(self, lease: Lease) -> None:
        was_held = lease in self.held
        if was_held:
            self.held.remove(lease)
            self.returned.append(lease)
        assert self.leases.give_back(lease) is (was_held and not self.held), "only the last one out is told"

    @rule(lease=consumes(taken))
    def give_back_twice(self, lease: Lease) -> None:
        self.give_back(lease)
        assert self.leases.give_back(lease) is False

    @rule()
    def revoke_all(self) -> None:
        self.leases.revoke_all()
        self.returned += self.held
        self.held.clear()

    @invariant()
    def they_are_held_by_who_has_not_given_them_back(self) -> None:
        assert len(self.leases) == len(self.held)
        assert list(self.leases.holders()) == [lease.holder for lease in self.held], "oldest first"
        assert all(lease in self.leases for lease in self.held)
        assert not any(lease in self.leases for lease in self.returned)


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(max_examples=100, stateful_step_count=20, deadline=None)

TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)

"""The failure event: whoever is attached when it fires is cancelled in that moment, and only they."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from anyio_mcp._session.watchdog import SessionFailure
from anyio_mcp.errors import SessionLostError


class Scope:
    """What the failure event sees of a cancel scope. `then` is what a waiter does when it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.then: Any = None

    def cancel(self) -> None:
        self.cancelled += 1
        if self.then is not None:
            self.then()


class FailureMachine(RuleBasedStateMachine):
    scopes = Bundle("scopes")

    def __init__(self) -> None:
        super().__init__()
        self.failure = SessionFailure()
        self.first_error: Exception | None = None
        self.attached: set[Scope] = set()
        self.expected: dict[Scope, int] = {}

    @rule(target=scopes)
    def new_scope(self) -> Scope:
        scope = Scope()
        self.expected[scope] = 0
        return scope

    @rule(scope=scopes)
    def attach(self, scope: Any) -> None:
        self.failure.attach(scope)
        if self.first_error is None:
            self.attached.add(scope)
        else:
            self.expected[scope] += 1

    @rule(scope=scopes)
    def detach(self, scope: Any) -> None:
        self.failure.detach(scope)
        self.attached.discard(scope)

    @rule(scope=scopes, other=scopes)
    def when_cancelled_attach_another(self, scope: Any, other: Any) -> None:
        """Waking one waiter may make another one start to wait: it must be cancelled as well."""
        if self.first_error is None and scope.then is None and scope is not other and scope in self.attached:

            def attach_other() -> None:
                self.failure.attach(other)
                self.expected[other] += 1

            scope.then = attach_other

    @rule(text=st.text(max_size=5))
    def fire(self, text: str) -> None:
        error = SessionLostError(text, reason="eof")
        first = self.first_error is None
        if first:
            self.first_error = error
            for scope in self.attached:
                self.expected[scope] += 1
            self.attached = set()
        assert self.failure.fire(error) is first

    @invariant()
    def the_first_error_stays(self) -> None:
        assert self.failure.error is self.first_error

    @invariant()
    def check_raises_it_anew_each_time(self) -> None:
        if self.first_error is None:
            self.failure.check()
            return
        raised: list[BaseException] = []
        for _ in range(2):
            with pytest.raises(SessionLostError) as caught:
                self.failure.check()
            raised.append(caught.value)
        assert raised[0] is not raised[1]
        assert all(error is not self.first_error for error in raised)
        assert all(error.args == self.first_error.args for error in raised)

    @invariant()
    def nobody_is_cancelled_who_was_not_attached_and_nobody_twice(self) -> None:
        assert {scope: scope.cancelled for scope in self.expected} == self.expected

    @invariant()
    def it_holds_whom_it_would_cancel_and_nobody_else(self) -> None:
        assert len(self.failure) == len(self.attached)


TestFailure = FailureMachine.TestCase
TestFailure.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

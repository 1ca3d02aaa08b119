"""Any order of opening, answering, failing, reporting and leaving: every call is settled once at most."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from anyio_mcp._session.correlation import PROGRESS_BACKLOG, Correlation, PendingCall, Progress

Id = int | str


def same_id(request_id: Id) -> Id:
    """What the peer may echo for one id: 7, "7" and "07" are the same request."""
    if isinstance(request_id, str) and request_id.lstrip("-").isascii() and request_id.lstrip("-").isdigit():
        return int(request_id)
    return request_id


NUMBERS = st.integers(min_value=-2, max_value=12)
IDS = st.one_of(
    NUMBERS,
    NUMBERS.map(str),
    NUMBERS.filter(lambda number: number >= 0).map(lambda number: f"0{number}"),
    st.sampled_from(["listen-1", "listen-2", "", "7x", "1.0"]),
)


@dataclass(eq=False)
class Caller:
    """Who opened a call, and what the model says became of it."""

    wakes: int = 0
    expected_wakes: int = 0
    call: PendingCall = field(init=False)
    outcome: tuple[Any, Any] | None = None
    updates: deque[Progress] | None = None

    def wake(self) -> None:
        self.wakes += 1


class CorrelationMachine(RuleBasedStateMachine):
    callers = Bundle("callers")

    def __init__(self) -> None:
        super().__init__()
        self.correlation = Correlation()
        self.everybody: list[Caller] = []
        self.waiting: dict[Id, Caller] = {}
        self.issued = 0
        self.late = 0
        self.unknown = 0
        self.dropped = 0

    def add(self, caller: Caller, call: PendingCall, wants_progress: bool) -> Caller:
        caller.call = call
        caller.updates = deque(maxlen=PROGRESS_BACKLOG) if wants_progress else None
        self.everybody.append(caller)
        self.waiting[same_id(call.request_id)] = caller
        return caller

    @rule(target=callers, wants_progress=st.booleans())
    def open(self, wants_progress: bool) -> Caller:
        caller = Caller()
        call = self.correlation.open("tools/call", caller.wake, wants_progress=wants_progress)
        assert isinstance(call.request_id, int)
        assert call.request_id > self.issued, "an id of our own is never issued twice"
        assert call.request_id not in self.waiting
        self.issued = call.request_id
        return self.add(caller, call, wants_progress)

    @rule(target=callers, request_id=IDS, wants_progress=st.booleans())
    def open_with_an_id(self, request_id: Id, wants_progress: bool) -> Any:
        caller = Caller()
        if same_id(request_id) in self.waiting:
            with pytest.raises(ValueError, match="in flight"):
                self.correlation.open("tools/call", caller.wake, request_id=request_id)
            return multiple()
        call = self.correlation.open(
            "tools/call", caller.wake, request_id=request_id, wants_progress=wants_progress
        )
        assert call.request_id == request_id
        assert type(call.request_id) is type(request_id), "the peer sees the id as it was given"
        return self.add(caller, call, wants_progress)

    @rule(caller=callers)
    def write(self, caller: Caller) -> None:
        caller.call.written = True

    def settle(self, request_id: Id, outcome: tuple[Any, Any]) -> bool:
        """What the model says an answer to `request_id` does: whether somebody gets it."""
        key = same_id(request_id)
        caller = self.waiting.pop(key, None)
        if caller is not None:
            caller.outcome = outcome
            caller.expected_wakes += 1
            return True
        if isinstance(key, int) and 0 < key <= self.issued:
            self.late += 1
        else:
            self.unknown += 1
        return False

    @rule(request_id=IDS, value=st.integers())
    def answer(self, request_id: Id, value: int) -> None:
        result = {"value": value}
        assert self.correlation.resolve(request_id, result) is self.settle(request_id, (result, None))

    @rule(request_id=IDS)
    def fail(self, request_id: Id) -> None:
        error = RuntimeError("no")
        assert self.correlation.reject(request_id, error) is self.settle(request_id, (None, error))

    @rule(caller=callers)
    def answer_one_of_them(self, caller: Caller) -> None:
        self.answer(caller.call.request_id, 1)

    def progress(self, request_id: Id, count: int) -> None:
        caller = self.waiting.get(same_id(request_id))
        for number in range(count):
            update = Progress(number, None, None)
            taken = self.correlation.report_progress(request_id, update)
            if caller is None or caller.updates is None:
                assert not taken
                continue
            assert taken
            self.dropped += len(caller.updates) == PROGRESS_BACKLOG
            caller.updates.append(update)
            caller.expected_wakes += 1

    @rule(request_id=IDS)
    def report(self, request_id: Id) -> None:
        self.progress(request_id, 1)

    @rule(caller=callers, count=st.sampled_from([1, 2, PROGRESS_BACKLOG - 1]))
    def report_to_one_of_them(self, caller: Caller, count: int) -> None:
        self.progress(caller.call.request_id, count)

    @rule(caller=consumes(callers))
    def leave(self, caller: Caller) -> None:
        key = same_id(caller.call.request_id)
        was_waiting = self.waiting.get(key) is caller
        peer_works_for_nobody = was_waiting and caller.call.written
        assert self.correlation.leave(caller.call) is peer_works_for_nobody
        if was_waiting:
            del self.waiting[key]
        if caller.updates is not None:
            # They hold memory that is counted for all calls, and nobody is there to see them.
            caller.updates.clear()
        assert self.correlation.leave(caller.call) is False, "leaving twice changes nothing"

    @rule()
    def abandon_all(self) -> None:
        self.correlation.abandon_all()
        self.waiting.clear()

    @rule(request_id=IDS)
    def ask(self, request_id: Id) -> None:
        assert self.correlation.is_waiting(request_id) is (same_id(request_id) in self.waiting)

    @invariant()
    def as_many_wait_as_the_model_says(self) -> None:
        assert len(self.correlation) == len(self.waiting)
        for caller in self.waiting.values():
            assert self.correlation.is_waiting(caller.call.request_id)

    @invariant()
    def every_caller_has_the_one_outcome_it_was_given(self) -> None:
        for caller in self.everybody:
            call = caller.call
            assert call.settled is (caller.outcome is not None)
            result, error = caller.outcome or (None, None)
            assert call.result is result
            assert call.error is error
            assert call.progress == caller.updates

    @invariant()
    def every_caller_was_woken_once_per_event(self) -> None:
        for caller in self.everybody:
            assert caller.wakes == caller.expected_wakes

    @invariant()
    def what_reached_nobody_is_counted(self) -> None:
        counters = self.correlation.counters
        assert counters.late_replies == self.late
        assert counters.unknown_replies == self.unknown
        assert counters.dropped_progress == self.dropped


TestCorrelation = CorrelationMachine.TestCase
TestCorrelation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

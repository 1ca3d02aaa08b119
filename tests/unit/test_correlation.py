"""Request ids and who waits for them, one rule per test; `stateful` draws every order of them."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from anyio_mcp._session.correlation import PROGRESS_BACKLOG, Correlation, Counters, PendingCall, Progress


class Waker:
    """Counts how often a caller was woken, and what it found settled then."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def nobody() -> None:
    raise AssertionError("woken")


def opened(calls: Correlation, wake: Waker | None = None, **options: Any) -> PendingCall:
    return calls.open("tools/call", wake or Waker(), **options)


def test_a_new_call_waits_for_an_answer_that_is_not_there() -> None:
    calls = Correlation()
    call = calls.open("tools/call", nobody)
    assert (call.method, call.settled, call.written, call.result, call.error) == (
        "tools/call",
        False,
        False,
        None,
        None,
    )
    assert calls.is_waiting(call.request_id)
    assert len(calls) == 1


def test_ids_count_up_and_skip_those_in_flight() -> None:
    calls = Correlation()
    opened(calls, request_id=2)
    opened(calls, request_id="3")
    assert [opened(calls).request_id for _ in range(3)] == [1, 4, 5]


def test_an_id_of_our_own_is_not_used_again_when_its_call_is_over() -> None:
    calls = Correlation()
    first = opened(calls)
    calls.leave(first)
    assert opened(calls).request_id != first.request_id


def test_an_id_in_flight_cannot_be_taken_in_either_spelling() -> None:
    calls = Correlation()
    opened(calls, request_id="7")
    for spelling in (7, "7", "07"):
        with pytest.raises(ValueError, match="is in flight already"):
            calls.open("tools/call", nobody, request_id=spelling)
    assert len(calls) == 1


def test_an_answer_wakes_its_caller_once_and_settles_the_call() -> None:
    calls, wake = Correlation(), Waker()
    call = opened(calls, wake)
    result = {"value": 1}
    assert calls.resolve(call.request_id, result)
    assert (call.settled, call.error, wake.count, len(calls)) == (True, None, 1, 0)
    assert call.result is result


def test_an_empty_answer_is_an_answer() -> None:
    calls = Correlation()
    call = opened(calls)
    assert calls.resolve(call.request_id, {})
    assert call.result == {}


def test_a_failure_wakes_its_caller_with_the_error() -> None:
    calls, wake = Correlation(), Waker()
    call, error = opened(calls, wake), ValueError("no")
    assert calls.reject(call.request_id, error)
    assert call.error is error
    assert (call.settled, call.result, wake.count) == (True, None, 1)


@pytest.mark.parametrize(("sent", "echoed"), [(None, "1"), ("7", 7), (7, "7"), ("x", "x")])
def test_a_server_may_echo_an_id_as_number_or_as_text(sent: int | str | None, echoed: int | str) -> None:
    calls = Correlation()
    call = opened(calls, request_id=sent)
    assert calls.is_waiting(echoed)
    assert calls.resolve(echoed, {})
    assert call.settled


def test_a_second_answer_changes_nothing_and_wakes_nobody() -> None:
    calls, wake = Correlation(), Waker()
    call = opened(calls, wake)
    calls.resolve(call.request_id, {"first": True})
    assert not calls.resolve(call.request_id, {"second": True})
    assert not calls.reject(call.request_id, ValueError())
    assert call.result == {"first": True}
    assert call.error is None
    assert wake.count == 1


def test_an_answer_after_the_caller_left_is_counted_as_late_and_dropped() -> None:
    calls = Correlation()
    call = calls.open("tools/call", nobody)
    calls.leave(call)
    assert not calls.resolve(call.request_id, {})
    assert not call.settled
    assert calls.counters.late_replies == 1
    assert calls.counters.unknown_replies == 0


@pytest.mark.parametrize("request_id", [1, 0, -1, "x", "", 10**30])
def test_an_answer_to_what_was_never_sent_is_counted_as_unknown(request_id: int | str) -> None:
    calls = Correlation()
    assert not calls.resolve(request_id, {})
    assert calls.counters.unknown_replies == 1
    assert calls.counters.late_replies == 0


def test_leaving_says_whether_the_server_may_work_for_nobody() -> None:
    calls = Correlation()
    unwritten, written, answered = opened(calls), opened(calls), opened(calls)
    written.written = answered.written = True
    calls.resolve(answered.request_id, {})
    assert not calls.leave(unwritten), "the server never heard of it"
    assert calls.leave(written)
    assert not calls.leave(answered), "the server is done with it"
    assert not calls.leave(written), "told once"
    assert len(calls) == 0


def test_leaving_late_does_not_take_the_id_from_who_has_it_now() -> None:
    calls = Correlation()
    first = opened(calls, request_id="listen-1")
    calls.resolve("listen-1", {})
    second = opened(calls, request_id="listen-1")
    second.written = True
    assert not calls.leave(first)
    assert calls.is_waiting("listen-1")
    assert calls.leave(second)


def test_progress_is_kept_in_order_and_wakes_who_asked_for_it() -> None:
    calls, wake = Correlation(), Waker()
    call = opened(calls, wake, wants_progress=True)
    updates = [Progress(1, 3, None), Progress(2, 3, "more"), Progress(0.5, None, "")]
    for update in updates:
        assert calls.report_progress(str(call.request_id), update)
    assert call.progress == deque(updates)
    assert wake.count == 3
    assert not call.settled


def test_progress_nobody_asked_for_is_refused() -> None:
    calls = Correlation()
    call = calls.open("tools/call", nobody)
    assert not calls.report_progress(call.request_id, Progress(1, None, None))
    assert not calls.report_progress("unknown", Progress(1, None, None))
    assert call.progress is None
    assert calls.counters.dropped_progress == 0


def test_progress_after_the_answer_or_the_callers_leaving_is_refused() -> None:
    calls = Correlation()
    answered, left = opened(calls, wants_progress=True), opened(calls, wants_progress=True)
    calls.resolve(answered.request_id, {})
    calls.leave(left)
    for call in (answered, left):
        assert not calls.report_progress(call.request_id, Progress(1, None, None))
        assert call.progress == deque()


def test_progress_before_the_answer_is_still_there_after_it() -> None:
    calls = Correlation()
    call = opened(calls, wants_progress=True)
    calls.report_progress(call.request_id, Progress(1, None, None))
    calls.resolve(call.request_id, {})
    assert call.progress == deque([Progress(1, None, None)])


def test_when_the_backlog_is_full_the_oldest_progress_is_dropped_and_counted() -> None:
    calls = Correlation()
    call = opened(calls, wants_progress=True)
    for number in range(PROGRESS_BACKLOG + 3):
        assert calls.report_progress(call.request_id, Progress(number, None, None))
    assert call.progress is not None
    assert len(call.progress) == PROGRESS_BACKLOG
    assert [call.progress[0].progress, call.progress[-1].progress] == [3, PROGRESS_BACKLOG + 2]
    assert calls.counters.dropped_progress == 3


def test_at_the_end_everybody_is_forgotten_and_nobody_is_settled() -> None:
    calls = Correlation()
    several = [calls.open("tools/call", nobody) for _ in range(3)]
    calls.abandon_all()
    assert len(calls) == 0
    for call in several:
        assert not call.settled
        assert not calls.resolve(call.request_id, {})
        assert not calls.leave(call)
    assert calls.counters.late_replies == 3


def test_counters_start_at_zero_and_belong_to_one_session() -> None:
    one, other = Correlation(), Correlation()
    one.resolve("x", {})
    assert one.counters.unknown_replies == 1
    assert (other.counters.late_replies, other.counters.unknown_replies) == (0, 0)
    assert Counters().dropped_progress == 0

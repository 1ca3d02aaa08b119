"""Failure event, deadlines and heartbeat: every wait ends, for the reason that ended it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp._session import watchdog
from anyio_mcp._session.watchdog import (
    CallDeadline,
    SessionFailure,
    call_deadline,
    current_deadline,
    guard,
    watch_for_silence,
)
from anyio_mcp.config import Heartbeat
from anyio_mcp.errors import DeadlineExceededError, SessionLostError
from anyio_mcp.testing import VirtualTime
from anyio_mcp.transports.base import Liveness

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, VirtualTime(request.param).options


GONE = SessionLostError("gone", reason="eof", cause=OSError("pipe"))


def unlimited() -> CallDeadline:
    return CallDeadline(math.inf, math.inf)


# --- the failure event ----------------------------------------------------------------------------


async def test_all_who_wait_wake_in_one_pass_each_with_an_error_of_its_own() -> None:
    failure = SessionFailure()
    errors: list[SessionLostError] = []

    async def wait() -> None:
        try:
            with guard(failure, unlimited(), what="waiting"):
                await anyio.sleep_forever()
        except SessionLostError as error:
            errors.append(error)

    with anyio.fail_after(3600):
        async with anyio.create_task_group() as tg:
            for _ in range(100):
                tg.start_soon(wait)
            while len(failure) < 100:
                await anyio.lowlevel.checkpoint()
            failure.fire(GONE)
            # What woke them was the firing itself: no task of the session had to run first.
            for _ in range(3):
                await anyio.lowlevel.checkpoint()
            assert len(errors) == 100

    assert len({id(error) for error in errors}) == 100
    assert all(error.reason == "eof" and error.__cause__ is GONE.cause for error in errors)
    assert GONE.__traceback__ is None
    assert len(failure) == 0


async def test_the_first_reason_is_the_reason_and_who_was_told_is_not_kept() -> None:
    failure = SessionFailure()
    with anyio.CancelScope() as scope:
        failure.attach(scope)
        assert failure.fire(GONE) is True
        assert len(failure) == 0
        assert failure.fire(SessionLostError("later", reason="closed")) is False
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert failure.error is GONE


async def test_waiting_for_a_failure_ends_when_it_fires_and_at_once_when_it_has() -> None:
    failure = SessionFailure()
    with anyio.fail_after(3600):
        async with anyio.create_task_group() as tg:
            tg.start_soon(failure.wait)
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            failure.fire(GONE)
        await failure.wait()


async def test_who_comes_after_the_failure_does_not_begin_to_wait() -> None:
    failure = SessionFailure()
    failure.fire(GONE)
    begun = finished = False
    with (
        anyio.fail_after(3600),
        pytest.raises(SessionLostError, match="gone"),
        guard(failure, unlimited(), what="waiting"),
    ):
        begun = True
        await anyio.lowlevel.checkpoint()
        finished = True
    assert begun
    assert not finished


# --- guard ----------------------------------------------------------------------------------------


async def test_a_guarded_block_that_ends_in_time_is_left_alone() -> None:
    failure = SessionFailure()
    with guard(failure, unlimited(), what="waiting"):
        await anyio.lowlevel.checkpoint()
    assert len(failure) == 0


async def test_a_block_past_its_deadline_raises_what_was_set_and_for_what() -> None:
    failure = SessionFailure()
    began = anyio.current_time()
    with (
        anyio.fail_after(3600),
        pytest.raises(DeadlineExceededError) as caught,
        guard(failure, CallDeadline(12.5, math.inf), what="'tools/call'"),
    ):
        await anyio.sleep_forever()
    assert anyio.current_time() - began == 12.5
    assert (caught.value.phase, caught.value.seconds) == ("call", 12.5)
    assert str(caught.value) == "'tools/call' did not finish within 12.5 seconds"
    assert len(failure) == 0


async def test_the_deadline_of_a_call_includes_what_was_waited_for_before() -> None:
    deadline = CallDeadline(10, 10)
    began = anyio.current_time()
    await anyio.sleep(4)
    with (
        anyio.fail_after(3600),
        pytest.raises(DeadlineExceededError, match="within 10 seconds"),
        guard(SessionFailure(), deadline, what="it"),
    ):
        await anyio.sleep_forever()
    assert anyio.current_time() - began == 10


async def test_a_block_under_a_deadline_of_zero_ends_at_its_first_wait() -> None:
    with (
        anyio.fail_after(3600),
        pytest.raises(DeadlineExceededError, match="within 0 seconds"),
        guard(SessionFailure(), CallDeadline(0, 0), what="it"),
    ):
        await anyio.sleep_forever()


async def test_the_failure_wins_over_a_deadline_that_passed_as_well() -> None:
    failure = SessionFailure()
    failure.fire(GONE)
    with (
        anyio.fail_after(3600),
        pytest.raises(SessionLostError),
        guard(failure, CallDeadline(0, 0), what="it"),
    ):
        await anyio.sleep_forever()


async def test_what_the_block_raises_leaves_as_it_is() -> None:
    failure = SessionFailure()
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught, guard(failure, unlimited(), what="it"):
        raise error
    assert caught.value is error
    assert len(failure) == 0


async def test_a_block_that_ends_without_waiting_keeps_its_outcome_though_the_session_failed() -> None:
    failure = SessionFailure()
    with guard(failure, CallDeadline(0, 0), what="it"):
        failure.fire(GONE)
    with pytest.raises(KeyError), guard(failure, CallDeadline(0, 0), what="it"):
        raise KeyError


async def test_a_cancellation_from_outside_passes_through_and_is_no_error_of_ours() -> None:
    failure = SessionFailure()
    after = False
    with anyio.fail_after(3600):
        with anyio.CancelScope() as outer:
            with guard(failure, unlimited(), what="it"):
                outer.cancel()
                await anyio.sleep_forever()
            after = True
    assert outer.cancelled_caught
    assert not after
    assert len(failure) == 0


async def test_a_cancellation_from_outside_is_not_hidden_by_the_failure() -> None:
    failure = SessionFailure()
    with anyio.fail_after(3600):
        with anyio.CancelScope() as outer:
            with guard(failure, unlimited(), what="it"):
                outer.cancel()
                failure.fire(GONE)
                await anyio.sleep_forever()
    assert outer.cancelled_caught


# --- deadlines ------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time a deadline sees; no event loop is needed."""
    now = 0.0

    def set_time(to: float) -> None:
        nonlocal now
        now = to

    monkeypatch.setattr(watchdog.anyio, "current_time", lambda: now)
    return set_time


def test_a_deadline_starts_when_it_is_made(clock: Callable[[float], None]) -> None:
    deadline = CallDeadline(5, 20, started=100.0)
    clock(102.0)
    assert deadline.remaining() == 3.0
    clock(200.0)
    assert deadline.remaining() == 0.0, "never negative"


def test_progress_moves_the_deadline_but_never_past_the_total(clock: Callable[[float], None]) -> None:
    deadline = CallDeadline(5, 12, started=100.0)
    assert deadline.expires == 105.0
    for now, expires in [(104.0, 109.0), (106.0, 111.0), (111.0, 112.0), (111.9, 112.0)]:
        clock(now)
        deadline.extend()
        assert deadline.expires == expires


def test_progress_does_not_move_a_deadline_the_caller_set(clock: Callable[[float], None]) -> None:
    deadline = CallDeadline(5, 5, started=100.0)
    clock(104.0)
    deadline.extend()
    assert deadline.expires == 105.0
    assert deadline.exceeded("it").seconds == 5.0


def test_the_error_names_the_seconds_that_were_set_or_those_it_took(clock: Callable[[float], None]) -> None:
    deadline = CallDeadline(5, 12, started=100.0)
    assert deadline.exceeded("it").seconds == 5.0
    clock(104.0)
    deadline.extend()
    error = deadline.exceeded("'tools/call'")
    assert (error.phase, error.seconds) == ("call", 9.0)
    assert str(error) == "'tools/call' did not finish within 9 seconds"


def test_no_limit_is_never_reached(clock: Callable[[float], None]) -> None:
    deadline = CallDeadline(math.inf, math.inf, started=100.0)
    clock(1e12)
    deadline.extend()
    assert deadline.remaining() == math.inf


SECONDS = st.floats(min_value=0, max_value=1e6)


@given(idle=SECONDS, total=SECONDS, waits=st.lists(SECONDS, max_size=20))
def test_no_amount_of_progress_outlasts_the_total(idle: float, total: float, waits: list[float]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 0.0
        patch.setattr(watchdog.anyio, "current_time", lambda: now)
        deadline = CallDeadline(idle, total, started=0.0)
        assert deadline.expires == min(idle, total)
        for wait in waits:
            now += wait
            if now > deadline.expires:
                break
            before = deadline.expires
            deadline.extend()
            assert before <= deadline.expires <= total, "progress never takes time away"
            assert deadline.expires == min(now + idle, total)
            assert deadline.remaining() >= 0


async def test_the_deadline_of_a_call_is_known_inside_it_and_nowhere_else() -> None:
    assert current_deadline.get() is None
    outer, inner = unlimited(), unlimited()
    seen: list[CallDeadline | None] = []

    async def elsewhere() -> None:
        seen.append(current_deadline.get())

    async with anyio.create_task_group() as tg:
        with call_deadline(outer) as given:
            assert given is outer
            assert current_deadline.get() is outer
            with pytest.raises(KeyError), call_deadline(inner):
                assert current_deadline.get() is inner
                raise KeyError
            assert current_deadline.get() is outer
        tg.start_soon(elsewhere)
    assert seen == [None]
    assert current_deadline.get() is None


# --- heartbeat ------------------------------------------------------------------------------------

BEAT = Heartbeat(interval=15, timeout=10)


class Wire:
    """What a heartbeat sees of a session, and when it has put a question."""

    def __init__(self, evidence: Liveness, *, busy: bool = True) -> None:
        self.evidence = evidence
        self.busy = busy
        self.began = self.last = anyio.current_time()
        self.asked: list[float] = []
        self.answer: Callable[[], None] = lambda: None

    def now(self) -> float:
        """Seconds since the wire was made."""
        return anyio.current_time() - self.began

    def quiet_since(self) -> float | None:
        return self.last if self.busy else None

    def traffic(self) -> None:
        self.last = anyio.current_time()

    async def ask(self) -> None:
        self.asked.append(self.now())
        await anyio.lowlevel.checkpoint()
        self.answer()

    async def watch(self) -> float:
        with anyio.fail_after(3600):
            return await watch_for_silence(
                BEAT, quiet_since=self.quiet_since, liveness=lambda: self.evidence, ask=self.ask
            )

    async def watch_in_vain(self, seconds: float) -> None:
        """Watch for so long, and find no silence."""
        with anyio.move_on_after(seconds) as scope:
            await self.watch()
        assert scope.cancelled_caught


async def test_a_stopped_peer_is_lost_when_it_stays_stopped() -> None:
    wire = Wire(Liveness.STOPPED)
    assert await wire.watch() == pytest.approx(25)
    assert wire.asked == []


async def test_a_peer_that_says_nothing_is_never_lost_for_that() -> None:
    wire = Wire(Liveness.UNKNOWN)
    await wire.watch_in_vain(3000)
    assert wire.asked == []


async def test_a_question_without_an_answer_proves_nothing_and_is_put_again() -> None:
    wire = Wire(Liveness.ASK)
    await wire.watch_in_vain(100)
    assert wire.asked == [15, 30, 45, 60, 75, 90]


async def test_one_question_is_put_at_a_time_and_no_longer_than_the_timeout() -> None:
    wire = Wire(Liveness.ASK)

    async def ask() -> None:
        wire.asked.append(wire.now())
        await anyio.sleep_forever()

    with anyio.move_on_after(100):
        await watch_for_silence(BEAT, quiet_since=wire.quiet_since, liveness=lambda: wire.evidence, ask=ask)
    assert wire.asked == [15, 40, 65, 90]


async def test_a_peer_that_is_continued_meanwhile_is_not_lost() -> None:
    wire = Wire(Liveness.STOPPED)
    async with anyio.create_task_group() as tg:

        async def continued() -> None:
            await anyio.sleep(20)
            wire.evidence = Liveness.UNKNOWN

        tg.start_soon(continued)
        await wire.watch_in_vain(1000)


async def test_a_peer_that_was_heard_of_meanwhile_is_not_lost() -> None:
    wire = Wire(Liveness.STOPPED)
    async with anyio.create_task_group() as tg:

        async def chatter() -> None:
            while True:
                await anyio.sleep(18)
                wire.traffic()

        tg.start_soon(chatter)
        await wire.watch_in_vain(1000)
        tg.cancel_scope.cancel()


async def test_a_peer_with_traffic_is_not_asked() -> None:
    wire = Wire(Liveness.ASK)
    async with anyio.create_task_group() as tg:

        async def chatter() -> None:
            while True:
                await anyio.sleep(14)
                wire.traffic()

        tg.start_soon(chatter)
        await wire.watch_in_vain(1000)
        tg.cancel_scope.cancel()
    assert wire.asked == []


@pytest.mark.parametrize("evidence", Liveness)
async def test_nobody_is_asked_while_nobody_waits(evidence: Liveness) -> None:
    wire = Wire(evidence, busy=False)
    await wire.watch_in_vain(1000)
    assert wire.asked == []


async def test_a_call_that_ended_while_the_peer_was_asked_ends_the_asking() -> None:
    wire = Wire(Liveness.ASK)

    def the_call_ends() -> None:
        wire.busy = False

    wire.answer = the_call_ends
    await wire.watch_in_vain(1000)
    assert wire.asked == [15]


async def test_a_peer_that_is_stopped_later_is_found_out_as_well() -> None:
    wire = Wire(Liveness.STOPPED, busy=False)
    async with anyio.create_task_group() as tg:

        async def begin_a_call() -> None:
            await anyio.sleep(100)
            wire.busy = True
            wire.traffic()

        tg.start_soon(begin_a_call)
        assert await wire.watch() == pytest.approx(25)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_time_in_which_the_host_is_stopped_itself_is_no_confirmation(backend: str) -> None:
    """Its clock runs on. The peer may have been stopped with it, and continued with it a moment later."""

    async def watch() -> int:
        looks = 0
        heard = anyio.current_time()

        def liveness() -> Liveness:
            nonlocal looks
            looks += 1
            if looks == 2:
                time.sleep(0.2)
            return Liveness.STOPPED

        async def ask() -> None:
            raise AssertionError("a stopped peer was asked")

        with anyio.fail_after(20):
            await watch_for_silence(
                Heartbeat(interval=0.01, timeout=0.05), quiet_since=lambda: heard, liveness=liveness, ask=ask
            )
        return looks

    assert anyio.run(watch, backend=backend) > 10

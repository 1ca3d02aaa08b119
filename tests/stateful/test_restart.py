"""The wait before a new session: it grows, it is bounded, and chance only ever adds to it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp.config import Restart

CEILING = 30.0

RESTARTS = st.builds(
    Restart,
    max_attempts=st.integers(min_value=1, max_value=10**9),
    backoff=st.floats(min_value=0, max_value=1e6),
    jitter=st.floats(min_value=0, max_value=10),
)
FAILURES = st.integers(min_value=1, max_value=10**6) | st.integers(min_value=1, max_value=30)
CHANCES = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(RESTARTS, st.integers(max_value=0), CHANCES)
def test_the_first_attempt_waits_for_nothing(restart: Restart, failures: int, chance: float) -> None:
    assert restart.delay(failures, chance) == 0.0


@given(RESTARTS, FAILURES, CHANCES)
def test_no_wait_is_negative_endless_or_longer_than_the_ceiling_with_its_jitter(
    restart: Restart, failures: int, chance: float
) -> None:
    delay = restart.delay(failures, chance)
    assert math.isfinite(delay)
    assert 0 <= delay <= CEILING * (1 + restart.jitter)


@given(RESTARTS, FAILURES)
def test_one_more_failure_never_shortens_the_wait(restart: Restart, failures: int) -> None:
    assert restart.delay(failures, 0.0) <= restart.delay(failures + 1, 0.0)


@given(RESTARTS, FAILURES, CHANCES)
def test_chance_adds_its_share_of_the_jitter_and_takes_nothing_away(
    restart: Restart, failures: int, chance: float
) -> None:
    certain = restart.delay(failures, 0.0)
    assert restart.delay(failures, chance) == pytest.approx(certain + certain * restart.jitter * chance)


def test_the_wait_doubles_until_the_ceiling() -> None:
    restart = Restart(backoff=0.1, jitter=0)
    waits = [restart.delay(failures, 0.0) for failures in range(1, 12)]
    assert waits[:9] == [0.1 * 2**power for power in range(9)]
    assert waits[9:] == [CEILING, CEILING]


def test_a_count_beyond_any_float_is_still_a_wait() -> None:
    assert Restart(jitter=0).delay(10**400, 0.0) == CEILING


def test_no_backoff_means_no_wait() -> None:
    assert Restart(backoff=0).delay(7, 0.9) == 0.0

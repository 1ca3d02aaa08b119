"""What a setting may be: seconds, counts, and nothing that looks like one by accident."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp.config import (
    DEFAULT_HEARTBEAT,
    DEFAULT_RESTART,
    Heartbeat,
    Limits,
    Restart,
    Timeouts,
    duration,
)

NO_NUMBERS: list[Any] = [True, False, "5", b"5", [5], {}, object(), Decimal(5), Fraction(1, 2), 1j]
NO_COUNTS: list[Any] = [True, "5", 1.0, None, math.inf]

MADE_OF_SECONDS: list[tuple[str, Callable[[Any], object]]] = [
    ("Timeouts.connect", lambda value: Timeouts(connect=value)),
    ("Timeouts.call", lambda value: Timeouts(call=value)),
    ("Timeouts.total", lambda value: Timeouts(total=value)),
    ("Timeouts.close", lambda value: Timeouts(close=value)),
    ("Heartbeat.interval", lambda value: Heartbeat(interval=value)),
    ("Heartbeat.timeout", lambda value: Heartbeat(timeout=value)),
    ("Restart.backoff", lambda value: Restart(backoff=value)),
    ("Restart.jitter", lambda value: Restart(jitter=value)),
    ("timeout", lambda value: duration("timeout", value)),
]
SECONDS = pytest.mark.parametrize(
    ("name", "make"), MADE_OF_SECONDS, ids=[name for name, _ in MADE_OF_SECONDS]
)


@SECONDS
def test_what_is_no_number_is_a_type_error_that_names_the_setting(
    name: str, make: Callable[[Any], object]
) -> None:
    for value in NO_NUMBERS:
        with pytest.raises(TypeError, match=name):
            make(value)


@SECONDS
def test_a_negative_duration_and_nan_are_value_errors_that_name_the_setting(
    name: str, make: Callable[[Any], object]
) -> None:
    for value in (math.nan, -math.inf, -1, -0.001):
        with pytest.raises(ValueError, match=name):
            make(value)


def test_none_is_no_limit_and_zero_is_zero() -> None:
    for value, seconds in [
        (None, math.inf),
        (math.inf, math.inf),
        (0, 0.0),
        (0.0, 0.0),
        (2, 2.0),
        (0.5, 0.5),
    ]:
        found = duration("x", value)
        assert found == seconds
        assert type(found) is float


@given(st.one_of(st.floats(), st.integers(min_value=-(2**1000), max_value=2**1000)))
def test_a_number_is_itself_in_seconds_or_a_value_error(value: float) -> None:
    if math.isnan(value) or value < 0:
        with pytest.raises(ValueError, match="x must not be negative"):
            duration("x", value)
    else:
        assert duration("x", value) == float(value)


def test_timeouts_have_finite_defaults() -> None:
    timeouts = Timeouts()
    seconds = (
        timeouts.connect_seconds,
        timeouts.call_seconds,
        timeouts.total_seconds,
        timeouts.close_seconds,
    )
    assert seconds == (30.0, 300.0, 3600.0, 5.0)


def test_connect_call_and_total_may_be_unlimited() -> None:
    timeouts = Timeouts(connect=None, call=None, total=math.inf)
    assert timeouts.connect_seconds == timeouts.call_seconds == timeouts.total_seconds == math.inf


@pytest.mark.parametrize("value", [None, math.inf])
def test_a_goodbye_must_have_a_bound(value: float | None) -> None:
    with pytest.raises(ValueError, match=r"Timeouts\.close must be finite"):
        Timeouts(close=value)


def test_a_timeout_of_zero_is_zero() -> None:
    timeouts = Timeouts(connect=0, call=0, total=0, close=0)
    assert (timeouts.connect_seconds, timeouts.call_seconds) == (0.0, 0.0)
    assert (timeouts.total_seconds, timeouts.close_seconds) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["interval", "timeout"])
def test_a_heartbeat_is_positive_and_finite(name: str) -> None:
    for value in (0, 0.0, math.inf, None):
        settings: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"Heartbeat.{name} must be positive and finite"):
            Heartbeat(**settings)


@pytest.mark.parametrize("name", ["backoff", "jitter"])
def test_the_wait_before_a_restart_is_finite(name: str) -> None:
    for value in (math.inf, None):
        settings: dict[str, Any] = {name: value}
        with pytest.raises(ValueError, match=f"Restart.{name} must be finite"):
            Restart(**settings)


def test_counts_are_integers() -> None:
    for value in NO_COUNTS:
        with pytest.raises(TypeError, match=r"Restart\.max_attempts must be an int"):
            Restart(max_attempts=value)
        with pytest.raises(TypeError, match=r"Limits\.max_message_bytes must be an int"):
            Limits(max_message_bytes=value)


def test_counts_are_positive() -> None:
    for value in (0, -1, -(10**30)):
        with pytest.raises(ValueError, match="restart=None turns it off"):
            Restart(max_attempts=value)
        with pytest.raises(ValueError, match=r"Limits\.max_message_bytes must be positive"):
            Limits(max_message_bytes=value)


def test_settings_are_values() -> None:
    assert Timeouts(call=5) == Timeouts(call=5.0)
    assert hash(Timeouts(call=5)) == hash(Timeouts(call=5.0))
    assert Heartbeat() == DEFAULT_HEARTBEAT
    assert Restart() == DEFAULT_RESTART
    assert Limits() == Limits()
    assert dataclasses.replace(Timeouts(call=5), close=1) == Timeouts(call=5, close=1)


@pytest.mark.parametrize("settings", [Timeouts(), Heartbeat(), Restart(), Limits()], ids=repr)
def test_settings_do_not_change_and_take_no_other_names(settings: Any) -> None:
    field = dataclasses.fields(settings)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings, field, 1)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        type(settings)(no_such_setting=1)
    with pytest.raises(TypeError, match="positional"):
        type(settings)(1.0)


def test_a_timedelta_is_its_seconds_wherever_seconds_are_wanted() -> None:
    minute = timedelta(minutes=1, milliseconds=500)
    assert duration("x", minute) == 60.5
    assert Timeouts(connect=minute, call=minute, total=minute, close=minute) == Timeouts(
        connect=60.5, call=60.5, total=60.5, close=60.5
    )
    assert Heartbeat(interval=minute, timeout=minute) == Heartbeat(interval=60.5, timeout=60.5)
    assert Restart(backoff=minute) == Restart(backoff=60.5)
    assert type(Timeouts(call=minute).call) is float
    with pytest.raises(ValueError, match="must not be negative"):
        Timeouts(call=timedelta(seconds=-1))

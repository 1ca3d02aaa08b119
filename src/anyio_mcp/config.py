"""The frozen settings a client is made of. Values only: nothing here opens, waits or remembers.

Durations are given in seconds, as numbers, or as a `timedelta`, and read as floats. `None` and `math.inf`
mean "no limit"; `0` means zero, never "disabled".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, final

from mcp.client import CacheConfig

DEFAULT_CONNECT_SECONDS: Final = 30.0
DEFAULT_CALL_SECONDS: Final = 300.0
DEFAULT_TOTAL_SECONDS: Final = 3600.0
DEFAULT_CLOSE_SECONDS: Final = 5.0
DEFAULT_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_MAX_MESSAGE_VALUES: Final = 250_000
DEFAULT_MAX_INPUT_ROUNDS: Final = 10


def duration(name: str, value: float | timedelta | None) -> float:
    """`value` as seconds, with None read as unlimited.

    Raises `TypeError` for anything but a number or a `timedelta`, and `ValueError` for one that is negative
    or not a number at all, both naming `name`.
    """
    if value is None:
        return math.inf
    if isinstance(value, timedelta):
        value = value.total_seconds()
    # bool is an int, and timeout=True is a mistake that would otherwise mean one second
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be seconds as a number, a timedelta, or None, not {value!r}")
    try:
        seconds = float(value)
    except OverflowError:
        raise ValueError(f"{name} is beyond all measure; use None for no limit") from None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return seconds


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long each phase may take, in seconds.

    * `connect`: from entering the client to a session that answers (TCP, process start, negotiation).
    * `call`: one public call, all included: queueing, writing, waiting, retries and handlers. Progress
      extends it. A `timeout=` given to the call replaces it, and progress does not extend that one.
    * `total`: the bound that no amount of progress extends, for calls without a `timeout=` of their own.
    * `close`: saying goodbye to the server. What is not done by then is abandoned, never waited for.
    """

    connect: float | None = DEFAULT_CONNECT_SECONDS
    call: float | None = DEFAULT_CALL_SECONDS
    total: float | None = DEFAULT_TOTAL_SECONDS
    close: float | None = DEFAULT_CLOSE_SECONDS

    if TYPE_CHECKING:
        # What is given may be a timedelta; what is read is seconds.
        def __init__(
            self,
            *,
            connect: float | timedelta | None = DEFAULT_CONNECT_SECONDS,
            call: float | timedelta | None = DEFAULT_CALL_SECONDS,
            total: float | timedelta | None = DEFAULT_TOTAL_SECONDS,
            close: float | timedelta | None = DEFAULT_CLOSE_SECONDS,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("connect", "call", "total", "close"):
            object.__setattr__(self, name, duration(f"Timeouts.{name}", getattr(self, name)))
        if math.isinf(self.close or 0.0):
            raise ValueError("Timeouts.close must be finite: a goodbye without a bound is a hang")

    @property
    def connect_seconds(self) -> float:
        return duration("connect", self.connect)

    @property
    def call_seconds(self) -> float:
        return duration("call", self.call)

    @property
    def total_seconds(self) -> float:
        return duration("total", self.total)

    @property
    def close_seconds(self) -> float:
        return duration("close", self.close)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """When to ask whether the peer is alive, while calls are in flight and the wire is quiet.

    After `interval` seconds without any traffic the peer is asked (`ping`, or `server/discover` in the modern
    era), where an answer can tell something: over HTTP that the session is gone (`expired`). That a question
    is not answered ends nothing, for a server that works on one request at a time answers no ping meanwhile.
    A child process that the operating system has stopped is lost `timeout` seconds later (`silent`).
    """

    interval: float = 15.0
    timeout: float = 10.0

    if TYPE_CHECKING:

        def __init__(
            self, *, interval: float | timedelta = 15.0, timeout: float | timedelta = 10.0
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("interval", "timeout"):
            value = duration(f"Heartbeat.{name}", getattr(self, name))
            if not value or math.isinf(value):
                raise ValueError(f"Heartbeat.{name} must be positive and finite, not {value!r}")
            object.__setattr__(self, name, value)


DEFAULT_HEARTBEAT: Final = Heartbeat()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """How a dead session is replaced by the next call that needs one.

    `max_attempts` counts *consecutive* failures to connect, over all calls, and is reset by success.
    Before the second and later attempts the call waits `backoff` seconds, doubled each time up to 30,
    plus up to `jitter` times that at random; the call's own deadline covers the wait.
    """

    max_attempts: int = 5
    backoff: float = 0.1
    jitter: float = 0.5

    if TYPE_CHECKING:

        def __init__(
            self, *, max_attempts: int = 5, backoff: float | timedelta = 0.1, jitter: float = 0.5
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):
            raise TypeError(f"Restart.max_attempts must be an int, not {self.max_attempts!r}")
        if self.max_attempts < 1:
            raise ValueError("Restart.max_attempts must be at least 1; restart=None turns it off")
        for name in ("backoff", "jitter"):
            value = duration(f"Restart.{name}", getattr(self, name))
            if math.isinf(value):
                raise ValueError(f"Restart.{name} must be finite")
            object.__setattr__(self, name, value)

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after `failures` consecutive failures; `chance` is drawn from [0, 1)."""
        if failures < 1:
            return 0.0
        # The exponent is capped before the power, so that a large count cannot overflow.
        return min(self.backoff * 2.0 ** min(failures - 1, 20), 30.0) * (1.0 + self.jitter * chance)


DEFAULT_RESTART: Final = Restart()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the peer may cost us.

    * `max_message_bytes`: one message from the server, in either framing. A larger answer fails its call
      with `RequestFailedError(reason="oversized")` and the session lives on.
    * `max_message_values`: the JSON values in one message: elements, members and containers (an empty one
      counts as two). They are counted before anything is parsed, since a message costs far more by its
      values than by its bytes; one with more is `oversized` as well.
    * `max_input_rounds`: how often one call may be answered by asking for input (2026-07-28). A server
      that still asks then fails its call with `RequestFailedError(reason="violation")`.
    """

    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_message_values: int = DEFAULT_MAX_MESSAGE_VALUES
    max_input_rounds: int = DEFAULT_MAX_INPUT_ROUNDS

    def __post_init__(self) -> None:
        for name in ("max_message_bytes", "max_message_values", "max_input_rounds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"Limits.{name} must be an int, not {value!r}")
            if value < 1:
                raise ValueError(f"Limits.{name} must be positive")


DEFAULT_CACHE: Final = CacheConfig()
"""What the server says may be kept is kept, in memory."""

"""The numbers the HTTP transports live by: how long and how much, for what the specification leaves open.

Values only. Not public: a user's settings are `Timeouts` and `Limits`; these bound what no caller waits
for, and tests replace them with small ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPolicy:
    """Bounds of one HTTP connection. Seconds are floats."""

    error_body_bytes: int = 64 * 1024
    error_body_seconds: float = 2.0
    """The body of an error status: what has not arrived by then is not part of the error."""

    drain_bytes: int = 64 * 1024
    drain_seconds: float = 1.0
    """What is read after an answer so that its connection can be used again; then it is closed."""

    delivery_seconds: float = 300.0
    """A notification or an answer nobody acknowledges gives its connection back after this time."""

    expiry_seconds: float = 0.25
    """Once a session has expired: for requests under way to get the answers they can still get."""

    doubt_seconds: float = 5.0
    """The same, where it is only likely that the session has expired."""

    refusal_seconds: float = 0.05
    """How long messages are turned away unsent before such a session ends."""

    release_seconds: float = 1.0
    """Closing sockets. Immediate in practice; a bound because it is shielded."""

    retire_seconds: float = 5.0
    """For the few exchanges in an HTTP/2 connection that is full of streams nobody waits for to come to their
    end, before it is closed for the sake of those that wait for room in another."""

    write_seconds: float = 0.25
    """For a request over HTTP/2 to be written before a cancellation ends it."""

    max_redirects: int = 5

    retry_default: float = 1.0
    retry_floor: float = 0.1
    retry_ceiling: float = 30.0
    """Before reconnecting a stream. The server's own `retry` is respected between floor and ceiling."""

    resume_attempts: int = 5
    resume_total: int = 100
    """GETs to resume one answer: in a row without a new event, and altogether."""

    listen_failures: int = 5
    """GETs in a row that open no stream before listening ends."""

    listen_proven: float = 1.0
    """A GET stream that lived this long was of use, even if it brought nothing."""

    listen_patience: float = 0.5
    """For the server to answer the first GET, before the first request goes out all the same."""

    listen_pause: float = 30.0
    """Before listening again in a client of the user's whose pool had no connection to spare for it."""

    pool_seconds: float = 0.5
    """For the pool of a user's client to have a connection free, before listening gives its own up. A
    question of the heartbeat waits no longer than that, and is not put then."""

    def retry_delay(self, retry_ms: int | None, failures: int = 0) -> float:
        """Seconds before the next attempt: what the server asked for, doubling per failure."""
        asked = self.retry_default if retry_ms is None else retry_ms / 1000
        # The exponent is capped before the power, so that a large count cannot overflow.
        return min(max(asked, self.retry_floor) * 2.0 ** min(failures, 20), self.retry_ceiling)

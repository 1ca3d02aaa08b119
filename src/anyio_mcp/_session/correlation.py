"""Request ids and the calls that wait for them.

Plain state without a single await: what arrives is matched to who waits, and everything that matches
nobody is counted. It knows nothing of streams, scopes, deadlines or transports; whoever waits gives
it a `wake` function and reads the outcome afterwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

from mcp.shared.dispatcher import coerce_request_id
from mcp.types import RequestId

PROGRESS_BACKLOG: Final = 1024
"""Progress updates kept for a caller whose handler is slow. When full the oldest are dropped and
counted: the newest tell more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One progress update of one call."""

    progress: float
    total: float | None
    message: str | None


@final
@dataclass(slots=True, eq=False)
class PendingCall:
    """One request and, once it is settled, what became of it."""

    request_id: RequestId
    method: str
    wake: Callable[[], None]
    progress: deque[Progress] | None = None
    """Updates not yet handed over; None when nobody asked for them."""
    written: bool = False
    """The transport has it. Until then the peer cannot know of it and need not be told it is off."""
    settled: bool = False
    result: dict[str, Any] | None = None
    error: Exception | None = None

    def take_error(self) -> Exception:
        """The error, which is the caller's from now on: a call, known to the frames that an error is raised
        through, would keep it, and it those frames."""
        error, self.error = self.error, None
        if error is None:
            raise RuntimeError("the call has not failed, or its error was taken")
        return error


@final
@dataclass(slots=True, eq=False)
class Counters:
    """What was dropped instead of leaked."""

    late_replies: int = 0
    """Answers to calls that were answered already, or whose caller had left."""
    unknown_replies: int = 0
    """Answers to requests that were never sent."""
    dropped_progress: int = 0


@final
@dataclass(slots=True, eq=False)
class Correlation:
    """The requests in flight."""

    counters: Counters = field(default_factory=Counters)
    _last_id: int = 0
    _pending: dict[RequestId, PendingCall] = field(default_factory=dict[RequestId, PendingCall])

    def __len__(self) -> int:
        return len(self._pending)

    def open(
        self,
        method: str,
        wake: Callable[[], None],
        *,
        request_id: RequestId | None = None,
        wants_progress: bool = False,
    ) -> PendingCall:
        """Register a call before anything is written, so that no answer can arrive too early.

        `request_id` is used verbatim if given; `ValueError` if a request in flight has it ("7" and 7
        are one id, since servers echo either).
        """
        if request_id is None:
            self._last_id += 1
            while self._last_id in self._pending:
                self._last_id += 1
            request_id = self._last_id
        elif coerce_request_id(request_id) in self._pending:
            raise ValueError(f"request id {request_id!r} is in flight already")
        call = PendingCall(request_id, method, wake, deque() if wants_progress else None)
        self._pending[coerce_request_id(request_id)] = call
        return call

    def is_waiting(self, request_id: RequestId) -> bool:
        """Whether somebody still waits for this request."""
        return coerce_request_id(request_id) in self._pending

    def resolve(self, request_id: RequestId, result: dict[str, Any]) -> bool:
        """The peer answered. False when nobody waits: the answer is counted and dropped."""
        return self._settle(request_id, result, None)

    def reject(self, request_id: RequestId, error: Exception) -> bool:
        """The request failed, by the peer's word or the transport's. False when nobody waits."""
        return self._settle(request_id, None, error)

    def report_progress(self, token: RequestId, update: Progress) -> bool:
        """Queue an update for the call that gave `token`. False when there is none or it did not ask."""
        call = self._pending.get(coerce_request_id(token))
        if call is None or call.progress is None:
            return False
        if len(call.progress) >= PROGRESS_BACKLOG:
            call.progress.popleft()
            self.counters.dropped_progress += 1
        call.progress.append(update)
        call.wake()
        return True

    def leave(self, call: PendingCall) -> bool:
        """The caller is gone. Returns whether the peer may still be working on it for nobody.

        Called on every path out of a call, so that a late answer is dropped, not leaked.
        """
        key = coerce_request_id(call.request_id)
        # Identity, because a settled call's id may have been taken by another one since.
        if self._pending.get(key) is not call:
            return False
        del self._pending[key]
        return call.written

    def abandon_all(self) -> None:
        """The session is over: forget everybody. Their scopes have been cancelled by then."""
        self._pending.clear()

    def _settle(self, request_id: RequestId, result: dict[str, Any] | None, error: Exception | None) -> bool:
        key = coerce_request_id(request_id)
        call = self._pending.pop(key, None)
        if call is None:
            # Ids count up, so one that was issued and is not pending had a caller once.
            if isinstance(key, int) and 0 < key <= self._last_id:
                self.counters.late_replies += 1
            else:
                self.counters.unknown_replies += 1
            return False
        call.settled = True
        call.result = result
        call.error = error
        call.wake()
        return True

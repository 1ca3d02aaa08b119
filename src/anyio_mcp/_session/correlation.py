"""Request ids and the calls that wait for them.

Plain state without a single await: what arrives is matched to who waits, and everything that matches
nobody is counted. It knows nothing of streams, scopes, deadlines or transports; whoever waits gives
it a `wake` function and reads the outcome afterwards.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

from mcp.shared.dispatcher import coerce_request_id
from mcp.types import RequestId

PROGRESS_BACKLOG: Final = 1024
"""Progress updates kept for a caller whose handler is slow. When full the oldest are dropped and
counted: the newest tell more."""


PROGRESS_BYTES: Final = 16 * 1024 * 1024
"""Memory that the updates of all calls hold. When it is full the oldest of the call are dropped for the
newest; that one too if it does not fit, unless it is the only one there is."""


@dataclass(frozen=True, slots=True)
class Progress:
    """One progress update of one call."""

    progress: float
    total: float | None
    message: str | None

    @property
    def weight(self) -> int:
        """Bytes it holds, roughly."""
        return 200 + sys.getsizeof(self.message)


@final
@dataclass(slots=True, eq=False)
class PendingCall:
    """One request and, once it is settled, what became of it."""

    request_id: RequestId
    method: str
    wake: Callable[[], None]
    has_token: bool = False
    """The peer was asked to report progress."""
    progress: deque[Progress] | None = None
    """Updates not yet handed over; None when nobody wants to see them."""
    progressed: bool = False
    """Progress was made since this was last looked at."""
    written: bool = False
    """The transport is given it. Until then the peer cannot know of it and need not be told it is off."""
    sent_at: float | None = None
    """When the transport had taken all of it."""
    delayed_by: str = ""
    """What keeps the transport from sending it, or may do so."""
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
    _progress_bytes: int = 0
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
        has_token: bool = False,
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
        updates = deque[Progress]() if wants_progress else None
        call = PendingCall(request_id, method, wake, has_token or wants_progress, updates)
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
        if call is None or not call.has_token:
            return False
        call.progressed = True
        if call.progress is not None:
            self._keep(call.progress, update)
        call.wake()
        return True

    def _keep(self, updates: deque[Progress], update: Progress) -> None:
        weight = update.weight
        while updates and (
            len(updates) >= PROGRESS_BACKLOG or self._progress_bytes + weight > PROGRESS_BYTES
        ):
            self._progress_bytes -= updates.popleft().weight
            self.counters.dropped_progress += 1
        if self._progress_bytes and self._progress_bytes + weight > PROGRESS_BYTES:
            self.counters.dropped_progress += 1
            return
        self._progress_bytes += weight
        updates.append(update)

    def next_progress(self, call: PendingCall) -> Progress | None:
        """The oldest update that was not handed over."""
        if not call.progress:
            return None
        update = call.progress.popleft()
        self._progress_bytes -= update.weight
        return update

    def leave(self, call: PendingCall) -> bool:
        """The caller is gone. Returns whether the peer may still be working on it for nobody.

        Called on every path out of a call, so that a late answer is dropped, not leaked.
        """
        while self.next_progress(call) is not None:
            pass
        key = coerce_request_id(call.request_id)
        # Identity, because a settled call's id may have been taken by another one since.
        if self._pending.get(key) is not call:
            return False
        del self._pending[key]
        return call.written

    def abandon_all(self) -> None:
        """The session is over: forget everybody. Their scopes have been cancelled by then, and each drops
        its own updates when it leaves."""
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

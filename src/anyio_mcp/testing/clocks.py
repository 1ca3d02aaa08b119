"""Virtual time for both backends: whoever waits for a timeout of minutes waits microseconds.

The clock stands still while anything can run and jumps to the next deadline when nothing can. It knows
nothing of clients or servers. The one place in this package that names asyncio and trio.

Code in threads, sockets and child processes lives in real time, which virtual time runs past: a deadline
expires as soon as everything else waits. Tests of such code need the real clock.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

PATIENCE: Final = 1.0
"""Real seconds a thread or a socket may take to wake an event loop that waits for no deadline; after
that the loop counts as deadlocked."""

SPINNING: Final = 60.0
"""Real seconds tasks may run without any of them waiting for time to pass; after that the event loop
counts as spinning: virtual time stands still while anything can run, so no deadline would ever end it."""

_START: Final = 1000.0
"""When virtual time begins. Not zero, so that code which mistakes a duration for an instant fails."""


class DeadlockError(Exception):
    """Nothing can happen any more: every task waits and no deadline is set, or some task spins."""


@final
class VirtualTime:
    """A clock for one run of an event loop.

    `options` are backend options of `anyio.run()`, or of the `anyio_backend` fixture of anyio's pytest
    plugin: `return "trio", VirtualTime("trio").options`. Use each object for one run.

    An event loop that can never go on (every task waits and there is no deadline, or some task runs
    for `SPINNING` real seconds without letting time pass) does not hang: on
    asyncio the run ends with `DeadlockError`; on trio its main task is cancelled with that reason, and
    if that frees nobody either, the run ends with a `TrioInternalError` from a `DeadlockError`.
    """

    __slots__ = ("_clock", "options")

    options: Mapping[str, Any]

    def __init__(self, backend: str) -> None:
        self._clock = _Clock()
        if backend == "asyncio":
            self.options = {"loop_factory": lambda: _EventLoop(self._clock)}
        elif backend == "trio":
            self.options = _trio_options(self._clock)
        else:
            raise ValueError(f"there is no virtual time for {backend!r}, only for 'asyncio' and 'trio'")

    @property
    def now(self) -> float:
        """Virtual seconds, as `anyio.current_time()` tells them inside the run."""
        return self._clock.now

    @property
    def verdict(self) -> Exception | None:
        """Why the run was broken off: a `DeadlockError`, or what `abort()` was given; None if it was not."""
        return self._clock.verdict

    def abort(self, error: Exception) -> None:
        """Break the run off with `error`, cleanly or not, as soon as no task can run.

        For tasks that cancellation does not end. `anyio.run()` raises `error`, or an error caused by it.
        """
        self._clock.fatal = error


def backend_options(backend: str) -> dict[str, Any]:
    """Options that make one run of `backend` ("asyncio" or "trio") live in virtual time.

        anyio.run(main, backend="trio", backend_options=backend_options("trio"))

    The same as `VirtualTime(backend).options`.
    """
    return dict(VirtualTime(backend).options)


@final
class _Clock:
    """The time of one run, moved by its event loop."""

    __slots__ = ("_passes", "_since", "fatal", "now", "verdict")

    def __init__(self) -> None:
        self.now = _START
        self.fatal: Exception | None = None
        self.verdict: Exception | None = None
        self._passes = 0
        self._since = time.monotonic()

    def jump(self, now: float) -> None:
        self.now = now
        self._passes = 0

    def ends_with(self, error: Exception) -> Exception:
        self.verdict = error
        return error

    def spins(self) -> bool:
        """Asked whenever something runs. Whether it has gone on for too long."""
        self._passes += 1
        if self._passes == 1:
            self._since = time.monotonic()
        # Reading the real clock is the most expensive thing here, so it is done now and then.
        return self._passes % 4096 == 0 and time.monotonic() - self._since > SPINNING


def _deadlock() -> DeadlockError:
    return DeadlockError("every task waits, and there is no deadline: nothing can happen any more")


def _spinning() -> DeadlockError:
    return DeadlockError("some task runs again and again without waiting, so virtual time stands still")


@final
class _EventLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time is virtual."""

    def __init__(self, clock: _Clock) -> None:
        self._virtual_clock = clock
        super().__init__(_JumpingSelector(clock))

    def time(self) -> float:
        return self._virtual_clock.now


@final
class _JumpingSelector(selectors.BaseSelector):
    """A selector that, asked to wait for a time, lets it pass at once.

    The event loop asks with a timeout only when it has nothing else to do, so this is the moment.
    """

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = self._real.select(0)
        if events or timeout == 0:
            if self._clock.spins():
                raise self._clock.ends_with(_spinning())
            return events
        if self._clock.fatal is not None:
            raise self._clock.ends_with(self._clock.fatal)
        if timeout is not None:
            self._clock.jump(self._clock.now + timeout)
            return []
        events = self._real.select(PATIENCE)
        if not events:
            raise self._clock.ends_with(_deadlock())
        return events

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()


def _trio_options(shared: _Clock) -> dict[str, Any]:
    # Imported here, because trio is an extra: virtual time for asyncio must work without it.
    import trio

    @final
    class Clock(trio.abc.Clock, trio.abc.Instrument):
        """trio's `MockClock` with an autojump threshold of zero, which also notices a deadlock."""

        def __init__(self) -> None:
            self._idle = 0
            self._ended = False

        def start_clock(self) -> None:
            pass

        def current_time(self) -> float:
            return shared.now

        def task_scheduled(self, task: trio.lowlevel.Task) -> None:
            self._idle = 0
            if shared.spins():
                self._end(_spinning())

        def deadline_to_sleep_time(self, deadline: float) -> float:
            """Called only when no task can run."""
            if deadline <= shared.now:
                return 0
            self._idle += 1
            if self._idle == 1:
                # Ask the sockets and threads once more before time jumps.
                return 0
            if shared.fatal is not None:
                return self._end(shared.fatal)
            if deadline != float("inf"):
                self._idle = 0
                shared.jump(deadline)
                return 0
            if self._idle == 2:
                return PATIENCE
            return self._end(_deadlock())

        def _end(self, error: Exception) -> float:
            shared.ends_with(error)
            root = trio.lowlevel.current_root_task()
            if self._ended or root is None:
                raise error
            self._ended = True
            # The root task's innermost nursery is the main task's. Raising here would end the run too,
            # but would leave every task where it is, and hang anyio's pytest plugin.
            root.child_nurseries[-1].cancel_scope.cancel(reason=str(error))
            return 0

    clock = Clock()
    return {"clock": clock, "instruments": [clock]}

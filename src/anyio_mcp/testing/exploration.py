"""Running a scenario so that it must end, and once for every point at which it can be cancelled.

It knows coroutines, checkpoints and clocks; what the scenario is about is the caller's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, Protocol, TypeVar, final

import anyio
import anyio.lowlevel

from anyio_mcp.telemetry import SessionStats
from anyio_mcp.testing.clocks import VirtualTime
from anyio_mcp.testing.tasks import task_dump

T = TypeVar("T")

DEFAULT_SECONDS: Final = 3600.0
"""Virtual seconds a scenario may take: more than any default timeout of a client."""

SETTLING_PASSES: Final = 20
"""Passes of the event loop in which tasks that are ending may end, before they count as left behind."""

MAX_CHECKPOINTS: Final = 5000
"""Checkpoints one scenario may have; beyond it the exploration fails instead of going on for ever."""


class HangError(AssertionError):
    """A scenario did not end in time; the message shows where every task was."""


class LeakError(AssertionError):
    """A scenario ended and left something behind."""


class HasStats(Protocol):
    """A client, as far as this module is concerned."""

    def stats(self) -> SessionStats: ...


def check_at_rest(*clients: HasStats) -> None:
    """Raise `LeakError` unless nobody holds or waits for anything in these clients."""
    for client in clients:
        stats = client.stats()
        if stats.leases or stats.calls_in_flight or stats.waiters:
            raise LeakError(f"{client!r} is not at rest: {stats}")


async def never_hang(
    scenario: Callable[[], Awaitable[T]],
    *,
    seconds: float = DEFAULT_SECONDS,
    on_stuck: Callable[[Exception], None] | None = None,
) -> T:
    """Run `scenario` in this event loop, in this task, and return what it returns.

    Raises `HangError` with a task dump when it has not ended after `seconds`, `LeakError` when tasks
    are left that were not there before, and whatever the scenario raises, as it is. A scenario that
    does not end is cancelled; `on_stuck` is called if it has not ended `seconds` after that either.
    """
    before = {task.id for task in anyio.get_running_tasks()}
    hang: HangError | None = None
    failure: BaseException | None = None
    results: list[T] = []

    async def watch() -> None:
        nonlocal hang
        await anyio.sleep(seconds)
        hang = HangError(f"still running after {seconds:g} seconds\n{task_dump()}")
        scope.cancel()
        await anyio.sleep(seconds)
        if on_stuck is not None:
            on_stuck(HangError(f"still running {seconds:g} seconds after being cancelled\n{task_dump()}"))

    # The task group would wrap what passes through it, so it is given nothing.
    async with anyio.create_task_group() as tg:
        with anyio.CancelScope() as scope:
            tg.start_soon(watch, name="anyio_mcp.testing watchdog")
            try:
                results.append(await scenario())
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # raised below; what fails a pytest test is no Exception
                failure = error
        tg.cancel_scope.cancel()
    if hang is not None:
        raise hang from failure
    if failure is not None:
        raise failure
    await _settle(before)
    return results[0]


async def _settle(before: set[int]) -> None:
    for _ in range(SETTLING_PASSES):
        if all(task.id in before for task in anyio.get_running_tasks()):
            return
        await anyio.lowlevel.checkpoint()
    raise LeakError(f"tasks are left behind\n{task_dump()}")


def check_never_hangs(
    scenario: Callable[[], Awaitable[T]], *, backend: str, seconds: float = DEFAULT_SECONDS
) -> T:
    """Run `scenario` in an event loop of its own, in virtual time, and return what it returns.

    Raises what `never_hang` raises. Never hangs itself, not even when tasks resist cancellation.
    """
    time = VirtualTime(backend)
    try:
        return anyio.run(
            lambda: never_hang(scenario, seconds=seconds, on_stuck=time.abort),
            backend=backend,
            backend_options=dict(time.options),
        )
    except BaseException:
        if time.verdict is not None:
            raise HangError(str(time.verdict)) from None
        raise


@final
class Interruption:
    """Cancels one coroutine at one of its checkpoints.

    A checkpoint is a moment at which the coroutine hands control to the event loop. Call it with the
    coroutine function to interrupt; it returns what that returns, or None if it was cancelled.
    """

    __slots__ = ("_at", "_cancel", "_times", "checkpoints", "delivered", "used")

    def __init__(
        self, at: int, *, cancel: Callable[[anyio.CancelScope], object] | None = None, times: int = 1
    ) -> None:
        self._at = at
        self._cancel = cancel or _cancel
        self._times = times
        self.checkpoints = 0
        """How many checkpoints have been seen."""
        self.delivered = 0
        """How often the coroutine has been cancelled."""
        self.used = False

    async def __call__(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        self.used = True
        with anyio.CancelScope() as scope:
            return await _Stepped(function(), lambda: self._step(scope))

    def _step(self, scope: anyio.CancelScope) -> None:
        self.checkpoints += 1
        if self._at <= self.checkpoints < self._at + self._times:
            self.delivered += 1
            self._cancel(scope)


def _cancel(scope: anyio.CancelScope) -> None:
    scope.cancel()


@final
class _Stepped(Awaitable[T]):
    """Awaits a coroutine, and calls a function each time it is about to hand over control."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], step: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._step = step

    def __await__(self) -> Generator[Any, Any, T]:
        driven_by_hand = self._coroutine  # the name under which a task dump follows it
        resume: Callable[[Any], Any] = driven_by_hand.send
        argument: Any = None
        while True:
            try:
                trap = resume(argument)
            except StopIteration as stop:
                return stop.value
            self._step()
            try:
                argument = yield trap
                resume = driven_by_hand.send
            except GeneratorExit:
                driven_by_hand.close()
                raise
            except BaseException as error:  # the event loop's, on its way into the coroutine
                resume, argument = driven_by_hand.throw, error


def cancel_everywhere(
    scenario: Callable[[Interruption], Awaitable[object]],
    *,
    backend: str,
    seconds: float = DEFAULT_SECONDS,
    cancel: Callable[[anyio.CancelScope], object] | None = None,
    times: int = 1,
) -> int:
    """Run `scenario` once for each checkpoint of what it interrupts, and cancel it there.

    The scenario calls the `Interruption` it is given with the coroutine function in question, and
    afterwards checks that all is well: that nothing is left, that the next use works. Every run is a
    `check_never_hangs` of its own. A failure's notes say at which checkpoint it happened.

    `cancel` is how: by default the cancel scope around the coroutine is cancelled; a test for asyncio
    alone may give `lambda scope: asyncio.current_task().cancel()`. `times` repeats it at as many
    checkpoints in a row.

    Returns how many checkpoints there are: a test should know, lest it explores nothing.
    """
    for at in range(1, MAX_CHECKPOINTS + 1):
        interruption = Interruption(at, cancel=cancel, times=times)
        try:
            check_never_hangs(_Once(scenario, interruption), backend=backend, seconds=seconds)
        except BaseException as error:
            error.add_note(f"cancelled at checkpoint {at} of {interruption.checkpoints} on {backend}")
            raise
        if not interruption.used:
            raise ValueError("the scenario has interrupted nothing")
        if not interruption.delivered:
            return interruption.checkpoints
    raise HangError(f"more than {MAX_CHECKPOINTS} checkpoints")


@final
class _Once:
    """A scenario with its interruption, as a function without arguments."""

    def __init__(
        self, scenario: Callable[[Interruption], Awaitable[object]], interruption: Interruption
    ) -> None:
        self._scenario = scenario
        self._interruption = interruption

    async def __call__(self) -> None:
        await self._scenario(self._interruption)

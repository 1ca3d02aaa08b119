"""What an operation on a peer's schema or value may cost, and how it is run without holding the event loop.

An operation is a generator, so that it can be interrupted: it counts its steps in a `Budget`, yields None
when a slice of them is spent, and yields another generator to have it run first. `driven` runs the
generators one upon the other from a list, so that no depth that a peer chooses is a depth of Python's.
Knows nothing of schemas.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias, TypeVar, cast, final

import anyio
import anyio.lowlevel

_T = TypeVar("_T")

Steps: TypeAlias = Generator[Any, Any, _T]
"""An operation in steps: yields None for a pause, or other `Steps` whose result it is sent."""

SLICE: Final = 3_000
"""Steps between two checkpoints. A step takes about a microsecond: a few milliseconds, so that others are
late by little even when each of their own steps waits behind one of these."""

MOST_STEPS: Final = 1_000_000
"""Steps that the check of one value may take, or its conversion: about a second, in slices."""


MAX_DEPTH: Final = 4_000
"""Generators one upon the other. A level of a value takes five, and JSON is not read past a few hundred."""


class MismatchError(ValueError):
    """A value does not fit its type, or converting it would cost too much."""


@final
class OutOfBudgetError(MismatchError):
    """Ends the whole operation, where another mismatch only ends one member of a union."""


@final
class Budget:
    """Steps that one operation may take."""

    __slots__ = ("_limit", "_pause_at", "_reason", "spent")

    def __init__(self, limit: int = MOST_STEPS) -> None:
        self._limit = limit
        self._reason = f"it would take more than {limit} steps"
        self._pause_at = SLICE
        self.spent = 0

    def spend(self, steps: int) -> None:
        """Count steps, before they are taken. Raises `OutOfBudgetError` past the limit."""
        self.spent += steps
        if self.spent > self._limit:
            raise OutOfBudgetError(self._reason)

    def close(self, reason: str) -> None:
        """No more steps may be taken."""
        self._limit = -1
        self._reason = reason

    @property
    def is_due(self) -> bool:
        """Whether a slice is spent since this was last true: then yield None."""
        if self.spent < self._pause_at:
            return False
        self._pause_at = self.spent + SLICE
        return True


def driven(first: Steps[_T]) -> Generator[None, None, _T]:
    """Run `first` and all it asks for; yields where it pauses. What one raises passes to who asked for it."""
    stack: list[Steps[Any]] = [first]
    answer: Any = None
    error: Exception | None = None
    while stack:
        try:
            asked = stack[-1].send(answer) if error is None else stack[-1].throw(error)
        except StopIteration as stop:
            stack.pop()
            answer, error = stop.value, None
            continue
        except Exception as raised:
            stack.pop()
            if not stack:
                raise
            error = raised
            continue
        answer = error = None
        if asked is None:
            yield
        elif len(stack) < MAX_DEPTH:
            stack.append(asked)
        else:
            error = OutOfBudgetError("it is nested too deeply")
    return cast("_T", answer)


def at_once(first: Steps[_T]) -> _T:
    """Run what is known to be small."""
    running = driven(first)
    while True:
        try:
            next(running)
        except StopIteration as done:
            return cast("_T", done.value)


async def in_slices(first: Steps[_T], budget: Budget, *, until: float) -> _T:
    """Run it with a checkpoint after each slice; what fits into one slice runs without any.

    `budget` is closed when `until` (of the event loop's clock) has passed between two slices.
    """
    running = driven(first)
    while True:
        try:
            next(running)
        except StopIteration as done:
            return cast("_T", done.value)
        await anyio.lowlevel.checkpoint()
        if anyio.current_time() > until:
            budget.close("it would take more time than its call has left")


def count_values(value: object, most: int) -> int:
    """How many values a JSON value consists of, counted up to a little more than `most`.

    Without recursion: its depth is the server's choice.
    """
    total = 0
    stack = [value]
    while stack and total <= most:
        item = stack.pop()
        total += 1
        if isinstance(item, dict | list):
            members = cast("dict[str, object] | list[object]", item)
            if total + len(stack) + len(members) > most:
                return most + 1
            stack.extend(members.values() if isinstance(members, dict) else members)
    return total

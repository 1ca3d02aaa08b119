"""What a conversion may cost, and the errors that end one."""

from __future__ import annotations

from typing import cast, final


class MismatchError(ValueError):
    """A value does not fit its type, or converting it would cost too much."""


@final
class OutOfBudgetError(MismatchError):
    """Ends the whole conversion, where another mismatch only ends one member of a union."""


@final
class Budget:
    """Steps a conversion may take, in proportion to the size of the value."""

    __slots__ = ("_left",)

    def __init__(self, value: object) -> None:
        # A conversion without trials takes one or two steps for each value.
        self._left = 10_000 + 32 * count_values(value)

    def spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise OutOfBudgetError("too many ways to read the value")


def count_values(value: object) -> int:
    """How many values a JSON value consists of. Without recursion: its depth is the server's choice."""
    total = 0
    stack = [value]
    while stack:
        item = stack.pop()
        total += 1
        if isinstance(item, dict):
            stack.extend(cast("dict[str, object]", item).values())
        elif isinstance(item, list):
            stack.extend(cast("list[object]", item))
    return total

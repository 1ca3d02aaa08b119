"""The fault matrix as data: what a cell is, how one is judged, and how all of them read as a page.

A cell is one fault in one phase of one era. It says what the call that meets the fault ends in, within
which bound, and whether the session outlives it. How a fault is made is the business of the files that
list the cells (`*_cells.py`); `test_matrix.py` runs every cell on both backends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Era: TypeAlias = Literal["legacy", "modern"]
Phase: TypeAlias = Literal["connecting", "in flight", "idle", "closing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What becomes of the call that meets a fault."""

    raises: type[Exception] | None = None
    """Exactly this type; None: it works."""
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the exception, by dotted name: `{"reason": "exited", "response.status_code": 500}`. A callable
    is asked, anything else is compared."""
    cause: type[BaseException] | None = None
    """What `__cause__` has to be an instance of."""
    survives: bool = True
    """Whether the very session goes on. Whatever this says, the client works afterwards."""
    note: str = ""
    """What the page says of it beyond that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a cell's program saw."""

    error: Exception | None
    survived: bool
    """The session after the fault is the one before it."""
    works: bool
    """A call made after the fault succeeded, if the fault was no longer made."""
    seconds: float
    """From the fault's call to its end, on the clock of the test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One fault in one phase."""

    area: str
    fault: str
    """The fault, as the page names it."""
    phase: Phase
    era: Era
    outcome: Outcome
    within: float
    """Seconds the outcome may take, on the clock of the test: the sum of the documented bounds that
    apply. The guard around the program is this and a margin for a busy machine."""
    run: Callable[[Cell], Awaitable[Observed]]
    bound: str = ""
    """The bound with default settings, where the outcome does not tell it, as the page names it."""
    clock: Literal["virtual", "real"] = "real"
    largest: bool = False
    """Whether its messages are of the largest that `Limits` allow, for which a step may take longer."""

    @property
    def id(self) -> str:
        return f"{self.area}: {self.fault}, {self.phase}, {self.era}"


def judge(cell: Cell, observed: Observed) -> None:
    """Raises `AssertionError` unless what was seen is what the cell says."""
    outcome = cell.outcome
    error = observed.error
    if outcome.raises is None:
        assert error is None, repr(error)
    else:
        # A status is raised as a subclass of either library's error, of the same name, that can be pickled.
        assert isinstance(error, outcome.raises), repr(error)
        assert type(error).__name__ == outcome.raises.__name__, repr(error)
    for name, expected in outcome.attributes.items():
        value: Any = error
        for part in name.split("."):
            value = getattr(value, part)
        if callable(expected):
            assert expected(value), f"{name} is {value!r}"
        else:
            assert value == expected, f"{name} is {value!r}, not {expected!r}"
    if outcome.cause is not None:
        assert error is not None
        assert isinstance(error.__cause__, outcome.cause), repr(error.__cause__)
    assert observed.survived == outcome.survives, f"survived: {observed.survived}"
    assert observed.works, "the client is of no use after the fault"

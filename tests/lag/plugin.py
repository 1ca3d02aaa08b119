"""All tests are measured, the longest steps are in the report, and some tests fail for one too long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.lag.meter import Meter, Step

ORDINARY: Final = 4 * 0.050
"""Seconds of processor time: four times what the longest step may take on a quiet machine."""

LARGEST: Final = 4 * 0.250
"""The same, of the largest message that `Limits` allow."""

SHOWN: Final = 10
"""How many of the longest steps the report names."""

meter = Meter()
_of_others: list[Step] = []
"""The longest steps of the processes that share the tests."""


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Iterator[None]:
    with meter.installed():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    meter.begin(item.nodeid)


@pytest.fixture
def short_steps() -> Iterator[Meter]:
    """The test fails if anybody but its servers held the event loop for longer than `ORDINARY`."""
    yield meter
    check(ORDINARY, collecting=False)


def check(bound: float, *, collecting: bool = True) -> None:
    """Raises `AssertionError` if a step of this test took longer than `bound` seconds.

    Without `collecting`, the garbage collector's share is left out: that is of all that this process has ever
    made.
    """
    for step in meter.current:
        seconds = step.seconds - (0.0 if collecting else step.collecting)
        assert seconds <= bound, f"a step held the event loop: {step}"


# With pytest-xdist the tests run in processes that print nothing. What they return has to be plain data.


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        names = Step.__slots__
        output["longest steps"] = [[getattr(step, name) for name in names] for step in meter.longest.values()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _of_others.extend(Step(*values) for values in getattr(node, "workeroutput", {}).get("longest steps", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    longest: dict[str, Step] = {}
    for step in [*meter.longest.values(), *_of_others]:
        longest[step.kind] = max(step, longest.get(step.kind, step))
    if longest:
        title = "longest steps between two checkpoints, in processor time"
        terminalreporter.write_sep("=", title)
    for step in sorted(longest.values(), reverse=True)[:SHOWN]:
        terminalreporter.write_line(str(step))

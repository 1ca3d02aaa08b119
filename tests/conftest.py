"""What every test runs under: both backends, and nothing left behind at its end."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
import trio
from coverage import Coverage

from tests.leaks import child_processes

pytest_plugins = ["tests.lag.plugin"]

# How long an example takes depends on what else the machine does; what takes too long, tests/lag says.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")


def pytest_collection_finish() -> None:
    """What collecting the tests has made is no test's garbage: looking through it after each costs more
    than the tests."""
    # Frozen objects have no referrers, which Hypothesis would take for a mistake of trio's.
    hypothesis.find(hypothesis.strategies.none(), lambda _: True)
    trio.run(trio.lowlevel.checkpoint)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def children_are_not_measured() -> None:
    """The processes that tests start are servers, or programs of which only the end is looked at.

    Measuring where they have been takes each of them longer than what it is there for.
    """
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind_in_the_end() -> Iterator[None]:
    """Garbage that became garbage only after its test warns of nothing either."""
    yield
    gc.unfreeze()
    gc.collect()


@pytest.fixture
def unmeasured() -> Iterator[None]:
    """For tests that go the same ways very often. Measuring where they have been takes longer than to go
    there; that each line and branch is reached at all is for other tests to show."""
    measuring = Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No child process survives a test, and collecting its garbage warns of nothing.

    `filterwarnings = error` turns an unclosed stream, socket or never-awaited coroutine found by
    the collection into a failure.
    """
    children = child_processes()
    yield
    gc.collect()
    # What is alive behind a test is looked through once more when all have ended, and not after each:
    # that took a third of the time of all tests.
    gc.freeze()
    assert child_processes() <= children, "a child process outlived the test"

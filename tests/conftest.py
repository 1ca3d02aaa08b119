"""What every test runs under: both backends, and nothing left behind at its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import pytest
import trio

from tests.leaks import child_processes


def pytest_collection_finish() -> None:
    """What collecting the tests has made is no test's garbage: looking through it after each costs more
    than the tests."""
    # Frozen objects have no referrers, which Hypothesis would take for a mistake of trio's.
    hypothesis.find(hypothesis.strategies.none(), lambda _: True)
    trio.run(trio.lowlevel.checkpoint)
    gc.collect()
    gc.freeze()


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
    assert child_processes() <= children, "a child process outlived the test"

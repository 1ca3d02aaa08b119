"""A few cases of each target, always the same, and all inputs that something was once wrong with.

`python -m tests.fuzz.run` plays as many as there is time for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.fuzz.cases import TARGETS, Case, from_token, smaller
from tests.fuzz.play import Reports, long_steps, world
from tests.lag.plugin import meter

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unmeasured")]

CORPUS = sorted(Path(__file__).with_name("corpus").glob("*.json"))
CASES = 25


@pytest.fixture
def reports() -> Iterator[Reports]:
    handler = Reports()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


async def shows_nothing(cases: list[Case], reports: Reports) -> None:
    with anyio.fail_after(120):
        async with world(cases[0].target, cases[0].era) as here:
            for case in cases:
                found = [*await here.play(case), *long_steps(meter), *reports.found]
                assert not found, f"{case.token}: {found}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_mutated_traffic_ends_in_typed_errors_and_leaves_the_client_of_use(
    target: str, era: str, reports: Reports
) -> None:
    if target == "sse" and era == "modern":
        pytest.skip("HTTP+SSE ended with the era before")
    first = 1000 if era == "legacy" else 2000
    await shows_nothing([from_token(f"{target}:{era}:{first + each}") for each in range(CASES)], reports)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
async def test_an_input_that_something_was_wrong_with_is_harmless_now(path: Path, reports: Reports) -> None:
    await shows_nothing([Case.load(path.read_text())], reports)


def test_a_case_follows_from_its_token() -> None:
    for target in TARGETS:
        case = from_token(f"{target}:legacy:5")
        assert case == from_token(f"{target}:legacy:5")
        assert Case.load(case.dump()) == case
        assert all(each.size <= case.size for each in smaller(case))

"""The fault matrix: every cell of every area, on both backends. What a cell says is `matrix.py`'s."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from anyio_mcp.testing import VirtualTime
from tests.faults import document
from tests.faults.areas import CELLS
from tests.faults.matrix import Cell, Observed, judge
from tests.lag.plugin import LARGEST, ORDINARY, check
from tests.leaks import open_sockets

MARGIN = 30.0
"""Seconds a busy machine may take longer than the bound of a cell, before the cell counts as hanging."""


async def play(cell: Cell) -> Observed:
    """Run a cell, which leaves no task behind and takes no longer than it says."""
    before = {task.id for task in anyio.get_running_tasks()}
    observed: Observed | None = None
    with anyio.move_on_after(cell.within + MARGIN):
        observed = await cell.run(cell)
    assert observed is not None, f"{cell.id}: hangs, its bound is {cell.within:g} s"
    left = [task.name for task in anyio.get_running_tasks() if task.id not in before]
    assert not left, f"{cell.id}: tasks are left: {left}"
    if cell.clock == "virtual":
        # Only the clock of the test can be trusted to the second, and not this machine's.
        assert observed.seconds <= cell.within + 0.001, f"{cell.id}: took {observed.seconds:g} s"
    return observed


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_a_fault_ends_in_its_outcome_within_its_bound_and_leaves_nothing(cell: Cell, backend: str) -> None:
    options = VirtualTime(backend).options if cell.clock == "virtual" else {}
    before = open_sockets()
    judge(cell, anyio.run(play, cell, backend=backend, backend_options=dict(options)))
    assert open_sockets() <= before, "a socket outlived its cell"
    check(LARGEST if cell.largest else ORDINARY, collecting=False)


def test_every_cell_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(cell.id for cell in CELLS).items() if count > 1] == []


def test_the_page_lists_what_the_cells_say() -> None:
    assert document.PAGE.read_text() == document.page(CELLS), "run: python -m tests.faults.document"

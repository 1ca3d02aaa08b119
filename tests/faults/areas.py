"""All cells of the matrix, in the order in which the page lists them."""

from __future__ import annotations

from typing import Final

from tests.faults import http_cells, lifecycle_cells, memory_cells, schema_cells, sse_cells, stdio_cells
from tests.faults.matrix import Cell

CELLS: Final[list[Cell]] = [
    *http_cells.CELLS,
    *sse_cells.CELLS,
    *stdio_cells.CELLS,
    *memory_cells.CELLS,
    *schema_cells.CELLS,
    *lifecycle_cells.CELLS,
]

"""The cells over HTTP+SSE."""

from __future__ import annotations

from typing import Final

from tests.faults import sse_connecting, sse_posts, sse_streams
from tests.faults.matrix import Cell

CELLS: Final[list[Cell]] = [
    *sse_connecting.CELLS,
    *sse_posts.CELLS,
    *sse_streams.CELLS,
]

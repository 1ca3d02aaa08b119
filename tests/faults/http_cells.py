"""The cells over HTTP, all areas of them."""

from __future__ import annotations

from typing import Final

from tests.faults import (
    http_answers,
    http_connecting,
    http_liberal,
    http_notices,
    http_resuming,
    http_sessions,
    http_statuses,
    http_streams,
)
from tests.faults.matrix import Cell

CELLS: Final[list[Cell]] = [
    *http_connecting.CELLS,
    *http_statuses.CELLS,
    *http_answers.CELLS,
    *http_liberal.CELLS,
    *http_streams.CELLS,
    *http_resuming.CELLS,
    *http_sessions.CELLS,
    *http_notices.CELLS,
]

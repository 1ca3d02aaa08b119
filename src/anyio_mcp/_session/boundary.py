"""The boundary of every task that handles what a peer sent: what is raised there, and should not have been,
is logged as a bug and costs the one message it was raised for.

Also the rate at which a peer can make this library log. Knows nothing of messages.
"""

from __future__ import annotations

from typing import Final, final

import anyio

from anyio_mcp._text import get_logger

logger = get_logger(__name__)

BURST: Final = 10
"""Lines that are logged at once, however fast the peer causes them."""

PAUSE: Final = 10.0
"""Seconds between two lines behind the first ones."""


@final
class BoundedLog:
    """Which of the lines that a peer can cause are logged: the first ones, then one every so often."""

    __slots__ = ("_logged", "_next", "_skipped")

    def __init__(self) -> None:
        self._logged = 0
        self._skipped = 0
        self._next = 0.0

    def line(self) -> str | None:
        """None: not to be logged. Else the end of the line, which counts those that were not."""
        now = anyio.current_time()
        if self._logged >= BURST and now < self._next:
            self._skipped += 1
            return None
        self._logged += 1
        self._next = now + PAUSE
        skipped, self._skipped = self._skipped, 0
        return f" ({skipped} more like this)" if skipped else ""


@final
class Bugs:
    """What was raised where nothing may be raised, in one session."""

    __slots__ = ("_log", "count")

    def __init__(self) -> None:
        self._log = BoundedLog()
        self.count = 0

    def report(self, where: str, error: Exception) -> None:
        """Log `error` with its traceback, at a bounded rate. Raises nothing, and does not wait."""
        self.count += 1
        if (more := self._log.line()) is not None:
            logger.error("a bug in anyio_mcp, please report it: %s raised%s", where, more, exc_info=error)

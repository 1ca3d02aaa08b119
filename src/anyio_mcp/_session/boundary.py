"""The boundary of every task that handles what a peer sent: what is raised there, and should not have been,
is logged as a bug and costs the one message it was raised for.

Knows nothing of messages.
"""

from __future__ import annotations

from typing import final

from anyio_mcp._text import BoundedLog, get_logger

logger = get_logger(__name__)


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

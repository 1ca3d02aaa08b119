"""What the session does for somebody who does not wait for it: tell the server that a task is not
wanted any more, run a callback.

Each errand is a task of the session and ends with it. It does not know what an errand does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

import anyio.abc

from anyio_mcp._session.watchdog import current_deadline
from anyio_mcp._text import get_logger

logger = get_logger(__name__)

MAX_ERRANDS: Final = 100
"""Errands under way at once. One more is not begun, and counted: a server that never answers, or a
callback that never returns, must not pile up tasks here."""


@final
class Errands:
    """The errands of one session."""

    def __init__(self) -> None:
        self._tasks: anyio.abc.TaskGroup | None = None
        self._running = 0
        self.refused = 0
        """Errands not begun: too many, or no session any more."""

    def run_in(self, tasks: anyio.abc.TaskGroup | None) -> None:
        """Where errands run from now on; None when there is no session to run them any more."""
        self._tasks = tasks

    def begin(self, errand: Callable[[], Awaitable[None]], *, name: str) -> bool:
        """Begin `errand` and return at once, so that a cancelled task can call it. Whether it was begun.

        What it raises is logged: nobody waits for it.
        """
        if self._tasks is None or self._running >= MAX_ERRANDS:
            self.refused += 1
            logger.debug("not done: %s", name)
            return False
        self._running += 1
        self._tasks.start_soon(self._run, errand, name, name=f"anyio_mcp {name}")
        return True

    async def _run(self, errand: Callable[[], Awaitable[None]], name: str) -> None:
        # A task begins in the context of who started it: the deadline of that call is not the errand's.
        current_deadline.set(None)
        try:
            await errand()
        except Exception as error:  # the server's, the transport's or the session's word
            logger.debug("%s failed: %s", name, error)
        finally:
            self._running -= 1

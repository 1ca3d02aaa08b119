"""How often a server is asked for a task: quickly at first, then as often as it wants to be asked.

Numbers only. The server chooses within limits: neither can it have itself asked without a pause, nor
put off the next question for hours.
"""

from __future__ import annotations

from typing import Final, final

FLOOR: Final = 0.05
"""Seconds between two questions, at least. A server that wants less cannot make a busy loop of it."""

UNTOLD: Final = 1.0
"""Seconds between two questions to a server that does not say, or says zero or less."""

CEILING: Final = 30.0
"""Seconds between two questions, at most. A task that has ended is not left unnoticed for longer."""


@final
class Pace:
    """The pauses of one task that is followed."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = FLOOR

    def pause(self, poll_interval: float | None) -> float:
        """Seconds until the next question: doubled each time, up to the server's interval."""
        wanted = poll_interval if poll_interval is not None and poll_interval > 0 else UNTOLD
        pause = min(self._next, max(FLOOR, min(wanted, CEILING)))
        self._next = pause * 2
        return pause

    def hurry(self) -> None:
        """Something was done that may change the task's state: ask soon."""
        self._next = FLOOR

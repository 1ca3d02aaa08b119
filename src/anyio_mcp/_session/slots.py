"""How many questions of one server the user's handlers are asked at once, on whichever way they come:
requests of the older eras, rounds of input, the input of tasks.
"""

from __future__ import annotations

from typing import Final, final

import anyio

MAX_REQUESTS: Final = 100
"""Questions of one server handled at once. One more request is refused with an error, and one more question
of a round of input waits for its turn, so that a server cannot pile up tasks here."""


@final
class HandlerSlots:
    """The slots of one session."""

    __slots__ = ("_freed_at", "_slots")

    def __init__(self) -> None:
        self._slots = anyio.Semaphore(MAX_REQUESTS)
        self._freed_at = 0.0

    @property
    def taken(self) -> int:
        """How many questions are being handled."""
        return MAX_REQUESTS - self._slots.value

    @property
    def freed_at(self) -> float:
        """When the last question was done with."""
        return self._freed_at

    def take(self) -> bool:
        """Take a slot, if there is one."""
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def wait(self) -> None:
        """Take a slot, as soon as there is one. Whoever waits bounds the time."""
        await self._slots.acquire()

    def give_back(self) -> None:
        self._freed_at = anyio.current_time()
        self._slots.release()

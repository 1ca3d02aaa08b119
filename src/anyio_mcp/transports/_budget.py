"""What handling a peer's bytes may cost between two checkpoints, and what a stream may decode to in vain.

Counts only; what is handled is not known here.
"""

from __future__ import annotations

from typing import Final, final

import anyio
from anyio import lowlevel

STEP: Final = 64 * 1024
"""Bytes that are handled before the other tasks get their turn: a few milliseconds."""

# What handling a piece or a line costs, in bytes that could have been copied instead.
_PIECE: Final = 128
_LINE: Final = 48

_BARREN_BYTES: Final = 256 * 1024
_BARREN_RATIO: Final = 64
_BARREN_RATE: Final = 16 * 1024


@final
class Pace:
    """Gives the other tasks their turn whenever enough was handled.

    Reading from a network does not: what has arrived already comes without a wait.
    """

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent = 0

    async def spend(self, size: int, lines: int = 0) -> None:
        """A piece of `size` bytes was handled, or is about to be; `lines` if each was looked at."""
        self._spent += size + _PIECE + lines * _LINE
        if self._spent >= STEP:
            self._spent = 0
            await lowlevel.checkpoint()


@final
class BarrenBudget:
    """How many bytes may be decoded that are part of no event: comments, blank lines, names of fields.

    A coding makes a thousand of them from one byte of the network. What is received pays for 64, and each
    second for 16 KiB, so that a stream may go on to say nothing but that it is alive.
    """

    __slots__ = ("_left", "_since")

    def __init__(self) -> None:
        self._left = float(_BARREN_BYTES)
        self._since = anyio.current_time()

    def receive(self, encoded: int) -> None:
        """So many bytes have come from the network."""
        now = anyio.current_time()
        self._left += encoded * _BARREN_RATIO + (now - self._since) * _BARREN_RATE
        self._since = now

    def spend(self, barren: int) -> bool:
        """So many decoded bytes were part of no event. Whether that is still within the budget."""
        self._left -= barren
        return self._left >= 0

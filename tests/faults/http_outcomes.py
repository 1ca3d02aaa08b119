"""What becomes of what meets a fault over HTTP, and how a cell is written down.

Knows how a cell is judged, and nothing of how it is played.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import httpx2

from anyio_mcp import (
    ConnectError,
    DeadlineExceededError,
    Heartbeat,
    MCPError,
    RequestFailedError,
    SessionLostError,
)
from tests.faults.matrix import Cell, Era, Observed, Outcome, Phase

ERAS: Final[tuple[Era, ...]] = ("legacy", "modern")

CONNECT: Final = 0.25
CALL: Final = 0.15
CLOSE: Final = 0.2
"""The documented bounds, shortened: for the faults that run into them and for no others."""

BEAT: Final = Heartbeat(interval=0.03, timeout=0.03)
"""For a server that is asked whether it lives, and is not given up because it does not say."""

LIVELY: Final = Heartbeat(interval=0.05, timeout=20.0)
"""For a server that is asked whether it lives, and does."""

AMPLE: Final = 20.0
"""For what needs no waiting. The guard of a cell is longer, so what takes this long says so itself."""

WORKS: Final = Outcome()
REPLACED: Final = Outcome(survives=False)
SENT_AGAIN: Final = Outcome(
    survives=False, note="sent again in a new session, since the server refused it unseen"
)


def failed(
    reason: Literal["transport", "violation", "oversized", "redirect"],
    cause: type[BaseException] | None = None,
    *,
    says: str = "",
) -> Outcome:
    return Outcome(
        raises=RequestFailedError,
        attributes={"reason": reason, "args": lambda args: says in args[0]},
        cause=cause,
    )


def refused(status: int, **attributes: Any) -> Outcome:
    return Outcome(raises=httpx2.HTTPStatusError, attributes={"response.status_code": status, **attributes})


def answered(code: int, status: int | None = None) -> Outcome:
    """The server's own error, from the status it came with."""
    attributes: dict[str, Any] = {"code": code}
    if status is not None:
        attributes["__cause__.response.status_code"] = status
    return Outcome(
        raises=MCPError, attributes=attributes, cause=None if status is None else httpx2.HTTPStatusError
    )


def expired(*, refused: bool, status: int = 404) -> Outcome:
    return Outcome(
        raises=SessionLostError,
        attributes={"reason": "expired", "refused": refused, "__cause__.response.status_code": status},
        cause=httpx2.HTTPStatusError,
        survives=False,
    )


def not_connected(
    reason: str | None = None, cause: type[BaseException] | None = RequestFailedError, *, says: str = ""
) -> Outcome:
    attributes: dict[str, Any] = {"args": lambda args: says in args[0]}
    if reason is not None:
        attributes["__cause__.reason"] = reason
    return Outcome(raises=ConnectError, attributes=attributes, cause=cause, survives=False)


TOO_SLOW: Final = Outcome(
    raises=DeadlineExceededError, attributes={"phase": "connect", "seconds": CONNECT}, survives=False
)
TOO_LATE: Final = Outcome(raises=DeadlineExceededError, attributes={"phase": "call", "seconds": CALL})


def connecting(outcome: Outcome) -> Outcome:
    """The same, where there is no session yet that could survive."""
    return Outcome(raises=outcome.raises, attributes=outcome.attributes, cause=outcome.cause, survives=False)


class Cells(list[Cell]):
    """The cells of one area, which are played in `eras` unless they say otherwise."""

    def __init__(self, area: str, eras: tuple[Era, ...] = ERAS) -> None:
        super().__init__()
        self._area = area
        self._eras = eras

    def add(
        self,
        fault: str,
        phase: Phase,
        outcome: Outcome,
        run: Callable[[Cell], Awaitable[Observed]],
        *,
        within: float = 0.0,
        bound: str = "",
        eras: tuple[Era, ...] | None = None,
        largest: bool = False,
    ) -> None:
        self.extend(
            Cell(
                area=self._area,
                fault=fault,
                phase=phase,
                era=era,
                outcome=outcome,
                within=within,
                bound=bound,
                run=run,
                largest=largest,
            )
            for era in eras or self._eras
        )

"""How a command ended: one line and an exit code for every exception.

Knows the exceptions, not the commands. 1 means that the server answered with an error, 3 that there
was no answer: it could not be reached, was lost, or did not answer in time. 2, a usage error, is
`UsageError` here and whatever typer finds itself. 4 means that the answer came and could not be written.
"""

from __future__ import annotations

import signal
from typing import Final, cast

from mcp import MCPError

from anyio_mcp._text import printable
from anyio_mcp.errors import (
    ConnectError,
    DeadlineExceededError,
    RequestFailedError,
    SessionLostError,
    ToolError,
)

ANSWERED_WITH_ERROR: Final = 1
USAGE: Final = 2
NO_ANSWER: Final = 3
UNWRITTEN: Final = 4

_LONGEST_LINE: Final = 600
"""Characters of an error line. A server may put a whole page into its message."""


class UsageError(Exception):
    """What was typed makes no sense; the message says what would."""


class UnexpectedOutcomeError(Exception):
    """The demo saw something else than it promises to show."""


def exit_code(error: Exception) -> int:
    """The process's exit code for a command that ended with `error`."""
    error = _first(error)
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, ToolError | MCPError | UnexpectedOutcomeError):
        return ANSWERED_WITH_ERROR
    if isinstance(error, TypeError | ValueError):
        # With these two the client refuses what could never work, before anything is sent.
        return USAGE
    return NO_ANSWER


def kind(error: Exception) -> str:
    """The type of `error`, with what the type alone does not tell: `SessionLostError(exited)`."""
    name = type(error).__name__
    if isinstance(error, SessionLostError | RequestFailedError):
        return f"{name}({error.reason})"
    if isinstance(error, DeadlineExceededError):
        return f"{name}({error.phase})"
    if isinstance(error, MCPError):
        return f"{name}({error.code})"
    return name


def exit_of(error: Exception) -> str | None:
    """How the server's process ended, if `error` knows: `SIGKILL`, `exit code 3`."""
    code = error.exit_code if isinstance(error, SessionLostError | ConnectError) else None
    if code is None:
        return None
    try:
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"
    except ValueError:  # a real-time signal has no name
        return f"signal {-code}"


def one_line(error: Exception) -> str:
    """The error as one line: its type and its reason."""
    error = _first(error)
    message = error.message if isinstance(error, MCPError) else str(error)
    return in_one_line(f"{kind(error)}: {message}" if message else kind(error))


def in_one_line(text: str) -> str:
    """`text` without line breaks, control characters and excessive length."""
    return printable(" ".join(text[: 2 * _LONGEST_LINE].split()), _LONGEST_LINE)


def _first(error: Exception) -> Exception:
    """The first error of a group: what the demo's own task groups put around one."""
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error

"""Every exception this library raises of its own, and how one failure becomes one exception per waiter.

Knows nothing of sessions, transports or tasks: an error here is data (attributes, not only text) and
survives pickling. The text of an error is one line without anything that acts on a terminal; attributes keep
what was sent. One exception of others passes through the library and is therefore not here:
`httpx2.HTTPStatusError`, an HTTP status.
"""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast

import mcp

from anyio_mcp._text import printable

if TYPE_CHECKING:
    from anyio_mcp.results import CallToolResult

LossReason = Literal["eof", "exited", "expired", "silent", "closed", "violation"]
FaultReason = Literal["transport", "violation", "oversized", "redirect", "sign_in"]
Phase = Literal["connect", "call", "close"]

ErrorT = TypeVar("ErrorT", bound=BaseException)

_CAUSES: Final = 8
"""Causes of causes whose text is filtered: more than the layers of any HTTP client."""


class MCPClientError(Exception):
    """Base of every error this library raises of its own.

    `cause` is the exception underneath, if there was one; it is also the `__cause__` of the
    exception when it is raised. `str()` is one line: what a peer said is in it with control and
    bidirectional characters and line feeds escaped, and cut to 10,000 characters.
    """

    cause: BaseException | None

    def __init__(self, message: str, *, cause: BaseException | None = None) -> None:
        super().__init__(printable(message))
        self.cause = cause
        self.__cause__ = cause
        _clean(cause)

    def __reduce__(self) -> tuple[Any, ...]:
        # The default rebuilds an exception from its positional arguments only and drops both the
        # keyword attributes and the cause.
        state = dict(self.__dict__)
        state["cause"] = _picklable(self.cause)
        return _restore, (type(self), self.args, state)


class MCPError(MCPClientError, mcp.MCPError):
    """A JSON-RPC error ended this request: the server's, or that of a handler of this side which the server
    waited for in a round of input.

    The SDK's `mcp.MCPError`, and an error of this library as well: to catch either catches it. `code`,
    `message`, `data` and `error` are what the server sent, verbatim; `str()` is its message, filtered as the
    text of every error. `cause` is the HTTP status that the error came with, if it came with one.
    """

    def __init__(
        self, code: int, message: str, data: Any = None, *, cause: BaseException | None = None
    ) -> None:
        mcp.MCPError.__init__(self, code, message, data)
        self.cause = cause
        self.__cause__ = cause
        _clean(cause)

    def __str__(self) -> str:
        return printable(self.message)


class NotConnectedError(MCPClientError, RuntimeError):
    """The client was used outside a context, or its task group is closed or cancelled."""


class ConnectError(MCPClientError, RuntimeError):
    """A session could not be established.

    For a child process, `exit_code` (negative: the signal that ended it; None: unknown), `stderr_tail`
    (its last lines there) and `stray_lines` (the first lines on stdout that were no messages) say what it
    left behind; they are empty for other transports.
    """

    exit_code: int | None
    stderr_tail: tuple[str, ...]
    stray_lines: tuple[str, ...]

    def __init__(
        self,
        message: str,
        *,
        cause: BaseException | None = None,
        exit_code: int | None = None,
        stderr_tail: tuple[str, ...] = (),
        stray_lines: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, cause=cause)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.stray_lines = stray_lines


class SessionLostError(MCPClientError, RuntimeError):
    """The session ended while this call needed it.

    `reason` is one of: `eof` (the peer ended the stream), `exited` (the child process is gone),
    `expired` (the server forgot the session), `silent` (a dead peer), `closed` (closed on this
    side), `violation` (the peer broke the protocol beyond repair). `exit_code`, `stderr_tail` and
    `stray_lines` are those of a `ConnectError`, for child processes. `refused` says that the server turned
    this very request away without looking at it, so that sending it again, in a new session, cannot do
    anything twice.
    """

    reason: LossReason
    refused: bool
    exit_code: int | None
    stderr_tail: tuple[str, ...]
    stray_lines: tuple[str, ...]

    def __init__(
        self,
        message: str,
        *,
        reason: LossReason,
        refused: bool = False,
        cause: BaseException | None = None,
        exit_code: int | None = None,
        stderr_tail: tuple[str, ...] = (),
        stray_lines: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, cause=cause)
        self.reason = reason
        self.refused = refused
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.stray_lines = stray_lines


class DeadlineExceededError(MCPClientError, TimeoutError):
    """A deadline passed: `phase` says whose (`connect`, `call`, `close`), `seconds` how long it was.

    If a request was waited for, `method` names it, `sent_seconds` says how long ago it was sent (None: it
    never was, or may not have been), and `heard_seconds` how long ago the server was last heard of. For a
    child process that did not get ready (`connect`), `stderr_tail` and `stray_lines` are those of a
    `ConnectError`.
    """

    phase: Phase
    seconds: float
    method: str | None
    sent_seconds: float | None
    heard_seconds: float | None
    stderr_tail: tuple[str, ...]
    stray_lines: tuple[str, ...]

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        seconds: float,
        method: str | None = None,
        sent_seconds: float | None = None,
        heard_seconds: float | None = None,
        stderr_tail: tuple[str, ...] = (),
        stray_lines: tuple[str, ...] = (),
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, cause=cause)
        self.phase = phase
        self.seconds = seconds
        self.method = method
        self.sent_seconds = sent_seconds
        self.heard_seconds = heard_seconds
        self.stderr_tail = stderr_tail
        self.stray_lines = stray_lines


class RequestFailedError(MCPClientError):
    """This one request failed; the session lives on.

    `reason` is one of: `transport` (refused, reset, cut off; see `cause`), `violation` (the answer
    was not a JSON-RPC answer to this request), `oversized` (the answer exceeded
    `Limits.max_message_bytes` or `Limits.max_message_values`), `redirect` (a redirect that must not be
    followed), `sign_in` (no token could be obtained; no reason for `Restart` to try again, which may mean
    to ask a person again).
    `result` is the answer as the server sent it, if there was one and it could not be read: what a tool
    did is not lost.
    """

    reason: FaultReason
    result: Any

    def __init__(
        self,
        message: str,
        *,
        reason: FaultReason,
        result: Any = None,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message, cause=cause)
        self.reason = reason
        self.result = result


class ToolError(MCPClientError):
    """The tool ran and answered `isError`; `result` is its whole answer."""

    result: CallToolResult[Any]

    def __init__(self, message: str, *, result: CallToolResult[Any]) -> None:
        super().__init__(message)
        self.result = result


def fresh(error: ErrorT) -> ErrorT:
    """A new exception equal to `error`, for one more waiter to raise.

    Raising one exception object in several tasks makes them share one traceback and one context, so
    each task would report the others' frames.
    """
    if isinstance(error, MCPClientError):
        clone: BaseException = _restore(type(error), error.args, error.__dict__)
    else:
        # Not copy.copy: rebuilding through __init__ fails for exceptions with keyword-only
        # arguments, such as httpx2.HTTPStatusError.
        clone = type(error).__new__(type(error), *error.args)
        clone.args = error.args
        clone.__dict__.update(copy.copy(error.__dict__))
    clone.__cause__ = error.__cause__
    return cast("ErrorT", clone)


def _restore(cls: type[MCPClientError], args: tuple[Any, ...], state: dict[str, Any]) -> MCPClientError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = error.cause
    return error


def _clean(cause: BaseException | None) -> None:
    """Filter the text of a foreign cause in place: a traceback prints the causes as well, and the errors of
    other libraries quote what a server sent."""
    for _ in range(_CAUSES):
        if cause is None or isinstance(cause, MCPClientError):
            return
        shown = tuple(printable(each, lines=True) if type(each) is str else each for each in cause.args)
        if shown != cause.args:
            cause.args = shown
        cause = cause.__cause__ or cause.__context__


def _picklable(cause: BaseException | None) -> BaseException | None:
    """`cause` itself if it survives a round trip, else a stand-in that still says what it was."""
    if cause is None:
        return None
    try:
        pickle.loads(pickle.dumps(cause))
    except Exception:  # whatever a foreign exception's reduce raises
        return RuntimeError(f"{type(cause).__qualname__}: {cause}")
    return cause

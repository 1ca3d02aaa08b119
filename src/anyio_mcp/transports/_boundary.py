"""The boundary of every task that handles a peer's bytes: what is raised in it is the fault of one message.

An exception that is none of this library's is a bug in it, or in a library that it uses, which a peer has
found. It is logged as one, and the connection lives on. Must not know what the message was.
"""

from __future__ import annotations

import dis
from contextlib import suppress
from types import FrameType
from typing import Final

from mcp import MCPError

from anyio_mcp._text import BoundedLog, get_logger
from anyio_mcp.errors import MCPClientError, RequestFailedError
from anyio_mcp.transports._httperrors import reason_of
from anyio_mcp.transports._httpsettings import status_errors

logger = get_logger(__name__)

_LONGEST_CHAIN: Final = 16

_YIELD: Final = dis.opmap["YIELD_VALUE"]

_HOLD_SECRETS: Final = (
    "httpx",
    "httpcore",
    "h11.",
    "anyio_mcp.transports._http11",
    "anyio_mcp.transports._httpclient",
    "anyio_mcp.transports._httppool",
)
"""Modules whose functions have headers and URLs of a request among their variables."""


def contained(error: Exception, peer: str, *, log: BoundedLog | None = None) -> Exception:
    """`error`, which ended the handling of a message of `peer`, as the fault of that message.

    `log` bounds how often that is logged, for a peer whose messages cost it nothing.

    To be called in the `except` of the outermost frame of a task, with `peer` as errors may name it: the
    frames behind it are over by then, and hold headers and URLs of the user's that no crash reporter may
    find, so they are cleared.
    """
    clear_frames(error)
    if isinstance(error, (MCPClientError, MCPError, *status_errors())):
        return error
    more = "" if log is None else log.line()
    if more is not None:
        logger.error("a bug, please report it: handling what %s said failed%s", peer, more, exc_info=error)
    return RequestFailedError(
        f"what {peer} said could not be handled: {type(error).__name__}: {reason_of(error)}",
        reason="violation",
        cause=error,
    )


def clear_frames(error: BaseException) -> None:
    """Forget the local variables of HTTP clients behind `error` and behind what it came from.

    Lines and names stay. No other frame is touched, and none that caught an error, which is the first of a
    traceback, nor one that is suspended: either may belong to a task that goes on. What breaks an HTTP/2
    connection is raised in each of its tasks as the same error, so that its traceback leads through them all.
    """
    chain: list[BaseException] = [error]
    for one in chain:  # grows while it is walked; longer chains are nobody's
        if len(chain) < _LONGEST_CHAIN:
            origins = (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))
            chain += [origin for origin in origins if origin is not None and origin not in chain]
        entry = one.__traceback__
        while entry is not None and (entry := entry.tb_next) is not None:
            module = str(entry.tb_frame.f_globals.get("__name__"))
            if module.startswith(_HOLD_SECRETS) and not _suspended(entry.tb_frame):
                with suppress(RuntimeError):  # it is running
                    entry.tb_frame.clear()


def _suspended(frame: FrameType) -> bool:
    """Whether a coroutine waits in `frame`, as far as Python does not know it by itself.

    Before Python 3.13, which raises for it, clearing such a frame ends the coroutine behind the back of its
    task (https://docs.python.org/3/reference/datamodel.html#frame.clear). Its last instruction is the one
    that waits; one that was left by an error has gone on from there.
    """
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == _YIELD

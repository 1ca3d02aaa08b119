"""The boundary of every task that handles a peer's bytes: what is raised in it is the fault of one message.

An exception that is none of this library's is a bug in it, or in a library that it uses, which a peer has
found. It is logged as one, and the connection lives on. Must not know what the message was.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from mcp import MCPError

from anyio_mcp._text import get_logger
from anyio_mcp.errors import MCPClientError, RequestFailedError
from anyio_mcp.transports._httperrors import reason_of
from anyio_mcp.transports._httpsettings import status_errors

logger = get_logger(__name__)

_LONGEST_CHAIN: Final = 16

_HOLD_SECRETS: Final = (
    "httpx",
    "httpcore",
    "h11.",
    "anyio_mcp.transports._http11",
    "anyio_mcp.transports._httpclient",
    "anyio_mcp.transports._httppool",
)
"""Modules whose functions have headers and URLs of a request among their variables."""


def contained(error: Exception, peer: str) -> Exception:
    """`error`, which ended the handling of a message of `peer`, as the fault of that message.

    To be called in the `except` of the outermost frame of a task, with `peer` as errors may name it: the
    frames behind it are over by then, and hold headers and URLs of the user's that no crash reporter may
    find, so they are cleared.
    """
    clear_frames(error)
    if isinstance(error, (MCPClientError, MCPError, *status_errors())):
        return error
    logger.error("a bug, please report it: handling what %s said failed", peer, exc_info=error)
    return RequestFailedError(
        f"what {peer} said could not be handled: {type(error).__name__}: {reason_of(error)}",
        reason="violation",
        cause=error,
    )


def clear_frames(error: BaseException) -> None:
    """Forget the local variables of HTTP clients behind `error` and behind what it came from.

    Lines and names stay. No other frame is touched, and none that caught an error, which is the first of a
    traceback: it may belong to a task that goes on, and before Python 3.13 clearing the frame of a coroutine
    that is suspended ends it (https://docs.python.org/3/reference/datamodel.html#frame.clear).
    """
    chain: list[BaseException] = [error]
    for one in chain:  # grows while it is walked; longer chains are nobody's
        if len(chain) < _LONGEST_CHAIN:
            origins = (one.__cause__, one.__context__, *getattr(one, "exceptions", ()))
            chain += [origin for origin in origins if origin is not None and origin not in chain]
        entry = one.__traceback__
        while entry is not None and (entry := entry.tb_next) is not None:
            if str(entry.tb_frame.f_globals.get("__name__")).startswith(_HOLD_SECRETS):
                with suppress(RuntimeError):  # it is running
                    entry.tb_frame.clear()

"""What the command writes: answers to stdout, complaints and log records to stderr, each as one line.

Owns what happens when they cannot be written. Knows nothing of what is written.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from rich.console import Console

from anyio_mcp._text import printable
from anyio_mcp.cli.outcome import UNWRITTEN, in_one_line

_READER_HAS_GONE: Final = 128 + 13
"""What a shell reports of a program that SIGPIPE ends, as it ends `cat` in `cat file | head -1`."""

_LONGEST_RECORD: Final = 600


class UnwrittenError(Exception):
    """stdout takes no more. `line` says so, unless the reader left on purpose."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.line = line
        self.exit_code = exit_code


class StyledOutput(Console):
    """stdout with the styles that a terminal has. Raises `BrokenPipeError` instead of exiting with 1."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Lines(logging.Handler):
    """Log records as lines of this command, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(printable(record.getMessage(), _LONGEST_RECORD))


def prepare() -> None:
    """Make stdout write an escape for what its encoding lacks, and log records be lines.

    An answer that has come must not be lost for one character. Records of other libraries are shown as well,
    and Python's handler of last resort would print their tracebacks.
    """
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_Lines(logging.WARNING))


def write(text: str) -> None:
    """Write `text` to stdout."""
    if sys.stdout is None:
        raise OSError("stdout is closed")
    sys.stdout.write(text)


def deliver(work: Callable[[], None]) -> None:
    """Run `work`, which writes to stdout, and flush what it wrote. Raises `UnwrittenError`."""
    try:
        work()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_the_rest()
        raise UnwrittenError("", _READER_HAS_GONE) from None
    except (OSError, ValueError) as error:
        _discard_the_rest()
        text = f"the answer came and could not be written: {in_one_line(str(error))}"
        raise UnwrittenError(text, UNWRITTEN) from None


def complain(line: str) -> None:
    """Write a line to stderr, if there is one that takes it: there is nowhere else to say so."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"anyio-mcp: {line}\n")
        sys.stderr.flush()


def _discard_the_rest() -> None:
    # The interpreter flushes stdout once more when it exits, and would print a traceback about it.
    # https://docs.python.org/3/library/signal.html#note-on-sigpipe
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

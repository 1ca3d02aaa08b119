"""Text that others wrote, on its way to a terminal or into a log: one filter, the loggers that apply it, and
how often.

Knows nothing of servers or messages. Whatever raises an error, writes a log record or prints passes here, so
that no place has to remember which of its texts came from a peer.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final, final

import anyio

ERROR_CHARACTERS: Final = 10_000
"""Characters of the text of an error, and of each argument of a log record. The rest is cut off."""

BURST: Final = 10
"""Lines that are logged at once, however fast a peer causes them."""

PAUSE: Final = 10.0
"""Seconds between two lines behind the first ones."""

# The characters of Unicode's categories Cc (but the tab), Cf, Cs, Zl and Zp: control characters, C1 among
# them, what hides or reorders text (https://trojansource.codes), halves of characters, and line separators.
_ACTS: Final = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IN_LINES: Final = re.compile(rf"[{_ACTS}]|\r(?!\n)")
_IN_ONE_LINE: Final = re.compile(rf"[{_ACTS}\r\n]")
# Colours alone are left out: escaped, they would make the last lines of many a server unreadable.
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]{0,32}m")


def printable(text: str, limit: int = ERROR_CHARACTERS, *, lines: bool = False) -> str:
    r"""`text` with each character that acts instead of being shown as an escape, such as `\x1b`.

    Cut to `limit` characters first, so that the work is bounded whatever a server sends; what is cut off is
    marked by `...`. Line feeds are escaped too, so that one text is one line, unless `lines`. Tabs stay.
    """
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    if cut.isprintable():
        return cut
    return (_IN_LINES if lines else _IN_ONE_LINE).sub(_escape, _COLOUR.sub("", cut))


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, every record of which is fit to be shown: see `printable`.

    A filter of a logger sees only what is logged by that very logger, so each module gets its own here.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_PRINTABLE_RECORDS)
    return logger


@final
class BoundedLog:
    """Which of the lines that a peer can cause are logged: the first ones, then one every so often."""

    __slots__ = ("_burst", "_logged", "_next", "_pause", "_skipped")

    def __init__(self, burst: int = BURST, pause: float = PAUSE) -> None:
        self._burst = burst
        self._pause = pause
        self._logged = 0
        self._skipped = 0
        self._next = 0.0

    def line(self) -> str | None:
        """None: not to be logged. Else the end of the line, which counts those that were not."""
        now = anyio.current_time()
        if self._logged >= self._burst and now < self._next:
            self._skipped += 1
            return None
        self._logged += 1
        self._next = now + self._pause
        skipped, self._skipped = self._skipped, 0
        return f" ({skipped} more like this)" if skipped else ""

    def skip(self, lines: int) -> None:
        """Count lines that are not logged, and that nobody has asked about."""
        self._skipped += lines


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@final
class _Shown:
    """An argument of a log record that is formatted when the record is written, if it is."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return printable(str(self._value))

    def __repr__(self) -> str:
        return printable(repr(self._value))


@final
class _PrintableRecords(logging.Filter):
    """Keeps every record; cleans its arguments and the text of its traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_shown(each) for each in record.args)
        elif record.args:
            # A mapping that is the only argument stands for its members (logging.LogRecord).
            record.args = {name: _shown(each) for name, each in record.args.items()}
        if isinstance(record.exc_info, tuple) and not record.exc_text:
            # Formatters take this text and format no traceback of their own: it quotes what was raised.
            text = _TRACEBACKS.formatException(record.exc_info)
            record.exc_text = printable(text, 10 * ERROR_CHARACTERS, lines=True)
        return True


def _shown(value: object) -> Any:
    """`value` as an argument of a record: numbers for `%d` as they are, anything else filtered."""
    if value is None or isinstance(value, int | float):
        return value
    is_fine = type(value) is str and len(value) <= ERROR_CHARACTERS and value.isprintable()
    return value if is_fine else _Shown(value)


_TRACEBACKS: Final = logging.Formatter()
_PRINTABLE_RECORDS: Final = _PrintableRecords()

"""Text of others: what of it reaches a terminal or a log, through errors and records."""

from __future__ import annotations

import logging
import re
import time
import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from mcp.types import ErrorData

import anyio_mcp
from anyio_mcp import ConnectError, RequestFailedError, SessionLostError, ToolError
from anyio_mcp._text import ERROR_CHARACTERS, get_logger, printable
from anyio_mcp.errors import MCPClientError, MCPError
from anyio_mcp.results import CallToolResult
from anyio_mcp.transports._httperrors import rebuilt_error

EVIL = "a\x1b]0;pwned\x07\x9b2J\u202eb\u2066\u200b\u2028\ud800\r\nERROR forged"
SHOWN = r"a\x1b]0;pwned\x07\x9b2J\u202eb\u2066\u200b\u2028\ud800\x0d\x0aERROR forged"


def acts(text: str) -> list[str]:
    """The characters of `text` that do something instead of being shown."""
    return [
        each for each in text if each != "\t" and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]


def test_no_character_that_acts_is_printed_and_every_other_is() -> None:
    for code in (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x20000), *range(0xE0000, 0xE0200)):
        character = chr(code)
        category = unicodedata.category(character)
        if acts(character):
            assert not acts(printable(character))
            assert printable(character).isascii()
        elif category != "Cn":
            assert printable(character) == character, hex(code)


def test_line_feeds_are_escaped_unless_lines_are_wanted() -> None:
    assert printable("a\nb\r\nc\rd\te") == r"a\x0ab\x0d\x0ac\x0dd" + "\te"
    assert printable("a\nb\r\nc\rd\te", lines=True) == "a\nb\r\nc" + r"\x0dd" + "\te"


def test_colours_are_left_out_and_what_that_joins_is_still_escaped() -> None:
    assert printable("\x1b[1;31mred\x1b[0m") == "red"
    assert printable("\x1b\x1b[0m[2J") == r"\x1b[2J"


def test_a_text_is_cut_before_it_is_searched() -> None:
    for text in ("\x1b" * 20_000_000, "\x1b[" * 10_000_000, "\x1b[1" + ";" * 20_000_000, "x" * 20_000_000):
        began = time.process_time()
        shown = printable(text)
        assert time.process_time() - began < 0.5
        assert len(shown) <= 4 * ERROR_CHARACTERS + 3
        assert shown.endswith("...")


ERRORS: list[MCPClientError] = [
    ConnectError(EVIL),
    SessionLostError(EVIL, reason="exited", stderr_tail=(EVIL,)),
    RequestFailedError(EVIL, reason="violation"),
    ToolError(EVIL, result=CallToolResult(content=[], structured_content=None, meta=None, is_error=True)),
    MCPError(-32000, EVIL, {"x": EVIL}),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_text_of_every_error_is_one_line_that_does_nothing(error: MCPClientError) -> None:
    assert str(error) == SHOWN


def test_attributes_keep_what_was_sent() -> None:
    server = MCPError.from_error_data(ErrorData(code=-1, message=EVIL, data=EVIL))
    assert (server.code, server.message, server.data) == (-1, EVIL, EVIL)
    assert SessionLostError("", reason="exited", stderr_tail=(EVIL,)).stderr_tail == (EVIL,)


def test_the_text_of_an_error_is_bounded() -> None:
    assert len(str(MCPError(-1, "x" * 10_000_000))) == ERROR_CHARACTERS + 3
    assert len(str(ConnectError("x" * 10_000_000))) == ERROR_CHARACTERS + 3


def test_an_http_status_shows_no_reason_phrase_or_location_that_acts() -> None:
    for status, headers in ((500, {}), (302, {"location": "http://evil.example/\x1b[2J"})):
        response = httpx2.Response(
            status,
            headers=headers,
            extensions={"reason_phrase": b"Oh\x1b[2J\x7f no"},
            request=httpx2.Request("POST", "http://127.0.0.1/mcp"),
        )
        error = rebuilt_error(response, b"")
        assert isinstance(error, httpx2.HTTPStatusError)
        assert r"Oh\x1b[2J\x7f no" in str(error)
        assert not acts(str(error).replace("\n", ""))


def test_the_causes_that_a_traceback_prints_quote_nothing_that_acts() -> None:
    inner, outer = KeyError(EVIL), RuntimeError(EVIL, 7)
    outer.__cause__ = inner
    error = ConnectError("no", cause=outer)
    assert error.cause is outer
    text = "".join(traceback.format_exception(error))
    assert not acts(text.replace("\\r\\n", "").replace("\r\n", "").replace("\n", ""))
    assert r"\x1b]0;pwned" in text


# Log records


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What a program with the usual formatter writes of the records of one logger."""
    written: list[str] = []

    class Writer(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(self.format(record))

    logger = get_logger("anyio_mcp.test_text")
    handler = Writer()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    yield written
    logger.removeHandler(handler)


class Odd:
    """An object whose text is a peer's."""

    def __str__(self) -> str:
        return EVIL


def test_a_record_is_one_line_that_does_nothing(lines: list[str]) -> None:
    logger = get_logger("anyio_mcp.test_text")
    for value in (EVIL, RuntimeError(EVIL), Odd()):
        logger.warning("the server said: %s", value)
    logger.warning("%d of %g %r", 1, 2.5, EVIL)
    logger.warning("the server said: %(what)s", {"what": EVIL})
    said = f"WARNING the server said: {SHOWN}"
    assert lines == [*[said] * 3, f"WARNING 1 of 2.5 {EVIL!r}", said]


def test_a_record_with_a_traceback_quotes_nothing_that_acts(lines: list[str]) -> None:
    try:
        try:
            raise KeyError(EVIL)
        except KeyError:
            raise ValueError(EVIL) from None
    except ValueError:
        get_logger("anyio_mcp.test_text").exception("a handler raised")
    (line,) = lines
    assert "Traceback" in line
    assert r"a\x1b]0;pwned\x07" in line
    assert not acts(line.replace("\r\n", "").replace("\n", ""))


def test_what_no_handler_shows_is_not_formatted() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("formatted")

    logger = get_logger("anyio_mcp.test_text")
    logger.setLevel(logging.ERROR)
    try:
        logger.warning("%s", Costly())
    finally:
        logger.setLevel(logging.NOTSET)


def test_every_logger_of_the_package_has_the_filter() -> None:
    folder = Path(anyio_mcp.__file__).parent
    using = [
        path for path in folder.rglob("*.py") if re.search(r"logging\.getLogger\([^)]", path.read_text())
    ]
    assert [path.name for path in using] == ["_text.py"]

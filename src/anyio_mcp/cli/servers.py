"""What a user types for a server and for a tool's arguments, turned into values.

Opens nothing but a configuration file.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from anyio_mcp.cli.outcome import UsageError
from anyio_mcp.mcp_config import MCPConfig
from anyio_mcp.transports.stdio import StdioTransport

_SCRIPT_SUFFIXES = frozenset({".py", ".js"})


def source_of(text: str) -> str | Path | MCPConfig | StdioTransport:
    """The client's source for SERVER: a URL, a .py or .js file, a .json configuration, or a command line.

    A file wins over a command line, so that a path with spaces needs no quotes inside the quotes.
    """
    if re.match(r"https?://", text, re.IGNORECASE):
        return text
    path = Path(text).expanduser()
    if path.suffix in _SCRIPT_SUFFIXES and path.is_file():
        return path
    if path.suffix == ".json" and path.is_file():
        return MCPConfig.load(path)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot read the command line {text!r}: {error}") from error
    if not words:
        raise UsageError("SERVER is empty: give a URL, a .py, .js or .json file, or a quoted command line")
    if len(words) == 1 and path.suffix in (*_SCRIPT_SUFFIXES, ".json"):
        raise UsageError(f"no such file: {text}")
    if "://" in words[0]:
        raise UsageError(f"{text!r} is no http or https URL")
    return StdioTransport(words[0], words[1:])


def arguments_of(words: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as the arguments of a tool: JSON where a value is JSON, else a string."""
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"{word!r} is not key=value")
        if key in arguments:
            raise UsageError(f"argument {key!r} is given twice; a list is {key}=[1,2]")
        arguments[key] = _value_of(value)
    return arguments


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> float:
    # Python reads NaN and Infinity, but they are not JSON, and no server could parse the request.
    raise ValueError(f"{constant} is not JSON")

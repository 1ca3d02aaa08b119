"""What a user types for a server and for a tool's arguments, turned into values.

Opens nothing but a configuration file. A complaint names what was typed by its place, never by its value:
words of a command line are where people put keys.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

from anyio_mcp._config_text import Variables, read_json_file
from anyio_mcp.cli.outcome import UsageError
from anyio_mcp.mcp_config import ServerConfig, is_disabled, named_servers, parse_server
from anyio_mcp.transports.stdio import StdioTransport

_SCRIPT_SUFFIXES: Final = frozenset({".py", ".js"})
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_JSON_TYPES: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset({"string"}),
    bool: frozenset({"boolean"}),
    int: frozenset({"integer", "number"}),
    float: frozenset({"number", "integer"}),
    list: frozenset({"array"}),
    dict: frozenset({"object"}),
    type(None): frozenset({"null"}),
}


def source_of(text: str) -> str | Path | ServerConfig | StdioTransport:
    """The client's source for SERVER: a URL, a .py or .js file, one server of a .json configuration, or a
    command line.

    A file wins over a command line, so that a path with spaces needs no quotes inside the quotes. What is
    started as a command line gets the whole environment, as it would from the shell it was typed in.
    """
    if re.match(r"https?://", text, re.IGNORECASE):
        return text
    path = Path(text).expanduser()
    if path.suffix in _SCRIPT_SUFFIXES and path.is_file():
        return path
    file, _, name = text.rpartition(":") if ".json:" in text else (text, "", "")
    config = Path(file).expanduser()
    if config.suffix == ".json" and config.is_file():
        return _configured(config, name)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"SERVER cannot be read as a command line: {error}") from error
    env = dict(os.environ)
    while words and _ASSIGNMENT.match(words[0]):
        variable, _, value = words.pop(0).partition("=")
        env[variable] = value
    if not words:
        raise UsageError("SERVER is empty: give a URL, a .py, .js or .json file, or a quoted command line")
    if len(words) == 1 and (path.suffix in _SCRIPT_SUFFIXES or config.suffix == ".json"):
        raise UsageError(f"no such file: {file}")
    if "://" in words[0]:
        scheme = words[0].partition("://")[0]
        raise UsageError(f"SERVER is a URL of the scheme {scheme!r}, and only http and https are known")
    return StdioTransport(words[0], words[1:], env=env)


def _configured(file: Path, name: str) -> ServerConfig:
    """The server of this name, or the only one. What is wrong with the others does not matter."""
    named, is_bare = named_servers(read_json_file(file))
    wanted = [each for each in named if each == name] if name else list(named)
    variables = Variables()
    if len(wanted) > 1:
        wanted = [each for each in wanted if not is_disabled(named[each])]
    if len(wanted) != 1:
        names = ", ".join(f"{file}:{each}" for each in named) or "none"
        raise UsageError(f"name one server of {file}: {names}")
    server = parse_server(wanted[0], named[wanted[0]], variables=variables, is_bare=is_bare)
    if server is None:
        raise UsageError(f"the server {wanted[0]!r} of {file} is disabled")
    return server


def pairs_of(words: Iterable[str]) -> dict[str, str]:
    """`key=value` words, each key once."""
    pairs: dict[str, str] = {}
    for position, word in enumerate(words, start=1):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"argument {position} is not key=value")
        if key in pairs:
            raise UsageError(f"argument {key!r} is given twice; a list is {key}=[1,2]")
        pairs[key] = value
    return pairs


def need_schema(pairs: Mapping[str, str]) -> bool:
    """Whether what some value means depends on what the tool takes: `5` may be a number or a text."""
    return any(not isinstance(_as_json(value), str) for value in pairs.values())


def arguments_of(pairs: Mapping[str, str], schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of a tool. A value that is JSON is sent as such, unless the tool's schema says that a
    text is wanted and nothing else that the value could be; what is no JSON is a text.

    Raises `UsageError` for what cannot be sent, such as bytes that are no UTF-8.
    """
    properties = None if schema is None else schema.get("properties")
    known: Mapping[str, Any] = cast("Any", properties) if isinstance(properties, Mapping) else {}
    arguments = {key: _value_of(text, known.get(key)) for key, text in pairs.items()}
    for key, value in arguments.items():
        try:
            json.dumps({key: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UsageError(f"argument {key!r} is not text in UTF-8") from None
    return arguments


def _value_of(text: str, schema: Any) -> Any:
    value = _as_json(text)
    wanted = frozenset(_types(schema))
    return text if "string" in wanted and not wanted & _JSON_TYPES[type(value)] else value


def _types(schema: Any) -> Iterator[str]:
    """The types that a schema names, on its first two levels."""
    if not isinstance(schema, Mapping):
        return
    fields = cast("Mapping[str, Any]", schema)
    for key in ("anyOf", "oneOf"):
        if isinstance(options := fields.get(key), list):
            for option in cast("list[Any]", options):
                if isinstance(option, Mapping):
                    yield from _named(cast("Mapping[str, Any]", option))
    yield from _named(fields)


def _named(fields: Mapping[str, Any]) -> Iterator[str]:
    named = fields.get("type")
    for each in cast("list[Any]", named) if isinstance(named, list) else [named]:
        if isinstance(each, str):
            yield each


def _as_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(text: str) -> float:
    # Python reads 1e400 as infinity, which no JSON can say.
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def _refuse(constant: str) -> float:
    # Python reads NaN and Infinity, but they are not JSON, and no server could parse the request.
    raise ValueError(f"{constant} is not JSON")

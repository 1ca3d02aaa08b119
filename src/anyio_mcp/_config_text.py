"""The text of configuration files: JSON as people write it, and variables in its strings.

It does not know what a server is. Complaints never quote a value: that is where the keys are.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, final

MAX_FILE_BYTES: Final = 1024 * 1024
"""Size of a configuration file. Larger ones are refused: no list of servers is that long."""

_VARIABLE: Final = re.compile(
    r"\$\{(?:(?P<env>env:)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)|input:(?P<input>[^${}:]+))"
    r"(?:\}|:-(?P<default>[^${}]*)(?P<end>\}?))"
)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_STRING_OR_COMMENT: Final = re.compile(r'"|//|/\*')
# The text of a string, an unclosed one included, so that each character is looked at once.
_STRING: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_TRAILING_COMMA: Final = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|,(?=\s*+[}\]])', re.DOTALL)


@final
class Variables:
    """What the variables of a configuration stand for."""

    __slots__ = ("_environ", "_inputs")

    def __init__(
        self, environ: Mapping[str, str] | None = None, inputs: Mapping[str, str] | None = None
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._inputs: Mapping[str, str] = {} if inputs is None else inputs

    def expand(self, text: str, where: str) -> str:
        """`text` with its variables replaced, once. `where` is whose text it is, for the error."""
        return _VARIABLE.sub(lambda match: self._value(match, where), text)

    def _value(self, match: re.Match[str], where: str) -> str:
        asked, name = match["input"], match["name"]
        if match["end"] == "":
            raise ValueError(
                f"{where}: the default of {asked or name!r} must end with a brace and hold no '$', '{{'"
            )
        value = self._variable(name) if asked is None else self._inputs.get(asked)
        default = match["default"]
        if value or (value is not None and default is None):
            return value
        if default is not None:
            return default
        if asked is not None:
            raise ValueError(f"{where}: the input {asked!r} is not given; see inputs= of MCPConfig.parse")
        raise ValueError(f"{where}: the environment variable {name!r} is not set and has no default")

    def _variable(self, name: str) -> str | None:
        value = self._environ.get(name)
        if value is None and name in _EDITORS:
            return _EDITORS[name]()
        return value


# Variables that editors set and shells do not: https://code.visualstudio.com/docs/reference/variables-reference
_EDITORS: Final[Mapping[str, Callable[[], str]]] = {
    "userHome": lambda: str(Path.home()),
    "workspaceFolder": lambda: str(Path.cwd()),
    "workspaceFolderBasename": lambda: Path.cwd().name,
}


def read_json_file(file: Path) -> Any:
    """The JSON in `file`, which may have comments and trailing commas.

    Raises `OSError` if it cannot be read, `ValueError` if it is no regular file, too large or no JSON.
    """
    data = _read(file, str(file))
    try:
        text = data.decode("utf-8-sig")
        text = _without_comments(text)
        text = _TRAILING_COMMA.sub(_keep(lambda _: ""), text)
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        problem = f"{error.msg} (line {error.lineno})"
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as error:
        problem = str(error)
    # Outside the except clauses: the decoder's errors carry the whole text, keys and all.
    raise ValueError(f"{file} is no configuration: {problem}")


def read_env_file(file: Path) -> dict[str, str]:
    """The variables in `file`: `NAME=value` lines, comments, `export` before a name, quotes.

    Raises `OSError` if it cannot be read, `ValueError` if it is no regular file, too large or something else.
    """
    try:
        text = _read(file, "it").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"line {number} is not NAME=value")
        found[name] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    if value[:1] in ("'", '"'):
        end = value.find(value[0], 1)
        if end > 0:
            return value[1:end]
    return value.partition(" #")[0].rstrip()


def _read(file: Path, name: str) -> bytes:
    if file.exists() and not file.is_file():
        # A pipe or a device could keep us waiting for ever.
        raise ValueError(f"{name} is not a regular file")
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"{name} is larger than {MAX_FILE_BYTES} bytes")
    return data


def _without_comments(text: str) -> str:
    """`text` without its comments, in as many lines as before."""
    parts: list[str] = []
    position = 0
    while (found := _STRING_OR_COMMENT.search(text, position)) is not None:
        start = found.start()
        if found[0] == '"':
            string = _STRING.match(text, start)
            end = len(text) if string is None else string.end()
            parts.append(text[position:end])
        else:
            close = "\n" if found[0] == "//" else "*/"
            end = text.find(close, found.end())
            end = len(text) if end < 0 else end + (len(close) if close == "*/" else 0)
            parts += (text[position:start], "\n" * text.count("\n", start, end))
        position = end
    parts.append(text[position:])
    return "".join(parts)


def _keep(replace: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    """Leave strings as they are, replace anything else that matched."""
    return lambda match: match[0] if match[0].startswith('"') else replace(match[0])


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is given twice")
        found[key] = value
    return found

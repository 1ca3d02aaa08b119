"""What an error says about a value that does not fit: where, which keyword, and both in a few words.

A value can be megabytes, and so can the schema: everything is cut before it is formatted.
"""

from __future__ import annotations

from typing import Any, Final, cast

from anyio_mcp._schema.keywords import Failure

MAX_TEXT: Final = 60
"""Characters of a text, a name or a keyword's demand."""

MAX_KEYS: Final = 6
"""Keys of a path, at its beginning and at its end."""

MAX_LISTED: Final = 5
"""Values of a list of scalars, such as `enum`."""


def describe(failure: Failure) -> str:
    """As `$.rows[3].name is 'x', which breaks minLength: 2`."""
    where, value, demand = _where(failure.path), brief(failure.value), brief(failure.demand)
    return f"{where} is {value}, which breaks {failure.rule}: {demand}"


def brief(value: Any) -> str:
    """A value in a few words."""
    match value:
        case str():
            return repr(value) if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]!r}..."
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() if value.bit_length() > 4 * MAX_TEXT:
            return "a number of many digits"
        case list():
            items = cast("list[Any]", value)
            if len(items) <= MAX_LISTED and not any(isinstance(item, dict | list) for item in items):
                return f"[{', '.join(map(brief, items))}]"
            return f"an array of {len(items)}"
        case dict():
            return f"an object of {len(cast('dict[str, Any]', value))}"
        case _:
            return repr(value)


def _where(path: tuple[Any, ...]) -> str:
    keys = path if len(path) <= 2 * MAX_KEYS else (*path[:MAX_KEYS], None, *path[-MAX_KEYS:])
    return "$" + "".join(map(_step, keys))


def _step(key: str | int | None) -> str:
    if key is None:
        return "..."
    if isinstance(key, int):
        return f"[{key}]"
    return f".{key}" if key.isidentifier() and len(key) <= MAX_TEXT else f"[{brief(key)}]"

"""One model from JSON that does not quite fit it: what cannot be read is left out, if it may be missing.

It knows pydantic, not MCP. The cost is linear in what it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel, ValidationError

_ROUNDS: Final = 6
"""How often what is wrong is left out and the rest looked at again: as deep as the models are."""

_FAULTS: Final = 200
"""Faults of one round that are mended. An item with more is given up after the last round."""

_NESTED: Final = 1_000
"""Elements a list inside an item may have. pydantic describes each one that is wrong, in more memory than
it takes on the wire, so a longer list is not even looked at."""

_ModelT = TypeVar("_ModelT", bound=BaseModel)

_Path = tuple[str | int, ...]


def read_model(
    model: type[_ModelT], value: object, *, defaults: Mapping[str, Any] | None = None
) -> tuple[_ModelT | None, bool]:
    """`value` as a `model`, and whether it is all of `value`. None if too much of it is missing.

    `defaults` are for members that must be there and are not, or cannot be read.
    """
    if not isinstance(value, dict):
        return None, False
    item = cast("dict[str, Any]", value)
    long = [
        key
        for key, member in item.items()
        if isinstance(member, list) and len(cast("list[object]", member)) > _NESTED
    ]
    faults: list[tuple[_Path, bool]] = [((key,), False) for key in long]
    if not long:
        try:
            return model.model_validate(item, by_name=False), True
        except ValidationError as error:
            faults = _paths(error)
    # What is pruned is copied as far as it is changed: the answer stays what the server sent.
    item = dict(item)
    for _ in range(_ROUNDS):
        if not _prune(item, faults, defaults or {}):
            return None, False
        try:
            return model.model_validate(item, by_name=False), False
        except ValidationError as error:
            faults = _paths(error)
    return None, False


def _paths(error: ValidationError) -> list[tuple[_Path, bool]]:
    """Where the faults are, and which of them are that something is missing."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [(each["loc"], each["type"] == "missing") for each in found[:_FAULTS]]


def _prune(item: dict[str, Any], faults: list[tuple[_Path, bool]], defaults: Mapping[str, Any]) -> bool:
    """Leave out what is wrong. False if something is missing for which there is no default."""
    doomed: set[_Path] = set()
    for path, is_missing in faults:
        name = path[0] if path else None
        if not isinstance(name, str) or (is_missing and len(path) == 1 and name not in defaults):
            return False
        if name in defaults and len(path) == 1:
            item[name] = defaults[name]
            continue
        reached = _reached(item, path)
        if not reached:
            return False
        doomed.add(reached)
    # The last elements of a list first, so that the places of those before them do not change.
    for path in sorted(doomed, key=_place, reverse=True):
        _remove(item, path)
    return True


def _place(path: _Path) -> list[tuple[bool, str | int]]:
    return [(isinstance(part, int), part) for part in path]


def _reached(item: object, path: _Path) -> _Path:
    """The part of `path` that leads to something. The names of union members in it do not."""
    reached: list[str | int] = []
    for part in path:
        if isinstance(item, dict) and part in item:
            item = cast("dict[str | int, Any]", item)[part]
        elif isinstance(item, list) and isinstance(part, int) and part < len(cast("list[Any]", item)):
            item = cast("list[Any]", item)[part]
        else:
            continue
        reached.append(part)
    return tuple(reached)


def _remove(item: dict[str, Any], path: _Path) -> None:
    holder: Any = item
    for part in path[:-1]:
        copied = dict(holder[part]) if isinstance(holder[part], dict) else list(holder[part])
        holder[part] = copied
        holder = copied
    if isinstance(holder, list):
        cast("list[Any]", holder).pop(cast("int", path[-1]))
    else:
        holder.pop(path[-1], None)

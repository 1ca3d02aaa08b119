"""One model from JSON that does not quite fit it: what cannot be read is left out, if it may be missing.

It knows pydantic, not MCP. The cost is linear in what it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast, final

from pydantic import BaseModel, ValidationError

_ROUNDS: Final = 6
"""How often what is wrong is left out and the rest looked at again: as deep as the models are."""

_FAULTS: Final = 200
"""Faults of one round that are mended. An item with more is given up after the last round."""

_NESTED: Final = 1_000
"""Elements a list inside an item may have. pydantic describes each one that is wrong, in more memory than
it takes on the wire, so a longer list is not even looked at."""

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_T = TypeVar("_T")

_Path = tuple[str | int, ...]


@final
@dataclass(frozen=True, slots=True)
class _Fault:
    path: _Path
    is_missing: bool = False
    """It is not there, which says less than what is there and wrong: of the members of a union, each misses
    what only the others have."""


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
        _Fault((key,))
        for key, member in item.items()
        if isinstance(member, list) and len(cast("list[object]", member)) > _NESTED
    ]

    def validate(item: dict[str, Any]) -> _ModelT:
        return model.model_validate(item, by_name=False)

    return read_pruned(validate, item, defaults=defaults or {}, faults=long)


def read_pruned(
    validate: Callable[[dict[str, Any]], _T],
    item: dict[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    whole: Container[str | int] = (),
    faults: list[_Fault] | None = None,
) -> tuple[_T | None, bool]:
    """What `validate` makes of `item`, without what it refuses, and whether that is all of `item`.

    Nothing is left out of members that `whole` names, but out of what is in them. `faults` are known before.
    None if there is no other way.
    """
    faults = faults or []
    if not faults:
        try:
            return validate(item), True
        except ValidationError as error:
            faults = _faults(error)
    # What is pruned is copied as far as it is changed: the answer stays what the server sent.
    item = dict(item)
    for _ in range(_ROUNDS):
        if not _prune(item, faults, defaults or {}, whole):
            return None, False
        try:
            return validate(item), False
        except ValidationError as error:
            faults = _faults(error)
    return None, False


def _faults(error: ValidationError) -> list[_Fault]:
    """What there is and is wrong; if nothing is, what is missing."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    faults: list[_Fault] = []
    for each in found[:_FAULTS]:
        path, kind = each["loc"], each["type"]
        # The wrong member of a union says so of the type that tells its members apart.
        is_other = kind == "literal_error" and path[-1:] in (("type",), ("method",), ("resultType",))
        faults.append(_Fault(path[:-1] if is_other else path, is_missing=is_other or kind == "missing"))
    return [fault for fault in faults if not fault.is_missing] or faults


def _prune(
    item: dict[str, Any], faults: list[_Fault], defaults: Mapping[str, Any], whole: Container[str | int]
) -> bool:
    """Leave out what is wrong. False if something is missing for which there is no default."""
    doomed: set[_Path] = set()
    for fault in faults:
        path = fault.path
        name = path[0] if path else None
        if not isinstance(name, str) or (fault.is_missing and len(path) == 1 and name not in defaults):
            return False
        if name in defaults and len(path) == 1:
            item[name] = defaults[name]
            continue
        reached = _reached(item, path)
        if not reached:
            return False
        doomed.add(reached)
    # Of the members of a union, those that expect something else refuse all of what one of them could read.
    held = {path[:length] for path in doomed for length in range(1, len(path))}
    doomed -= held
    if any(len(path) > 1 and path[-2] in whole for path in doomed):
        return False
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

"""What can be sent: values that have a JSON form, told before anything is sent.

The SDK writes NaN and Infinity as null, and names of members that are no text as text, and says so nowhere.
Must not know who sends what to whom.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar, cast

from pydantic import BaseModel

MAX_DEPTH: Final = 200
"""Levels of nesting that are sent: as many as are read, and fewer than Python's own limit can bear."""

_T = TypeVar("_T")


class _UnsendableError(Exception):
    """What is wrong, and where: the path grows on the way out, so that what is right costs nothing for it."""

    def __init__(self, kind: type[TypeError | ValueError], text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.path: list[str] = []


def check_sendable(value: _T, what: str) -> _T:
    """`value` itself, if JSON can say it. Linear, and without a copy.

    Dates, UUIDs, paths, enumerations, decimal numbers, bytes, sets and models are left to pydantic, which
    writes them in its JSON form: https://docs.pydantic.dev/latest/concepts/conversion_table/.

    Raises `ValueError` for numbers that are none (NaN, Infinity), for text that is no Unicode (a lone
    surrogate) and for nesting without an end, and `TypeError` for a name of a member that is no `str`. Both
    name the place, `what` first.
    """
    try:
        _check(value, 0)
    except _UnsendableError as error:
        where = "".join([what, *reversed(error.path)])[:200]
        raise error.kind(f"{where}: {error}") from None
    return value


def _check(value: object, depth: int) -> None:
    # The most frequent first: most values of most messages end here.
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value)
        return
    if value is None or isinstance(value, int):
        return
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise _UnsendableError(ValueError, f"{value} is no number that JSON has")
        return
    if depth >= MAX_DEPTH:
        raise _UnsendableError(ValueError, f"nested deeper than {MAX_DEPTH} levels, or in itself")
    if isinstance(value, Mapping):
        members = cast("Mapping[Any, object]", value)
        for name in members:
            _check_name(name)
        _check_members(members.items(), depth)
    elif isinstance(value, list | tuple | set | frozenset):
        _check_members(enumerate(cast("Iterable[object]", value)), depth)
    elif isinstance(value, BaseModel):
        _check_members(value, depth)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        _check_members([(name, getattr(value, name)) for name in names], depth)


def _check_members(members: Iterable[tuple[str | int, object]], depth: int) -> None:
    for name, member in members:
        try:
            _check(member, depth + 1)
        except _UnsendableError as error:
            error.path.append(f".{name}" if isinstance(name, str) else f"[{name}]")
            raise


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise _UnsendableError(TypeError, f"the name of a member must be a str, not {name!r}")
    if not name.isascii():
        _check_text(name)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"a lone surrogate at {error.start}, which is no Unicode"
        raise _UnsendableError(ValueError, message) from None

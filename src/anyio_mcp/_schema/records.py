"""The dataclasses that stand for the objects of a JSON Schema, and how they become JSON again.

Owns what all of them share and how their attributes are named. Knows nothing of schemas: `compiler`
decides which fields a class has. No code is generated for a class, so nothing that a server names can
end up in any.

The classes exist in no module, and still pickle: a class is pickled as the schema it came from, and is
made again from it where it is unpickled (`cache` registers how).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import keyword
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

from pydantic_core import to_jsonable_python

MAX_NAME: Final = 100
"""Characters of a server's name that are kept in the name of a class."""

Origin = tuple[bytes, int]
"""A schema's JSON text, and which of its classes this is."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record: `name` is the attribute, `key` the property it stands for.

    `default` None is no default. A mutable one is copied for each record.
    """

    name: str
    key: str
    hint: Any
    required: bool
    default: Any = None


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Info:
    """What a record class knows of itself. In one place, under a name no field can have."""

    origin: Origin
    keys: dict[str, str] = field(default_factory=dict[str, str])
    needed: set[str] = field(default_factory=set[str])
    factories: dict[str, Callable[[], Any]] = field(default_factory=dict[str, Callable[[], Any]])


class RecordType(type):
    """The type of the record classes."""

    # Fields never begin with an underscore (`attribute_names`), so none can take this name.
    __record_info__: _Info


class Record(metaclass=RecordType):
    """An object of a JSON Schema: a dataclass that takes keyword arguments only.

    An absent field reads as its default, and is not stored: a schema with a thousand optional fields
    must not turn every empty object into a thousand attributes.
    """

    def __init__(self, /, **values: Any) -> None:
        info = type(self).__record_info__
        unknown = [name for name in values if name not in info.keys]
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {unknown[0]!r}")
        missing = sorted(info.needed.difference(values))
        if missing:
            raise TypeError(f"{type(self).__name__} needs a value for {', '.join(missing)}")
        vars(self).update(values)
        for name, make in info.factories.items():
            if name not in values:
                vars(self)[name] = make()

    def __repr__(self) -> str:
        names = dict.fromkeys((*type(self).__record_info__.keys, *vars(self)))
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        info = type(self).__record_info__
        # One origin means one schema: the class may have left the cache and been made again since.
        if info is not type(other).__record_info__ and info.origin != type(other).__record_info__.origin:
            return False
        names = {*info.keys, *vars(self), *vars(other)}
        return all(getattr(self, name, _ABSENT) == getattr(other, name, _ABSENT) for name in names)


_ABSENT: Final = object()


def new_record_type(name: str, origin: Origin) -> type[Record]:
    """A record class without fields yet, so that fields may refer to it."""
    cls = RecordType(name, (Record,), {"__doc__": "Made from a JSON Schema.", "__module__": __name__})
    cls.__record_info__ = _Info(origin)
    return cast("type[Record]", cls)


def add_fields(cls: type[Record], fields: Iterable[Field]) -> None:
    """Complete a new record class. A field that is not required and has no default reads as None."""
    info = cls.__record_info__
    cls.__annotations__ = {}
    for each in fields:
        info.keys[each.name] = each.key
        cls.__annotations__[each.name] = each.hint
        default: Any = each.default
        if isinstance(default, list | dict):
            make = functools.partial(copy.deepcopy, cast("Any", default))
            info.factories[each.name] = make
            setattr(cls, each.name, field(default_factory=make))
        elif default is not None:
            setattr(cls, each.name, default)
        elif each.required:
            info.needed.add(each.name)
        else:
            setattr(cls, each.name, None)
    dataclasses.dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=True)(cls)


def new_record(cls: type[Record], values: Mapping[str, Any]) -> Record:
    """A record of values that are known to fit. Mutable defaults are made here, the others are inherited."""
    record = cls.__new__(cls)
    vars(record).update(values)
    for name, make in cls.__record_info__.factories.items():
        if name not in values:
            vars(record)[name] = make()
    return record


def origin_of(cls: RecordType) -> Origin | None:
    """Where a record class came from; None for `Record` itself."""
    info: _Info | None = getattr(cls, "__record_info__", None)
    return None if info is None else info.origin


def to_plain(value: Any) -> Any:
    """`value` as plain JSON data: records by their property names, without what was left absent.

    Pydantic models, other dataclasses, dates and the like as pydantic writes them. Raises `ValueError`
    for what has no JSON form.
    """
    if isinstance(value, Record):
        keys = type(value).__record_info__.keys
        return {keys.get(name, name): to_plain(item) for name, item in vars(value).items()}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_plain(item) for item in cast("Iterable[Any]", value)]
    return to_jsonable_python(value)


def attribute_names(keys: Sequence[str]) -> dict[str, str]:
    """An attribute name for each property, each different; a property that can be one keeps its name.

    No name begins with an underscore: those belong to Python and to the record class.
    """
    names = {key: key for key in keys if _is_attribute(key)}
    taken = set(names)
    counters: dict[str, int] = {}
    for key in keys:
        if key in names:
            continue
        base = identifier(key, "field")
        name = base
        while name in taken:
            counters[base] = counters.get(base, 1) + 1
            name = f"{base}_{counters[base]}"
        names[key] = name
        taken.add(name)
    return names


def identifier(text: str, fallback: str) -> str:
    """The nearest Python identifier without a leading underscore: `foo-bar` is `foo_bar`."""
    text = unicodedata.normalize("NFKC", text[:MAX_NAME])
    name = "".join(char if f"a{char}".isidentifier() else "_" for char in text).strip("_")
    if not name:
        return fallback
    if not name.isidentifier():  # it begins with what only may follow, such as a digit
        name = f"{fallback}_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def _is_attribute(key: str) -> bool:
    return (
        key.isidentifier()
        and not key.startswith("_")
        and not keyword.iskeyword(key)
        # Python normalizes identifiers in source: one that is not normalized could not be written.
        and unicodedata.is_normalized("NFKC", key)
    )

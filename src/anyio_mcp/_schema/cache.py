"""Types already made from schemas: a bounded memory of them, and how their instances pickle."""

from __future__ import annotations

import copyreg
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, final

from pydantic_core import to_json

from anyio_mcp._schema.budget import Steps, at_once, count_values
from anyio_mcp._schema.compiler import SchemaType, compile_schema
from anyio_mcp._schema.records import Origin, Record, RecordType, origin_of

MAX_SCHEMA_BYTES: Final = 256 * 1024
"""JSON text of one schema. A larger one has no type."""

MAX_SCHEMA_VALUES: Final = 60_000
"""JSON values in one schema. A larger one has no type."""

MAX_CACHE_BYTES: Final = 3 * 1024 * 1024
"""What the types that are kept weigh in memory, for the whole process. When it is full the one used longest
ago goes, and is made again if it comes back."""


def schema_type(schema: Mapping[str, Any]) -> SchemaType | None:
    """The type for a schema, or None if it has none within the limits; made at once."""
    return at_once(type_steps(schema))


def type_steps(schema: Mapping[str, Any]) -> Steps[SchemaType | None]:
    """The type for a schema, or None if it has none within the limits."""
    if count_values(schema, MAX_SCHEMA_VALUES) > MAX_SCHEMA_VALUES:
        return None
    try:
        # Not with sorted keys: the order of the properties is the order of the fields.
        text = to_json(dict(schema))
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return None
    return (yield _types.get(text)) if len(text) <= MAX_SCHEMA_BYTES else None


@final
class _Types:
    """Types already made, by the JSON text of their schema. Threads may share it."""

    __slots__ = ("_lock", "_types", "_weight")

    def __init__(self) -> None:
        self._types: OrderedDict[bytes, SchemaType | None] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()

    def get(self, text: bytes) -> Steps[SchemaType | None]:
        with self._lock:
            if text in self._types:
                self._types.move_to_end(text)
                return self._types[text]
        # Not under the lock: two threads, or two tasks, at worst make the same type twice.
        try:
            made: SchemaType | None = yield compile_schema(text)
        except (ValueError, RecursionError):  # too much, or nested deeper than JSON is parsed
            made = None
        with self._lock:
            if text not in self._types:
                self._types[text] = made
                self._weight += _weight(text, made)
            while self._weight > MAX_CACHE_BYTES:
                self._weight -= _weight(*self._types.popitem(last=False))
        return made


def _weight(text: bytes, made: SchemaType | None) -> int:
    return len(text) + 500 if made is None else made.weight


_types: Final = _Types()


def _restore(text: bytes, index: int) -> type[Record]:
    found = at_once(_types.get(text))
    if found is None or index >= len(found.records):
        raise pickle.UnpicklingError("a type made from a schema that cannot be made again")
    return found.records[index]


def _reduce(cls: RecordType) -> str | tuple[Any, Origin]:
    origin = origin_of(cls)
    return cls.__qualname__ if origin is None else (_restore, origin)


# A class is pickled by its name unless its metaclass is registered; these have no name to be found by.
copyreg.pickle(RecordType, _reduce)

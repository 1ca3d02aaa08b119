"""Types already made from schemas: a bounded memory of them, and how their instances pickle."""

from __future__ import annotations

import copyreg
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, final

from pydantic_core import to_json

from anyio_mcp._schema.compiler import SchemaType, compile_schema
from anyio_mcp._schema.records import Origin, Record, RecordType, origin_of

MAX_SCHEMA_BYTES: Final = 256 * 1024
"""JSON text of one schema. A larger one has no type."""

MAX_CACHE_BYTES: Final = 4 * 1024 * 1024
"""JSON text of all schemas whose types are kept. When it is full the one used longest ago goes, and is
made again if it comes back."""


def schema_type(schema: Mapping[str, Any]) -> SchemaType | None:
    """The type for a schema, or None if it has none within the limits."""
    try:
        # Not with sorted keys: the order of the properties is the order of the fields.
        text = to_json(dict(schema))
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return None
    return _types.get(text) if len(text) <= MAX_SCHEMA_BYTES else None


@final
class _Types:
    """Types already made, by the JSON text of their schema. Threads may share it."""

    __slots__ = ("_lock", "_size", "_types")

    def __init__(self) -> None:
        self._types: OrderedDict[bytes, SchemaType | None] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, text: bytes) -> SchemaType | None:
        with self._lock:
            if text in self._types:
                self._types.move_to_end(text)
                return self._types[text]
        # Not under the lock: two threads at worst make the same type twice.
        made = _make(text)
        with self._lock:
            if text not in self._types:
                self._types[text] = made
                self._size += len(text)
            while self._size > MAX_CACHE_BYTES:
                self._size -= len(self._types.popitem(last=False)[0])
        return made


def _make(text: bytes) -> SchemaType | None:
    try:
        return compile_schema(text)
    except (ValueError, RecursionError):  # too much, or nested deeper than JSON is parsed
        return None


_types: Final = _Types()


def _restore(text: bytes, index: int) -> type[Record]:
    found = _types.get(text)
    if found is None or index >= len(found.records):
        raise pickle.UnpicklingError("a type made from a schema that cannot be made again")
    return found.records[index]


def _reduce(cls: RecordType) -> str | tuple[Any, Origin]:
    origin = origin_of(cls)
    return cls.__qualname__ if origin is None else (_restore, origin)


# A class is pickled by its name unless its metaclass is registered; these have no name to be found by.
copyreg.pickle(RecordType, _reduce)

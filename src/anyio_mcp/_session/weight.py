"""How much memory a decoded JSON value holds, and no longer than it matters.

A linear walk that ends at its limit: what is asked is whether a value fits, not how large it is.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, cast

_LEAVES: Final = frozenset[type]((str, int, float, bool, type(None)))
"""What holds nothing else. Asking whether it is an abstract mapping would cost more than weighing it."""


def weigh(value: object, limit: int) -> int:
    """Bytes that `value` holds; some number above `limit` as soon as it holds more than that."""
    weight = 0
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        weight += sys.getsizeof(item)
        # Looked at before its members are: those of a list of a million are not even put on the stack.
        if weight > limit:
            break
        if type(item) in _LEAVES:
            continue
        if isinstance(item, Mapping):
            members = cast("Mapping[Any, object]", item)
            stack += members.keys()
            stack += members.values()
        elif isinstance(item, list | tuple):
            stack += cast("list[object]", item)
    return weight

"""Which JSON values are equal, in linear time.

A value becomes a text that only equal values have: 1 and 1.0 are the same number, True is none, and the
order of an object's members says nothing. Texts, because Python keys the hash of a text with a secret: a
server cannot choose values that collide, as it can with numbers. An object's text is the sum of its members'
keyed digests, which takes no sorting.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final, cast

from anyio_mcp._schema.budget import Budget, OutOfBudgetError, Steps, at_once

MAX_BITS: Final = 4_096
"""Of an integer that is computed with. Python's arithmetic takes quadratic time past that."""

_TEXT_A_STEP: Final = 1_000
"""Characters that are copied, hashed or compared in one step."""


_SECRET: Final = secrets.token_bytes(32)


def text_steps(text: str) -> int:
    """Steps that copying or hashing a text takes."""
    return len(text) // _TEXT_A_STEP


def scalar_key(value: Any, budget: Budget) -> str:
    """The text of a value that is no array and no object."""
    match value:
        case str():
            budget.spend(text_steps(value))
            return f"s{len(value)}:{value}"
        case None:
            return "null"
        case True:
            return "true"
        case False:
            return "false"
        case _:
            return _number_key(value)


def key_of(value: Any, budget: Budget) -> Steps[str]:
    """The text of any value. Each of its values is one step, and a long text some more."""
    budget.spend(1)
    if isinstance(value, list):
        parts: list[str] = []
        for item in cast("list[Any]", value):
            key = (yield key_of(item, budget)) if isinstance(item, dict | list) else _leaf(item, budget)
            parts.append(key)
            if budget.is_due:
                yield None
        text = f"[{','.join(parts)}]"
    elif isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        total = 0
        for name, item in members.items():
            key = (yield key_of(item, budget)) if isinstance(item, dict | list) else _leaf(item, budget)
            total += _digest(f"{_leaf(name, budget)}{key}")
            if budget.is_due:
                yield None
        text = f"{{{total % 2**256:x}}}"
    else:
        return scalar_key(value, budget)
    budget.spend(text_steps(text))
    return text


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), key=_SECRET, digest_size=32).digest())


def keys_of(values: Iterable[Any], budget: Budget) -> frozenset[str]:
    """The texts of some values, at once: what they may cost is in the budget."""
    return frozenset(
        at_once(key_of(value, budget)) if isinstance(value, dict | list) else _leaf(value, budget)
        for value in values
    )


def _leaf(value: Any, budget: Budget) -> str:
    budget.spend(1)
    return scalar_key(value, budget)


def _number_key(value: float) -> str:
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise OutOfBudgetError("a number has too many digits")
        return hex(value)
    if not math.isfinite(value):
        raise OutOfBudgetError("a number is beyond what a float holds")
    return hex(int(value)) if value.is_integer() else repr(value)

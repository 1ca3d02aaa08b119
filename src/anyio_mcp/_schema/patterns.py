"""Whether checking a value against a schema could take for ever: by its regular expressions, by having to
find its items unique, or by references that branch.

The server chooses both, and Python's `re` backtracks: days, for 30 bytes of one and 45 of the other. It
holds the interpreter's lock meanwhile, so neither a deadline nor a thread would help. Must not know what
is done with a value that is not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, cast

MOST_STEPS: Final = 5_000_000
"""What a schema may cost on a value, as estimated from above: a fraction of a second."""

_COMPARISON: Final = 100
"""Steps it takes to compare two objects: the validator does so for every two in a list."""

_MOST_REFERENCES: Final = 20_000
"""What may be followed of references that branch, each to the next: a fraction of a second."""

_LONGEST_PATTERN: Final = 1000
_ATOM: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_EXACTLY: Final = re.compile(r"(?<!\))\{\d+\}")
_PREFIX: Final = re.compile(r"\(\?(?:[:=!]|<[=!]|P?<\w+>)")
_HARMLESS: Final = re.compile(r"\([^()*+?{|]*\)(?=[*+?{])")
_REPEAT: Final = re.compile(r"[*+]|\{\d*,(\d{0,6})\}")


def may_take_for_ever(schema: object, value: object) -> bool:
    """Whether checking `value` against `schema` may cost more than `MOST_STEPS`."""
    if _wants_unique(schema) and sum(map(_comparisons, _walk(value))) * _COMPARISON > MOST_STEPS:
        return True
    if _references(schema, value) > _MOST_REFERENCES:
        return True
    texts = [item for item in _walk(value) if isinstance(item, str)]
    steps = 0
    for pattern in _patterns(schema):
        if len(pattern) > _LONGEST_PATTERN:
            return True
        steps += sum(_steps(pattern, len(text)) for text in texts)
        if steps > MOST_STEPS:
            return True
    return False


def _steps(pattern: str, length: int) -> int:
    """The most steps `pattern` may take: each repetition may try every length, each option both ways,
    and a repeated group that can match in several ways every division of the text."""
    plain = _EXACTLY.sub("", _ATOM.sub("x", pattern))
    plain = _HARMLESS.sub("x", _PREFIX.sub("(", plain))
    if re.search(r"\)[*+{]", plain):
        return 2 ** min(length, 64)
    steps = 2 ** plain.count("?")
    if not plain.startswith("^") or "|" in plain:
        steps *= length + 1  # it may begin anywhere
    for most in _REPEAT.findall(plain):
        steps *= min(int(most or length), length) + 1
    return steps


def _references(schema: object, value: object) -> int:
    """The most references a validator may follow, if each choice were tried: branching ones multiply with
    every level of the value, and with every definition that only refers to others."""
    if not isinstance(schema, dict):
        return 0
    root = cast("dict[str, object]", schema)
    parts: dict[str, object] = {}
    for key in ("$defs", "definitions"):
        named = root.get(key)
        if isinstance(named, dict):
            parts |= {f"#/{key}/{name}": part for name, part in cast("dict[str, object]", named).items()}
    # A reference to anything else is taken for one to the whole.
    parts["#"] = {key: item for key, item in root.items() if key not in ("$defs", "definitions")}
    targets = {name: [ref if ref in parts else "#" for ref in _targets(part)] for name, part in parts.items()}
    if not any(targets.values()):
        return 0
    followed = dict.fromkeys(parts, 0)
    for _ in range(min(_depth(value) + len(parts), 1000)):
        grown = {name: sum(1 + followed[ref] for ref in refs) for name, refs in targets.items()}
        if grown == followed or grown["#"] > _MOST_REFERENCES:
            return grown["#"]
        followed = {name: min(count, _MOST_REFERENCES + 1) for name, count in grown.items()}
    return followed["#"]


def _targets(schema: object) -> Iterator[str]:
    for item in _walk(schema):
        if isinstance(item, dict):
            members = cast("dict[str, object]", item)
            for key in ("$ref", "$dynamicRef", "$recursiveRef"):
                ref = members.get(key)
                if isinstance(ref, str):
                    yield ref


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level := [
        inner
        for item in level
        if isinstance(item, dict | list)
        for inner in (
            cast("dict[str, object]", item).values() if isinstance(item, dict) else cast("list[object]", item)
        )
    ]:
        depth += 1
    return depth


def _wants_unique(schema: object) -> bool:
    return any(
        isinstance(item, dict) and cast("dict[str, object]", item).get("uniqueItems") is True
        for item in _walk(schema)
    )


def _comparisons(value: object) -> int:
    """How many it takes to find the items of a list unique. Those that can be sorted need few."""
    if not isinstance(value, list):
        return 0
    items = cast("list[object]", value)
    simple = all(isinstance(item, str) for item in items) or all(
        isinstance(item, int | float) for item in items
    )
    return 0 if simple else len(items) ** 2


def _patterns(schema: object) -> Iterator[str]:
    for item in _walk(schema):
        if isinstance(item, dict):
            members = cast("dict[str, object]", item)
            pattern, properties = members.get("pattern"), members.get("patternProperties")
            if isinstance(pattern, str):
                yield pattern
            if isinstance(properties, dict):
                yield from cast("dict[str, object]", properties)


def _walk(value: object) -> Iterator[object]:
    """Every value in a JSON value, names of members included. Without recursion: its depth is the
    server's choice."""
    stack = [value]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, dict):
            members = cast("dict[str, object]", item)
            stack += members
            stack += members.values()
        elif isinstance(item, list):
            stack += cast("list[object]", item)

"""Whether a JSON value conforms to a JSON Schema, within a budget, whoever wrote the two.

A checker of our own, because its cost can be proved. It visits pairs of a subschema and a value, each at
most once: subschemas form a tree but for references, and what a reference came to for a value is kept. So it
takes at most |schema| x |value| steps; they are counted as they are taken, it pauses after each slice of them
and gives up at a limit. Towers of `allOf`, branching recursion, equal items and long regular expressions all
spend the same budget, and no list of bad shapes is needed.

Looked at instead (November 2026): `jsonschema` 4.26, which the SDK uses, takes exponential time on branching
references, and Python's `re` backtracks (https://python-jsonschema.readthedocs.io/en/stable/validate/);
`jsonschema-rs` 0.61 (https://docs.rs/jsonschema) is fast and can be told to use a linear engine for
patterns, but it keeps nothing of what a reference came to (2^18 visits for an 18-level `allOf` of 1 KiB),
cannot be stopped, and holds the interpreter's lock meanwhile: neither a deadline nor a thread would bound it.

Nothing is fetched: a reference leads into the schema itself, or the schema is not understood. A schema that
is not understood and a value that costs too much end in `UncheckableError` or `OutOfBudgetError`, both
`ValueError`: such a value is neither right nor wrong. Subschemas are read when they are first met, so what no
value comes to costs nothing. Knows nothing of tools, results and forms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, cast, final
from urllib.parse import unquote

from anyio_mcp._schema.budget import Budget, Steps
from anyio_mcp._schema.keywords import DIALECTS, Failure, Node, UncheckableError, read_node
from anyio_mcp._schema.nodes import Kind, is_object, kind_of

MAX_REFERENCE: Final = 1_000
"""Characters of one reference."""

MAX_ANCHOR_SEARCH: Final = 10_000
"""Values of a schema that are searched for the names references give."""

_UNKNOWN: Final = object()
_IN_THE_MAKING: Final = Failure("$ref", None, None)


@final
class Validator:
    """Checks values against one schema, which must not be changed meanwhile.

    What was read of the schema is kept: `weight` says how much, in steps.
    """

    __slots__ = ("_anchors", "_dialect", "_nodes", "_prefix", "_references", "schema", "weight")

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self._nodes: dict[int, Node] = {}
        self._references: dict[str, Any] = {}
        self._anchors: dict[str, Any] | None = None
        self._dialect = DIALECTS["https://json-schema.org/draft/2020-12/schema"]
        self._prefix = ""
        self.weight = 0

    def check(self, value: Any, budget: Budget) -> Steps[Failure | None]:
        """The first demand that `value` does not meet, or None.

        Raises `UncheckableError` if that cannot be known, and `OutOfBudgetError`.
        """
        self._look_at_root()
        return (yield _Check(self, budget).refer("#", value))

    def _look_at_root(self) -> None:
        if not is_object(self.schema):
            return
        root = self.schema
        named: Any = root.get("$schema", "https://json-schema.org/draft/2020-12/schema")
        dialect = DIALECTS.get(named.rstrip("#")) if isinstance(named, str) else None
        if dialect is None:
            raise UncheckableError("its $schema names a draft that is not known")
        self._dialect = dialect
        identity: Any = root.get("$id", "")
        self._prefix = identity.rstrip("#") if isinstance(identity, str) else ""

    def node(self, schema: Any) -> Node:
        """What a subschema demands, read at the first time."""
        found = self._nodes.get(id(schema))
        if found is None:
            found = self._nodes[id(schema)] = read_node(schema, self._dialect, is_root=schema is self.schema)
            self.weight += found.cost
        return found

    def target(self, reference: str) -> Any:
        """The subschema that a reference leads to, always one of this schema."""
        found = self._references.get(reference, _UNKNOWN)
        if found is _UNKNOWN:
            found = self._references[reference] = self._resolve(reference)
        return found

    def _resolve(self, reference: str) -> Any:
        fragment = reference
        if self._prefix and reference.startswith(self._prefix):
            fragment = reference[len(self._prefix) :] or "#"
        if not fragment.startswith("#") or len(reference) > MAX_REFERENCE:
            raise UncheckableError("a reference leads out of the schema")
        fragment = unquote(fragment[1:])
        if fragment and not fragment.startswith("/"):
            return self._anchored(fragment)
        found: Any = self.schema
        for part in fragment.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if is_object(found) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isascii() and key.isdecimal() and len(key) < 10:
                items = cast("list[Any]", found)
                if int(key) >= len(items):
                    raise UncheckableError("a reference leads to nothing")
                found = items[int(key)]
            else:
                raise UncheckableError("a reference leads to nothing")
            if is_object(found) and isinstance(found.get("$id"), str):
                raise UncheckableError("a schema in the schema has an identity of its own ($id)")
        return found

    def _anchored(self, name: str) -> Any:
        if self._anchors is None:
            self._anchors = _find_anchors(self.schema)
        found = self._anchors.get(name)
        if found is None:
            raise UncheckableError("a reference leads to nothing")
        return found


def _find_anchors(schema: Any) -> dict[str, Any]:
    """The subschemas that have names; None for a name that several have."""
    found: dict[str, Any] = {}
    stack: list[Any] = [schema]
    visited = 0
    while stack:
        item = stack.pop()
        visited += 1
        members: Any = ()
        if is_object(item):
            name = item.get("$anchor")
            if isinstance(name, str):
                found[name] = None if name in found else item
            members = item.values()
        elif isinstance(item, list):
            members = cast("list[Any]", item)
        if visited + len(stack) + len(members) > MAX_ANCHOR_SEARCH:
            raise UncheckableError("the schema is too large to find the name a reference gives")
        stack.extend(members)
    return found


@final
class _Check:
    """The check of one value."""

    __slots__ = ("_known", "_met", "_validator", "budget")

    def __init__(self, validator: Validator, budget: Budget) -> None:
        self._validator = validator
        self._known: dict[tuple[int, int], Failure | None] = {}
        """What a subschema came to for a value: both by identity, both live as long as this."""
        self._met: set[int] = set()
        self.budget = budget

    def node(self, schema: Any) -> Node:
        node = self._validator.node(schema)
        if id(node) not in self._met:
            self._met.add(id(node))
            self.budget.spend(node.cost)
        return node

    def apply(self, node: Node, value: Any) -> Steps[Failure | None]:
        self.budget.spend(1)
        kind = _kind_of(value)
        failure = node.broken(value, kind, self.budget)
        if self.budget.is_due:
            yield None
        if failure is not None:
            return failure
        for part in node.parts.get(kind, ()):
            self.budget.spend(1)
            failure = yield part(self, value)
            if failure is not None:
                return failure
        return None

    def each(self, node: Node, items: Iterable[tuple[str | int, Any]]) -> Steps[Failure | None]:
        budget = self.budget
        for key, value in items:
            kind = _kind_of(value)
            if kind in node.parts:
                failure = yield self.apply(node, value)
            else:
                budget.spend(1)
                failure = node.broken(value, kind, budget)
                if budget.is_due:
                    yield None
            if failure is not None:
                return failure.within(key)
        return None

    def refer(self, reference: str, value: Any) -> Steps[Failure | None]:
        # Whether or not it was followed before, as with `cost`.
        self.budget.spend(1 + len(reference) // 100)
        node = self.node(self._validator.target(reference))
        pair = (id(node), id(value))
        known: Any = self._known.get(pair, _UNKNOWN)
        if known is _IN_THE_MAKING:
            raise UncheckableError("a reference leads back to itself")
        if known is not _UNKNOWN:
            return known
        self._known[pair] = _IN_THE_MAKING
        failure = self._known[pair] = yield self.apply(node, value)
        return failure


def _kind_of(value: Any) -> Kind:
    kind = kind_of(value)
    if kind is None:
        raise UncheckableError("the value is no JSON")
    if kind == "number" and not math.isfinite(value):
        raise UncheckableError("a number of the value is beyond what a float holds")
    return kind

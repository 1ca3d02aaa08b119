"""Converting JSON values by a compiled schema: one node for each kind of type.

Owns what each type accepts and makes of a value, and what a conversion may cost. Knows nothing of JSON
Schema's keywords (`compiler` compiles them to these nodes) nor of what is done with a mismatch.

A conversion visits each value once, so it costs what the message cost to read, except where a union
has several members for one kind of value and members are tried. Trying nests, and costs 2^depth where
a server wants it to; the `Budget` ends it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, cast, final

from anyio_mcp._schema.budget import Budget, MismatchError, OutOfBudgetError
from anyio_mcp._schema.records import Record, new_record

Kind = Literal["object", "array", "string", "integer", "number", "boolean", "null"]

ALL_KINDS: Final[frozenset[Kind]] = frozenset(
    ("object", "array", "string", "integer", "number", "boolean", "null")
)
_KIND_OF: Final[dict[type, Kind]] = {
    dict: "object",
    list: "array",
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
}

MAX_TAGS: Final = 4
"""Literal fields that tell objects of a union apart before they are converted."""


class Node:
    """A type: which kinds of JSON value it can take, and what it makes of one. By itself it takes none."""

    __slots__ = ("kinds",)

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = frozenset(kinds)

    def convert(self, value: Any, budget: Budget) -> Any:
        """The Python value, or `MismatchError`."""
        raise MismatchError("nothing is allowed here")

    def link(self) -> None:
        """Put what references lead to in their place, so that converting does not follow them."""


@final
class AnyNode(Node):
    """No constraint: the value stays as it is."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(ALL_KINDS)

    def convert(self, value: Any, budget: Budget) -> Any:
        return value


@final
class NeverNode(Node):
    """No value fits."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(())


@final
class ScalarNode(Node):
    """A string, number, boolean or null. `hint` is the type of the Python value it makes."""

    __slots__ = ("hint", "parse")

    def __init__(self, hint: Any, parse: Callable[[Any], Any], *kinds: Kind) -> None:
        super().__init__(kinds)
        self.hint = hint
        self.parse = parse

    def convert(self, value: Any, budget: Budget) -> Any:
        if kind_of(value) not in self.kinds:
            raise MismatchError("a value of another type")
        return self.parse(value)


@final
class LiteralNode(Node):
    """One of some given JSON values, which stay as they are."""

    __slots__ = ("_keys", "values")

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = tuple(values)
        kinds = map(kind_of, self.values)
        super().__init__(like for kind in kinds if kind is not None for like in _kinds_like(kind))
        self._keys = {_literal_key(value) for value in self.values}

    def convert(self, value: Any, budget: Budget) -> Any:
        if not self.accepts(value):
            raise MismatchError("not one of the given values")
        return value

    def accepts(self, value: Any) -> bool:
        kind = kind_of(value)
        return kind in self.kinds and _literal_key(value) in self._keys


@final
class ListNode(Node):
    """An array: `prefix` for its first elements, `item` for the others."""

    __slots__ = ("item", "prefix", "unique")

    def __init__(self, item: Node, prefix: list[Node], *, unique: bool) -> None:
        super().__init__(("array",))
        self.item = item
        self.prefix = prefix
        self.unique = unique
        """Whether the elements are unique: then they become a set, if they are scalars, which can."""

    def link(self) -> None:
        self.item = resolved(self.item)
        self.prefix = [resolved(each) for each in self.prefix]
        self.unique = self.unique and not self.prefix and isinstance(self.item, ScalarNode)

    def convert(self, value: Any, budget: Budget) -> Any:
        if type(value) is not list:
            raise MismatchError("not an array")
        items = cast("list[Any]", value)
        budget.spend(len(items) + 1)
        head = [node.convert(item, budget) for node, item in zip(self.prefix, items, strict=False)]
        rest = [self.item.convert(item, budget) for item in items[len(head) :]]
        if not self.unique:
            return head + rest if head else rest
        unique = set(rest)
        if len(unique) != len(rest):
            raise MismatchError("an element occurs twice")
        return unique


@final
class DictNode(Node):
    """An object whose properties have no names of their own: a dict."""

    __slots__ = ("item",)

    def __init__(self, item: Node) -> None:
        super().__init__(("object",))
        self.item = item

    def link(self) -> None:
        self.item = resolved(self.item)

    def convert(self, value: Any, budget: Budget) -> Any:
        if type(value) is not dict:
            raise MismatchError("not an object")
        items = cast("dict[str, Any]", value)
        budget.spend(len(items) + 1)
        return {key: self.item.convert(item, budget) for key, item in items.items()}


@final
class ObjectNode(Node):
    """An object with named properties: a record.

    Properties the schema does not name are dropped unless it declares `additionalProperties`: then
    `extra` converts them, and those whose names can be attributes are kept as such.
    """

    __slots__ = ("_defaults", "_names", "_tags", "closed", "cls", "extra", "fields", "required")

    def __init__(self, cls: type[Record], *, required: frozenset[str], closed: bool) -> None:
        super().__init__(("object",))
        self.cls = cls
        self.required = required
        self.closed = closed
        """Whether another property is a mismatch (`additionalProperties: false`)."""
        self.extra: Node | None = None
        self.fields: dict[str, tuple[str, Node]] = {}
        """property -> attribute and type"""
        self._names: frozenset[str] = frozenset()
        self._tags: list[tuple[str, LiteralNode]] = []
        self._defaults = 0

    def link(self) -> None:
        self.fields = {key: (name, resolved(each)) for key, (name, each) in self.fields.items()}
        self.extra = None if self.extra is None else resolved(self.extra)

    def complete(self, *, defaults: int) -> None:
        """The fields are final; `defaults` is what making the mutable defaults of one record costs."""
        self._names = frozenset(name for name, _ in self.fields.values())
        # A few tell the members of a union apart; each costs a look-up for every object.
        literals = [(key, node) for key, (_, node) in self.fields.items() if isinstance(node, LiteralNode)]
        self._tags = literals[:MAX_TAGS]
        self._defaults = defaults

    def matches(self, value: dict[str, Any]) -> bool:
        """Whether `value` can be this object, by what is required and by its tags."""
        return value.keys() >= self.required and all(
            node.accepts(value[key]) for key, node in self._tags if key in value
        )

    def convert(self, value: Any, budget: Budget) -> Any:
        if type(value) is not dict:
            raise MismatchError("not an object")
        items = cast("dict[str, Any]", value)
        budget.spend(len(items) + 1 + self._defaults)
        if not items.keys() >= self.required:
            raise MismatchError("a required property is missing")
        found: dict[str, Any] = {}
        for key, item in items.items():
            entry = self.fields.get(key)
            if entry is not None:
                found[entry[0]] = entry[1].convert(item, budget)
            elif self.closed:
                raise MismatchError("a property that is not allowed")
            elif self.extra is not None:
                extra = self.extra.convert(item, budget)
                # Not under a name of Python's or the record's: `copy` would find a `__deepcopy__` there.
                if key.isidentifier() and not key.startswith("_") and key not in self._names:
                    found[key] = extra
        return new_record(self.cls, found)


@final
class UnionNode(Node):
    """One of several types: the first that fits, objects with the most properties in common first."""

    __slots__ = ("_by_kind", "members")

    def __init__(self, members: list[Node]) -> None:
        super().__init__(())
        self.members = members
        self._by_kind: dict[Kind, list[Node]] = {}

    def link(self) -> None:
        self.members = [resolved(each) for each in self.members]

    def complete(self) -> int:
        """All nodes are linked: dissolve unions in it, also those that contain each other.

        Returns how many members it has now, as unions that hold unions multiply them.
        """
        leaves: dict[int, Node] = {}
        seen: set[int] = set()
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            if not isinstance(node, UnionNode):
                leaves[id(node)] = node
            elif id(node) not in seen:
                seen.add(id(node))
                stack.extend(reversed(node.members))
        self.members = list(leaves.values())
        # What takes everything comes last, or it would take what another member knows better.
        ordered = sorted(self.members, key=lambda node: isinstance(node, AnyNode))
        for kind in ALL_KINDS:
            self._by_kind[kind] = [node for node in ordered if kind in node.kinds]
        self.kinds = frozenset(kind for kind, nodes in self._by_kind.items() if nodes)
        return len(self.members)

    def convert(self, value: Any, budget: Budget) -> Any:
        kind = kind_of(value)
        nodes = self._by_kind[kind] if kind is not None else []
        if len(nodes) > 1:
            budget.spend(len(nodes))
            if kind == "object":
                nodes = _likely(nodes, cast("dict[str, Any]", value), budget)
            for node in nodes[:-1]:
                try:
                    return node.convert(value, budget)
                except OutOfBudgetError:
                    raise
                except MismatchError:
                    continue
        if not nodes:
            raise MismatchError("no member of the union takes this")
        return nodes[-1].convert(value, budget)


@final
class RefNode(Node):
    """A reference to a type that may not be compiled yet. `resolved` removes it from a finished type."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        super().__init__(())
        self.target: Node | None = None


NEVER: Final = NeverNode()
ANY: Final = AnyNode()


def kind_of(value: object) -> Kind | None:
    """Which kind of JSON value this is; None for what JSON does not have."""
    return _KIND_OF.get(type(value))


def resolved(node: Node) -> Node:
    """What a chain of references ends in; one that only leads to itself allows nothing."""
    seen: set[int] = set()
    while isinstance(node, RefNode):
        if node.target is None or id(node) in seen:
            return NEVER
        seen.add(id(node))
        node = node.target
    return node


def _likely(nodes: list[Node], value: dict[str, Any], budget: Budget) -> list[Node]:
    """The members that can be `value`, the likeliest first: others fit by leaving everything out."""
    scored: list[tuple[int, Node]] = []
    for node in nodes:
        if not isinstance(node, ObjectNode):
            scored.append((-1 if isinstance(node, AnyNode) else 0, node))
        elif node.matches(value):
            budget.spend(len(value))
            scored.append((sum(key in node.fields for key in value), node))
    scored.sort(key=lambda pair: -pair[0])  # stable: as the schema lists them
    return [node for _, node in scored]


def _kinds_like(kind: Kind) -> tuple[Kind, ...]:
    # 1 and 1.0 are the same number in JSON.
    if kind in ("integer", "number"):
        return ("integer", "number")
    return (kind,)


def _literal_key(value: Any) -> tuple[str, Any]:
    """Equal for equal JSON values only: to Python, True is 1 as well."""
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, dict | list):
        return "json", json.dumps(value, sort_keys=True)
    return "", value

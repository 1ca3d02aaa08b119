"""Converting JSON values by a compiled schema: one node for each kind of type.

Owns what each type accepts and makes of a value, and what a conversion may cost. Knows nothing of JSON
Schema's keywords (`compiler` compiles them to these nodes) nor of what is done with a mismatch.

A conversion visits each value once, except where a union has several members for one kind of value and
members are tried. Trying nests, and costs 2^depth where a server wants it to; the `Budget` ends it. Scalars
are converted at once, what holds others in steps that pause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Literal, TypeGuard, cast, final

from anyio_mcp._schema.budget import Budget, MismatchError, OutOfBudgetError, Steps
from anyio_mcp._schema.equality import key_of, keys_of, scalar_key
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

    is_leaf: ClassVar[bool] = True
    """Whether `convert` does in one step what otherwise `steps` does."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = frozenset(kinds)

    def convert(self, value: Any) -> Any:
        """The Python value of what takes one step, or `MismatchError`."""
        raise MismatchError("nothing is allowed here")

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        """The Python value, or `MismatchError`. What is no leaf has this."""
        raise NotImplementedError

    def link(self) -> None:
        """Put what references lead to in their place, so that converting does not follow them."""


@final
class AnyNode(Node):
    """No constraint: the value stays as it is."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(ALL_KINDS)

    def convert(self, value: Any) -> Any:
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

    def convert(self, value: Any) -> Any:
        if kind_of(value) not in self.kinds:
            raise MismatchError("a value of another type")
        return self.parse(value)


@final
class LiteralNode(Node):
    """One of some given JSON values, which stay as they are."""

    __slots__ = ("_keys", "values")

    is_leaf = False

    def __init__(self, values: Iterable[Any], budget: Budget) -> None:
        self.values = tuple(values)
        kinds = map(kind_of, self.values)
        super().__init__(like for kind in kinds if kind is not None for like in _kinds_like(kind))
        self._keys = keys_of(self.values, budget)

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        if kind_of(value) in self.kinds and (yield key_of(value, budget)) in self._keys:
            return value
        raise MismatchError("not one of the given values")

    def accepts(self, value: Any, budget: Budget) -> bool:
        """Whether it may be one of these; an array or an object always may."""
        kind = kind_of(value)
        if isinstance(value, dict | list) or kind not in self.kinds:
            return kind in self.kinds
        return scalar_key(value, budget) in self._keys


@final
class ListNode(Node):
    """An array: `prefix` for its first elements, `item` for the others."""

    __slots__ = ("item", "prefix")

    is_leaf = False

    def __init__(self, item: Node, prefix: list[Node]) -> None:
        super().__init__(("array",))
        self.item = item
        self.prefix = prefix

    def link(self) -> None:
        self.item = resolved(self.item)
        self.prefix = [resolved(each) for each in self.prefix]

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        if type(value) is not list:
            raise MismatchError("not an array")
        budget.spend(1)
        made: list[Any] = []
        for index, item in enumerate(cast("list[Any]", value)):
            budget.spend(1)
            node = self.prefix[index] if index < len(self.prefix) else self.item
            made.append(node.convert(item) if node.is_leaf else (yield node.steps(item, budget)))
            if budget.is_due:
                yield None
        return made


@final
class DictNode(Node):
    """An object whose properties have no names of their own: a dict."""

    __slots__ = ("item",)

    is_leaf = False

    def __init__(self, item: Node) -> None:
        super().__init__(("object",))
        self.item = item

    def link(self) -> None:
        self.item = resolved(self.item)

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        if type(value) is not dict:
            raise MismatchError("not an object")
        budget.spend(1)
        node = self.item
        made: dict[str, Any] = {}
        for key, item in cast("dict[str, Any]", value).items():
            budget.spend(1)
            made[key] = node.convert(item) if node.is_leaf else (yield node.steps(item, budget))
            if budget.is_due:
                yield None
        return made


@final
class ObjectNode(Node):
    """An object with named properties: a record.

    Properties the schema does not name are dropped unless it declares `additionalProperties`: then
    `extra` converts them, and those whose names can be attributes are kept as such.
    """

    __slots__ = ("_defaults", "_names", "_tags", "closed", "cls", "extra", "fields", "required")

    is_leaf = False

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

    def matches(self, value: dict[str, Any], budget: Budget) -> bool:
        """Whether `value` can be this object, by what is required and by its tags."""
        budget.spend(1 + len(self.required) // 10)
        return value.keys() >= self.required and all(
            node.accepts(value[key], budget) for key, node in self._tags if key in value
        )

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        if type(value) is not dict:
            raise MismatchError("not an object")
        items = cast("dict[str, Any]", value)
        budget.spend(1 + self._defaults + len(self.required) // 10)
        if not items.keys() >= self.required:
            raise MismatchError("a required property is missing")
        found: dict[str, Any] = {}
        for key, item in items.items():
            budget.spend(1)
            entry = self.fields.get(key)
            node = self.extra if entry is None else entry[1]
            if node is None:
                if self.closed:
                    raise MismatchError("a property that is not allowed")
                continue
            made = node.convert(item) if node.is_leaf else (yield node.steps(item, budget))
            if entry is not None:
                found[entry[0]] = made
            # Not under a name of Python's or the record's: `copy` would find a `__deepcopy__` there.
            elif key.isidentifier() and not key.startswith("_") and key not in self._names:
                found[key] = made
            if budget.is_due:
                yield None
        return new_record(self.cls, found)


@final
class UnionNode(Node):
    """One of several types: the first that fits, objects with the most properties in common first."""

    __slots__ = ("_by_kind", "members")

    is_leaf = False

    def __init__(self, members: list[Node]) -> None:
        super().__init__(())
        self.members = members
        self._by_kind: dict[Kind, list[Node]] = {}

    def link(self) -> None:
        self.members = [resolved(each) for each in self.members]

    def complete(self, most: int) -> int:
        """All nodes are linked: dissolve unions in it, also those that contain each other.

        Returns how many members were met, as unions that hold unions multiply them: a few more than
        `most`, and it is not complete.
        """
        met = 0
        leaves: dict[int, Node] = {}
        seen: set[int] = set()
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            if not isinstance(node, UnionNode):
                leaves[id(node)] = node
            elif id(node) not in seen:
                seen.add(id(node))
                met += len(node.members)
                if met > most:
                    return met
                stack.extend(reversed(node.members))
        self.members = list(leaves.values())
        # What takes everything comes last, or it would take what another member knows better.
        ordered = sorted(self.members, key=lambda node: isinstance(node, AnyNode))
        for kind in ALL_KINDS:
            self._by_kind[kind] = [node for node in ordered if kind in node.kinds]
        self.kinds = frozenset(kind for kind, nodes in self._by_kind.items() if nodes)
        return met

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        budget.spend(1)
        kind = kind_of(value)
        nodes = self._by_kind[kind] if kind is not None else []
        if kind == "object" and len(nodes) > 1:
            nodes = yield _likely(nodes, cast("dict[str, Any]", value), budget)
        for node in nodes[:-1]:
            try:
                return node.convert(value) if node.is_leaf else (yield node.steps(value, budget))
            except OutOfBudgetError:
                raise
            except MismatchError:
                budget.spend(1)
            if budget.is_due:
                yield None
        if not nodes:
            raise MismatchError("no member of the union takes this")
        return (yield conversion(nodes[-1], value, budget))


@final
class RefNode(Node):
    """A reference to a type that may not be compiled yet. `resolved` removes it from a finished type."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        super().__init__(())
        self.target: Node | None = None


NEVER: Final = NeverNode()
ANY: Final = AnyNode()


def conversion(node: Node, value: Any, budget: Budget) -> Steps[Any]:
    """What `node` makes of `value`, or `MismatchError`."""
    budget.spend(1)
    return node.convert(value) if node.is_leaf else (yield node.steps(value, budget))


def kind_of(value: object) -> Kind | None:
    """Which kind of JSON value this is; None for what JSON does not have."""
    return _KIND_OF.get(type(value))


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether this is a JSON object."""
    return isinstance(value, dict)


def resolved(node: Node) -> Node:
    """What a chain of references ends in; one that only leads to itself allows nothing."""
    seen: set[int] = set()
    while isinstance(node, RefNode):
        if node.target is None or id(node) in seen:
            return NEVER
        seen.add(id(node))
        node = node.target
    return node


def _likely(nodes: list[Node], value: dict[str, Any], budget: Budget) -> Steps[list[Node]]:
    """The members that can be `value`, the likeliest first: others fit by leaving everything out."""
    scored: list[tuple[int, Node]] = []
    for node in nodes:
        budget.spend(1)
        if not isinstance(node, ObjectNode):
            scored.append((-1 if isinstance(node, AnyNode) else 0, node))
        elif node.matches(value, budget):
            few, many = sorted((value.keys(), node.fields.keys()), key=len)
            budget.spend(len(few))
            scored.append((sum(key in many for key in few), node))
        if budget.is_due:
            yield None
    scored.sort(key=lambda pair: -pair[0])  # stable: as the schema lists them
    return [node for _, node in scored]


def _kinds_like(kind: Kind) -> tuple[Kind, ...]:
    # 1 and 1.0 are the same number in JSON.
    if kind in ("integer", "number"):
        return ("integer", "number")
    return (kind,)

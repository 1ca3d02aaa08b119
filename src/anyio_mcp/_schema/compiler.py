"""JSON Schema's keywords as nodes: one schema's text in, its `SchemaType` out.

A schema comes from a server, so it may be wrong, huge or hostile: what compiling one may cost is bounded
here, and it is done in steps that pause. What a keyword means is decided here, what a value becomes in
`nodes`.
"""

from __future__ import annotations

from typing import Any, Final, cast, final
from urllib.parse import unquote

from pydantic_core import from_json

from anyio_mcp._schema.budget import Budget, MismatchError, OutOfBudgetError, Steps, at_once, count_values
from anyio_mcp._schema.formats import BOOLEAN, FORMATS, INTEGER, NULL, NUMBER, STRING
from anyio_mcp._schema.hints import Hints
from anyio_mcp._schema.nodes import (
    ANY,
    NEVER,
    DictNode,
    ListNode,
    LiteralNode,
    Node,
    ObjectNode,
    RefNode,
    UnionNode,
    conversion,
    is_object,
    resolved,
)
from anyio_mcp._schema.records import (
    Field,
    Record,
    add_fields,
    attribute_names,
    identifier,
    new_record_type,
)

MAX_STEPS: Final = 10_000
"""Subschemas visited for one schema, and names and values in them. What `allOf` merges and the members of
unions count again."""

_STEPS_A_NODE: Final = 10
"""Of the `Budget`, for each of these: so many microseconds they take."""

_STEPS_A_RECORD: Final = 300
"""Of the `Budget`, to make the class of an object; the class weighs some kilobytes as well."""

MAX_DEPTH: Final = 64
"""Levels of subschemas in each other, references not counted: those are followed one by one."""

MAX_FIELDS: Final = 1_000
"""Properties of one object: its class is made in one piece."""

MAX_DEFAULT_VALUES: Final = 64
"""JSON values in one default that is an array or an object. A larger one is ignored: the server could
make a megabyte of it for each empty object it sends."""

_STRUCTURE: Final = frozenset(("type", "properties", "required", "enum", "const", "anyOf", "oneOf", "$ref"))
"""Keywords that make a type; what else stands beside an `allOf` describes."""


class UnsupportedError(ValueError):
    """A schema that is too large or too deep to make types of."""


@final
class SchemaType:
    """The Python type of a schema's values."""

    __slots__ = ("_root", "records", "weight")

    def __init__(self, root: Node, records: tuple[type[Record], ...], weight: int) -> None:
        self._root = root
        self.weight = weight
        """Bytes of memory it takes, about."""
        self.records = records
        """The record classes, in an order that depends on nothing but the schema's text."""

    @property
    def record(self) -> type[Record] | None:
        """The class of the values, if the schema is that of an object with named properties."""
        return self._root.cls if isinstance(self._root, ObjectNode) else None

    @property
    def fields(self) -> dict[str, Node]:
        """The types of the named properties; empty if the schema is not that of an object with some."""
        root = self._root
        return {key: node for key, (_, node) in root.fields.items()} if isinstance(root, ObjectNode) else {}

    def steps(self, value: Any, budget: Budget) -> Steps[Any]:
        """The Python value for a JSON value.

        Raises `MismatchError` for one that does not fit, and for one that would cost too much.
        """
        return conversion(self._root, value, budget)

    def convert(self, value: Any) -> Any:
        """`steps`, at once."""
        return at_once(self.steps(value, Budget()))


def compile_schema(text: bytes) -> Steps[SchemaType]:
    """The types for the JSON text of a schema. Raises `ValueError` if there are none within the limits."""
    return _Compiler(text).compile()


@final
class _Compiler:
    """Compiles one schema. References are followed from a list, not by recursion."""

    __slots__ = ("_budget", "_nodes", "_pending", "_records", "_references", "_root", "_steps", "_text")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._root: Any = from_json(text)
        self._references: dict[str, RefNode] = {}
        self._pending: list[tuple[str, RefNode]] = []
        self._nodes: list[Node] = []
        self._records: list[tuple[ObjectNode, dict[str, Any]]] = []
        self._steps = 0
        self._budget = Budget()

    def compile(self) -> Steps[SchemaType]:
        root = self._reference("#")
        while self._pending:
            pointer, reference = self._pending.pop()
            target = _lookup(self._root, pointer)
            name = pointer.rpartition("/")[2].lstrip("#")
            reference.target = yield self._node(target, name, depth=0)
        for node in self._nodes:
            node.link()
            if self._pause():
                yield None
        for node in self._nodes:
            if isinstance(node, UnionNode):
                self._step(0, node.complete(MAX_STEPS - self._steps))
                if self._pause():
                    yield None
        yield self._complete_records()
        weight = len(self._text) + 250 * self._steps + 6_000 * len(self._records)
        return SchemaType(resolved(root), tuple(node.cls for node, _ in self._records), weight)

    def _step(self, depth: int, steps: int = 1) -> None:
        self._steps += steps
        self._budget.spend(_STEPS_A_NODE * steps)
        if self._steps > MAX_STEPS or depth > MAX_DEPTH:
            raise UnsupportedError("the schema is too large or too deep")

    def _pause(self) -> bool:
        self._budget.spend(1)
        return self._budget.is_due

    def _reference(self, pointer: str) -> RefNode:
        reference = self._references.get(pointer)
        if reference is None:
            reference = self._references[pointer] = RefNode()
            self._pending.append((pointer, reference))
        return reference

    def _node(self, schema: object, name: str, depth: int) -> Steps[Node]:
        self._step(depth)
        if self._pause():
            yield None
        if not is_object(schema):
            return NEVER if schema is False else ANY
        if "allOf" in schema:
            merged: dict[str, Any] = yield self._merged(schema, depth)
            schema = merged
        ref = schema.get("$ref")
        if isinstance(ref, str):
            return self._reference(ref)
        if "const" in schema:
            return self._literal([schema["const"]], depth)
        values = schema.get("enum")
        if isinstance(values, list):
            return self._literal(cast("list[Any]", values), depth)
        members = schema.get("anyOf", schema.get("oneOf"))
        # Beside properties a union only says which of them go together, as `anyOf: [{required: ...}]`.
        if isinstance(members, list) and "properties" not in schema:
            return self._union((yield self._several(cast("list[Any]", members), name, depth)))
        kind = schema.get("type", _implied_type(schema))
        if isinstance(kind, list):
            kinds: list[Node] = []
            for each in cast("list[Any]", kind):
                kinds += [(yield self._typed(schema, each, name, depth + 1))]
            return self._union(kinds)
        return (yield self._typed(schema, kind, name, depth))

    def _literal(self, values: list[Any], depth: int) -> Node:
        self._step(depth, count_values(values, MAX_STEPS))
        return LiteralNode(values, self._budget)

    def _several(self, schemas: list[Any], name: str, depth: int) -> Steps[list[Node]]:
        found: list[Node] = []
        for each in schemas:
            found += [(yield self._node(each, name, depth + 1))]
        return found

    def _union(self, members: list[Node]) -> Node:
        union = UnionNode(members)
        self._nodes.append(union)
        return union

    def _typed(self, schema: dict[str, Any], kind: object, name: str, depth: int) -> Steps[Node]:
        self._step(depth)
        match kind:
            case "string":
                form = schema.get("format")
                return FORMATS.get(form, STRING) if isinstance(form, str) else STRING
            case "integer":
                return INTEGER
            case "number":
                return NUMBER
            case "boolean":
                return BOOLEAN
            case "null":
                return NULL
            case "array":
                return (yield self._array(schema, name, depth))
            case "object":
                return (yield self._object(schema, name, depth))
            case _:
                return ANY

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> Steps[Node]:
        prefix: Any = schema.get("prefixItems")
        items: Any = schema.get("items", True)
        if isinstance(items, list):  # as tuples were written before 2020-12
            prefix, items = cast("list[Any]", items), schema.get("additionalItems", True)
        first = cast("list[Any]", prefix) if isinstance(prefix, list) else []
        item = yield self._node(items, name, depth + 1)
        node = ListNode(item, (yield self._several(first, name, depth)))
        self._nodes.append(node)
        return node

    def _object(self, schema: dict[str, Any], name: str, depth: int) -> Steps[Node]:
        properties = schema.get("properties")
        others: Any = schema.get("additionalProperties")
        if "patternProperties" in schema:
            others = True  # which type a property has depends on its name: they stay as they are
        if not is_object(properties) or not properties:
            mapping = DictNode((yield self._node(True if others is None else others, name, depth + 1)))
            self._nodes.append(mapping)
            return mapping
        if len(properties) > MAX_FIELDS:
            raise UnsupportedError("an object with too many properties")
        self._step(depth, len(properties))
        title = schema.get("title")
        cls = new_record_type(
            identifier(title if isinstance(title, str) else name, "Result"), (self._text, len(self._records))
        )
        node = ObjectNode(cls, required=_required(schema), closed=others is False)
        self._records.append((node, properties))
        self._nodes.append(node)
        names = attribute_names(list(properties))
        for key, each in properties.items():
            node.fields[key] = names[key], (yield self._node(each, key, depth + 1))
        if others is not None and others is not False:
            node.extra = yield self._node(others, name, depth + 1)
        return node

    def _merged(self, schema: dict[str, Any], depth: int) -> Steps[dict[str, Any]]:
        """`schema` and the members of its `allOf` as one schema: the first that says something wins."""
        self._step(depth, len(schema))
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        members: Any = schema["allOf"]
        parts = cast("list[Any]", members) if isinstance(members, list) else []
        if len(parts) == 1 and is_object(parts[0]) and not _STRUCTURE.intersection(merged):
            # A reference with a description beside it: it stays a reference, as recursion needs it.
            alone = parts[0]
            return (yield self._merged(alone, depth + 1)) if "allOf" in alone else alone
        for each in parts:
            part = self._followed(each, depth)
            if "allOf" in part:
                part = yield self._merged(part, depth + 1)
            self._step(depth, 1 + len(part))
            if self._pause():
                yield None
            for key, value in part.items():
                known: Any = merged.get(key)
                if key == "properties" and is_object(value) and is_object(known):
                    self._step(depth, len(value) + len(known))
                    merged[key] = {**value, **known}
                elif key == "required" and isinstance(value, list) and isinstance(known, list):
                    names = [*cast("list[Any]", known), *cast("list[Any]", value)]
                    self._step(depth, len(names))
                    merged[key] = names
                else:
                    merged.setdefault(key, value)
        return merged

    def _followed(self, schema: object, depth: int) -> dict[str, Any]:
        """What a reference stands for; each step of a chain costs, so one in a circle ends."""
        while is_object(schema) and isinstance(schema.get("$ref"), str):
            self._step(depth)
            schema = _lookup(self._root, schema["$ref"])
        return schema if is_object(schema) else {}

    def _complete_records(self) -> Steps[None]:
        hints = Hints()
        # All defaults first: once classes have defaults of their own, making one could nest others.
        defaults: list[dict[str, Any]] = []
        for node, properties in self._records:
            made: dict[str, Any] = {}
            for key, (_, target) in node.fields.items():
                made[key] = yield _default(properties[key], target, self._budget)
            defaults.append(made)
        for (node, _), found in zip(self._records, defaults, strict=True):
            fields: list[Field] = []
            for key, (name, target) in node.fields.items():
                hint = hints.of(target)
                required = key in node.required
                default = found[key]
                if not required and default is None and hint is not Any:
                    hint = hint | None
                fields.append(Field(name=name, key=key, hint=hint, required=required, default=default))
            add_fields(node.cls, fields)
            mutable = sum(isinstance(default, list | dict) for default in found.values())
            node.complete(defaults=mutable * MAX_DEFAULT_VALUES)
            self._budget.spend(_STEPS_A_RECORD)
            if self._pause():
                yield None


def _implied_type(schema: dict[str, Any]) -> str | None:
    """The type of a schema that does not say it."""
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "string" if "format" in schema else None


def _required(schema: dict[str, Any]) -> frozenset[str]:
    names: Any = schema.get("required")
    found = cast("list[Any]", names) if isinstance(names, list) else []
    return frozenset(name for name in found if isinstance(name, str))


def _lookup(root: Any, pointer: str) -> Any:
    """What a reference within the schema points at; True, which allows everything, if that is nothing.

    References to other documents are not followed: nothing is fetched because a server says so.
    """
    if not pointer.startswith("#"):
        return True
    found: Any = root
    for part in pointer[1:].split("/")[1:]:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if is_object(found) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key[:9]) < len(cast("list[Any]", found)):
            found = cast("list[Any]", found)[int(key[:9])]
        else:
            return True
    return found


def _default(schema: object, node: Node, budget: Budget) -> Steps[Any]:
    """The default of a property as its Python value; None if it has none that can be used."""
    raw: Any = schema.get("default") if is_object(schema) else None
    if raw is None or count_values(raw, MAX_DEFAULT_VALUES) > MAX_DEFAULT_VALUES:
        return None
    try:
        value = yield conversion(node, raw, budget)
    except OutOfBudgetError:
        raise
    except MismatchError:
        return None
    # Records have defaults in turn, and a few levels of those multiply to any size.
    return None if _has_record(value) else value


def _has_record(value: Any) -> bool:
    if is_object(value):
        return any(map(_has_record, value.values()))
    if isinstance(value, list):
        return any(map(_has_record, cast("list[Any]", value)))
    return isinstance(value, Record)

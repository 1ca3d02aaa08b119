"""The annotations of record fields: what `dataclasses.fields` and `get_type_hints` show of a schema.

They inform, they do not convert. An annotation that would be large or infinite is `Any` there: types of
`typing` are trees, and a small graph of references can stand for an astronomical tree.
"""

from __future__ import annotations

from typing import Any, Final, Literal, final

from anyio_mcp._schema.nodes import (
    AnyNode,
    DictNode,
    ListNode,
    LiteralNode,
    NeverNode,
    Node,
    ObjectNode,
    ScalarNode,
    UnionNode,
    resolved,
)

MAX_SIZE: Final = 64
"""Types in one annotation."""


@final
class Hints:
    """The annotations of the nodes of one schema, each made once."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        # A node in the making is Any: it contains itself without a record in between.
        self._made: dict[int, tuple[Any, int]] = {}

    def of(self, node: Node) -> Any:
        """The annotation for `node`."""
        return self._of(node)[0]

    def _of(self, node: Node) -> tuple[Any, int]:
        node = resolved(node)
        made = self._made.get(id(node))
        if made is None:
            self._made[id(node)] = (Any, 1)
            made = self._make(node)
            self._made[id(node)] = made
        return made

    def _make(self, node: Node) -> tuple[Any, int]:
        match node:
            case ObjectNode():
                return node.cls, 1
            case ScalarNode():
                return node.hint, 1
            case LiteralNode():
                return _literal(node.values), len(node.values)
            case ListNode():
                hint, size = (Any, 1) if node.prefix else self._of(node.item)
                made: Any = list[hint]
            case DictNode():
                hint, size = self._of(node.item)
                made = dict[str, hint]
            case UnionNode():
                return self._union(node)
            case AnyNode() | NeverNode() | _:
                return Any, 1
        return (made, size + 1) if size < MAX_SIZE else (Any, 1)

    def _union(self, node: UnionNode) -> tuple[Any, int]:
        members = [self._of(member) for member in node.members]
        size = sum(size for _, size in members)
        hints = [hint for hint, _ in members]
        if not hints or size > MAX_SIZE or Any in hints:
            return Any, 1
        union = hints[0]
        for hint in hints[1:]:
            union = union | hint
        return union, size


def _literal(values: tuple[Any, ...]) -> Any:
    if not values or len(values) > MAX_SIZE or not all(isinstance(v, str | int | None) for v in values):
        return Any
    return Literal[values]

"""Which regular expressions of a schema are tried on a value, and which could take for ever."""

from __future__ import annotations

from typing import Any

import pytest

from anyio_mcp._schema.patterns import may_take_for_ever

UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UUID, "123e4567-e89b-12d3-a456-426614174000"),
        (r"^\d{4}-\d{2}-\d{2}$", "2026-01-31"),
        (r"^\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}$", "192.168.100.100"),
        (r"^[^@\s]+@[^@\s]+\.[a-z]+$", "someone@example.org"),
        (r"^(?:[0-9a-f]{2}:)*[0-9a-f]{2}$", "00:1b:44:11:3a:b7" * 10),
        ("^[A-Za-z0-9+/]*={0,2}$", "x" * 1_000_000),
        ("foo|bar", "x" * 1_000_000),
        (r"^\(a\+\)\+$", "x" * 1000),
    ],
)
def test_patterns_in_common_use_are_tried(pattern: str, text: str) -> None:
    assert not may_take_for_ever({"properties": {"x": {"pattern": pattern}}}, {"x": text})


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^(a+)+$", "a" * 45),
        ("^(?:a|a)*$", "a" * 45),
        ("^((a)b?)*$", "a" * 45),
        ("^(a{1,9}){2,}$", "a" * 45),
        ("^" + "a?" * 30 + "a" * 30 + "$", "a" * 30),
        ("a*a*a*b", "a" * 10_000),
        ("^a*a*$", "a" * 100_000),
        ("x" * 5000, "a"),
    ],
)
@pytest.mark.parametrize("place", ["pattern", "patternProperties", "deep"])
def test_patterns_that_backtrack_for_ever_are_not(pattern: str, text: str, place: str) -> None:
    schema = {
        "pattern": {"properties": {"x": {"pattern": pattern}}},
        "patternProperties": {"patternProperties": {pattern: True}},
        "deep": {"$defs": {"a": {"anyOf": [{"items": {"pattern": pattern}}]}}},
    }[place]
    assert may_take_for_ever(schema, {"x": [text]})
    assert may_take_for_ever(schema, {text: 1})


def test_many_texts_count_together() -> None:
    schema = {"items": {"pattern": "^a*b*$"}}
    assert not may_take_for_ever(schema, ["a" * 1000])
    assert may_take_for_ever(schema, ["a" * 1000] * 10)


def test_items_that_must_be_unique_are_compared_only_while_they_are_few() -> None:
    schema = {"properties": {"x": {"items": True, "uniqueItems": True}}}
    assert not may_take_for_ever(schema, {"x": [{"n": number} for number in range(100)]})
    assert may_take_for_ever(schema, {"x": [{"n": number} for number in range(1000)]})
    assert not may_take_for_ever({"items": True}, [{"n": number} for number in range(1000)])
    assert not may_take_for_ever(schema, {"x": list(range(100_000)), "y": ["text"] * 100_000})


def test_a_value_without_text_and_a_schema_without_patterns_cost_nothing() -> None:
    assert not may_take_for_ever({"pattern": "^(a+)+$"}, [1, None, 2.5])
    assert not may_take_for_ever({"properties": {"pattern": {"type": "string"}}}, {"pattern": "a" * 1000})


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"next": value}
    return value


def test_references_that_branch_are_followed_only_while_the_value_is_shallow() -> None:
    again = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#"}]}},
    }
    assert not may_take_for_ever(again, nested(5))
    assert may_take_for_ever(again, nested(20))


def test_definitions_that_only_refer_to_others_count_without_any_depth() -> None:
    chain = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    assert may_take_for_ever({"$ref": "#/$defs/d0", "$defs": {**chain, "d30": {}}}, {})


def test_ordinary_references_cost_little_however_many_there_are() -> None:
    models = {f"m{n}": {"type": "object"} for n in range(50)}
    flat = {"properties": {name: {"$ref": f"#/$defs/{name}"} for name in models}, "$defs": models}
    assert not may_take_for_ever(flat, nested(20))
    linked = {"properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}
    assert not may_take_for_ever(linked, nested(500))

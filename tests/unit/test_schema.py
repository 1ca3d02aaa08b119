"""Types made from schemas: any pydantic model survives the way there and back, no schema does harm."""

from __future__ import annotations

import dataclasses
import keyword
import pickle
import subprocess
import sys
import threading
import time
import unicodedata
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import types
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from anyio_mcp._schema import (
    Budget,
    MismatchError,
    OutOfBudgetError,
    Record,
    SchemaType,
    at_once,
    schema_type,
    to_plain,
)
from anyio_mcp._schema import cache as schema_cache
from anyio_mcp._schema.budget import MOST_STEPS
from anyio_mcp._schema.records import attribute_names
from anyio_mcp.results import tool_result

quick = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

Drawn = tuple[Any, st.SearchStrategy[Any]]
"""An annotation and the values it has."""

scalars: list[Drawn] = [
    (int, st.integers()),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bool, st.booleans()),
    (str, st.text(max_size=20)),
    (None, st.none()),
    (date, st.dates()),
    (datetime, st.datetimes() | st.datetimes(timezones=st.just(UTC))),
    (time_of_day, st.times()),
    (timedelta, st.timedeltas(min_value=timedelta(days=-10_000), max_value=timedelta(days=10_000))),
    (UUID, st.uuids()),
    (Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Any, st.none() | st.integers() | st.lists(st.text(max_size=3), max_size=2)),
    (set[int], st.sets(st.integers(), max_size=3)),
]


def containers(of: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.one_of(
        of.map(lambda item: (list[item[0]], st.lists(item[1], max_size=3))),
        of.map(lambda item: (dict[str, item[0]], st.dictionaries(st.text(max_size=5), item[1], max_size=3))),
        of.map(lambda item: (item[0] | None if item[0] is not None else None, item[1] | st.none())),
        st.dictionaries(st.text(max_size=8), of, max_size=4).map(model_of),
    )


def model_of(properties: dict[str, Drawn]) -> Drawn:
    """A model with these properties, under whatever names, and its instances."""
    fields: dict[str, Any] = {
        f"f{index}": (annotation, Field(alias=name))
        for index, (name, (annotation, _)) in enumerate(properties.items())
    }
    model = create_model("Model", __config__=ConfigDict(title="Model"), **fields)
    return model, st.fixed_dictionaries({name: values for name, (_, values) in properties.items()}).map(
        lambda values: model(**values)
    )


annotations = st.recursive(st.sampled_from(scalars), containers, max_leaves=8)


def assert_same(made: Any, original: Any) -> None:
    """`made` is `original`, with dataclasses where that has models."""
    if isinstance(original, BaseModel):
        assert isinstance(made, Record) or not type(original).model_fields
        if isinstance(made, Record):
            names = [field.name for field in dataclasses.fields(made)]  # type: ignore[arg-type]
            assert len(names) == len(type(original).model_fields)
            for name, key in zip(names, type(original).model_fields, strict=True):
                assert_same(getattr(made, name), getattr(original, key))
    elif isinstance(original, list):
        assert len(made) == len(original)
        for one, other in zip(made, original, strict=True):
            assert_same(one, other)
    elif isinstance(original, set):
        assert made == list(original), "an array, in the order it was sent"
    elif isinstance(original, dict):
        assert made.keys() == original.keys()
        for key in made:
            assert_same(made[key], original[key])
    else:
        assert made == original
        assert type(made) is type(original) or isinstance(original, float)


@quick
@given(st.data())
def test_values_of_any_pydantic_type_come_back_through_their_schema(data: st.DataObject) -> None:
    annotation, values = data.draw(annotations)
    original = data.draw(values)
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    json_value = adapter.dump_python(original, mode="json", by_alias=True)
    schema = {
        "type": "object",
        "properties": {"result": adapter.json_schema(mode="serialization", ref_template="#/$defs/{model}")},
        "required": ["result"],
        "x-fastmcp-wrap-result": True,
    }
    schema["$defs"] = schema["properties"]["result"].pop("$defs", {})  # type: ignore[index]
    raw = types.CallToolResult(content=[], structured_content={"result": json_value})
    result = tool_result(raw, output_schema=schema)
    assert_same(result.data, original)
    assert pickle.loads(pickle.dumps(result)) == result
    typed = tool_result(raw, output_schema=schema, result_type=annotation)
    assert typed.data == original


class Everything(BaseModel):
    when: datetime
    day: date
    at: time_of_day
    long: timedelta
    who: UUID
    numbers: list[int]
    more: dict[str, Everything | None] = {}


@quick
@given(st.builds(Everything))
def test_a_converted_value_turned_back_to_json_is_the_json_it_came_from(original: Everything) -> None:
    found = schema_type(Everything.model_json_schema(mode="serialization"))
    assert found is not None
    json_value = original.model_dump(mode="json")
    assert to_plain(found.convert(json_value)) == json_value


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("2026-02-03"),
    lambda items: (
        st.lists(items, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), items, max_size=3)
    ),
    max_leaves=10,
)
keywords = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["object", "array", "string", "integer", "number", "null", "boolean", ["object"], 7]
        ),
        "title": st.text(max_size=5),
        "format": st.sampled_from(["date", "uuid", "nonsense", 1]),
        "default": json_values,
        "enum": st.lists(json_values, max_size=2) | st.just(1),
        "const": json_values,
        "required": st.lists(st.sampled_from(["a", "b"])) | st.just([1]),
        "uniqueItems": st.booleans(),
        "$ref": st.sampled_from(
            ["#", "#/properties/a", "#/anyOf/0", "#/anyOf/99", "#x", "http://example.com", "", 3]
        ),
    },
)
schemas = st.recursive(
    keywords | json_values,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["object", "array", ["object", "null", "array"]]),
            "properties": st.dictionaries(st.sampled_from(["a", "b", "__init__", "a b"]), inner, max_size=3)
            | inner,
            "additionalProperties": inner,
            "patternProperties": inner,
            "items": inner | st.lists(inner, max_size=2),
            "prefixItems": st.lists(inner, max_size=2) | inner,
            "anyOf": st.lists(inner, max_size=3) | inner,
            "oneOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, max_size=3) | inner,
            "required": st.lists(st.sampled_from(["a", "b"])),
        },
    ),
    max_leaves=12,
)


@settings(quick, max_examples=200)
@given(st.dictionaries(st.sampled_from(["type", "x"]), json_values) | schemas, json_values)
def test_no_schema_and_no_value_ever_fails_a_call(schema: Any, value: Any) -> None:
    schema = schema if isinstance(schema, dict) else {"allOf": [schema]}
    before = repr((schema, value))
    raw = types.CallToolResult(content=[], structured_content=value)
    result = tool_result(raw, output_schema=schema)
    assert repr((schema, value)) == before
    assert repr(pickle.loads(pickle.dumps(result))) == repr(result)


@quick
@given(
    st.lists(
        st.text(max_size=6) | st.sampled_from(["class", "a-b", "a_b", "a b", "__a__", "1", "ﬁ"]), unique=True
    )
)
def test_every_property_gets_an_attribute_of_its_own(keys: list[str]) -> None:
    names = attribute_names(keys)
    assert names.keys() == set(keys)
    assert len(set(names.values())) == len(keys)
    for key, name in names.items():
        assert name.isidentifier()
        assert not name.startswith("_")
        assert not keyword.iskeyword(name)
        usual = key.isidentifier() and not key.startswith("_") and not keyword.iskeyword(key)
        if usual and unicodedata.is_normalized("NFKC", key):
            assert name == key


# What follows is hostile: without a limit each case takes many seconds (2^22 steps), or gigabytes, or ends
# in an error. With 2^60 a broken limit would hang the test instead of failing it.


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(keyword: str) -> dict[str, Any]:
    """Each definition mentions the next one twice."""
    defs: dict[str, Any] = {
        f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}, {"items": {"$ref": f"#/$defs/d{i + 1}"}}]}
        for i in range(22)
    }
    defs["d22"] = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": defs}


def all_of_twice() -> dict[str, Any]:
    defs: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(22)}
    return {"allOf": [{"$ref": "#/$defs/d0"}] * 2, "$defs": defs}


def unions_of_unions() -> dict[str, Any]:
    defs: dict[str, Any] = {
        f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"const": i}]} for i in range(3000)
    }
    return {"$ref": "#/$defs/d0", "$defs": defs}


def all_of_itself() -> dict[str, Any]:
    return {"properties": {"a": {"allOf": [{"$ref": "#"}, {"type": "object"}]}}}


@pytest.mark.parametrize(
    "schema",
    [
        nested(65),
        nested(100_000),
        all_of_twice(),
        all_of_itself(),
        unions_of_unions(),
        {"properties": {f"p{i}": {} for i in range(10_001)}},
        {"properties": {"a": {"description": "x" * 300_000}}},
        {"allOf": [{"$ref": "#/allOf/0"}, True]},
        {"x": object()},
        {"x": float},
    ],
    ids=[
        "deep",
        "very deep",
        "allOf twice",
        "allOf of itself",
        "unions",
        "wide",
        "long",
        "a circle",
        "no JSON",
        "a class",
    ],
)
def test_a_schema_beyond_the_limits_has_no_type_and_the_value_stays_plain(schema: dict[str, Any]) -> None:
    started = time.perf_counter()
    assert schema_type(schema) is None
    value = {"a": {"a": 1}}
    raw = types.CallToolResult(content=[], structured_content=value)
    assert tool_result(raw, output_schema=schema).data is value
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "schema",
    [
        nested(60),
        doubling("anyOf"),
        {"properties": {f"p{i}": {"type": ["string"]} for i in range(1_000)}},
        {"properties": {"a" * 10_000: {"type": "string", "pattern": "(a+)+$"}}},
        {"anyOf": [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}, {"type": "object"}]}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "#/properties/x/" + "y/" * 1000},
        {
            "title": "x'); import os; os.abort(",
            "properties": {"__class__": {}, "x;import os": {}, "__init__": {}},
        },
    ],
    ids=["deep", "doubling", "wide", "long name", "union of itself", "a circle", "remote", "lost", "code"],
)
def test_a_hostile_schema_within_the_limits_is_quick_and_harmless(schema: dict[str, Any]) -> None:
    started = time.perf_counter()
    found = schema_type(schema)
    assert isinstance(found, SchemaType)
    raw = types.CallToolResult(content=[], structured_content={"a": 1})
    tool_result(raw, output_schema=schema)
    assert time.perf_counter() - started < 2


def test_a_recursive_union_that_doubles_with_each_level_ends_in_plain_data() -> None:
    def member(title: str) -> dict[str, Any]:
        return {"type": "object", "title": title, "properties": {"c": {"$ref": "#"}}, "required": ["c"]}

    schema = {"anyOf": [member("A"), member("B")]}
    value: dict[str, Any] = {}
    for _ in range(22):
        value = {"c": value}
    budget = Budget()
    found = schema_type(schema)
    assert found is not None
    with pytest.raises(OutOfBudgetError):
        at_once(found.steps(value, budget))
    assert budget.spent < MOST_STEPS + 1000
    raw = types.CallToolResult(content=[], structured_content=value)
    assert tool_result(raw, output_schema=schema).data is value


def test_small_objects_do_not_grow_by_what_their_schema_says_of_absent_fields() -> None:
    lists = {f"p{i}": {"type": "array", "default": [1] * 50} for i in range(1000)}
    found = schema_type({"type": "array", "items": {"properties": lists}})
    assert found is not None
    started = time.perf_counter()
    with pytest.raises(MismatchError, match="more than"):
        found.convert([{}] * 200)
    plain = {f"p{i}": {"type": "integer", "default": 1} for i in range(1000)}
    found = schema_type({"type": "array", "items": {"properties": plain}})
    assert found is not None
    assert all(not vars(item) for item in found.convert([{}] * 10_000))
    assert time.perf_counter() - started < 5


def test_a_value_nested_beyond_pythons_stack_stays_plain() -> None:
    found = schema_type({"properties": {"a": {"$ref": "#"}}})
    assert found is not None
    value: dict[str, Any] = {}
    for _ in range(5_000):
        value = {"a": value}
    with pytest.raises(MismatchError, match="deeply"):
        found.convert(value)


def test_annotations_that_would_be_endless_are_any() -> None:
    found = schema_type(
        {
            "properties": {
                "json": {"$ref": "#/$defs/json"},
                "big": {"enum": list(range(1000))},
                "odd": {"enum": [{"a": 1}]},
                "tuple": {"prefixItems": [{}]},
                "union": {"anyOf": [{"type": "string"}, True]},
            },
            "$defs": {
                "json": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/json"}}, {"type": "integer"}]}
            },
        }
    )
    assert found is not None
    assert found.record is not None
    hints = found.record.__annotations__
    assert hints["json"] == list[Any] | int | None
    assert (hints["big"], hints["odd"], hints["union"]) == (Any, Any, Any)
    assert hints["tuple"] == list[Any] | None
    lists = schema_type({"properties": {"x": {"anyOf": [{"items": {"const": i}} for i in range(100)]}}})
    assert lists is not None
    assert lists.record is not None
    assert lists.record.__annotations__["x"] is Any
    chain = {f"d{i}": {"additionalProperties": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(100)}
    dicts = schema_type({"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": chain})
    assert dicts is not None
    assert dicts.record is not None
    assert str(dicts.record.__annotations__["x"]).count("dict") <= 64
    doubled = schema_type(doubling("anyOf"))
    assert doubled is not None
    assert doubled.record is not None
    assert doubled.record.__annotations__["x"] is Any


def test_one_schema_makes_one_type_until_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def schema(number: int) -> dict[str, Any]:
        return {"title": "Kept", "properties": {f"kept{number}": {"type": "integer"}}}

    first = schema_type(schema(0))
    assert first is not None
    assert first is schema_type(schema(0))
    value = first.convert({"kept0": 1})
    monkeypatch.setattr(schema_cache, "MAX_CACHE_BYTES", 10 * first.weight)
    for number in range(1, 50):
        schema_type(schema(number))
        assert schema_type(schema(0)) is first  # used again and again, it stays
    for number in range(50, 100):
        schema_type(schema(number))
    again = schema_type(schema(0))
    assert again is not None
    assert again is not first
    # Equal, although the class was made anew.
    assert again.convert({"kept0": 1}) == value
    assert type(again.convert({})) is not type(value)


def test_the_order_of_the_properties_is_the_order_of_the_fields() -> None:
    def fields(*names: str) -> list[str]:
        found = schema_type({"properties": {name: {} for name in names}})
        assert found is not None
        assert found.record is not None
        return [field.name for field in dataclasses.fields(found.record)]  # type: ignore[arg-type]

    assert fields("b", "a") == ["b", "a"]
    assert fields("a", "b") == ["a", "b"]


def test_threads_share_the_memory() -> None:
    schema = {"title": "Shared", "properties": {f"s{i}": {"type": "integer"} for i in range(200)}}
    start = threading.Barrier(8)
    made: list[Any] = []

    def make() -> None:
        start.wait(10)
        found = schema_type(schema)
        assert found is not None
        made.append(found.convert({"s0": 1}))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 8
    assert all(value == made[0] for value in made)


def test_what_was_pickled_here_is_read_in_another_process() -> None:
    found = schema_type(Everything.model_json_schema())
    assert found is not None
    value = Everything(
        when=datetime(2026, 1, 1, tzinfo=UTC),
        day=date(2026, 1, 1),
        at=time_of_day(1),
        long=timedelta(1),
        who=UUID(int=1),
        numbers=[1],
    )
    data = found.convert(value.model_dump(mode="json"))
    code = "import pickle, sys; print(repr(pickle.load(sys.stdin.buffer)))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(data), capture_output=True, timeout=60, check=True
    )
    assert done.stdout.decode().strip() == repr(data)


def test_a_pickle_of_a_type_that_cannot_be_made_is_refused() -> None:
    found = schema_type({"properties": {"a": {}}})
    assert found is not None
    data = pickle.dumps(found.convert({"a": 1}))
    assert pickle.loads(data).a == 1
    for other in (b'{"properties":{"a":1  }', b'{"properties":[{}     ]'):
        with pytest.raises(pickle.UnpicklingError, match="cannot be made again"):
            pickle.loads(data.replace(b'{"properties":{"a":{}}}', other))
    assert pickle.loads(pickle.dumps(Record)) is Record


def test_what_has_no_json_form_cannot_become_plain() -> None:
    with pytest.raises(ValueError, match="serialize"):
        to_plain({"a": object()})

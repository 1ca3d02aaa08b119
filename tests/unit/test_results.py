"""What a tool's answer becomes: typed data, or the plain content, and never a lost result."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import typing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
from mcp import types
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from anyio_mcp.errors import MCPClientError, ToolError
from anyio_mcp.results import CallToolResult, ResultSchemaError, adapter_for, error_text, tool_result

DAY = {"type": "string", "format": "date"}


def raw(structured: Any = None, **more: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[], structured_content=structured, **more)


def text(*parts: str) -> list[types.ContentBlock]:
    return [types.TextContent(type="text", text=part) for part in parts]


def converted(schema: dict[str, Any], value: Any) -> Any:
    return tool_result(raw(value), output_schema=schema).data


def in_object(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"it": schema}, "required": ["it"]}


class Address(BaseModel):
    street: str
    since: date


class Person(BaseModel):
    name: str
    born: datetime
    home: Address
    others: list[Address] = []
    boss: Person | None = None


ADA = Person(
    name="Ada",
    born=datetime(1815, 12, 10, 6, 30, tzinfo=UTC),
    home=Address(street="St James", since=date(1835, 7, 8)),
    others=[Address(street="Ockham", since=date(1840, 1, 1))],
)
PERSON_SCHEMA = Person.model_json_schema(mode="serialization")


def person() -> Any:
    return ADA.model_dump(mode="json")


def test_everything_the_server_sent_is_in_the_result() -> None:
    answer = types.CallToolResult(
        content=text("hello"), structured_content={"a": 1}, is_error=False, _meta={"k": "v"}
    )
    result = tool_result(answer, output_schema=None)
    assert result == CallToolResult(
        content=text("hello"), structured_content={"a": 1}, meta={"k": "v"}, data={"a": 1}, is_error=False
    )


def test_objects_become_dataclasses_with_attributes_of_python_types() -> None:
    data = converted(PERSON_SCHEMA, person())
    assert type(data).__name__ == "Person"
    assert dataclasses.is_dataclass(data)
    assert (data.name, data.born) == ("Ada", ADA.born)
    assert data.home.since == date(1835, 7, 8)
    assert [other.street for other in data.others] == ["Ockham"]
    assert data.boss is None


def test_a_recursive_schema_makes_recursive_dataclasses() -> None:
    value = {**person(), "boss": person()}
    data = converted(PERSON_SCHEMA, value)
    assert data.boss.home.since == date(1835, 7, 8)
    assert type(data.boss) is type(data)


def test_the_annotations_of_the_fields_say_what_the_values_are() -> None:
    data = converted(PERSON_SCHEMA, person())
    hints = typing.get_type_hints(type(data))
    assert hints["born"] is datetime
    assert hints["boss"] == type(data) | None
    assert hints["others"] == list[type(data.home)]
    assert [field.name for field in dataclasses.fields(data)] == ["name", "born", "home", "others", "boss"]


def test_the_dataclasses_work_as_dataclasses_do() -> None:
    data = converted(PERSON_SCHEMA, person())
    assert data == converted(PERSON_SCHEMA, person())
    assert data != converted(PERSON_SCHEMA, {**person(), "name": "Grace"})
    assert data != person()
    assert data.home != data
    assert dataclasses.asdict(data)["home"] == {"street": "St James", "since": date(1835, 7, 8)}
    assert dataclasses.replace(data, name="Grace").name == "Grace"
    assert repr(data.home) == "Address(street='St James', since=datetime.date(1835, 7, 8))"
    with pytest.raises(TypeError, match="unhashable"):
        hash(data)


def test_a_dataclass_made_by_hand_needs_its_fields_and_no_others() -> None:
    home = type(converted(PERSON_SCHEMA, person()).home)
    assert home(street="a", since=date.min).street == "a"
    with pytest.raises(TypeError, match="Address needs a value for since, street"):
        home()
    with pytest.raises(TypeError, match="Address has no field 'town'"):
        home(street="a", since=date.min, town="b")


def test_results_pickle_and_copy_with_their_data() -> None:
    result = tool_result(raw(person()), output_schema=PERSON_SCHEMA)
    again = pickle.loads(pickle.dumps(result))
    assert again == result
    assert again.data.home.since == date(1835, 7, 8)
    assert copy.deepcopy(result) == result
    error = ToolError("no", result=CallToolResult(content=text("no"), is_error=True))
    assert pickle.loads(pickle.dumps(error)).result == error.result


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, "x", "x"),
        (DAY, "2026-02-03", date(2026, 2, 3)),
        ({"format": "date-time"}, "2026-02-03T04:05:06Z", datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ({"type": "string", "format": "date-time"}, "2026-02-03 04:05:06", datetime(2026, 2, 3, 4, 5, 6)),
        ({"type": "string", "format": "time"}, "04:05:06", time(4, 5, 6)),
        ({"type": "string", "format": "duration"}, "P1DT2H", timedelta(days=1, hours=2)),
        ({"type": "string", "format": "uuid"}, f"{UUID(int=7)}", UUID(int=7)),
        ({"type": "string", "format": "uri"}, "http://x", "http://x"),
        ({"type": "integer"}, 3, 3),
        ({"type": "integer"}, 3.0, 3),
        ({"type": "number"}, 3, 3),
        ({"type": "number"}, 2**53 + 1, 2**53 + 1),
        ({"type": "boolean"}, True, True),
        ({"type": "null"}, None, None),
        ({"type": ["integer", "null"]}, None, None),
        ({"anyOf": [DAY, {"type": "null"}]}, "2026-02-03", date(2026, 2, 3)),
        ({"oneOf": [DAY, {"type": "string"}]}, "soon", "soon"),
        ({"enum": ["a", 1, None]}, 1, 1),
        ({"const": {"a": [1]}}, {"a": [1]}, {"a": [1]}),
        ({"type": "array", "items": DAY}, ["2026-02-03"], [date(2026, 2, 3)]),
        ({"type": "array"}, [1, "a"], [1, "a"]),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [3, 1], [3, 1]),
        ({"type": "array", "uniqueItems": True}, [[1], [2]], [[1], [2]]),
        (
            {"type": "array", "prefixItems": [DAY], "items": False},
            ["2026-02-03"],
            [date(2026, 2, 3)],
        ),
        (
            {"type": "array", "items": [DAY], "additionalItems": {"type": "integer"}},
            ["2026-02-03", 1],
            [date(2026, 2, 3), 1],
        ),
        (
            {"type": "object", "additionalProperties": DAY},
            {"a b": "2026-02-03"},
            {"a b": date(2026, 2, 3)},
        ),
        ({"type": "object"}, {"a": 1}, {"a": 1}),
        ({"allOf": [DAY], "description": "x"}, "2026-02-03", date(2026, 2, 3)),
        ({"format": "date"}, "2026-02-03", date(2026, 2, 3)),
        ({"items": {"format": "date"}}, ["2026-02-03"], [date(2026, 2, 3)]),
        (True, {"a": 1}, {"a": 1}),
        ({"type": "something-new"}, {"a": 1}, {"a": 1}),
    ],
)  # fmt: skip
def test_a_value_becomes_what_its_schema_says(schema: Any, value: Any, expected: Any) -> None:
    it = converted(in_object(schema), {"it": value}).it
    assert it == expected
    assert type(it) is type(expected)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (DAY, "yesterday"),
        (DAY, "1700000000"),
        (DAY, "2026-02-31"),
        ({"type": "string", "format": "date-time"}, "1700000000"),
        ({"type": "string", "format": "date-time"}, "2026-02-03T04:05:06." + "0" * 100),
        ({"type": "string", "format": "time"}, "4 o'clock"),
        ({"type": "string", "format": "duration"}, "90"),
        ({"type": "string", "format": "uuid"}, "{" + str(UUID(int=7)) + "}"),
        ({"type": "string", "format": "uuid"}, "x" * 36),
        ({"type": "string"}, 1),
        ({"type": "integer"}, True),
        ({"type": "integer"}, 1.5),
        ({"type": "integer"}, float("inf")),
        ({"type": "number"}, "1"),
        ({"type": "boolean"}, 1),
        ({"type": "null"}, 0),
        ({"const": 1}, True),
        ({"enum": [1, False]}, 0),
        ({"enum": [1, 2]}, 3),
        ({"enum": []}, 3),
        (False, 1),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, None),
        ({"anyOf": []}, 1),
        ({"type": "array", "items": {"type": "integer"}}, ["a"]),
        ({"type": "array", "items": {"type": "integer"}}, {"a": 1}),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": "b"}),
        ({"type": "object", "additionalProperties": False}, {"a": "b"}),
        ({"type": "object"}, [1]),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, {}),
        ({"type": "object", "properties": {"a": {}}}, [1]),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"b": 1}),
        ({"$ref": "#/properties/it"}, 1),
    ],
)
def test_content_that_does_not_fit_its_schema_stays_plain_altogether(schema: Any, value: Any) -> None:
    whole = {"it": value, "fine": "2026-02-03"}
    object_schema = in_object(schema)
    object_schema["properties"]["fine"] = DAY
    assert converted(object_schema, whole) is whole


def test_without_a_schema_or_without_content_there_is_nothing_to_convert() -> None:
    assert converted({}, {"a": 1}) == {"a": 1}
    assert tool_result(raw(None), output_schema=PERSON_SCHEMA).data is None
    assert tool_result(raw([1, 2]), output_schema=None).data == [1, 2]


def test_absent_optional_fields_read_as_their_default_or_none() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "string", "format": "date", "default": "2026-02-03"},
            "c": {"type": "array", "items": {"type": "integer"}, "default": [1]},
            "d": {"type": "integer", "default": "not an integer"},
            "e": {"type": "array", "default": list(range(1000))},
            "f": {"type": "object", "properties": {"x": {"type": "integer"}}, "default": {"x": 1}},
            "g": {"type": "array", "items": {"properties": {"x": {}}}, "default": [{"x": 1}]},
            "h": {"type": "object", "default": {"x": {"y": [1]}}},
        },
    }
    one, two = converted(schema, {}), converted(schema, {"a": 4})
    assert (one.a, one.b, one.c, one.d, one.e) == (None, date(2026, 2, 3), [1], None, None)
    assert (one.f, one.g, one.h) == (None, None, {"x": {"y": [1]}})
    assert one.h is not two.h
    assert two.a == 4
    one.c.append(2)
    assert two.c == [1]
    assert converted(schema, {}).c == [1]
    assert type(one)().c == [1]


def test_properties_the_schema_does_not_name_are_kept_only_where_it_declares_them() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    value = {"a": 1, "day": "2026-02-03", "not a name": 1, "__deepcopy__": 1}
    assert vars(converted(schema, value)) == {"a": 1}
    schema["additionalProperties"] = True
    data = converted(schema, value)
    assert vars(data) == {"a": 1, "day": "2026-02-03"}
    assert data != converted(schema, {"a": 1})
    assert copy.deepcopy(data) == data
    schema["additionalProperties"] = {"anyOf": [{"format": "date"}, {"type": "integer"}]}
    assert converted(schema, value).day == date(2026, 2, 3)
    del schema["additionalProperties"]
    schema["patternProperties"] = {"^d": {"type": "string"}}
    assert converted(schema, value).day == "2026-02-03"


def test_properties_with_names_python_cannot_have_get_the_nearest_ones() -> None:
    names = ["foo bar", "foo_bar", "class", "_id", "1st", "", "größe", "self", "__class__"]
    schema = {"type": "object", "properties": {name: {"type": "integer"} for name in names}}
    data = converted(schema, {name: index for index, name in enumerate(names)})
    assert vars(data) == {
        "foo_bar_2": 0,
        "foo_bar": 1,
        "class_": 2,
        "id": 3,
        "field_1st": 4,
        "field": 5,
        "größe": 6,
        "self": 7,
        "class__2": 8,
    }
    assert type(data).__name__ == "Result"
    assert type(data)(self=1).self == 1


def test_members_of_a_union_are_told_apart_by_tags_required_and_common_properties() -> None:
    def member(name: str, **properties: Any) -> dict[str, Any]:
        return {"type": "object", "title": name, "properties": properties}

    schema = in_object(
        {
            "oneOf": [
                {},
                {**member("Cat", kind={"const": "cat"}, day={"format": "date"}), "required": ["kind"]},
                {**member("Dog", kind={"const": "dog"}, day={"format": "date"}), "required": ["kind"]},
                member("One", a={"type": "integer"}),
                member("Two", a={"type": "integer"}, b={"type": "integer"}),
                {"type": "string"},
                {"type": "array", "items": {"type": "integer"}},
                {"type": "array", "items": DAY},
            ]
        }
    )

    def kind(value: Any) -> str:
        return type(converted(schema, {"it": value}).it).__name__

    assert kind({"kind": "dog", "day": "2026-01-01"}) == "Dog"
    assert kind({"kind": "cat"}) == "Cat"
    assert kind({"a": 1, "b": 2}) == "Two"
    assert kind({"a": 1}) == "One"
    assert kind({"a": "text"}) == "dict"
    assert kind("x") == "str"
    assert converted(schema, {"it": ["2026-01-01"]}).it == [date(2026, 1, 1)]
    assert converted(schema, {"it": 1.5}).it == 1.5


def test_all_members_of_all_of_describe_one_object() -> None:
    schema = {
        "$defs": {
            "Named": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
            "Dated": {"allOf": [{"type": "object", "properties": {"day": DAY}, "required": ["day"]}]},
        },
        "allOf": [{"$ref": "#/$defs/Named"}, {"$ref": "#/$defs/Dated"}, True],
        "properties": {"extra": {"type": "integer"}},
        "required": ["extra"],
    }
    value = {"name": "a", "day": "2026-02-03", "extra": 1}
    data = converted(schema, value)
    assert (data.name, data.day, data.extra) == ("a", date(2026, 2, 3), 1)
    assert converted(schema, {"name": "a", "extra": 1}) == {"name": "a", "extra": 1}


@pytest.mark.parametrize(
    ("schema", "meta"),
    [
        ({"x-fastmcp-wrap-result": True}, None),
        ({}, {"fastmcp": {"wrap_result": True}}),
    ],
)
def test_a_wrapped_result_is_unwrapped(schema: dict[str, Any], meta: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"result": {"type": "array", "items": {"$ref": "#/$defs/Day"}}},
        "$defs": {"Day": DAY},
        **schema,
    }
    result = tool_result(raw({"result": ["2026-02-03"]}, _meta=meta), output_schema=schema)
    assert result.data == [date(2026, 2, 3)]
    assert result.structured_content == {"result": ["2026-02-03"]}
    broken = tool_result(raw({"result": ["soon"]}, _meta=meta), output_schema=schema)
    assert broken.data == ["soon"]
    untyped = tool_result(raw({"result": 1}, _meta=meta), output_schema={"x-fastmcp-wrap-result": True})
    assert untyped.data == 1


def test_an_object_that_happens_to_have_a_result_is_not_unwrapped() -> None:
    schema = {"type": "object", "properties": {"result": {"type": "integer"}}}
    assert converted(schema, {"result": 1}).result == 1
    assert tool_result(raw({"result": 1}, _meta={"fastmcp": 1}), output_schema=None).data == {"result": 1}
    marked = {**schema, "x-fastmcp-wrap-result": True}
    assert converted(marked, {"result": 1, "more": 2}).result == 1


def test_an_error_has_no_data() -> None:
    result = tool_result(raw(person(), is_error=True), output_schema=PERSON_SCHEMA, result_type=Person)
    assert result.is_error
    assert result.data is None
    assert result.structured_content == person()


@dataclass
class Point:
    x: int
    when: date


class Row(TypedDict):
    x: int
    when: date


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    x: int
    when: date
    tags: set[str] = Field(alias="Tags")


def test_a_result_type_decides_instead_of_the_schema() -> None:
    assert tool_result(raw(person()), output_schema={"type": "array"}, result_type=Person).data == ADA
    value = {"x": 1, "when": "2026-02-03"}
    day = date(2026, 2, 3)
    assert tool_result(raw(value), output_schema=None, result_type=Point).data == Point(1, day)
    assert tool_result(raw(value), output_schema=None, result_type=Row).data == {"x": 1, "when": day}
    strict = tool_result(raw({**value, "Tags": ["a"]}), output_schema=None, result_type=Strict).data
    assert strict is not None
    assert strict.tags == {"a"}
    several = tool_result(raw([value]), output_schema=None, result_type=list[Point]).data
    assert several == [Point(1, day)]
    assert tool_result(raw(None), output_schema=None, result_type=type(None)).data is None


def test_a_result_type_is_that_of_the_unwrapped_value() -> None:
    marked = {"x-fastmcp-wrap-result": True}
    assert tool_result(raw({"result": "2026-02-03"}), output_schema=marked, result_type=date).data == date(
        2026, 2, 3
    )
    # SDK servers wrap without a mark
    schema = {"type": "object", "properties": {"result": {"type": "integer"}}}
    assert tool_result(raw({"result": 3}), output_schema=schema, result_type=int).data == 3
    whole = tool_result(raw({"result": 3}), output_schema=schema, result_type=dict[str, int])
    assert whole.data == {"result": 3}
    with pytest.raises(ResultSchemaError):
        tool_result(raw({"result": "x"}), output_schema=schema, result_type=int)
    with pytest.raises(ResultSchemaError):
        tool_result(raw({"result": 3}), output_schema=None, result_type=int)


def test_content_that_does_not_fit_the_result_type_raises_with_the_whole_result() -> None:
    value = {"x": "secret" * 1000, "when": "never"}
    with pytest.raises(ResultSchemaError) as caught:
        tool_result(raw(value, _meta={"k": 1}), output_schema=None, result_type=Point)
    error = caught.value
    assert isinstance(error, MCPClientError)
    assert error.result == CallToolResult(content=[], structured_content=value, meta={"k": 1})
    assert error.__cause__ is error.cause is not None
    assert str(error).startswith("the structured content does not fit Point: x: ")
    assert str(error).endswith("(and 1 more)")
    assert "secret" not in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.result) == (str(error), error.result)


def test_no_content_does_not_fit_a_result_type() -> None:
    with pytest.raises(ResultSchemaError, match="does not fit Person"):
        tool_result(raw(None), output_schema=None, result_type=Person)
    with pytest.raises(ResultSchemaError, match="it is not JSON"):
        tool_result(raw({"x": object()}), output_schema=None, result_type=Row)


def test_a_type_pydantic_cannot_validate_is_a_type_error_before_the_call() -> None:
    class Plain:
        pass

    with pytest.raises(TypeError, match="pydantic cannot validate"):
        adapter_for(Plain)
    assert adapter_for(Literal["a"]).validate_python("a") == "a"  # type: ignore[arg-type]
    unhashable: Any = typing.Annotated[int, Field(json_schema_extra={"a": 1}), []]
    assert adapter_for(unhashable).validate_python(1) == 1


def test_the_text_of_an_error_is_what_the_tool_said() -> None:
    blocks: list[types.ContentBlock] = [
        *text("first"),
        types.ImageContent(type="image", data="", mime_type="image/png"),
        *text("second"),
    ]
    assert error_text(types.CallToolResult(content=blocks, is_error=True)) == "first\nsecond"
    assert error_text(raw(is_error=True)) == "the tool answered with an error and no text"


def test_the_text_of_an_error_is_bounded() -> None:
    exact = types.CallToolResult(content=text("a" * 2000), is_error=True)
    assert error_text(exact) == "a" * 2000
    for parts in (["a" * 2001], ["a" * 1500, "b" * 1500], ["a" * 10] * 100_000):
        long = error_text(types.CallToolResult(content=text(*parts), is_error=True))
        assert len(long) == 2000
        assert long.endswith("…")

"""What checking, converting and reading schemas may cost, in steps: no shape of them costs more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anyio_mcp._schema.budget import (
    MAX_DEPTH,
    MOST_STEPS,
    SLICE,
    Budget,
    OutOfBudgetError,
    Steps,
    at_once,
    count_values,
    driven,
    in_slices,
)
from anyio_mcp._schema.cache import type_steps
from anyio_mcp._schema.expressions import MOST_STEPS_AT_ONCE
from anyio_mcp._schema.keywords import MOST_STEPS_A_NODE, Failure, UncheckableError
from anyio_mcp._schema.validation import Validator

LONGEST = SLICE + MOST_STEPS_AT_ONCE + MOST_STEPS_A_NODE + 100
"""Steps between two pauses: a slice, and what cannot be divided in it."""

Shape = Callable[[], tuple[Any, Any]]


def refs(keyword: str) -> Shape:
    levels = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(200)}
    return lambda: ({"$ref": "#/$defs/d0", "$defs": {**levels, "d200": {}}}, {})


def tower(keyword: str, depth: int = 300) -> Shape:
    def shape() -> tuple[Any, Any]:
        schema: Any = {"enum": [{}, *range(500)]}
        for _ in range(depth):
            schema = {keyword: [schema, schema]}
        return schema, {}

    return shape


def conditions() -> tuple[Any, Any]:
    schema: Any = {}
    for _ in range(300):
        schema = {"if": schema, "then": schema, "else": schema}
    return schema, {}


def nested(depth: int, of: Callable[[Any], Any]) -> Any:
    value: Any = of(None)
    for _ in range(depth):
        value = of(value)
    return value


def recursive() -> tuple[Any, Any]:
    again = {"type": "array", "items": {"$ref": "#"}}
    return {"anyOf": [{**again, "minItems": n} for n in range(9, -1, -1)]}, nested(200, lambda inner: [inner])


SHAPES: dict[str, Shape] = {
    "allOf by reference": refs("allOf"),
    "anyOf by reference": refs("anyOf"),
    "oneOf by reference": refs("oneOf"),
    "a tower of allOf": tower("allOf"),
    "a tower of oneOf": tower("oneOf"),
    "a tower of conditions": conditions,
    "recursion that branches": recursive,
    "a million numbers": lambda: ({"items": {"minimum": 0, "maximum": 9}}, [1] * 1_000_000),
    "rows": lambda: (
        {"items": {"$ref": "#/$defs/r"}, "$defs": {"r": {"properties": {"a": {"type": "integer"}}}}},
        [{"a": 1}] * 100_000,
    ),
    "equal items, nested": lambda: (
        {"$ref": "#/$defs/u", "$defs": {"u": {"uniqueItems": True, "items": {"$ref": "#/$defs/u"}}}},
        nested(300, lambda inner: [[inner], 1, 2, 3]),
    ),
    "large items to compare": lambda: (
        {"uniqueItems": True},
        [{**dict.fromkeys(map(str, range(2_000)), 0), "z": n} for n in range(200)],
    ),
    "numbers that collide": lambda: (
        {"uniqueItems": True},
        [n * (2**61 - 1) for n in range(200_000)],
    ),
    "many choices": lambda: ({"items": {"enum": [[n] * 10 for n in range(800)]}}, [[799] * 10] * 20_000),
    "too many choices": lambda: ({"enum": list(range(100_000))}, 1),
    "choices that collide": lambda: ({"enum": [n * (2**61 - 1) for n in range(9_000)]}, 1),
    "required by many": lambda: ({"items": {"required": list(map(str, range(9_000)))}}, [{}] * 10_000),
    "dependencies of many": lambda: (
        {"items": {"dependentRequired": {str(n): ["z"] for n in range(5_000)}}},
        [{}] * 10_000,
    ),
    "properties of many": lambda: (
        {"items": {"properties": {str(n): {"type": "null"} for n in range(5_000)}}},
        [{str(n): None for n in range(5_000)}] * 100,
    ),
    "a thousand patterns": lambda: (
        {"patternProperties": {f"^x{n}[a-z]{{3}}": {} for n in range(1_000)}},
        {f"x{n}": 1 for n in range(1_000)},
    ),
    "a hundred patterns": lambda: (
        {"patternProperties": {f"^x{n}[a-z]{{3}}": {} for n in range(100)}},
        {f"x{n}": 1 for n in range(20_000)},
    ),
    "a pattern that backtracks": lambda: ({"pattern": "^(a+)+$"}, "a" * 300_000 + "!"),
    "a pattern that is heavy": lambda: ({"items": {"pattern": "[ab]*a[ab]{200}c"}}, ["ab" * 1_000] * 10_000),
    "a pattern that repeats": lambda: ({"pattern": "(?:(?:a{100}){100}){100}"}, "a"),
    "a pattern of many classes": lambda: ({"pattern": r"[\S\W]{1000}"}, "a"),
    "contains": lambda: ({"contains": {"const": [5]}, "minContains": 10**6}, [[1]] * 300_000),
    "names": lambda: ({"propertyNames": {"pattern": "^[a-z0-9]+$"}}, {str(n): 0 for n in range(200_000)}),
    "tiny units": lambda: ({"items": {"multipleOf": 1e-308}}, [1e308] * 100_000),
    "long numbers": lambda: ({"items": {"multipleOf": 10**1_200 + 1}}, [(10**1_200 + 1) * 7] * 10_000),
    "a number too long": lambda: ({"multipleOf": 7}, 1 << 1_000_000),
    "infinity": lambda: ({"type": "integer", "maximum": 5}, float("inf")),
    "long texts": lambda: ({"items": {"enum": ["x"], "maxLength": 1}}, ["y" * 1_000_000] * 10),
    "deeper than anything": lambda: ({"items": {"$ref": "#"}}, nested(50_000, lambda inner: [inner])),
    "anchors": lambda: ({"$ref": "#z", "$defs": {str(n): {"$anchor": f"a{n}"} for n in range(100_000)}}, 1),
    "a long reference": lambda: ({"$ref": "#" + "/x" * 100_000}, 1),
}


def spend(steps: Steps[Any], budget: Budget) -> tuple[Any, int]:
    """What came of it, and the most steps that were taken between two pauses."""
    running = driven(steps)
    longest = before = 0
    while True:
        try:
            next(running)
        except StopIteration as done:
            return done.value, max(longest, budget.spent - before)
        except (OutOfBudgetError, UncheckableError) as error:
            return error, max(longest, budget.spent - before)
        longest, before = max(longest, budget.spent - before), budget.spent


@pytest.mark.parametrize("shape", SHAPES)
def test_no_check_takes_more_steps_than_it_may_nor_many_without_a_pause(shape: str) -> None:
    schema, value = SHAPES[shape]()
    budget = Budget()
    found, longest = spend(Validator(schema).check(value, budget), budget)
    assert found is None or isinstance(found, Failure | OutOfBudgetError | UncheckableError)
    assert budget.spent <= MOST_STEPS + LONGEST
    assert longest <= LONGEST


@pytest.mark.parametrize("shape", SHAPES)
def test_a_check_comes_to_the_same_whether_or_not_another_was_before(shape: str) -> None:
    schema, value = SHAPES[shape]()
    validator = Validator(schema)
    outcomes = []
    for _ in range(2):
        budget = Budget(50_000)
        found, _ = spend(validator.check(value, budget), budget)
        outcomes.append((type(found), budget.spent))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_conversion_takes_more_steps_than_it_may_nor_many_without_a_pause(shape: str) -> None:
    schema, value = SHAPES[shape]()
    made = at_once(type_steps(schema))
    if made is None:
        return
    budget = Budget()
    try:
        found, longest = spend(made.steps(value, budget), budget)
    except ValueError:  # a value that does not fit
        found, longest = None, 0
    assert found is not made
    assert budget.spent <= MOST_STEPS + LONGEST
    assert longest <= LONGEST


def test_a_reference_that_branches_costs_no_more_than_the_pairs_of_schema_and_value() -> None:
    schema, value = refs("allOf")()
    budget = Budget()
    assert at_once(Validator(schema).check(value, budget)) is None
    assert budget.spent < 200 * 40


def test_the_values_of_a_json_value_are_counted_up_to_a_limit() -> None:
    assert count_values({"a": [1, 2, {"b": None}]}, 100) == 6
    assert count_values([0] * 1_000, 10) == 11
    assert count_values(nested(100_000, lambda inner: [inner]), 1_000_000) == 100_002


def test_what_one_step_raises_passes_to_who_asked_for_it() -> None:
    def fails() -> Steps[int]:
        raise KeyError("no")
        yield

    def asks() -> Steps[str]:
        try:
            yield fails()
        except KeyError as error:
            return f"mended {error}"

    assert at_once(asks()) == "mended 'no'"
    with pytest.raises(KeyError):
        at_once(fails())


def test_no_depth_is_a_depth_of_python() -> None:
    def down(levels: int) -> Steps[int]:
        return levels if levels == 0 else (yield down(levels - 1))

    assert at_once(down(MAX_DEPTH - 2)) == 0
    with pytest.raises(OutOfBudgetError, match="deep"):
        at_once(down(MAX_DEPTH + 10))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_what_takes_longer_than_its_call_has_left_is_given_up() -> None:
    schema, value = SHAPES["a million numbers"]()
    budget = Budget()
    with pytest.raises(OutOfBudgetError, match="time"):
        await in_slices(Validator(schema).check(value, budget), budget, until=0.0)
    assert budget.spent <= 3 * SLICE

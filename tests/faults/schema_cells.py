"""Results and the schemas they were promised in, by a peer in memory.

What checks a result is above the transports, so one transport shows all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from anyio_mcp import ResultSchemaError
from tests.faults.matrix import Cell, Outcome
from tests.faults.memory_cells import ERAS, WORKS, Play, Stage, text_result

CELLS: list[Cell] = []


def add(fault: str, outcome: Outcome, play: Play) -> None:
    CELLS.extend(
        Cell(
            area="results and their schemas",
            fault=fault,
            phase="in flight",
            era=era,
            outcome=outcome,
            within=0.0,
            run=play,
            clock="virtual",
        )
        for era in ERAS
    )


def promises(schema: dict[str, Any], **result: Any) -> Callable[[Stage], None]:
    """The tool promises `schema` and answers with these members beside its text."""
    tool = {"name": "echo", "inputSchema": {"type": "object"}, "outputSchema": schema}

    def set_up(stage: Stage) -> None:
        stage.on("tools/list", lambda _: {"tools": [tool]})
        stage.on("tools/call", lambda _: text_result(**result))

    return set_up


async def listed_or_not(stage: Stage) -> None:
    """The same outcome before the tools were listed and after."""
    before = await stage.client.call_tool("echo")
    await stage.client.list_tools()
    after = await stage.client.call_tool("echo")
    assert before == after
    stage.seen.append(after.unchecked)


async def errors_carry_the_result(stage: Stage) -> None:
    with pytest.raises(ResultSchemaError) as caught:
        await stage.client.call_tool("echo")
    assert caught.value.result.structured_content is not None
    assert len(str(caught.value)) < 500
    raise caught.value


def is_checked(stage: Stage) -> None:
    assert stage.seen == [None]


def is_unchecked(stage: Stage) -> None:
    (reason,) = stage.seen
    assert reason


def in_object(schema: Any, **definitions: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}, **definitions}


def tower(depth: int, keyword: str, **last: Any) -> dict[str, Any]:
    """Definitions each of which refers to the next one twice."""
    levels = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$defs": {**levels, f"d{depth}": last}}


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_OBJECTS: Final = [{"n": number, "rest": "x" * 100} for number in range(2_000)]
_ITSELF: Final = {"type": "array", "items": {"$ref": "#/properties/x"}}

_COSTLY: Final[dict[str, tuple[dict[str, Any], Any]]] = {
    "references that branch": (in_object({"$ref": "#/$defs/d0"}, **tower(60, "allOf")), 1),
    "choices that branch": (in_object({"$ref": "#/$defs/d0"}, **tower(60, "anyOf", type="null")), None),
    "recursion that branches": (in_object({"anyOf": [{**_ITSELF, "minItems": 2}, _ITSELF]}), nested(100)),
    "a pattern that backtracks": (in_object({"pattern": "^(a+)+!$"}), "a" * 60 + "!"),
    "a pattern in verbose mode": (in_object({"pattern": "^(?:a+ ?)+ +$"}), "a" * 40 + "  "),
    "a thousand objects to compare": (in_object({"uniqueItems": True}), _OBJECTS),
    "numbers that collide": (in_object({"uniqueItems": True}), [n * (2**61 - 1) for n in range(5_000)]),
    "many choices": (in_object({"items": {"enum": [[n] for n in range(1_000)]}}), [[999]] * 1_000),
    "a thousand numbers": (in_object({"items": {"multipleOf": 0.01}}), [0.07] * 1_000),
}

_UNKNOWN: Final[dict[str, tuple[dict[str, Any], Any]]] = {
    "a reference to another host": (in_object({"$ref": "http://127.0.0.1:9/x.json"}), 1),
    "a reference to a file": (in_object({"$ref": "file:///etc/passwd"}), 1),
    "a reference to nowhere": (in_object({"$ref": "#/$defs/nope"}), 1),
    "a reference to itself": (in_object({"$ref": "#/properties/x"}), 1),
    "a dynamic reference": (in_object({"$dynamicRef": "#x"}), 1),
    "an unknown draft": ({"$schema": "http://json-schema.org/draft-04/schema#"}, {}),
    "booleans of draft 4": (in_object({"minimum": 0, "exclusiveMinimum": True}), 1),
    "an unknown type": (in_object({"type": "int"}), 1),
    "required on a property": (in_object({"type": "integer", "required": True}), 1),
    "a pattern with look-around": (in_object({"pattern": "^(?!b)a"}), "a"),
    "a pattern with properties of Unicode": (in_object({"pattern": r"^\p{L}+$"}), "a"),
    "a pattern that is none": (in_object({"pattern": "(("}), "a"),
    "a pattern too heavy for its text": (in_object({"pattern": "^[ab]*a[ab]{500}$"}), "ab" * 5_000),
    "a hundred thousand choices": (in_object({"enum": list(range(100_000))}), 1),
}


for _fault, (_schema, _value) in _COSTLY.items():
    add(
        f"an output schema that is costly to check; {_fault}",
        WORKS,
        Play(set_up=promises(_schema, structuredContent={"x": _value}), act=listed_or_not, check=is_checked),
    )
for _fault, (_schema, _value) in _UNKNOWN.items():
    add(
        f"an output schema that is not understood; {_fault}",
        Outcome(note="the result is delivered and says that it is unchecked"),
        Play(
            set_up=promises(_schema, structuredContent={"x": _value}), act=listed_or_not, check=is_unchecked
        ),
    )
for _fault, _result in (("left out", {}), ("null", {"structuredContent": None})):
    add(
        f"no structured content, which the schema promises; {_fault}",
        WORKS,
        Play(set_up=promises(in_object({}), **_result), act=listed_or_not, check=is_checked),
    )
for _fault, _value in (
    ("short", "text"),
    ("a megabyte", "x" * 1_000_000),
    ("a hundred thousand values", [0] * 100_000),
    ("deep", nested(100)),
):
    add(
        f"structured content that breaks its schema; {_fault}",
        Outcome(raises=ResultSchemaError, note="with the result, in a few words"),
        Play(
            set_up=promises(in_object({"type": "integer"}), structuredContent={"x": _value}),
            act=errors_carry_the_result,
        ),
    )

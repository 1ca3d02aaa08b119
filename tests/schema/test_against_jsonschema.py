"""The checker against `jsonschema`: on schemas of the keywords it understands, the same verdict or none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
from jsonschema.protocols import Validator as Reference

from anyio_mcp._schema.budget import Budget, OutOfBudgetError, at_once
from anyio_mcp._schema.keywords import UncheckableError
from anyio_mcp._schema.validation import Validator

NAMES = st.sampled_from(["a", "b", "ab", "x1", ""])
NUMBERS = st.one_of(
    st.integers(-5, 5), st.sampled_from([0.5, 1.0, -2.5, 2.0, 10**20, 1e20, -0.0, 3.0]), st.integers()
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(["", "a", "ab", "b1", "é", "aaaa"]))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
COUNTS = st.sampled_from([0, 1, 2, 3, 2.0])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
PATTERNS = st.sampled_from(
    [
        "a",
        "^a",
        "b$",
        "^[a-b]+$",
        "a|b1",
        "^.{2}$",
        "[^a]",
        r"^\w*$",
        r"\d",
        "(a+)+b",
        "^(?:ab?){1,2}$",
        "x{2,}",
    ]
)
REFERENCES = st.sampled_from(["#", "#/$defs/p", "#/$defs/q", "#named", "#/properties/a"])


def _optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of a few of these keywords; two names of a keyword are told apart by a trailing `_`."""
    chosen = st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True)
    made = chosen.flatmap(lambda names: st.fixed_dictionaries({name: fields[name] for name in names}))
    return made.map(
        lambda schema: {name.rstrip("_").replace("S_", "$"): each for name, each in schema.items()}
    )


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    members = st.lists(inner, min_size=1, max_size=3)
    names = st.lists(NAMES, max_size=2, unique=True)
    by_name = st.dictionaries(NAMES, inner, max_size=3)
    return _optional(
        type=TYPES,
        type_=st.lists(TYPES, min_size=1, max_size=3, unique=True),
        enum=st.lists(VALUES, min_size=1, max_size=4),
        const=VALUES,
        minimum=NUMBERS,
        maximum=NUMBERS,
        exclusiveMinimum=NUMBERS,
        exclusiveMaximum=NUMBERS,
        multipleOf=st.integers(1, 3),
        minLength=COUNTS,
        maxLength=COUNTS,
        pattern=PATTERNS,
        minItems=COUNTS,
        maxItems=COUNTS,
        uniqueItems=st.booleans(),
        items=inner,
        prefixItems=members,
        contains=inner,
        minContains=COUNTS,
        maxContains=COUNTS,
        minProperties=COUNTS,
        maxProperties=COUNTS,
        required=names,
        properties=by_name,
        patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
        additionalProperties=inner,
        propertyNames=inner,
        dependentRequired=st.dictionaries(NAMES, names, max_size=2),
        dependentSchemas=by_name,
        allOf=members,
        anyOf=members,
        oneOf=members,
        **{"not": inner, "if": inner, "then": inner, "else": inner, "S_ref": REFERENCES},
        format=st.just("date"),
        unknown=VALUES,
    )


SCHEMAS = st.recursive(st.booleans() | _keywords(st.booleans()), _keywords, max_leaves=8)
DOCUMENTS = st.builds(
    lambda root, first, second: {**root, "$defs": {"p": first, "q": {"$anchor": "named", **second}}},
    _keywords(SCHEMAS),
    SCHEMAS,
    _keywords(SCHEMAS),
)

DRAFTS = {
    "": Draft202012Validator,
    "https://json-schema.org/draft/2020-12/schema": Draft202012Validator,
    "https://json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "http://json-schema.org/draft-07/schema#": Draft7Validator,
}


def verdict(schema: Any, value: Any) -> bool | None:
    """Whether the value fits; None where that is not known."""
    try:
        return at_once(Validator(schema).check(value, Budget())) is None
    except (UncheckableError, OutOfBudgetError):
        return None


def reference_verdict(reference: type[Reference], schema: Any, value: Any) -> bool | None:
    """As `jsonschema` sees it; None where it follows references without end, or to nowhere."""
    try:
        return reference(schema).is_valid(value)
    except RecursionError:
        return None
    except Exception as error:
        if type(error).__name__ in ("_WrappedReferencingError", "Unresolvable", "PointerToNowhere"):
            return None
        raise


@pytest.mark.parametrize("draft", DRAFTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=DOCUMENTS, values=st.lists(VALUES, min_size=1, max_size=5))
def test_no_verdict_is_another_than_the_references(
    draft: str, schema: dict[str, Any], values: list[Any]
) -> None:
    if draft:
        schema = {"$schema": draft, **schema}
    for value in values:
        ours, theirs = verdict(schema, value), reference_verdict(DRAFTS[draft], schema, value)
        if ours is not None and theirs is not None:
            assert ours == theirs

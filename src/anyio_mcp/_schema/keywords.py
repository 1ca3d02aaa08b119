"""What the keywords of JSON Schema demand of a value: one subschema in, its `Node` out.

Owns the list of the keywords that are understood. Validation keywords not on it are refused; unknown ones are
annotations, as the specification has it (https://json-schema.org/draft/2020-12/json-schema-core#section-6.5),
and so is `format`. Knows nothing of references, of what was checked before, nor of what a mismatch means:
`validation` has that. Reading one subschema takes time in proportion to its own keywords.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Protocol, TypeAlias, cast, final

from anyio_mcp._schema.budget import Budget, Steps
from anyio_mcp._schema.equality import MAX_BITS, key_of, keys_of, scalar_key, text_steps
from anyio_mcp._schema.expressions import MOST_STEPS_AT_ONCE, Expression, UnsupportedExpressionError
from anyio_mcp._schema.nodes import ALL_KINDS, Kind

MOST_STEPS_A_NODE: Final = 20_000
"""Steps to read the keywords of one subschema, without those in it. A larger one is refused."""


class UncheckableError(ValueError):
    """A schema that is not understood, or that a value cannot be checked against."""


@final
@dataclass(frozen=True, slots=True)
class Failure:
    """The first demand that a value does not meet: which keyword, and where, outermost key first."""

    rule: str
    demand: Any
    value: Any
    path: tuple[Any, ...] = ()

    def within(self, key: str | int) -> Failure:
        return Failure(self.rule, self.demand, self.value, (key, *self.path))


class Run(Protocol):
    """The check of one value, as far as keywords need it."""

    budget: Budget

    def node(self, schema: Any) -> Node: ...

    def apply(self, node: Node, value: Any) -> Steps[Failure | None]: ...

    def each(self, node: Node, items: Iterable[tuple[str | int, Any]]) -> Steps[Failure | None]: ...

    def refer(self, reference: str, value: Any) -> Steps[Failure | None]: ...


Test: TypeAlias = Callable[[Any, Budget], bool]
"""Whether a value meets a demand; counts what it costs beyond one step."""

Part: TypeAlias = Callable[[Run, Any], Steps[Failure | None]]
"""A demand that takes subschemas or more than a few steps."""


@final
@dataclass(slots=True, eq=False)
class Node:
    """One subschema. What it demands is sorted by the kind of value that it is demanded of."""

    kinds: frozenset[Kind] = ALL_KINDS
    rule: tuple[str, Any] = ("type", None)
    """The keyword that a value of another kind breaks."""
    cost: int = 10
    """Steps that reading it took, counted in each check that meets it: a check must not cost, and so not
    come to, anything else after another has been here."""
    tests: dict[Kind, list[tuple[str, Any, Test]]] = field(
        default_factory=dict[Kind, list[tuple[str, Any, Test]]]
    )
    parts: dict[Kind, list[Part]] = field(default_factory=dict[Kind, list[Part]])

    def test(self, kinds: Iterable[Kind], rule: str, demand: Any, test: Test) -> None:
        for kind in kinds:
            self.tests.setdefault(kind, []).append((rule, demand, test))

    def part(self, kinds: Iterable[Kind], part: Part) -> None:
        for kind in kinds:
            self.parts.setdefault(kind, []).append(part)

    def broken(self, value: Any, kind: Kind, budget: Budget) -> Failure | None:
        """The first of the demands that take no subschema which `value` does not meet."""
        if kind not in self.kinds and not (
            kind == "number" and "integer" in self.kinds and value.is_integer()
        ):
            return Failure(*self.rule, value)
        for rule, demand, test in self.tests.get(kind, ()):
            budget.spend(1)
            if not test(value, budget):
                return Failure(rule, demand, value)
        return None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What differs between the drafts of JSON Schema."""

    is_old: bool = False
    """Draft 6 and 7: a `$ref` hides what stands beside it, and `dependencies` is one keyword."""
    has_tuples: bool = False
    """Before 2020-12: `items` may be an array, `prefixItems` is not known."""
    has_conditions: bool = True


DIALECTS: Final = {
    "https://json-schema.org/draft/2020-12/schema": Dialect(),
    "https://json-schema.org/draft/2019-09/schema": Dialect(has_tuples=True),
    "http://json-schema.org/draft-07/schema": Dialect(is_old=True, has_tuples=True),
    "http://json-schema.org/draft-06/schema": Dialect(is_old=True, has_tuples=True, has_conditions=False),
}

_NUMBERS: Final[tuple[Kind, ...]] = ("integer", "number")
_STRINGS: Final[tuple[Kind, ...]] = ("string",)
_ARRAYS: Final[tuple[Kind, ...]] = ("array",)
_OBJECTS: Final[tuple[Kind, ...]] = ("object",)
_CONTAINERS: Final[tuple[Kind, ...]] = ("array", "object")
_SCALARS: Final[tuple[Kind, ...]] = ("string", "integer", "number", "boolean", "null")

_REFUSED: Final = ("$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems")
_MISSING: Final = object()


def read_node(schema: Any, dialect: Dialect, *, is_root: bool) -> Node:
    """The demands of one subschema. Raises `UncheckableError` if it is none, or is not understood."""
    if isinstance(schema, bool):
        return Node() if schema else Node(kinds=frozenset(), rule=("false", False))
    return _Reader(_object(schema, "a schema"), dialect, is_root=is_root).read()


@final
class _Reader:
    """Reads one subschema. All that it says must be usable, whatever value it may meet."""

    __slots__ = ("_budget", "_dialect", "_is_root", "_node", "_schema")

    def __init__(self, schema: dict[str, Any], dialect: Dialect, *, is_root: bool) -> None:
        self._schema = schema
        self._dialect = dialect
        self._is_root = is_root
        self._node = Node()
        self._budget = Budget(MOST_STEPS_A_NODE)

    def read(self) -> Node:
        schema, dialect = self._schema, self._dialect
        self._budget.spend(len(schema))
        self._references()
        if not ("$ref" in schema and dialect.is_old):
            self._any_value()
            self._numbers()
            self._strings()
            self._arrays()
            self._objects()
            self._combinations()
        self._node.cost += self._budget.spent
        return self._node

    def _references(self) -> None:
        schema, node = self._schema, self._node
        if not self._is_root and ("$id" in schema or "$schema" in schema):
            raise UncheckableError("a schema in the schema has an identity of its own ($id)")
        for keyword in _REFUSED:
            # Their `true` demands nothing.
            if schema.get(keyword, True) is not True:
                raise UncheckableError(f"{keyword} is not understood")
        if "$ref" in schema:
            reference = _text(schema["$ref"], "$ref")
            node.part(ALL_KINDS, lambda run, value: run.refer(reference, value))

    def _any_value(self) -> None:
        schema, node = self._schema, self._node
        if "type" in schema:
            names = schema["type"]
            listed = cast("list[Any]", names) if isinstance(names, list) else [names]
            self._budget.spend(len(listed))
            kinds = {name for name in listed if isinstance(name, str) and name in ALL_KINDS}
            if not listed or len(kinds) != len(listed):
                raise UncheckableError("type names no type of JSON")
            if "number" in kinds:
                kinds.add("integer")
            node.kinds = frozenset(cast("set[Kind]", kinds))
            node.rule = ("type", names)
        if "enum" in schema:
            self._one_of("enum", _array(schema["enum"], "enum"))
        if "const" in schema:
            self._one_of("const", [schema["const"]])

    def _one_of(self, keyword: str, values: list[Any]) -> None:
        demand = self._schema[keyword]
        keys = keys_of(values, self._budget)

        def is_member(value: Any, budget: Budget) -> bool:
            return scalar_key(value, budget) in keys

        def compare(run: Run, value: Any) -> Steps[Failure | None]:
            return None if (yield key_of(value, run.budget)) in keys else Failure(keyword, demand, value)

        self._node.test(_SCALARS, keyword, demand, is_member)
        self._node.part(_CONTAINERS, compare)

    def _numbers(self) -> None:
        bounds: dict[str, Callable[[Any, Any], bool]] = {
            "minimum": lambda value, bound: value >= bound,
            "maximum": lambda value, bound: value <= bound,
            "exclusiveMinimum": lambda value, bound: value > bound,
            "exclusiveMaximum": lambda value, bound: value < bound,
        }
        for keyword, is_met in bounds.items():
            if keyword in self._schema:
                bound = _number(self._schema[keyword], keyword)

                def is_within(
                    value: Any, _: Budget, bound: float = bound, is_met: Callable[[Any, Any], bool] = is_met
                ) -> bool:
                    return is_met(_number(value, "a number of the value"), bound)

                self._node.test(_NUMBERS, keyword, bound, is_within)
        if "multipleOf" in self._schema:
            unit = _number(self._schema["multipleOf"], "multipleOf")
            if unit <= 0:
                raise UncheckableError("multipleOf is not positive")
            exact = _decimal(unit)

            def is_multiple(value: Any, budget: Budget) -> bool:
                budget.spend(20)
                return (_decimal(_number(value, "a number of the value")) / exact).denominator == 1

            self._node.test(_NUMBERS, "multipleOf", unit, is_multiple)

    def _strings(self) -> None:
        self._sizes(_STRINGS, "minLength", "maxLength")
        if "pattern" in self._schema:
            pattern = _text(self._schema["pattern"], "pattern")
            expression = self._expression(pattern)
            self._node.test(
                _STRINGS, "pattern", pattern, lambda value, budget: _matches(expression, value, budget)
            )

    def _expression(self, pattern: str) -> Expression:
        self._budget.spend(100)
        try:
            expression = Expression(pattern)
        except UnsupportedExpressionError as error:
            raise UncheckableError(str(error)) from error
        self._budget.spend(len(pattern) + expression.weight)
        return expression

    def _sizes(self, kinds: tuple[Kind, ...], least: str, most: str) -> None:
        if least in self._schema:
            low = _count(self._schema[least], least)
            self._node.test(kinds, least, low, lambda value, _: len(value) >= low)
        if most in self._schema:
            high = _count(self._schema[most], most)
            self._node.test(kinds, most, high, lambda value, _: len(value) <= high)

    def _arrays(self) -> None:
        schema, node = self._schema, self._node
        self._sizes(_ARRAYS, "minItems", "maxItems")
        if "uniqueItems" in schema:
            unique = schema["uniqueItems"]
            if not isinstance(unique, bool):
                raise UncheckableError("uniqueItems is neither true nor false")
            if unique:
                node.part(_ARRAYS, _find_unique)
        first: list[Any] = []
        rest: Any = schema.get("items", True)
        if self._dialect.has_tuples:
            if isinstance(rest, list):
                first, rest = cast("list[Any]", rest), schema.get("additionalItems", True)
        elif "prefixItems" in schema:
            first = _schemas(schema["prefixItems"], "prefixItems")
        self._budget.spend(len(first))
        _check_schemas((*first, rest))
        if first or rest is not True:
            node.part(_ARRAYS, lambda run, value: _check_items(run, value, first, rest))
        if "contains" in schema:
            wanted = schema["contains"]
            _check_schemas((wanted,))
            least, most = 1, math.inf
            if not self._dialect.is_old:
                least = _count(schema.get("minContains", 1), "minContains")
                most = _count(schema["maxContains"], "maxContains") if "maxContains" in schema else math.inf
            node.part(_ARRAYS, lambda run, value: _find_contained(run, value, wanted, least, most))

    def _objects(self) -> None:
        schema, node = self._schema, self._node
        self._sizes(_OBJECTS, "minProperties", "maxProperties")
        if "required" in schema:
            names = self._names(schema["required"], "required")

            def has_all(value: Any, budget: Budget) -> bool:
                budget.spend(len(names) // 10)
                return value.keys() >= names

            node.test(_OBJECTS, "required", schema["required"], has_all)
        properties = _object(schema.get("properties", {}), "properties")
        patterns = _object(schema.get("patternProperties", {}), "patternProperties")
        others: Any = schema.get("additionalProperties", True)
        self._budget.spend(len(properties) + len(patterns))
        _check_schemas((*properties.values(), *patterns.values(), others))
        if properties or patterns or others is not True:
            compiled = [(self._expression(name), each) for name, each in patterns.items()]
            node.part(
                _OBJECTS, lambda run, value: _check_properties(run, value, properties, compiled, others)
            )
        if "propertyNames" in schema:
            names_schema = schema["propertyNames"]
            _check_schemas((names_schema,))
            node.part(
                _OBJECTS,
                lambda run, value: run.each(run.node(names_schema), ((name, name) for name in value)),
            )
        self._dependencies()

    def _names(self, names: Any, keyword: str) -> frozenset[str]:
        listed = _array(names, keyword)
        self._budget.spend(len(listed))
        if not all(isinstance(name, str) for name in listed):
            raise UncheckableError(f"{keyword} is no list of names")
        return frozenset(listed)

    def _dependencies(self) -> None:
        schema = self._schema
        if self._dialect.is_old:
            both = _object(schema.get("dependencies", {}), "dependencies")
            needed: dict[str, Any] = {name: each for name, each in both.items() if isinstance(each, list)}
            implied = {name: each for name, each in both.items() if not isinstance(each, list)}
        else:
            if "dependencies" in schema:
                raise UncheckableError("dependencies is not understood in this draft")
            needed = _object(schema.get("dependentRequired", {}), "dependentRequired")
            implied = _object(schema.get("dependentSchemas", {}), "dependentSchemas")
        self._budget.spend(len(needed) + len(implied))
        _check_schemas(implied.values())
        names = {name: self._names(each, "dependentRequired") for name, each in needed.items()}
        total = 1 + sum(map(len, names.values())) // 10
        if names:

            def has_dependents(value: Any, budget: Budget) -> bool:
                budget.spend(len(names) + total)
                return all(value.keys() >= others for name, others in names.items() if name in value)

            self._node.test(_OBJECTS, "dependentRequired", needed, has_dependents)
        if implied:
            self._node.part(_OBJECTS, lambda run, value: _check_implied(run, value, implied))

    def _combinations(self) -> None:
        schema, node = self._schema, self._node
        combinations: dict[str, Callable[[Run, Any, list[Any]], Steps[Failure | None]]] = {
            "allOf": _check_all,
            "anyOf": _check_any,
            "oneOf": _check_one,
        }
        for keyword, check in combinations.items():
            if keyword in schema:
                members = _schemas(schema[keyword], keyword)
                self._budget.spend(len(members))
                _check_schemas(members)
                node.part(ALL_KINDS, _bound(check, members))
        if "not" in schema:
            unwanted = schema["not"]
            _check_schemas((unwanted,))
            node.part(ALL_KINDS, lambda run, value: _check_not(run, value, unwanted))
        if "if" in schema and self._dialect.has_conditions:
            condition, then, other = schema["if"], schema.get("then", True), schema.get("else", True)
            _check_schemas((condition, then, other))
            node.part(ALL_KINDS, lambda run, value: _check_condition(run, value, condition, then, other))


def _bound(check: Callable[[Run, Any, list[Any]], Steps[Failure | None]], members: list[Any]) -> Part:
    return lambda run, value: check(run, value, members)


def _find_unique(run: Run, value: list[Any]) -> Steps[Failure | None]:
    seen: set[str] = set()
    for item in value:
        run.budget.spend(1)
        if isinstance(item, dict | list):
            key = yield key_of(item, run.budget)
        else:
            key = scalar_key(item, run.budget)
        if key in seen:
            return Failure("uniqueItems", True, value)
        run.budget.spend(text_steps(key))
        seen.add(key)
        if run.budget.is_due:
            yield None
    return None


def _check_items(run: Run, value: list[Any], first: list[Any], rest: Any) -> Steps[Failure | None]:
    for index, schema in enumerate(first[: len(value)]):
        failure = yield run.apply(run.node(schema), value[index])
        if failure is not None:
            return failure.within(index)
    if rest is True or len(first) >= len(value):
        return None
    if rest is False:
        return Failure("items", False, value)
    others = ((index, value[index]) for index in range(len(first), len(value)))
    return (yield run.each(run.node(rest), others))


def _find_contained(
    run: Run, value: list[Any], schema: Any, least: int, most: float
) -> Steps[Failure | None]:
    node = run.node(schema)
    found = 0
    for item in value:
        if (yield run.apply(node, item)) is None:
            found += 1
            if found > most:
                return Failure("maxContains", most, value)
        elif found >= least and most == math.inf:
            break
    return None if found >= least else Failure("contains", least, value)


def _check_properties(
    run: Run,
    value: dict[str, Any],
    properties: dict[str, Any],
    patterns: list[tuple[Expression, Any]],
    others: Any,
) -> Steps[Failure | None]:
    for name, item in _entries(value, properties, is_few=not patterns and others is True):
        run.budget.spend(1)
        is_other = True
        if name in properties:
            is_other = False
            failure = yield run.apply(run.node(properties[name]), item)
            if failure is not None:
                return failure.within(name)
        for expression, schema in patterns:
            run.budget.spend(1)
            if _matches(expression, name, run.budget):
                is_other = False
                failure = yield run.apply(run.node(schema), item)
                if failure is not None:
                    return failure.within(name)
            if run.budget.is_due:
                yield None
        if is_other and others is not True:
            if others is False:
                return Failure("additionalProperties", False, item, (name,))
            failure = yield run.apply(run.node(others), item)
            if failure is not None:
                return failure.within(name)
        if run.budget.is_due:
            yield None
    return None


def _entries(
    value: dict[str, Any], properties: dict[str, Any], *, is_few: bool
) -> Iterator[tuple[str, Any]] | Iterable[tuple[str, Any]]:
    """The members to look at. Without demands on the others, those that are named, where that is fewer."""
    if is_few and len(properties) < len(value):
        return ((name, value[name]) for name in properties if name in value)
    return value.items()


def _check_implied(run: Run, value: dict[str, Any], implied: dict[str, Any]) -> Steps[Failure | None]:
    for name, schema in implied.items():
        run.budget.spend(1)
        if name in value:
            failure = yield run.apply(run.node(schema), value)
            if failure is not None:
                return failure
    return None


def _check_all(run: Run, value: Any, members: list[Any]) -> Steps[Failure | None]:
    for schema in members:
        failure = yield run.apply(run.node(schema), value)
        if failure is not None:
            return failure
    return None


def _check_any(run: Run, value: Any, members: list[Any]) -> Steps[Failure | None]:
    for schema in members:
        if (yield run.apply(run.node(schema), value)) is None:
            return None
    return Failure("anyOf", members, value)


def _check_one(run: Run, value: Any, members: list[Any]) -> Steps[Failure | None]:
    found = 0
    for schema in members:
        if (yield run.apply(run.node(schema), value)) is None:
            found += 1
            if found > 1:
                break
    return None if found == 1 else Failure("oneOf", members, value)


def _check_not(run: Run, value: Any, schema: Any) -> Steps[Failure | None]:
    return Failure("not", schema, value) if (yield run.apply(run.node(schema), value)) is None else None


def _check_condition(run: Run, value: Any, condition: Any, then: Any, other: Any) -> Steps[Failure | None]:
    met = (yield run.apply(run.node(condition), value)) is None
    return (yield run.apply(run.node(then if met else other), value))


def _matches(expression: Expression, text: str, budget: Budget) -> bool:
    cost = expression.cost(text)
    if cost > MOST_STEPS_AT_ONCE:
        raise UncheckableError("a text is too long for the regular expression it is to match")
    budget.spend(cost)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UncheckableError("a text to match holds half of a character") from error
    return expression.matches(text)


def _decimal(value: float) -> Fraction:
    """A number as it is written, so that 0.07 is a multiple of 0.01."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UncheckableError(f"{what} is no number")
    if not (math.isfinite(value) if isinstance(value, float) else value.bit_length() <= MAX_BITS):
        raise UncheckableError(f"{what} is beyond what is computed with")
    return value


def _count(value: Any, keyword: str) -> int:
    number = _number(value, keyword)
    if number < 0 or number != int(number):
        raise UncheckableError(f"{keyword} is no count")
    return int(number)


def _text(value: Any, keyword: str) -> str:
    if not isinstance(value, str):
        raise UncheckableError(f"{keyword} is no text")
    return value


def _array(value: Any, keyword: str) -> list[Any]:
    if not isinstance(value, list):
        raise UncheckableError(f"{keyword} is no array")
    return cast("list[Any]", value)


def _schemas(value: Any, keyword: str) -> list[Any]:
    if not (listed := _array(value, keyword)):
        raise UncheckableError(f"{keyword} is empty")
    return listed


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UncheckableError(f"{what} is no object")
    return cast("dict[str, Any]", value)


def _check_schemas(schemas: Iterable[Any]) -> None:
    for schema in schemas:
        if not isinstance(schema, dict | bool):
            raise UncheckableError("a subschema is neither an object nor true or false")

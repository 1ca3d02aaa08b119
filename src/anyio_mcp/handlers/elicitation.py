"""A form the server asks for as a Python type, and a handler's answer as what the form takes.

Owns what an answer may be, the schema's defaults, and the check of the answer. Knows nothing of how the
handler is called, nor of what the server is told when this raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, cast, final
from urllib.parse import urlsplit

from mcp import MCPError, types
from pydantic import ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema

from anyio_mcp._schema import Budget, MismatchError, Record, SchemaType, is_object, schema_type, to_plain

__all__ = ["ElicitResult", "Form", "answer_form", "answer_url", "check_link", "form_of"]

MAX_PATTERN: Final = 1_000
"""Characters of a `pattern` that is checked; a longer one is left to the server to check."""

MAX_LINK: Final = 8_192
"""Characters of a URL that a user is asked to open. Browsers and servers take hardly longer ones."""

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ElicitResult(Generic[T]):
    """An answer that says what the user did: `accept` (with `content`), `decline` or `cancel`."""

    action: Literal["accept", "decline", "cancel"]
    content: T | None = None
    meta: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.action not in ("accept", "decline", "cancel"):
            raise ValueError(f"an elicitation is accepted, declined or cancelled, not {self.action!r}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What the server wants to know. `type` is None for a form without fields."""

    schema: dict[str, Any]
    type: SchemaType | None

    @property
    def response_type(self) -> type[Record] | None:
        return None if self.type is None else self.type.record


def form_of(schema: dict[str, Any]) -> Form:
    """The form of a requested schema.

    Raises `MCPError` (invalid parameters) if it is not that of an object, or beyond what forms are for.
    """
    properties = schema.get("properties", {})
    if schema.get("type", "object") != "object" or not is_object(properties):
        raise MCPError(types.INVALID_PARAMS, "the requested schema is not that of an object")
    if not properties:
        return Form(schema=schema, type=None)
    found = schema_type(schema)
    if found is None or found.record is None:
        raise MCPError(types.INVALID_PARAMS, "the requested schema is too large or too deep for a form")
    return Form(schema=schema, type=found)


def check_link(url: str) -> None:
    """Raise `MCPError` (invalid parameters) for what no browser may be sent to by a server.

    Only http and https: `javascript:`, `data:` and `file:` act on this machine, and an application's own
    scheme does so too. White space and characters that hide or reorder text make a URL look like another.
    """
    try:
        parts = urlsplit(url)
        is_link = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_link = False
    if not is_link or len(url) > MAX_LINK or " " in url or not url.isprintable():
        raise MCPError(types.INVALID_PARAMS, "the URL is no http or https URL that could be shown to a user")


def answer_url(answer: Any) -> types.ElicitResult | types.ErrorData:
    """What a handler answered to a URL. There is no content: the data went another way."""
    if isinstance(answer, types.ErrorData):
        return answer
    result = _as_result(answer)
    return types.ElicitResult(action=result.action, _meta=cast("Any", result.meta))


def answer_form(form: Form, answer: Any) -> types.ElicitResult | types.ErrorData:
    """What a handler answered to a form. Raises `ValueError` for an answer that does not fit it."""
    if isinstance(answer, types.ErrorData):
        return answer
    result = _as_result(answer)
    content = _content(form, result.content) if result.action == "accept" else None
    return types.ElicitResult(action=result.action, content=content, _meta=cast("Any", result.meta))


def _as_result(answer: Any) -> ElicitResult[Any]:
    if isinstance(answer, ElicitResult):
        return cast("ElicitResult[Any]", answer)
    if isinstance(answer, types.ElicitResult):
        return ElicitResult(action=answer.action, content=answer.content, meta=answer.meta)
    return ElicitResult(action="accept", content=answer)


def _content(form: Form, answer: Any) -> dict[str, Any]:
    properties: dict[str, Any] = form.schema.get("properties", {})
    required: Any = form.schema.get("required")
    needed = cast("list[Any]", required) if isinstance(required, list) else []
    content = {
        key: value
        for key, value in _as_object(answer, set(properties)).items()
        # None in an optional field is how a dataclass says that it was not filled in.
        if value is not None or key in needed or _takes_null(form, key)
    }
    for key, schema in properties.items():
        if key not in content and is_object(schema) and schema.get("default") is not None:
            content[key] = schema["default"]
    for key in needed:
        if key not in content:
            raise ValueError(f"the answer has no {key!r}")
    for key, value in content.items():
        _check(form, key, value)
    return content


def _as_object(answer: Any, keys: set[str]) -> dict[str, Any]:
    plain = to_plain({} if answer is None else answer)
    if is_object(plain):
        return plain
    # A question for a single value may be answered by the value alone.
    if keys == {"value"}:
        return {"value": plain}
    raise ValueError(
        f"an answer must be a dataclass, a pydantic model or a dict, not {type(answer).__name__}"
    )


def _takes_null(form: Form, key: str) -> bool:
    node = None if form.type is None else form.type.fields.get(key)
    return node is None or "null" in node.kinds


def _check(form: Form, key: str, value: Any) -> None:
    """Raise `ValueError` if this is not what the form takes under `key`."""
    if not _is_form_value(value):
        raise ValueError(f"{key!r}: a form takes strings, finite numbers, booleans and lists of strings")
    node = None if form.type is None else form.type.fields.get(key)
    if node is None:
        if form.schema.get("additionalProperties") is False:
            raise ValueError(f"the form has no {key!r}")
        return
    try:
        node.convert(value, Budget(value))
    except MismatchError as error:
        raise ValueError(f"{key!r}: {error}") from error
    schema = form.schema["properties"][key]
    if is_object(schema) and (broken := _broken_rule(schema, value)):
        raise ValueError(f"{key!r} breaks the rule {broken}")


def _is_form_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in cast("list[object]", value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _broken_rule(schema: dict[str, Any], value: Any) -> str | None:
    """The first rule of a field that a value of the right type breaks."""
    if isinstance(value, str):
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not _matches(pattern, value):
            return "pattern"
        sizes = ("minLength", "maxLength")
    elif isinstance(value, list):
        sizes = ("minItems", "maxItems")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return _broken_bound(schema, value, ("minimum", "maximum")) or _broken_bound(
            schema, value, ("exclusiveMinimum", "exclusiveMaximum"), exclusive=True
        )
    else:
        return None
    return _broken_bound(schema, len(cast("str", value)), sizes)


def _broken_bound(
    schema: dict[str, Any], value: float, names: tuple[str, str], *, exclusive: bool = False
) -> str | None:
    for name, sign in zip(names, (1, -1), strict=True):
        bound = schema.get(name)
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            continue
        if sign * value < sign * bound or (exclusive and value == bound):
            return name
    return None


def _matches(pattern: str, text: str) -> bool:
    """Whether `text` matches. True for a pattern that is not checked here.

    By pydantic's engine, which takes linear time: `re` takes exponential time where a server likes it to.
    """
    if len(pattern) > MAX_PATTERN:
        return True
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        return True
    try:
        validator.validate_python(text)
    except ValidationError:
        return False
    return True

"""A form the server asks for as a Python type, and a handler's answer as what the form takes.

Owns what an answer may be, the schema's defaults, and the check of the answer, which is `_schema`'s. Knows
nothing of how the handler is called, nor of what the server is told when this raises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, cast, final
from urllib.parse import urlsplit

from mcp import MCPError, types
from pydantic_core import to_json

from anyio_mcp._schema import (
    Budget,
    MismatchError,
    OutOfBudgetError,
    Record,
    SchemaType,
    Steps,
    UncheckableError,
    Validator,
    at_once,
    conversion,
    count_values,
    in_slices,
    is_object,
    to_plain,
    type_steps,
)
from anyio_mcp._text import get_logger

__all__ = ["ElicitResult", "Form", "answer_form", "answer_url", "check_link", "form_of", "form_steps"]

logger = get_logger(__name__)

MAX_FORM_VALUES: Final = 3_000
"""JSON values in a requested schema: a thousand choices with titles. A larger form is refused, at once."""

MAX_FORM_BYTES: Final = 128 * 1024
"""JSON text of a requested schema."""

_CHECK_STEPS: Final = 20_000
"""Steps the check of an answer may take. What takes more is left to the server to check."""

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


def form_steps(schema: dict[str, Any]) -> Steps[Form]:
    """The form of a requested schema.

    Raises `MCPError` (invalid parameters) if it is not that of an object, or beyond what forms are for.
    """
    if count_values(schema, MAX_FORM_VALUES) > MAX_FORM_VALUES or len(_text(schema)) > MAX_FORM_BYTES:
        raise MCPError(types.INVALID_PARAMS, "the requested schema is too large for a form")
    properties = schema.get("properties", {})
    if schema.get("type", "object") != "object" or not is_object(properties):
        raise MCPError(types.INVALID_PARAMS, "the requested schema is not that of an object")
    if not properties:
        return Form(schema=schema, type=None)
    found = yield type_steps(schema)
    if found is None or found.record is None:
        raise MCPError(types.INVALID_PARAMS, "the requested schema is too large or too deep for a form")
    return Form(schema=schema, type=found)


def _text(schema: dict[str, Any]) -> bytes:
    try:
        return to_json(schema)
    except (ValueError, RecursionError) as error:
        raise MCPError(types.INVALID_PARAMS, "the requested schema is not JSON, or too deep") from error


async def form_of(schema: dict[str, Any]) -> Form:
    """`form_steps`, in slices."""
    return await in_slices(form_steps(schema), Budget(), until=math.inf)


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
    _check_rules(form, content)
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
        at_once(conversion(node, value, Budget(_CHECK_STEPS)))
    except MismatchError as error:
        raise ValueError(f"{key!r}: {error}") from error


def _check_rules(form: Form, content: dict[str, Any]) -> None:
    """Raise `ValueError` if the answer breaks a rule of the form: what its types do not say."""
    try:
        failure = at_once(Validator(form.schema).check(content, Budget(_CHECK_STEPS)))
    except (UncheckableError, OutOfBudgetError) as error:
        logger.debug("an answer to a form is left to the server to check: %s", error)
        return
    if failure is not None:
        field = repr(failure.path[0]) if failure.path else "the answer"
        raise ValueError(f"{field} breaks the rule {failure.rule}")


def _is_form_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in cast("list[object]", value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)

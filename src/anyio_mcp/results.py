"""What a tool call gives back: `CallToolResult`, with structured content as Python values in `data`.

Owns the public result and the choice of what becomes `data`. Knows nothing of sessions, nor of how a tool's
schema was fetched and checked; the conversion itself is `_schema`'s.

`data` is, in this order:

* with `result_type=`, the structured content validated by pydantic as that type, and a
  `ResultSchemaError` if it does not fit;
* else the structured content converted by the tool's output schema: objects become dataclass
  instances, formats such as `date-time` become Python values;
* the structured content unchanged when there is no schema, when the schema cannot be turned into
  types within its limits, or when anything in the content does not fit it. All or nothing: `data` is
  never half converted, and a result is never lost over its schema.

A result that is an error is not converted: its `data` is None.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar, cast, final

from mcp import types
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from anyio_mcp._schema import Budget, MismatchError, Steps, at_once, is_object, type_steps
from anyio_mcp.content import UnknownContent
from anyio_mcp.errors import MCPClientError

__all__ = ["CallToolResult", "ResultSchemaError", "adapter_for", "error_text", "result_steps", "tool_result"]

MAX_ERROR_TEXT: Final = 2_000
"""Characters of a tool's error text that go into an exception's message; the rest is in its result."""

_WRAP_MARK: Final = "x-fastmcp-wrap-result"
_NO_TEXT: Final = "the tool answered with an error and no text"

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CallToolResult(Generic[T]):
    """The answer of a tool.

    * `content`: the content blocks, as the server sent them. One that the protocol does not know is an
      `UnknownContent`.
    * `structured_content`: the JSON the server sent beside them, unchanged. A JSON object before
      2026-07-28, any JSON value since.
    * `meta`: the `_meta` of the result.
    * `data`: the structured content as Python values; see the module for what it is when.
    * `is_error`: whether the tool says that it failed.
    * `unchecked`: why the structured content could not be checked against the tool's output schema: the
      schema is not to be had, is not understood, or checking would cost more than a server may ask for. None
      if it was checked, and if there is nothing to check.
    """

    content: list[types.ContentBlock | UnknownContent]
    structured_content: Any = None
    meta: dict[str, Any] | None = None
    data: T | None = None
    is_error: bool = False
    unchecked: str | None = None


class ResultSchemaError(MCPClientError, RuntimeError):
    """The tool ran, and its structured content does not fit the type it was to have; or, for a client with
    `strict_schemas=True`, it could not be checked.

    `result` is the whole answer, with `data` None: what the tool did is not lost. The SDK's session raises a
    `RuntimeError` here, so this is one as well.
    """

    result: CallToolResult[Any]

    def __init__(
        self, message: str, *, result: CallToolResult[Any], cause: BaseException | None = None
    ) -> None:
        super().__init__(message, cause=cause)
        self.result = result


def adapter_for(result_type: type[T]) -> TypeAdapter[T]:
    """The validator of a `result_type`: a pydantic model, a dataclass, a TypedDict, any annotation.

    Raises `TypeError` for what pydantic cannot validate. Call it before the tool is called, so that
    a mistake in the type does not cost the result of a tool that ran.
    """
    try:
        return _cached_adapter(result_type)
    except TypeError:  # an annotation that cannot be hashed is built anew each time
        return _new_adapter(result_type)


def tool_result(
    raw: types.CallToolResult,
    *,
    output_schema: Mapping[str, Any] | None,
    result_type: type[T] | None = None,
) -> CallToolResult[T]:
    """`result_steps`, at once."""
    return at_once(result_steps(raw, output_schema=output_schema, result_type=result_type, budget=Budget()))


def result_steps(
    raw: types.CallToolResult,
    *,
    output_schema: Mapping[str, Any] | None,
    result_type: type[T] | None = None,
    unchecked: str | None = None,
    budget: Budget,
) -> Steps[CallToolResult[T]]:
    """`raw` as a `CallToolResult` with its `data`; what the conversion costs is spent of `budget`.

    Raises `ResultSchemaError` if a `result_type` is given and the content does not fit it, `TypeError`
    if pydantic cannot validate that type; nothing else.
    """
    data: Any = None
    if not raw.is_error:
        schema = output_schema or {}
        data = raw.structured_content
        wrapped = _is_wrapped(raw, schema)
        if wrapped:
            data = data["result"]
        if result_type is not None:
            data = _validated(raw, data, schema, adapter_for(result_type), result_type)
        elif data is not None and schema:
            data = yield _converted(data, schema, budget, wrapped=wrapped)
    return CallToolResult(
        content=cast("list[types.ContentBlock | UnknownContent]", raw.content),
        structured_content=raw.structured_content,
        meta=raw.meta,
        data=data,
        is_error=raw.is_error,
        unchecked=unchecked,
    )


def error_text(raw: types.CallToolResult) -> str:
    """The text of a failed tool's answer for an exception's message, at most 2,000 characters."""
    parts: list[str] = []
    length = 0
    for block in raw.content:
        if isinstance(block, types.TextContent):
            parts.append(block.text)
            length += len(block.text) + 1
        if length > MAX_ERROR_TEXT + 1:
            break  # what follows is cut off anyway
    text = "\n".join(parts).strip()
    if len(text) > MAX_ERROR_TEXT:
        text = text[: MAX_ERROR_TEXT - 1] + "…"
    return text or _NO_TEXT


def _is_wrapped(raw: types.CallToolResult, schema: Mapping[str, Any]) -> bool:
    """Whether the value sits under the sole key `result`, because it is no object by itself."""
    value: Any = raw.structured_content
    if not is_object(value) or value.keys() != {"result"}:
        return False
    if schema.get(_WRAP_MARK) is True:
        return True
    mark: Any = (raw.meta or {}).get("fastmcp")
    return is_object(mark) and mark.get("wrap_result") is True


def _converted(value: Any, schema: Mapping[str, Any], budget: Budget, *, wrapped: bool) -> Steps[Any]:
    found = yield type_steps(schema)
    if found is None:
        return value
    try:
        if wrapped:
            # The whole schema is converted, not the property alone: its `$ref`s start at the root.
            return getattr((yield found.steps({"result": value}, budget)), "result", value)
        return (yield found.steps(value, budget))
    except MismatchError:
        return value


def _validated(
    raw: types.CallToolResult,
    value: Any,
    schema: Mapping[str, Any],
    adapter: TypeAdapter[T],
    result_type: type[T],
) -> T:
    try:
        return _from_json_value(adapter, value)
    except (ValidationError, PydanticSerializationError) as error:
        failure = error
    # SDK servers wrap what is no object as well, and leave no mark: the schema's one property tells.
    properties = schema.get("properties")
    if is_object(value) and is_object(properties) and value.keys() == properties.keys() == {"result"}:
        try:
            return _from_json_value(adapter, value["result"])
        except (ValidationError, PydanticSerializationError) as error:
            failure = error
    name = getattr(result_type, "__name__", None) or str(result_type)
    raise ResultSchemaError(
        f"the structured content does not fit {name}: {_describe(failure)}",
        result=replace(tool_result(raw, output_schema=None), data=None),
        cause=failure,
    )


def _from_json_value(adapter: TypeAdapter[T], value: Any) -> T:
    # In JSON mode, because the value is JSON: a strict model takes "2026-01-01" for a date only there.
    return adapter.validate_json(to_json(value, inf_nan_mode="constants"))


def _describe(error: ValidationError | PydanticSerializationError) -> str:
    """The first of the errors. Without the input: that is the server's data, and can be large."""
    if not isinstance(error, ValidationError):
        return "it is not JSON"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])[:200]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {first['msg'][:200]}{more}" if where else f"{first['msg'][:200]}{more}"


def _new_adapter(result_type: type[T]) -> TypeAdapter[T]:
    try:
        return TypeAdapter(result_type)
    except (PydanticUserError, NameError) as error:
        raise TypeError(f"result_type: pydantic cannot validate {result_type!r}: {error}") from error


# Bounded: when it is full the type used longest ago is built again at its next use.
_cached_adapter = functools.lru_cache(maxsize=128)(_new_adapter)

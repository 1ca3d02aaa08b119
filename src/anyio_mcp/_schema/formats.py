"""The scalar types of JSON Schema, and the formats that become Python values.

Knows nothing of objects, unions or schemas. A format that changes the text when it is read and written
again, such as a URI, is left a string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from types import NoneType
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from anyio_mcp._schema.budget import MismatchError
from anyio_mcp._schema.nodes import ScalarNode

MAX_TEMPORAL: Final = 64
"""Characters of the longest date, time or duration that is read."""


_FINER: Final = re.compile(r"[.,]\d{6}0*[1-9]", re.ASCII)
"""A fraction with digits past the microsecond."""


def _same(value: Any) -> Any:
    return value


def _integer(value: float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise MismatchError("not an integer")
    return int(value)


def _uuid(value: str) -> UUID:
    # Exactly the form of RFC 4122: UUID() takes braces and missing hyphens as well.
    if len(value) != 36:
        raise MismatchError("not a UUID")
    try:
        return UUID(value)
    except ValueError as error:
        raise MismatchError("not a UUID") from error


def _temporal(hint: type[Any], form: str) -> ScalarNode:
    adapter: TypeAdapter[Any] = TypeAdapter(hint)
    has_form: Callable[[str], object] = re.compile(form, re.ASCII).match

    def parse(value: str) -> Any:
        # The form is checked because pydantic reads "1700000000" as a date as well, and drops what is
        # smaller than a microsecond: such a text would not be what was sent.
        if len(value) > MAX_TEMPORAL or not has_form(value) or _FINER.search(value):
            raise MismatchError(f"not a {hint.__name__}")
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            raise MismatchError(f"not a {hint.__name__}") from error

    return ScalarNode(hint, parse, "string")


STRING: Final = ScalarNode(str, _same, "string")
BOOLEAN: Final = ScalarNode(bool, _same, "boolean")
NULL: Final = ScalarNode(NoneType, _same, "null")
INTEGER: Final = ScalarNode(int, _integer, "integer", "number")
NUMBER: Final = ScalarNode(float, _same, "integer", "number")

FORMATS: Final[dict[str, ScalarNode]] = {
    "date-time": _temporal(datetime, r"\d{4}-\d\d-\d\d[Tt ]"),
    "date": _temporal(date, r"\d{4}-\d\d-\d\d$"),
    "time": _temporal(time, r"\d\d:\d\d"),
    # Months have no length of their own: as days they would be another duration. So would years, but pydantic
    # writes 365 days as one: https://docs.pydantic.dev/latest/api/standard_library_types/#datetimetimedelta
    "duration": _temporal(timedelta, r"[+-]?P(?:\d+W|(?:\d+Y)?(?:\d+D)?(?:T[\d.,HMS]+)?)$"),
    "uuid": ScalarNode(UUID, _uuid, "string"),
}

"""Which tools of a listing the SDK's session has to search for `x-mcp-header` annotations (2026-07-28).

It searches every input schema in one piece, 6 microseconds for each subschema: seconds for a long listing.
Few schemas have such an annotation, so those without are found here, at a fiftieth of the cost, with pauses.
Knows nothing of what an annotation means.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Final, cast

import anyio.lowlevel
from mcp.types import Tool

from anyio_mcp._schema import count_values
from anyio_mcp._text import get_logger

logger = get_logger(__name__)

_ANNOTATION: Final = "x-mcp-header"

MAX_ANNOTATED_VALUES: Final = 5_000
"""JSON values of an input schema with annotations. A tool with a larger one is left out, as are those whose
annotations are not valid: it could not be called as its server wants."""

_AT_A_TIME: Final = 20_000
"""JSON values that are looked at between two checkpoints, and those of one schema."""


async def annotated(tools: list[Tool], known: Container[str] = ()) -> tuple[list[Tool], list[list[Tool]]]:
    """Those of `tools` that can be called, and those of them that have to be searched, in parts of which
    each is searched in one piece: the ones with annotations and, without a schema, the ones that are `known`
    to have had some."""
    found: list[Tool] = []
    parts: list[list[Tool]] = [[]]
    visited = in_part = 0
    for tool in tools:
        is_annotated, values = _search(tool.input_schema)
        visited += values
        if not is_annotated and tool.name in known:
            parts[-1].append(tool.model_copy(update={"input_schema": {"type": "object"}}))
        elif is_annotated:
            values = count_values(tool.input_schema, MAX_ANNOTATED_VALUES)
            visited += values
            if values > MAX_ANNOTATED_VALUES:
                logger.warning(
                    "tool %r is left out: its input schema with annotations is too large", tool.name[:100]
                )
                continue
            if in_part + values > MAX_ANNOTATED_VALUES:
                parts.append([])
                in_part = 0
            parts[-1].append(tool)
            in_part += values
        found.append(tool)
        if visited > _AT_A_TIME:
            visited = 0
            await anyio.lowlevel.checkpoint()
    return found, parts


def _search(schema: Any) -> tuple[bool, int]:
    """Whether the annotation is anywhere in a schema, and how many values were looked at."""
    visited = 0
    stack: list[Any] = [schema]
    while stack:
        item = stack.pop()
        visited += 1
        if isinstance(item, dict):
            members = cast("dict[str, Any]", item)
            if _ANNOTATION in members:
                return True, visited
            stack.extend(members.values())
        elif isinstance(item, list):
            stack.extend(cast("list[Any]", item))
    return False, visited

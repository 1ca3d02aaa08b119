"""From a JSON Schema to Python types.

`schema_type` is the door; `compiler` reads the keywords, `nodes` converts values, `records` are the
dataclasses that objects become, `cache` keeps the types. Knows nothing of tools or forms: `results` and
`_elicitation` decide what a mismatch means. A schema comes from a server, so it may be wrong, huge or
hostile: what it may cost is bounded, there is no type past that, and nothing in a schema is executed,
fetched or used as a regular expression. `pattern` and the bounds of numbers and lengths do not change a
type and are not looked at.

Libraries looked at before writing this (November 2026): datamodel-code-generator 0.89 is well kept, but
writes source code that would have to be executed, and brings black, isort and jinja2.
json-schema-to-pydantic 0.5 is small and kept, but ends in RecursionError for `$ref: "#"`, in SchemaError
for a pattern with a look-ahead, and loses `additionalProperties`; FastMCP's converter is a part of
FastMCP. All of them make pydantic unions, whose cost doubles with each level of a recursive one: 18
levels, a hundred bytes of JSON, block the event loop for 6 seconds.
"""

from anyio_mcp._schema.budget import Budget, MismatchError
from anyio_mcp._schema.cache import schema_type
from anyio_mcp._schema.compiler import SchemaType, is_object
from anyio_mcp._schema.records import Record, to_plain

__all__ = ("Budget", "MismatchError", "Record", "SchemaType", "is_object", "schema_type", "to_plain")

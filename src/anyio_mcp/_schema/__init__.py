"""JSON values and JSON Schemas: whether one conforms to the other, and the Python values it becomes.

`Validator` checks values: `validation` goes through them, `keywords` reads the schema, `expressions` are its
regular expressions, `equality` says which values are the same, `wording` what an error says. `type_steps`
makes Python types: `compiler` reads the keywords, `nodes` converts values, `records` are the dataclasses that
objects become, `cache` keeps the types. Both spend a `Budget`, and run in slices.

Knows nothing of tools or forms: `results` and `handlers.elicitation` decide what a mismatch means. A schema
comes from a server, so it may be wrong, huge or hostile: what it may cost is bounded, and nothing in a schema
is executed or fetched. `pattern` and the bounds of numbers and lengths do not change a type: only the
`Validator` looks at them.

Libraries looked at before writing this (November 2026): datamodel-code-generator 0.89 is well kept, but
writes source code that would have to be executed, and brings black, isort and jinja2.
json-schema-to-pydantic 0.5 is small and kept, but ends in RecursionError for `$ref: "#"`, in SchemaError
for a pattern with a look-ahead, and loses `additionalProperties`; FastMCP's converter is a part of
FastMCP. All of them make pydantic unions, whose cost doubles with each level of a recursive one: 18
levels, a hundred bytes of JSON, block the event loop for 6 seconds.
"""

from anyio_mcp._schema.budget import (
    Budget,
    MismatchError,
    OutOfBudgetError,
    Steps,
    at_once,
    count_values,
    in_slices,
)
from anyio_mcp._schema.cache import schema_type, type_steps
from anyio_mcp._schema.compiler import SchemaType
from anyio_mcp._schema.keywords import Failure, UncheckableError
from anyio_mcp._schema.nodes import conversion, is_object
from anyio_mcp._schema.records import Record, to_plain
from anyio_mcp._schema.validation import Validator
from anyio_mcp._schema.wording import brief, describe

__all__ = (
    "Budget",
    "Failure",
    "MismatchError",
    "OutOfBudgetError",
    "Record",
    "SchemaType",
    "Steps",
    "UncheckableError",
    "Validator",
    "at_once",
    "brief",
    "conversion",
    "count_values",
    "describe",
    "in_slices",
    "is_object",
    "schema_type",
    "to_plain",
    "type_steps",
)

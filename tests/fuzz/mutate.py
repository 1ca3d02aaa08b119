"""What can be wrong with a JSON value, and with bytes. All of it is drawn from one source of chance.

A value that JSON's own writer cannot write is a text `@RAW:...@`, and becomes what is between in `write()`.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

Path: TypeAlias = tuple[Any, ...]

_RAW: Final = re.compile(r'"@RAW:([^@]*)@"')

ODD: Final[list[Any]] = [
    None,
    "",
    [],
    {},
    0,
    -1,
    1,
    1.5,
    True,
    False,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**400,
    1e308,
    "@RAW:1e400@",
    "@RAW:-1e400@",
    "@RAW:NaN@",
    "@RAW:Infinity@",
    "@RAW:-Infinity@",
    "@RAW:1.0@",
    "@RAW:3.0@",
    "@RAW:-0@",
    "@RAW:1E5@",
    "@RAW:0.1e-400@",
    "@RAW:" + "9" * 5000 + "@",
    "@RAW:0." + "1" * 5000 + "@",
    "@RAW:" + "[" * 500 + "]" * 500 + "@",
    "@RAW:" + '{"a":' * 500 + "1" + "}" * 500 + "@",
    "\ud800",
    "a\udfffb",
    "\x00",
    "\x1b]0;x\x07",
    "\u202e\u2066",
    "\u2028\n\r",
    "é" * 300,
    "x" * 20_000,
    "1",
    "null",
    "true",
    "@ID@",
    "@TOKEN@",
    "complete",
    "input_required",
    "task",
    "private",
    "public",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "http://[::1",
    "http://127.0.0.1:99999/",
    "(a+)+$",
    "^(?x)(a+) +$",
    "\\p{L}+",
    "(?<=a)b",
    "#",
    "#/$defs/o",
    "#/properties/o",
    "https://example.invalid/schema",
    "http://json-schema.org/draft-04/schema#",
    "object",
    "array",
    "string",
    "integer",
    "2025-11-25",
    "2026-07-28",
    "1999-01-01",
    [None],
    [[]],
    [{}],
    ["a", 1, None, {"a": []}],
    {"": ""},
    {"a": None},
    list(range(300)),
    {str(number): number for number in range(300)},
]

NAMES: Final = [
    "id",
    "jsonrpc",
    "method",
    "result",
    "error",
    "params",
    "_meta",
    "nextCursor",
    "content",
    "structuredContent",
    "isError",
    "type",
    "resultType",
    "ttlMs",
    "cacheScope",
    "inputRequests",
    "requestState",
    "task",
    "taskId",
    "pollInterval",
    "progress",
    "progressToken",
    "$ref",
    "$id",
    "$schema",
    "$anchor",
    "$dynamicRef",
    "$recursiveRef",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "pattern",
    "patternProperties",
    "propertyNames",
    "additionalProperties",
    "unevaluatedProperties",
    "dependentRequired",
    "prefixItems",
    "contains",
    "minContains",
    "multipleOf",
    "maxLength",
    "uniqueItems",
    "enum",
    "const",
    "default",
    "format",
    "required",
    "properties",
    "items",
    "nullable",
    "discriminator",
    "title",
    "model_config",
    "__class__",
    "self",
    "_x",
    "class",
    "a b",
    "é",
    "\ud800",
    "",
    "@RAW",
]


def write(value: Any, chance: random.Random) -> bytes:
    """JSON text, in one of the ways that servers write it."""
    ascii_only = chance.random() < 0.7
    separators = chance.choice([(",", ":"), (", ", ": "), (" , ", " : ")])
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    text = _RAW.sub(lambda match: match[1].replace('\\"', '"'), text)
    return text.encode("utf-8", "surrogatepass" if chance.random() < 0.5 else "replace")


def paths(value: Any, so_far: Path = ()) -> list[Path]:
    """The place of everything in a value, itself first."""
    found = [so_far]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths(inner, (*so_far, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:50]):
            found += paths(inner, (*so_far, index))
    return found


def get(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def put(value: Any, path: Path, inner: Any) -> Any:
    """`value` with `inner` at `path`; changed where it is."""
    if not path:
        return inner
    get(value, path[:-1])[path[-1]] = inner
    return value


def mutate(value: Any, chance: random.Random) -> Any:
    """One thing different, somewhere in it. `value` is used up."""
    everywhere = paths(value)
    path = chance.choice(everywhere)
    here = get(value, path)
    odd = copy.deepcopy(chance.choice(ODD))
    match chance.randrange(10):
        case 0 | 1 | 2:
            return put(value, path, odd)
        case 3 if len(everywhere) < 500:
            return put(value, path, copy.deepcopy(get(value, chance.choice(everywhere))))
        case 4 if path:
            container = get(value, path[:-1])
            del container[path[-1]]
            return value
        case 5 if isinstance(here, dict):
            here[chance.choice(NAMES)] = copy.deepcopy(chance.choice([odd, *list(here.values())[:3]]))
            return value
        case 6 if isinstance(here, list):
            here.insert(chance.randrange(len(here) + 1), copy.deepcopy(chance.choice([odd, *here[:3]])))
            return value
        case 7 if isinstance(here, dict) and here:
            name = chance.choice(list(here))
            here[chance.choice([*NAMES, name.upper(), name + " "])] = here.pop(name)
            return value
        case 8:
            return put(value, path, retyped(here, chance))
        case 9 if isinstance(here, str):
            return put(value, path, in_text(here, chance))
        case _:
            return put(value, path, odd)


def retyped(value: Any, chance: random.Random) -> Any:
    """The same said in another type."""
    kinds: list[Callable[[], Any]] = [
        lambda: [value],
        lambda: {"value": value},
        lambda: json.dumps(value) if len(str(value)) < 4000 else "",
        lambda: bool(value),
        lambda: [value] * 3,
        lambda: list(value.values()) if isinstance(value, dict) else None,
        lambda: dict.fromkeys(str(each) for each in value) if isinstance(value, list) else {},
        lambda: float(value) if isinstance(value, int) and abs(value) < 2**53 else 0.5,
    ]
    return chance.choice(kinds)()


def in_text(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    piece = chance.choice(["\ud83d", "\x00", "\n", " ", "é", "\U0001f600", '"', "\\", "%00", "x" * 1000])
    return text[:at] + piece + text[at + chance.randrange(3) :]


MAGIC: Final = [
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b":",
    b",",
    b'"',
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b"null",
    b"data: ",
    b"id: 1\n",
    b"event: x\n",
    b"retry: 0\n",
    b"retry: 99999999999999999999\n",
    b"ffffffffffffffff",
    b"-1",
    b"0\r\n\r\n",
    b"\x1f\x8b",
    b"/* x */",
    b"//",
    b"[" * 300,
    b"\x1b[2J",
    b"caf\xe9",
]


def spoil(data: bytes, chance: random.Random) -> bytes:
    """One thing different in the bytes."""
    if not data:
        return chance.choice(MAGIC)
    at = chance.randrange(len(data))
    end = min(len(data), at + chance.choice([1, 1, 2, 4, 16, 200]))
    match chance.randrange(8):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + data[end:]
        case 2:
            return data[:at] + data[at:end] * chance.choice([2, 3, 50]) + data[end:]
        case 3:
            return data[:at]
        case 4 | 5:
            return data[:at] + chance.choice(MAGIC) + data[at:]
        case 6:
            return data[:at] + chance.randbytes(chance.choice([1, 3, 30])) + data[at:]
        case _:
            return data[:at] + chance.choice(MAGIC) + data[end:]

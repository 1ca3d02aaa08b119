"""Traffic as it should be, in both eras: what is mutated. The servers import it too: it needs no library.

A text `@ID@` becomes the id of the request that is answered, `@TOKEN@` its progress token.
"""

from __future__ import annotations

import copy
from typing import Any, Final

ID: Final = "@ID@"
TOKEN: Final = "@TOKEN@"

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0},
        "s": {"type": "string", "pattern": "^[a-z]+$"},
        "l": {"type": "array", "items": {"type": "number"}, "uniqueItems": True},
        "at": {"type": "string", "format": "date-time"},
        "o": {"anyOf": [{"$ref": "#/$defs/o"}, {"type": "null"}]},
    },
    "required": ["n"],
    "$defs": {"o": {"type": "object", "properties": {"k": {"const": "v"}}, "additionalProperties": False}},
}
STRUCTURED: Final = {"n": 1, "s": "abc", "l": [1, 2.5], "at": "2026-01-01T00:00:00Z", "o": {"k": "v"}}
FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "title": "A name", "default": "x"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "ok": {"type": "boolean", "default": False},
        "one": {"type": "string", "enum": ["a", "b"], "enumNames": ["A", "B"]},
        "many": {"type": "array", "items": {"anyOf": [{"const": "x", "title": "X"}]}, "maxItems": 1},
    },
    "required": ["name"],
}
CONTENT: Final[list[dict[str, Any]]] = [
    {"type": "text", "text": "héllo", "annotations": {"audience": ["user"], "priority": 0.5}},
    {"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"},
    {"type": "audio", "data": "aGVsbG8=", "mimeType": "audio/wav"},
    {"type": "resource_link", "uri": "x://y", "name": "y", "size": 3},
    {"type": "resource", "resource": {"uri": "x://y", "mimeType": "text/plain", "text": "t"}},
]
TOOL: Final[dict[str, Any]] = {
    "name": "t",
    "title": "T",
    "description": "d",
    "inputSchema": {"type": "object", "properties": {"a": {"type": "string", "x-mcp-header": "A"}}},
    "outputSchema": SCHEMA,
    "annotations": {"readOnlyHint": True, "title": "T"},
    "icons": [{"src": "https://127.0.0.1/i.png", "mimeType": "image/png", "sizes": ["48x48"]}],
    "_meta": {"k": 1},
}
CAPABILITIES: Final[dict[str, Any]] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
    "prompts": {"listChanged": True},
    "logging": {},
    "completions": {},
}
RESULTS: Final[dict[str, dict[str, Any]]] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": CAPABILITIES,
        "serverInfo": {"name": "s", "version": "1", "title": "S", "websiteUrl": "https://127.0.0.1/"},
        "instructions": "be kind",
    },
    "server/discover": {
        "supportedVersions": ["2026-07-28"],
        "capabilities": CAPABILITIES,
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
        "instructions": "be kind",
    },
    "tools/list": {"tools": [TOOL, {"name": "u", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": CONTENT, "structuredContent": STRUCTURED, "isError": False},
    "resources/list": {"resources": [{"uri": "x://y", "name": "y", "size": 3, "mimeType": "text/plain"}]},
    "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "x://{a}", "name": "a"}]},
    "resources/read": {"contents": [{"uri": "x://y", "text": "t"}, {"uri": "x://z", "blob": "aGVsbG8="}]},
    "resources/subscribe": {},
    "prompts/list": {"prompts": [{"name": "p", "arguments": [{"name": "a", "required": True}]}]},
    "prompts/get": {"messages": [{"role": "user", "content": CONTENT[0]}], "description": "d"},
    "completion/complete": {"completion": {"values": ["a", "b"], "total": 2, "hasMore": False}},
    "logging/setLevel": {},
    "ping": {},
}
CACHED: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "prompts/list",
    }
)


def result_of(method: str, era: str) -> dict[str, Any] | None:
    """The right result of a request; None: this era has no such method."""
    legacy_only = ("initialize", "ping", "logging/setLevel", "resources/subscribe")
    wrong_era = method == "server/discover" if era == "legacy" else method in legacy_only
    if wrong_era or method not in RESULTS:
        return None
    result = copy.deepcopy(RESULTS[method])
    if era == "modern":
        result["resultType"] = "complete"
        if method in CACHED:
            result.update(ttlMs=60_000, cacheScope="private")
    return result


def pieces(filled: bytes, chunks: list[str]) -> list[bytes]:
    """What was made of the chunks, sent as they were cut; what is longer now goes with the last."""
    found: list[bytes] = []
    for chunk in chunks[:-1]:
        found.append(filled[: len(chunk)])
        filled = filled[len(chunk) :]
    return [*found, filled]


def answer(result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ID, "result": result}


ERRORS: Final[list[dict[str, Any]]] = [
    {"code": -32603, "message": "no"},
    {"code": -32602, "message": "bad", "data": {"a": 1}},
    {"code": -32601, "message": "Method not found"},
    {"code": -32600, "message": "Session not found"},
    {"code": -32002, "message": "not found", "data": {"uri": "x://y"}},
    {"code": -32020, "message": "header mismatch"},
    {"code": -32021, "message": "missing", "data": {"requiredCapabilities": {"sampling": {}}}},
    {"code": -32022, "message": "version", "data": {"supported": ["2026-07-28"], "requested": "1"}},
    {"code": -32042, "message": "url", "data": {"elicitations": [{"mode": "url", "elicitationId": "1"}]}},
]


def _note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _ask(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "srv-1", "method": method, "params": params}


NOTES: Final = [
    _note("notifications/progress", progressToken=TOKEN, progress=1, total=2, message="m"),
    _note("notifications/progress", progressToken=TOKEN, progress=2.5),
    _note("notifications/message", level="info", logger="l", data={"a": [1, "x"]}),
    _note("notifications/message", level="warning", data="text"),
    _note("notifications/tools/list_changed"),
    _note("notifications/prompts/list_changed"),
    _note("notifications/resources/list_changed"),
    _note("notifications/resources/updated", uri="x://y"),
    _note("notifications/cancelled", requestId=ID, reason="r"),
    _note("notifications/cancelled", requestId="srv-1"),
    _note("notifications/elicitation/complete", elicitationId="1"),
    _note("notifications/tasks/status", taskId="1", status="working", createdAt="2026-01-01T00:00:00Z"),
    _note("notifications/unknown", a=1),
]
REQUESTS: Final = [
    _ask("elicitation/create", mode="form", message="who?", requestedSchema=FORM),
    _ask("elicitation/create", mode="url", message="go", url="https://127.0.0.1/", elicitationId="1"),
    _ask(
        "sampling/createMessage",
        messages=[{"role": "user", "content": CONTENT[0]}],
        maxTokens=10,
        systemPrompt="s",
        modelPreferences={"hints": [{"name": "m"}], "costPriority": 0.1},
    ),
    _ask("roots/list"),
    _ask("ping"),
    _ask("tasks/get", taskId="1"),
    _ask("unknown/method"),
]
INPUT: Final[list[dict[str, Any]]] = [
    {
        "resultType": "input_required",
        "inputRequests": {"a": {"method": "elicitation/create", "params": REQUESTS[0]["params"]}},
        "requestState": "opaque",
    },
    {
        "resultType": "input_required",
        "inputRequests": {
            "b": {"method": "sampling/createMessage", "params": REQUESTS[2]["params"]},
            "c": {"method": "roots/list"},
        },
    },
    {"resultType": "input_required", "requestState": "later"},
]
TASKS: Final[list[dict[str, Any]]] = [
    {
        "task": {
            "taskId": "1",
            "status": "working",
            "createdAt": "2026-01-01T00:00:00Z",
            "lastUpdatedAt": "2026-01-01T00:00:00Z",
            "ttl": 60000,
            "pollInterval": 10,
        }
    },
    {"resultType": "task", "taskId": "1", "status": "working", "ttlMs": 60000, "pollIntervalMs": 10},
]

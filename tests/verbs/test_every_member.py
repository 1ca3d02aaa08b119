"""Whatever is wrong with one member of what a server says, the rest of it is read.

The cases are made from one complete value of each kind: every member of it, at every depth, is null, "",
[], {}, of a wrong type, or not there, and every list holds an odd item among the good ones. What is lost is
that member, or the smallest thing that says nothing without it. Of what says nothing at all without it, an
error is raised that carries it.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp.types import JSONRPCError, PromptReference
from pydantic import BaseModel

from anyio_mcp import Client, Limits, MCPError, RequestFailedError
from anyio_mcp.errors import MCPClientError
from anyio_mcp.testing import ScriptedPeer

pytestmark = pytest.mark.anyio

BOUND = 60.0
ERAS = ("legacy", "modern")
MISSING = object()
WRONG: tuple[Any, ...] = (MISSING, None, "", [], {}, 5, "odd", True, [5], {"odd": 5})
ODD_ITEMS: tuple[Any, ...] = (None, 5, "odd", [], {}, {"odd": 5}, True)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Variant:
    path: Path
    """What is odd in it; of a list, the place of the item that should not be there."""
    odd: Any
    value: dict[str, Any]

    @property
    def name(self) -> str:
        shown = "not there" if self.odd is MISSING else repr(self.odd)
        return f"{'.'.join(map(str, self.path))} is {shown}"


def variants(value: dict[str, Any]) -> Iterator[Variant]:
    for path, found in _walk(value, ()):
        if path and isinstance(path[-1], str):
            for odd in WRONG:
                if type(odd) is not type(found) or (isinstance(odd, list | dict) and odd != found):
                    yield Variant(path, odd, _with(value, path, odd))
        if isinstance(found, list):
            for odd in ODD_ITEMS:
                if not any(type(each) is type(odd) and not isinstance(odd, dict | list) for each in found):
                    yield Variant((*path, 1), odd, _with(value, path, [*found[:1], odd, *found[1:]]))


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in FREE:
                yield from _walk(each, (*path, key))
    elif isinstance(value, list):
        # The one in the middle, so that there is one on either side of it to be kept.
        yield from _walk(value[len(value) // 2], (*path, len(value) // 2))


def _with(value: Any, path: Path, odd: Any) -> Any:
    if not path:
        return copy.deepcopy(odd)
    changed = copy.copy(value)
    if len(path) == 1 and odd is MISSING:
        del changed[path[0]]
    else:
        changed[path[0]] = _with(value[path[0]], path[1:], odd)
    return changed


FREE = frozenset(("structuredContent", "arguments", "_meta", "data", "experimental", "extensions"))
"""Members of which the protocol does not say what is in them."""


def kept(found: Any, good: Any, path: Path) -> bool:
    """Whether all is as in `good`, but for what is at `path` and for what says nothing without it."""
    if not path:
        return True
    first, rest = path[0], path[1:]
    if isinstance(good, dict):
        if not isinstance(found, dict):
            return False
        others = {key: each for key, each in good.items() if key != first}
        if any(key not in found or found[key] != each for key, each in others.items()):
            return False
        return first not in found or first not in good or kept(found[first], good[first], rest)
    if not isinstance(found, list) or not isinstance(first, int):
        return False
    if not rest and found == good:
        return True  # an item too many was left out
    if len(found) <= len(good) and [*good[:first], *good[first + 1 :]] == found:
        return True  # an item without what says what it is
    if len(found) == len(good) + 1 and not rest:
        return [*found[:first], *found[first + 1 :]] == good
    around = [*found[:first], *found[first + 1 :]] == [*good[:first], *good[first + 1 :]]
    return around and kept(found[first], good[first], rest)


def dumped(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, mode="json", exclude_none=True)
    return [dumped(each) for each in value] if isinstance(value, list) else value


META = {"example/key": {"a": 1}}
ICONS = [
    {"src": "https://x/1", "mimeType": "image/png", "sizes": ["48x48", "any", "96x96"], "theme": "dark"},
    {"src": "https://x/2", "mimeType": "image/png", "sizes": ["48x48", "any", "96x96"], "theme": "light"},
    {"src": "https://x/3"},
]
ANNOTATIONS = {"audience": ["user", "assistant"], "priority": 0.5, "lastModified": "2025-01-01T00:00:00Z"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def tool(name: str) -> dict[str, Any]:
    hints = {"title": "T", "readOnlyHint": True, "destructiveHint": False, "idempotentHint": True}
    return {
        "name": name,
        "title": "Title",
        "description": "Text",
        "inputSchema": SCHEMA,
        "outputSchema": SCHEMA,
        "annotations": {**hints, "openWorldHint": False},
        "icons": ICONS,
        "_meta": META,
    }


def resource(name: str) -> dict[str, Any]:
    return {
        "uri": f"x://{name}",
        "name": name,
        "title": "Title",
        "description": "Text",
        "mimeType": "text/plain",
        "size": 5.0,
        "annotations": ANNOTATIONS,
        "icons": ICONS,
        "_meta": META,
    }


def template(name: str) -> dict[str, Any]:
    return {
        "uriTemplate": f"x://{name}/{{y}}",
        "name": name,
        "title": "Title",
        "description": "Text",
        "mimeType": "text/plain",
        "annotations": ANNOTATIONS,
        "icons": ICONS,
        "_meta": META,
    }


def prompt(name: str) -> dict[str, Any]:
    arguments = [
        {"name": each, "title": "T", "description": "Text", "required": True} for each in ("a", "b", "c")
    ]
    return {
        "name": name,
        "title": "Title",
        "description": "Text",
        "arguments": arguments,
        "icons": ICONS,
        "_meta": META,
    }


TEXT = {"type": "text", "text": "words", "annotations": ANNOTATIONS, "_meta": META}
BLOCKS: list[dict[str, Any]] = [
    TEXT,
    {"type": "image", "data": "AA==", "mimeType": "image/png", "annotations": ANNOTATIONS, "_meta": META},
    {"type": "audio", "data": "AA==", "mimeType": "audio/wav", "annotations": ANNOTATIONS, "_meta": META},
    {**resource("linked"), "type": "resource_link"},
    {
        "type": "resource",
        "resource": {"uri": "x://a", "text": "words", "mimeType": "text/plain", "_meta": META},
        "annotations": ANNOTATIONS,
        "_meta": META,
    },
]


@dataclass(frozen=True)
class Verb:
    method: str
    good: dict[str, Any]
    ask: Callable[[Client], Awaitable[Any]]
    refused: tuple[str, ...] = ()
    """Members without which it says nothing, when they are there and of a wrong type or not there."""
    members: tuple[str, ...] = ()
    """Where in `good` that is which the verb returns; () for all of it."""


def _calls() -> Iterator[Verb]:
    for block in BLOCKS:
        yield Verb(
            "tools/call",
            {
                "content": [TEXT, block, TEXT],
                "structuredContent": {"a": 1},
                "isError": False,
                "_meta": META,
            },
            lambda client: client.call_tool_mcp("other", {}),
            refused=("content",),
        )


VERBS = [
    Verb(
        "tools/list",
        {"tools": [tool("a"), tool("b"), tool("c")], "_meta": META},
        lambda client: client.list_tools(cache_mode="refresh"),
        refused=("tools",),
        members=("tools",),
    ),
    *_calls(),
    Verb(
        "prompts/list",
        {"prompts": [prompt("a"), prompt("b"), prompt("c")], "_meta": META},
        lambda client: client.list_prompts(cache_mode="refresh"),
        refused=("prompts",),
        members=("prompts",),
    ),
    Verb(
        "prompts/get",
        {
            "description": "Text",
            "messages": [{"role": "user", "content": block} for block in BLOCKS],
            "_meta": META,
        },
        lambda client: client.get_prompt("p"),
        refused=("messages",),
    ),
    Verb(
        "resources/list",
        {"resources": [resource("a"), resource("b"), resource("c")], "_meta": META},
        lambda client: client.list_resources(cache_mode="refresh"),
        refused=("resources",),
        members=("resources",),
    ),
    Verb(
        "resources/templates/list",
        {"resourceTemplates": [template("a"), template("b"), template("c")], "_meta": META},
        lambda client: client.list_resource_templates(cache_mode="refresh"),
        refused=("resourceTemplates",),
        members=("resourceTemplates",),
    ),
    Verb(
        "resources/read",
        {
            "contents": [
                {"uri": f"x://{name}", "text": "words", "mimeType": "text/plain", "_meta": META}
                for name in "abc"
            ],
            "_meta": META,
        },
        lambda client: client.read_resource("x://a", cache_mode="refresh"),
        refused=("contents",),
        members=("contents",),
    ),
    Verb(
        "resources/read",
        {
            "contents": [
                {"uri": f"x://{name}", "blob": "AA==", "mimeType": "image/png", "_meta": META}
                for name in "abc"
            ],
            "_meta": META,
        },
        lambda client: client.read_resource("x://a", cache_mode="refresh"),
        refused=("contents",),
        members=("contents",),
    ),
    Verb(
        "completion/complete",
        {"completion": {"values": ["a", "b", "c"], "total": 5, "hasMore": True}, "_meta": META},
        lambda client: client.complete(PromptReference(name="p"), {"name": "y", "value": ""}),
        refused=("completion",),
        members=("completion",),
    ),
]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.method)
async def test_an_odd_member_of_an_answer_costs_that_member(era: Any, verb: Verb) -> None:
    wrong: list[str] = []
    peer = ScriptedPeer(era=era)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            peer.on(verb.method, verb.good)
            good = dumped(await verb.ask(client))
            for variant in variants(verb.good):
                peer.on(verb.method, copy.deepcopy(variant.value))
                path = variant.path
                try:
                    found = dumped(await verb.ask(client))
                except RequestFailedError as error:
                    if error.reason != "violation" or not variant.value.items() <= error.result.items():
                        wrong.append(f"{variant.name}: {error!r}")
                    elif path[0] not in verb.refused or len(path) > 1:
                        wrong.append(f"{variant.name}: {error}")
                    continue
                if verb.members:
                    if path[: len(verb.members)] != verb.members:
                        path = ()
                        if found != good:
                            wrong.append(f"{variant.name}: {found}")
                    else:
                        path = path[len(verb.members) :]
                if not kept(found, good, path):
                    wrong.append(f"{variant.name}: {found}")
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)


INFO = {
    "name": "server",
    "title": "Title",
    "version": "1",
    "websiteUrl": "https://x",
    "description": "Text",
    "icons": ICONS,
}
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "logging": {},
    "completions": {},
    "experimental": {"x": {}},
}
HELLOS: dict[Any, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "legacy": (
        "initialize",
        {
            "protocolVersion": "2025-11-25",
            "capabilities": CAPABILITIES,
            "serverInfo": INFO,
            "instructions": "Words",
            "_meta": META,
        },
        ("protocolVersion",),
    ),
    "modern": (
        "server/discover",
        {
            "supportedVersions": ["2026-07-28", "2025-11-25", "2025-06-18"],
            "capabilities": CAPABILITIES,
            "instructions": "Words",
            "ttlMs": 1000,
            "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
        },
        ("supportedVersions",),
    ),
}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("era", ERAS)
async def test_an_odd_member_of_what_a_server_says_of_itself_costs_that_member(era: Any) -> None:
    method, good, needed = HELLOS[era]
    wrong: list[str] = []
    for variant in variants(good):
        peer = ScriptedPeer(era=era)
        peer.on(method, copy.deepcopy(variant.value))
        with anyio.fail_after(BOUND):
            try:
                async with Client(peer.transport) as client:
                    assert await client.ping()
                    said = (client.server_capabilities, client.server_info, client.instructions)
                    capabilities, info, instructions = (dumped(each) for each in said)
                    is_kept = (
                        kept({"capabilities": capabilities}, {"capabilities": CAPABILITIES}, variant.path)
                        and (variant.path[0] in ("serverInfo", "_meta") or info == INFO)
                        and (variant.path[0] == "instructions" or instructions == "Words")
                        and kept({"serverInfo": info}, {"serverInfo": INFO}, variant.path)
                    )
                    if not is_kept:
                        wrong.append(f"{variant.name}: {said}")
            except MCPClientError as error:
                if variant.path[0] not in needed:
                    wrong.append(f"{variant.name}: {error!r}")
    assert not wrong, "\n".join(each[:300] for each in wrong)


NOTICES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "notifications/message": (
        {"level": "error", "logger": "x", "data": {"words": 1}, "_meta": META},
        ("data",),
    ),
    "notifications/progress": (
        {"progressToken": "t", "progress": 1.5, "total": 3.0, "message": "words", "_meta": META},
        ("progressToken", "progress"),
    ),
    "notifications/resources/updated": ({"uri": "x://y", "_meta": META}, ("uri",)),
    "notifications/tools/list_changed": ({"_meta": META}, ()),
    "notifications/prompts/list_changed": ({"_meta": META}, ()),
    "notifications/resources/list_changed": ({"_meta": META}, ()),
    "notifications/elicitation/complete": ({"elicitationId": "e", "_meta": META}, ("elicitationId",)),
}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("era", "method"),
    # The modern era has no such notification.
    [
        (era, method)
        for method in NOTICES
        for era in ERAS
        if (era, method[14:25]) != ("modern", "elicitation")
    ],
)
async def test_an_odd_member_of_a_notification_costs_that_member(era: Any, method: str) -> None:
    params, needed = NOTICES[method]
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(dumped(message))

    peer = ScriptedPeer(era=era)
    wrong: list[str] = []
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, message_handler=hear) as client:
            assert await client.ping()
            for variant in variants(params):
                heard.clear()
                peer.connection.notify(method, copy.deepcopy(variant.value))
                assert await client.ping()
                if not heard:
                    if variant.path[0] not in needed:
                        wrong.append(f"{variant.name}: nobody heard of it")
                elif not kept(heard[0].get("params", {}), params, variant.path):
                    wrong.append(f"{variant.name}: {heard}")
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)


FORM = {
    "mode": "form",
    "message": "Name?",
    "requestedSchema": {
        "type": "object",
        "properties": {
            "a": {"type": "string", "title": "T", "description": "Text"},
            "b": {"type": "integer", "title": "T", "minimum": 1},
        },
        "required": ["a"],
    },
    "_meta": META,
}
SAMPLE = {
    "messages": [
        {"role": "user", "content": {"type": "text", "text": each, "annotations": ANNOTATIONS}}
        for each in ("a", "b", "c")
    ],
    "modelPreferences": {
        "hints": [{"name": "x"}, {"name": "y"}, {"name": "z"}],
        "costPriority": 0.5,
        "speedPriority": 0.5,
        "intelligencePriority": 0.5,
    },
    "systemPrompt": "Words",
    "includeContext": "none",
    "temperature": 0.5,
    "maxTokens": 100,
    "stopSequences": ["a", "b", "c"],
    "metadata": {},
    "_meta": META,
}
QUESTIONS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "a form": ("elicitation/create", FORM, ("message", "requestedSchema", "mode")),
    "a link": (
        "elicitation/create",
        {"mode": "url", "message": "Look", "url": "https://x/", "elicitationId": "e", "_meta": META},
        ("message", "url", "elicitationId", "mode"),
    ),
    "sampling": ("sampling/createMessage", SAMPLE, ("messages", "maxTokens")),
    "roots": ("roots/list", {"_meta": META}, ()),
}


def half_read(asked: dict[str, Any], params: dict[str, Any]) -> bool:
    """Whether the handler saw less of a form or a conversation than was sent, as far as that is readable."""
    for member in ("messages", "requestedSchema"):
        sent = params.get(member)
        if sent and member in asked:
            seen = asked[member]
            parts = (seen, sent) if member == "messages" else (seen["properties"], sent.get("properties"))
            if isinstance(parts[1], dict | list) and len(parts[0]) != len(parts[1]):
                return True
    return False


def listening(asked: list[Any]) -> dict[str, Any]:
    """Handlers that note what they are asked, and answer."""

    async def elicit(message: str, kind: Any, params: Any, context: Any) -> Any:
        asked.append(dumped(params))
        return None if kind is None else {"a": "name", "b": 5}

    async def sample(messages: Any, params: Any, context: Any) -> str:
        asked.append(dumped(params))
        return "words"

    async def roots(context: Any) -> Any:
        asked.append({})
        return ["file:///a"]

    return {"elicitation_handler": elicit, "sampling_handler": sample, "roots": roots}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("kind", QUESTIONS)
async def test_an_odd_member_of_a_servers_request_costs_that_member_or_the_request(kind: str) -> None:
    method, params, needed = QUESTIONS[kind]
    asked: list[Any] = []
    wrong: list[str] = []
    peer = ScriptedPeer(era="legacy")
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, **listening(asked)) as client:
            for variant in variants(params):
                asked.clear()
                answer = await peer.answer_to(peer.ask(method, copy.deepcopy(variant.value)))
                _judge(wrong, variant, needed, asked, is_refused=isinstance(answer, JSONRPCError))
            assert await client.ping()
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("kind", QUESTIONS)
async def test_an_odd_member_of_a_round_of_input_costs_that_member_or_the_round(kind: str) -> None:
    method, params, needed = QUESTIONS[kind]
    asked: list[Any] = []
    wrong: list[str] = []
    peer = ScriptedPeer()

    def serve(request: Any) -> dict[str, Any]:
        if "inputResponses" in request.params:
            return {"content": []}
        question = {"method": method, "params": copy.deepcopy(variant.value)}
        return {"resultType": "input_required", "inputRequests": {"q": question}, "requestState": "s"}

    peer.on("tools/call", serve)
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, **listening(asked)) as client:
            for variant in variants(params):
                asked.clear()
                try:
                    await client.call_tool("x")
                except MCPClientError as error:
                    if isinstance(error, RequestFailedError) and error.reason != "violation":
                        wrong.append(f"{variant.name}: {error!r}")
                    _judge(wrong, variant, needed, asked, is_refused=True)
                except MCPError:
                    _judge(wrong, variant, needed, asked, is_refused=True)
                else:
                    _judge(wrong, variant, needed, asked, is_refused=False)
            assert await client.ping()
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)


def _judge(
    wrong: list[str], variant: Variant, needed: tuple[str, ...], asked: list[Any], *, is_refused: bool
) -> None:
    if is_refused:
        if variant.path[0] not in needed:
            wrong.append(f"{variant.name}: refused")
    elif len(asked) != 1:
        wrong.append(f"{variant.name}: answered, and nobody was asked")
    elif half_read(asked[0], variant.value):
        wrong.append(f"{variant.name}: half of it was read: {asked[0]}")


@pytest.mark.usefixtures("unmeasured")
async def test_an_odd_member_of_a_result_that_asks_for_input_is_no_wait() -> None:
    asked: list[Any] = []
    good = {
        "resultType": "input_required",
        "inputRequests": {"q": {"method": "elicitation/create", "params": FORM}},
        "requestState": "s",
        "_meta": META,
    }
    wrong: list[str] = []
    peer = ScriptedPeer()
    with anyio.fail_after(BOUND):
        async with Client(peer.transport, limits=Limits(max_input_rounds=1), **listening(asked)) as client:
            for variant in variants(good):
                if len(variant.path) > 3:
                    continue
                value = copy.deepcopy(variant.value)
                peer.on("tools/call", lambda _, value=value: value)
                try:
                    await client.call_tool("x")
                except RequestFailedError as error:
                    if error.reason != "violation":
                        wrong.append(f"{variant.name}: {error!r}")
                except MCPError:
                    pass  # a handler that cannot answer this
            assert await client.ping()
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)


TASK = {
    "taskId": "t",
    "status": "working",
    "statusMessage": "words",
    "createdAt": "2026-07-28T10:00:00Z",
    "lastUpdatedAt": "2026-07-28T10:00:01Z",
    "ttl": 60_000,
    "pollInterval": 1000,
}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("era", ERAS)
async def test_an_odd_member_of_what_is_said_of_a_task_costs_that_member(era: Any) -> None:
    capabilities: dict[str, Any] = {"tools": {}, "tasks": {"list": {}, "cancel": {}}}
    capabilities |= {"extensions": {"io.modelcontextprotocol/tasks": {}}} if era == "modern" else {}
    peer = ScriptedPeer(era=era, capabilities=capabilities)
    listing = {"tasks": [{**TASK, "taskId": each} for each in ("a", "b", "c")], "_meta": META}
    wrong: list[str] = []

    async def ask(variant: Variant, what: Callable[[], Awaitable[Any]], needed: tuple[str, ...]) -> Any:
        try:
            return await what()
        except RequestFailedError as error:
            if error.reason != "violation" or variant.path[-1] not in needed:
                wrong.append(f"{variant.name}: {error!r}")
            return None

    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            for variant in variants(TASK):
                peer.on("tasks/get", copy.deepcopy(variant.value))
                found = await ask(variant, lambda: client.get_task_status("t"), ("taskId", "status"))
                if found is not None and (found.task_id, found.status) != ("t", "working"):
                    wrong.append(f"{variant.name}: {found}")
            for variant in variants(listing) if era == "legacy" else ():
                peer.on("tasks/list", copy.deepcopy(variant.value))
                tasks = await ask(variant, client.list_tasks, ("tasks",))
                if tasks is not None and variant.path[0] == "tasks" and len(variant.path) > 1:
                    ids = [each.task_id for each in tasks]
                    if ids[:1] != ["a"] or ids[-1:] != ["c"]:
                        wrong.append(f"{variant.name}: {ids}")
            assert client.stats().sessions_started == 1
    assert not wrong, "\n".join(each[:300] for each in wrong)

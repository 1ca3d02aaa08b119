"""One odd item does not spoil the others, and no tool that ran loses its answer."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from mcp.types import METHOD_NOT_FOUND, ResourceTemplateReference, TextContent

from anyio_mcp import Client, RequestFailedError, UnknownContent
from anyio_mcp._session.pruning import read_model
from anyio_mcp.testing import ScriptedPeer

pytestmark = pytest.mark.anyio

BOUND = 20.0
ERAS = ("legacy", "modern")
GOOD: dict[str, Any] = {"name": "good", "inputSchema": {"type": "object"}}


async def ask(peer: ScriptedPeer, question: Callable[[Client], Awaitable[Any]]) -> Any:
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            answer = await question(client)
            assert client.is_connected()
            return answer


def answering(method: str, result: dict[str, Any], era: Any) -> ScriptedPeer:
    peer = ScriptedPeer(era=era)
    peer.on(method, result)
    return peer


READABLE_TOOLS = {
    "no input schema": {},
    "an empty input schema": {"inputSchema": {}},
    "a null input schema": {"inputSchema": None},
    "an array as input schema": {"inputSchema": []},
    "properties of PHP": {"inputSchema": {"type": "object", "properties": []}},
    "a property of PHP": {"inputSchema": {"type": "object", "properties": {"x": []}}},
    "null properties": {"inputSchema": {"type": "object", "properties": None, "required": None}},
    "an empty output schema": {"outputSchema": {}},
    "an array as output schema": {"outputSchema": []},
    "annotations of PHP": {"annotations": []},
    "an odd annotation": {"annotations": {"readOnlyHint": {}, "title": "x"}},
    "odd icons": {"icons": [{"src": "x", "sizes": "48x48"}, {}, 5]},
    "a description that is none": {"description": {"text": "x"}},
    "nulls everywhere": {"title": None, "icons": None, "annotations": None, "_meta": None, "execution": None},
    "odd execution": {"execution": {"taskSupport": "perhaps"}},
    "thousands of odd icons": {"icons": [5] * 5000},
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("odd", READABLE_TOOLS)
async def test_an_odd_tool_is_listed_as_far_as_it_can_be_read(era: str, odd: str) -> None:
    tools = [GOOD, {"name": "odd", "inputSchema": {"type": "object"}, **READABLE_TOOLS[odd]}, GOOD]
    if "inputSchema" not in READABLE_TOOLS[odd] and odd == "no input schema":
        del tools[1]["inputSchema"]
    listed = await ask(answering("tools/list", {"tools": tools}, era), lambda client: client.list_tools())
    assert [tool.name for tool in listed] == ["good", "odd", "good"]
    properties = listed[1].input_schema.get("properties", {})
    assert properties in ({}, {"x": {}})


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("odd", [None, 5, "tool", [], {}, {"name": 5}, {"name": None, "inputSchema": {}}])
async def test_a_tool_without_a_name_is_left_out_and_said_to_be(
    era: str, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = answering("tools/list", {"tools": [odd, GOOD, odd]}, era)
    with caplog.at_level(logging.WARNING):
        listed = await ask(peer, lambda client: client.list_tools())
    assert [tool.name for tool in listed] == ["good"]
    (record,) = [each for each in caplog.records if "breaks the protocol" in each.getMessage()]
    assert "tools[0]" in record.getMessage()
    assert "tools[2]" in record.getMessage()


@pytest.mark.parametrize("era", ERAS)
async def test_a_warning_names_a_few_and_makes_their_text_harmless(
    era: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"name": "\x1b[31m\u202e" + "x" * 500, "description": 5, "inputSchema": {}}
    peer = answering("tools/list", {"tools": [odd] * 100}, era)
    with caplog.at_level(logging.WARNING):
        assert len(await ask(peer, lambda client: client.list_tools())) == 100
    (text,) = [each.getMessage() for each in caplog.records if "breaks the protocol" in each.getMessage()]
    assert text.isprintable()
    assert len(text) < 1000
    assert "and 95 more" in text


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("tools", [{"0": GOOD, "2": GOOD}, {}, None, []])
async def test_a_list_may_be_an_object_as_php_writes_one_with_gaps(era: str, tools: Any) -> None:
    listed = await ask(answering("tools/list", {"tools": tools}, era), lambda client: client.list_tools())
    assert len(listed) == len(tools or [])


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("answer", [{}, {"tools": "none"}, {"tools": 5}, {"nonsense": []}])
async def test_what_is_no_list_at_all_is_a_violation_that_carries_it(
    era: str, answer: dict[str, Any]
) -> None:
    peer = answering("tools/list", answer, era)
    with pytest.raises(RequestFailedError) as caught:
        await ask(peer, lambda client: client.list_tools())
    assert caught.value.reason == "violation"
    assert answer.items() <= caught.value.result.items()


@pytest.mark.parametrize("era", ERAS)
async def test_the_other_lists_keep_what_they_can_as_well(era: str) -> None:
    peer = ScriptedPeer(era=era)  # type: ignore[arg-type]
    uri = "file:///a"
    peer.on(
        "resources/list",
        {"resources": [{"uri": uri}, {"name": "no uri"}, {"uri": uri, "name": "b", "size": "big"}, 5]},
    )
    peer.on("resources/templates/list", {"resourceTemplates": [{"uriTemplate": "x/{y}"}, {}, None]})
    peer.on(
        "prompts/list",
        {"prompts": [{"name": "a", "arguments": {}}, {"name": "b", "arguments": [{"name": "x"}, {}]}, {}]},
    )
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            resources = await client.list_resources()
            assert [(each.uri, each.name, each.size) for each in resources] == [
                (uri, uri, None),
                (uri, "b", None),
            ]
            assert [each.name for each in await client.list_resource_templates()] == ["x/{y}"]
            first, second = await client.list_prompts()
            assert not first.arguments
            assert [each.name for each in second.arguments or []] == ["x"]


@pytest.mark.parametrize("cursor", ["", None, [], {}, False, 0, -1])
async def test_a_cursor_that_is_none_ends_a_listing_of_the_older_era(cursor: Any) -> None:
    peer = answering("tools/list", {"tools": [GOOD], "nextCursor": cursor}, "legacy")
    assert len(await ask(peer, lambda client: client.list_tools())) == 1
    assert len(peer.requests_of("tools/list")) == 1


@pytest.mark.parametrize("era", ERAS)
async def test_an_unknown_content_block_is_kept_as_it_came_beside_the_others(era: str) -> None:
    video = {"type": "video", "uri": "x://y", "_fields_set": 1, "model_config": {}, "nested": {"a": [1]}}
    content = [{"type": "text", "text": "before"}, video, {"type": "text", "text": "after"}]
    peer = answering("tools/call", {"content": content}, era)
    result = await ask(peer, lambda client: client.call_tool("echo"))
    first, unknown, last = result.content
    assert (first.text, last.text) == ("before", "after")
    assert isinstance(unknown, UnknownContent)
    assert unknown.type == "video"
    assert unknown.model_dump() == video
    raw = await ask(peer, lambda client: client.call_tool_mcp("echo"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dumped = raw.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert dumped["content"] == content


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("block", "kind"),
    [
        ({"type": "text"}, "text"),
        ({"type": "text", "text": 5}, "text"),
        ({"type": "image", "data": "AA=="}, "image"),
        ({"type": "resource", "resource": {"uri": "x://y"}}, "resource"),
        ({"text": "no type"}, ""),
        ({"type": None, "text": "x"}, ""),
        ({"type": ["text"], "text": "x"}, ""),
    ],
)
async def test_a_block_that_does_not_fit_its_type_is_kept_as_it_came(
    era: str, block: dict[str, Any], kind: str
) -> None:
    peer = answering("tools/call", {"content": [block, {"type": "text", "text": "good"}]}, era)
    odd, good = (await ask(peer, lambda client: client.call_tool("echo"))).content
    assert (odd.type, good.text) == (kind, "good")
    assert odd.model_dump() == {**block, "type": kind}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("result", "texts"),
    [
        ({"content": None}, []),
        ({"content": {}}, []),
        ({"structuredContent": {"a": 1}}, []),
        ({"isError": False}, []),
        ({"content": {"type": "text", "text": "x"}}, ["x"]),
        ({"content": ["x", None, 5]}, ["x"]),
        ({"content": [{"type": "text", "text": "x", "annotations": [], "_meta": None}]}, ["x"]),
        ({"content": [{"type": "text", "text": "x", "annotations": {"audience": "all"}}]}, ["x"]),
        ({"content": [{"type": "text", "text": "x"}], "isError": None, "_meta": []}, ["x"]),
        ({"content": [{"type": "text", "text": "x"}], "structuredContent": None}, ["x"]),
        ({"content": [{"type": "text", "text": "x"}], "_meta": "none"}, ["x"]),
    ],
)
async def test_a_tools_answer_is_delivered_as_far_as_it_can_be_read(
    era: str, result: dict[str, Any], texts: list[str]
) -> None:
    answer = await ask(answering("tools/call", result, era), lambda client: client.call_tool("other"))
    assert [block.text for block in answer.content if isinstance(block, TextContent)] == texts
    assert answer.structured_content == result.get("structuredContent")
    assert not answer.is_error


@pytest.mark.parametrize("structured", [5, "text", [1, 2], {"a": [1.5, None]}, False])
async def test_structured_content_is_what_was_sent_in_either_era(structured: Any) -> None:
    for era in ERAS:
        peer = answering("tools/call", {"content": [], "structuredContent": structured}, era)
        answer = await ask(peer, lambda client: client.call_tool("other"))
        assert answer.structured_content == structured


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("result", [{}, {"content": "text"}, {"content": 5}, {"data": {"paid": True}}])
async def test_an_answer_that_cannot_be_read_is_not_lost(era: str, result: dict[str, Any]) -> None:
    with pytest.raises(RequestFailedError) as caught:
        await ask(answering("tools/call", result, era), lambda client: client.call_tool("echo"))
    assert caught.value.reason == "violation"
    assert result.items() <= caught.value.result.items()


@pytest.mark.parametrize("era", ERAS)
async def test_the_messages_of_a_prompt_are_kept(era: str) -> None:
    text = {"type": "text", "text": "x"}
    messages: list[Any] = [
        {"role": "user", "content": text},
        {"role": "system", "content": text},
        {"role": "assistant", "content": {"type": "video", "uri": "y"}},
        {"role": "user", "content": [text, text]},
        {"role": "user", "content": "bare"},
        {"role": "user"},
        None,
    ]
    peer = answering("prompts/get", {"messages": messages, "description": []}, era)
    result = await ask(peer, lambda client: client.get_prompt("p"))
    roles = [message.role for message in result.messages]
    assert roles == ["user", "system", "assistant", "user", "user", "user"]
    assert [message.content.type for message in result.messages] == ["text", "text", "video"] + ["text"] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    assert dumped["messages"][:3] == messages[:3]


@pytest.mark.parametrize("era", ERAS)
async def test_the_contents_of_a_resource_are_kept(era: str) -> None:
    contents = [
        {"uri": "x://a", "text": "a"},
        {"text": "without an address"},
        {"uri": "x://b", "blob": "AA==", "mimeType": 5},
        {"uri": "x://c"},
        5,
    ]
    peer = answering("resources/read", {"contents": contents}, era)
    read = await ask(peer, lambda client: client.read_resource("x://a"))
    assert [(each.uri, getattr(each, "text", None)) for each in read] == [
        ("x://a", "a"),
        ("x://a", "without an address"),
        ("x://b", None),
    ]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("completion", "values"),
    [
        ({"values": ["a", 5, None, "b"], "total": "many", "hasMore": None}, ["a", "b"]),
        ({"values": None}, []),
        ({"values": {}}, []),
        (None, []),
        ([], []),
        ({"values": [str(number) for number in range(300)]}, [str(number) for number in range(300)]),
    ],
)
async def test_the_values_of_a_completion_are_kept(era: str, completion: Any, values: list[str]) -> None:
    peer = answering("completion/complete", {"completion": completion}, era)
    reference = ResourceTemplateReference(uri="x://{y}")
    found = await ask(peer, lambda client: client.complete(reference, {"name": "y", "value": ""}))
    assert found.values == values


@pytest.mark.parametrize(
    ("ttl", "kept"),
    [
        (10**400, True),
        (-(10**400), False),
        (1.5e300, True),
        (math.inf, True),
        (-math.inf, False),
        (math.nan, False),
        (-1, False),
        (60_000.7, True),
        ("60000", True),
        ("soon", False),
        ("9" * 500, False),
        ("", False),
        (None, False),
        ([], False),
        ({}, False),
        (True, False),
    ],
)
async def test_no_lifetime_that_a_server_writes_breaks_anything(ttl: Any, kept: bool) -> None:
    peer = ScriptedPeer()
    peer.on("tools/list", {"tools": [GOOD], "ttlMs": ttl})
    peer.on("resources/list", {"resources": [], "ttlMs": ttl, "cacheScope": 5})
    peer.on("resources/templates/list", {"resourceTemplates": [], "ttlMs": ttl})
    peer.on("prompts/list", {"prompts": [], "ttlMs": ttl})
    peer.on("resources/read", {"contents": [], "ttlMs": ttl, "cacheScope": None})
    peer.on("server/discover", {"supportedVersions": ["2026-07-28"], "capabilities": {}, "ttlMs": ttl})
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert client.protocol_version == "2026-07-28"
            for _ in range(2):
                assert len(await client.list_tools()) == 1
                assert await client.list_resources() == []
                assert await client.list_resource_templates() == []
                assert await client.list_prompts() == []
                assert await client.read_resource("x://y") == []
            assert await client.ping()
    asked = 1 if kept else 2
    for method in (
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/list",
        "resources/read",
    ):
        assert len(peer.requests_of(method)) == asked, method


async def test_a_modern_server_may_leave_out_what_it_must_say() -> None:
    peer = ScriptedPeer()

    def bare(result: dict[str, Any]) -> Callable[[Any], None]:
        return lambda request: request.connection.answer(request.id, dict(result))

    peer.on("server/discover", bare({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}))
    peer.on("tools/list", bare({"tools": [GOOD]}))
    peer.on("resources/read", bare({"contents": []}))
    with anyio.fail_after(BOUND):
        async with Client(peer.transport) as client:
            assert client.protocol_version == "2026-07-28"
            assert len(await client.list_tools()) == 1
            assert await client.read_resource("x://y") == []


async def test_an_error_is_an_error_and_no_odd_answer() -> None:
    peer = ScriptedPeer()
    peer.on("tools/list", lambda request: request.refuse(METHOD_NOT_FOUND, "no"))
    with pytest.raises(Exception, match="no"):
        await ask(peer, lambda client: client.list_tools())


async def test_a_long_answer_lets_others_run_while_it_is_read() -> None:
    peer = ScriptedPeer()
    peer.on("tools/call", {"content": [{"type": "text", "text": "x"}] * 5000})
    turns = 0

    async def others(client: Client) -> int:
        nonlocal turns
        async with anyio.create_task_group() as tg:

            async def count() -> None:
                nonlocal turns
                while True:
                    await anyio.lowlevel.checkpoint()
                    turns += 1

            tg.start_soon(count)
            result = await client.call_tool("echo")
            tg.cancel_scope.cancel()
        return len(result.content)

    assert await ask(peer, others) == 5000
    assert turns > 5000 / 64


async def test_what_is_pruned_leaves_the_answer_as_it_was() -> None:
    from mcp.types import Tool

    raw = {"name": "x", "inputSchema": [], "icons": [{"src": "a", "sizes": 5}, {}, 7]}
    kept = {"name": "x", "inputSchema": [], "icons": [{"src": "a", "sizes": 5}, {}, 7]}
    tool, is_whole = read_model(Tool, raw, defaults={"inputSchema": {}})
    assert tool is not None
    assert not is_whole
    assert [(icon.src, icon.sizes) for icon in tool.icons or []] == [("a", None)]
    assert raw == kept

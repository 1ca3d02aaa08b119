"""What reaches a user's handlers, and what they may give back."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.client import ClientRequestContext
from mcp.shared.metadata_utils import get_display_name
from mcp.types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    JSONRPCError,
    JSONRPCResponse,
    SamplingCapability,
    SamplingMessage,
    SamplingToolsCapability,
    ToolUseContent,
)

from anyio_mcp.client import Client
from anyio_mcp.handlers import MessageHandler
from anyio_mcp.testing import ScriptedPeer
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio

MESSAGE = {"role": "user", "content": {"type": "text", "text": "Well?"}}


@in_time
async def test_a_sampling_handler_is_given_tools_and_may_answer_with_their_use() -> None:
    asked: list[CreateMessageRequestParams] = []

    async def sample(
        messages: list[SamplingMessage], params: CreateMessageRequestParams, context: ClientRequestContext
    ) -> CreateMessageResultWithTools:
        asked.append(params)
        use = ToolUseContent(type="tool_use", id="u1", name="search", input={"query": "x"})
        return CreateMessageResultWithTools(role="assistant", content=[use], model="m", stop_reason="toolUse")

    peer = ScriptedPeer(era="legacy")
    tools = SamplingCapability(tools=SamplingToolsCapability())
    async with Client(peer.transport, sampling_handler=sample, sampling_capabilities=tools):
        request = peer.ask(
            "sampling/createMessage",
            {
                "messages": [MESSAGE],
                "maxTokens": 9,
                "systemPrompt": "Be brief.",
                "modelPreferences": {"hints": [{"name": "small"}]},
                "tools": [{"name": "search", "inputSchema": {"type": "object"}}],
                "toolChoice": {"mode": "required"},
            },
        )
        answer = await peer.answer_to(request)
    (params,) = asked
    assert params.system_prompt == "Be brief."
    assert params.tools is not None
    assert [tool.name for tool in params.tools] == ["search"]
    assert params.tool_choice is not None
    assert params.tool_choice.mode == "required"
    assert isinstance(answer, JSONRPCResponse)
    assert answer.result["stopReason"] == "toolUse"
    assert answer.result["content"][0]["name"] == "search"


@in_time
async def test_a_handler_knows_which_request_it_answers() -> None:
    seen: list[Any] = []

    async def roots(context: ClientRequestContext) -> list[str]:
        seen.append(context.request_id)
        return ["/here"]

    peer = ScriptedPeer(era="legacy")
    async with Client(peer.transport, roots=roots):
        request = peer.ask("roots/list")
        await peer.answer_to(request)
    assert seen == [request]


@in_time
async def test_a_question_nobody_can_answer_is_refused_at_once() -> None:
    peer = ScriptedPeer(era="legacy")
    form = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
    questions = {
        "roots/list": {},
        "elicitation/create": form,
        "sampling/createMessage": {"messages": [MESSAGE], "maxTokens": 1},
    }
    async with Client(peer.transport):
        for method, params in questions.items():
            answer = await peer.answer_to(peer.ask(method, params))
            assert isinstance(answer, JSONRPCError)


@in_time
async def test_a_cancellation_is_acted_on_and_shown_to_no_handler() -> None:
    seen: list[str] = []

    class Watcher(MessageHandler):
        async def on_message(self, message: Any) -> None:
            seen.append(message.method)

    peer = ScriptedPeer(era="legacy")
    async with Client(peer.transport, message_handler=Watcher()) as client:
        peer.connection.notify("notifications/cancelled", {"requestId": "unknown"})
        peer.connection.notify("notifications/tools/list_changed")
        await client.ping()
        await peer.answer_to(peer.ask("ping"))
    assert seen == ["notifications/tools/list_changed"]


@in_time
async def test_every_kind_of_content_and_the_names_for_people_come_as_the_protocols_types() -> None:
    blocks = [
        {"type": "text", "text": "t"},
        {"type": "image", "data": "AA==", "mimeType": "image/png"},
        {"type": "audio", "data": "AA==", "mimeType": "audio/wav"},
        {"type": "resource_link", "uri": "memo://a", "name": "a"},
        {"type": "resource", "resource": {"uri": "memo://a", "text": "x"}},
    ]
    peer = ScriptedPeer()
    peer.on("tools/call", {"content": blocks, "_meta": {"com.example/cost": 3}})
    peer.on("tools/list", {"tools": [{"name": "t", "title": "A tool", "inputSchema": {"type": "object"}}]})
    async with Client(peer.transport) as client:
        result = await client.call_tool("t")
        (tool,) = await client.list_tools()
    assert [block.type for block in result.content] == [block["type"] for block in blocks]
    assert result.meta is not None
    assert result.meta["com.example/cost"] == 3
    assert get_display_name(tool) == "A tool"

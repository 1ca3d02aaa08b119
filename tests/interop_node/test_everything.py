"""The client against a server that is not written in Python. `conftest.py` says what this needs."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.types import (
    BlobResourceContents,
    EmbeddedResource,
    ImageContent,
    PromptReference,
    ResourceLink,
    ResourceListChangedNotification,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    TextContent,
    TextResourceContents,
)

from anyio_mcp import (
    CallToolResult,
    Client,
    ElicitResult,
    LogMessage,
    MessageHandler,
    RequestFailedError,
    SessionLostError,
    SessionState,
    ToolError,
)
from tests.interop_node.conftest import Everything
from tests.leaks import child_processes

pytestmark = pytest.mark.anyio

BOUND = 30.0
"""Seconds a test may take. None comes near; a hang fails."""


def said(result: CallToolResult[Any]) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


class Heard(MessageHandler):
    """Keeps what the server said unasked, and waits for it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._news = anyio.Event()

    async def on_message(self, message: Any) -> None:
        self.messages.append(message)
        self._news.set()
        self._news = anyio.Event()

    async def log(self, message: LogMessage) -> None:
        await self.on_message(message)

    async def wait_for(self, kind: type[Any], text: str = "") -> Any:
        while True:
            for message in self.messages:
                if isinstance(message, kind) and text in str(message):
                    return message
            await self._news.wait()


@dataclass
class Weather:
    temperature: float
    conditions: str
    humidity: float


async def test_what_the_server_is(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            assert client.protocol_version == "2025-11-25"
            assert client.server_info is not None
            assert client.server_info.name == "mcp-servers/everything"
            assert client.instructions
            assert await client.ping()


async def test_tools_answer_with_every_kind_of_content(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            assert {tool.name for tool in await client.list_tools()} >= {"echo", "get-sum", "get-env"}
            assert said(await client.call_tool("echo", {"message": "grüß dich ✓"})) == "Echo: grüß dich ✓"
            assert "is 5" in said(await client.call_tool("get-sum", {"a": 2, "b": 3}))
            image = await client.call_tool("get-tiny-image")
            assert [type(block) for block in image.content] == [TextContent, ImageContent, TextContent]
            note = await client.call_tool("get-annotated-message", {"messageType": "error"})
            assert note.content[0].annotations is not None
            assert note.content[0].annotations.priority == 1
            links = await client.call_tool("get-resource-links", {"count": 4})
            assert sum(isinstance(block, ResourceLink) for block in links.content) == 4
            reference = await client.call_tool(
                "get-resource-reference", {"resourceType": "Blob", "resourceId": 7}
            )
            assert any(isinstance(block, EmbeddedResource) for block in reference.content)


async def test_structured_content_becomes_an_object(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            result = await client.call_tool("get-structured-content", {"location": "Chicago"})
            assert result.structured_content == json.loads(said(result))
            assert result.data.temperature == 36
            typed = await client.call_tool(
                "get-structured-content", {"location": "New York"}, result_type=Weather
            )
            assert typed.data == Weather(temperature=33, conditions="Cloudy", humidity=82)


async def test_a_wrong_argument_is_an_error_of_the_tool(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            with pytest.raises(ToolError, match="location"):
                await client.call_tool("get-structured-content", {"location": "Atlantis"})
            with pytest.raises(ToolError, match="not found"):
                await client.call_tool("no such tool")


async def test_resources_and_templates_are_read(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            (document, *_) = await client.list_resources()
            (text,) = await client.read_resource(document.uri)
            assert isinstance(text, TextResourceContents)
            templates = {each.uri_template for each in await client.list_resource_templates()}
            assert "demo://resource/dynamic/text/{resourceId}" in templates
            (made,) = await client.read_resource("demo://resource/dynamic/text/3")
            assert isinstance(made, TextResourceContents)
            assert made.text.startswith("Resource 3")
            (blob,) = await client.read_resource("demo://resource/dynamic/blob/3")
            assert isinstance(blob, BlobResourceContents)
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource("demo://resource/dynamic/text/none")


async def test_prompts_and_completions(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            assert {prompt.name for prompt in await client.list_prompts()} >= {"simple-prompt", "args-prompt"}
            prompt = await client.get_prompt("args-prompt", {"city": "Bonn", "state": "NRW"})
            assert isinstance(prompt.messages[0].content, TextContent)
            assert prompt.messages[0].content.text == "What's weather in Bonn, NRW?"
            embedded = await client.get_prompt("resource-prompt", {"resourceType": "Text", "resourceId": 2})
            assert isinstance(embedded.messages[1].content, EmbeddedResource)
            team = PromptReference(type="ref/prompt", name="completable-prompt")
            department = await client.complete(team, {"name": "department", "value": "S"})
            assert department.values == ["Sales", "Support"]
            name = await client.complete(team, {"name": "name", "value": ""}, {"department": "Sales"})
            assert name.values == ["David", "Eve", "Frank"]
            template = ResourceTemplateReference(
                type="ref/resource", uri="demo://resource/dynamic/text/{resourceId}"
            )
            assert (await client.complete(template, {"name": "resourceId", "value": "5"})).values == ["5"]


async def test_progress_arrives_in_order_and_before_the_result(everything: Everything) -> None:
    steps: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, total))

    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            await client.call_tool(
                "trigger-long-running-operation", {"duration": 0.2, "steps": 4}, progress_handler=note
            )
            assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_the_server_asks_for_a_sample(everything: Everything) -> None:
    async def sample(messages: Any, params: Any, context: Any) -> str:
        return f"{messages[0].content.text} and {params.max_tokens} tokens"

    with anyio.fail_after(BOUND):
        async with Client(everything.source, sampling_handler=sample) as client:
            result = await client.call_tool("trigger-sampling-request", {"prompt": "hi", "maxTokens": 9})
            assert "context: hi and 9 tokens" in said(result)


async def test_the_server_asks_the_user_and_gets_the_defaults_for_the_rest(everything: Everything) -> None:
    answers: list[Any] = []

    async def answer(message: str, response_type: Any, params: Any, context: Any) -> Any:
        return answers.pop()

    with anyio.fail_after(BOUND):
        async with Client(everything.source, elicitation_handler=answer) as client:
            answers.append({"name": "Ada", "birthdate": "1815-12-10"})
            text = said(await client.call_tool("trigger-elicitation-request"))
            assert "- Name: Ada" in text
            assert "- Birthdate: 1815-12-10" in text
            assert "- Favorite Integer: 42" in text
            answers.append(ElicitResult(action="decline"))
            assert "declined" in said(await client.call_tool("trigger-elicitation-request"))
            answers.append(ElicitResult(action="cancel"))
            assert "cancelled" in said(await client.call_tool("trigger-elicitation-request"))


async def test_the_server_sends_the_user_to_a_url(everything: Everything) -> None:
    seen: list[str] = []

    async def visit(message: str, response_type: Any, params: Any, context: Any) -> ElicitResult:
        seen.append(params.url)
        return ElicitResult(action="accept")

    with anyio.fail_after(BOUND):
        async with Client(everything.source, elicitation_handler=visit) as client:
            arguments = {"url": "https://example.com/consent"}
            assert "completed" in said(await client.call_tool("trigger-url-elicitation", arguments))
            assert seen == ["https://example.com/consent"]
            with pytest.raises(MCPError) as caught:
                await client.call_tool("trigger-url-elicitation", {**arguments, "errorPath": True})
            assert caught.value.code == -32042


async def test_the_server_learns_the_roots_and_their_change(everything: Everything) -> None:
    heard = Heard()
    with anyio.fail_after(BOUND):
        async with Client(everything.source, roots=[Path("/srv/one")], log_handler=heard.log) as client:
            await heard.wait_for(LogMessage, "Roots updated: 1 root")
            assert "file:///srv/one" in said(await client.call_tool("get-roots-list"))
            client.set_roots([Path("/srv/one"), Path("/srv/two")])
            await client.send_roots_list_changed()
            await heard.wait_for(LogMessage, "Roots updated: 2 root")
            assert "file:///srv/two" in said(await client.call_tool("get-roots-list"))


async def test_log_messages_arrive(everything: Everything) -> None:
    heard = Heard()
    with anyio.fail_after(BOUND):
        async with Client(everything.source, log_handler=heard.log) as client:
            await client.set_logging_level("debug")
            await client.call_tool("toggle-simulated-logging")
            await heard.wait_for(LogMessage, "message")
            assert "Stopped" in said(await client.call_tool("toggle-simulated-logging"))


async def test_a_subscribed_resource_is_reported_when_it_changes(everything: Everything) -> None:
    heard = Heard()
    uri = "demo://resource/dynamic/text/1"
    with anyio.fail_after(BOUND):
        async with Client(everything.source, message_handler=heard) as client:
            await client.subscribe_resource(uri)
            await client.call_tool("toggle-subscriber-updates")
            update = await heard.wait_for(ResourceUpdatedNotification)
            assert str(update.params.uri) == uri
            await client.unsubscribe_resource(uri)
            assert "Stopped" in said(await client.call_tool("toggle-subscriber-updates"))


async def test_a_new_resource_is_announced_and_can_be_read(everything: Everything) -> None:
    heard = Heard()
    with anyio.fail_after(BOUND):
        async with Client(everything.source, message_handler=heard) as client:
            result = await client.call_tool(
                "gzip-file-as-resource", {"name": "note.gz", "data": "data:text/plain,hello"}
            )
            await heard.wait_for(ResourceListChangedNotification)
            (link,) = (block for block in result.content if isinstance(block, ResourceLink))
            assert link.uri in {resource.uri for resource in await client.list_resources()}
            (contents,) = await client.read_resource(link.uri)
            assert isinstance(contents, BlobResourceContents)


async def test_a_tool_that_runs_as_a_task_only_asks_and_reports(everything: Everything) -> None:
    async def interpret(message: str, response_type: Any, params: Any, context: Any) -> dict[str, str]:
        return {"interpretation": "snake"}

    research = {"topic": "python", "ambiguous": True}
    with anyio.fail_after(BOUND):
        async with Client(everything.source, elicitation_handler=interpret) as client:
            task = await client.call_tool("simulate-research-query", research, task=True)
            assert not task.returned_immediately
            assert (await task.status()).status == "working"
            assert "python (snake)" in said(await task)
            assert task.task_id in {each.task_id for each in await client.list_tasks()}


async def test_a_task_is_cancelled(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            task = await client.call_tool("simulate-research-query", {"topic": "x"}, task=True)
            await task.cancel()
            assert (await task.wait()).status == "cancelled"


async def test_thirty_tasks_share_one_client(everything: Everything) -> None:
    most = 0

    async def visit(client: Client, number: int) -> None:
        nonlocal most
        for turn in range(10):
            async with client:
                text = said(await client.call_tool("echo", {"message": f"{number}/{turn}"}))
                assert text == f"Echo: {number}/{turn}"
                most = max(most, client.stats().leases)

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as outer:
            client = Client(everything.source, task_group=outer)
            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(visit, client, number)
            assert most > 1, "the contexts never overlapped, so nothing was shared"
            assert client.state is SessionState.CLOSED


async def test_a_cancelled_call_leaves_the_session_usable(everything: Everything) -> None:
    with anyio.fail_after(BOUND):
        async with Client(everything.source) as client:
            with anyio.move_on_after(0.3) as scope:
                await client.call_tool("trigger-long-running-operation", {"duration": 20, "steps": 2})
            assert scope.cancelled_caught
            assert client.stats().calls_in_flight == 0
            assert said(await client.call_tool("echo", {"message": "still here"})) == "Echo: still here"


async def test_a_killed_server_fails_its_calls_and_the_next_call_finds_the_new_one(
    mortal_everything: Everything,
) -> None:
    started = anyio.Event()
    failures: list[Exception] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        started.set()

    async def wait(client: Client) -> None:
        try:
            await client.call_tool(
                "trigger-long-running-operation", {"duration": 20, "steps": 200}, progress_handler=note
            )
        except (SessionLostError, RequestFailedError) as error:
            failures.append(error)

    with anyio.fail_after(BOUND):
        async with Client(mortal_everything.source) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, client)
                await started.wait()
                mortal_everything.kill()
            assert len(failures) == 1
            mortal_everything.start()
            assert said(await client.call_tool("echo", {"message": "again"})) == "Echo: again"


async def test_a_killed_child_is_replaced_by_the_next_call(piped_everything: Everything) -> None:
    before = child_processes()
    with anyio.fail_after(BOUND):
        async with Client(piped_everything.source) as client:
            (child,) = child_processes() - before
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    with pytest.raises(SessionLostError) as caught:
                        await client.call_tool("trigger-long-running-operation", {"duration": 20, "steps": 2})
                    assert caught.value.reason == "exited"

                tasks.start_soon(wait)
                while not client.stats().calls_in_flight:
                    await anyio.sleep(0)
                os.kill(child, signal.SIGKILL)
            assert said(await client.call_tool("echo", {"message": "again"})) == "Echo: again"

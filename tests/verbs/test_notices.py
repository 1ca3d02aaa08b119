"""What a server tells its client, and the user's handlers that hear of it."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp.server import ServerRequestContext
from mcp.types import (
    CallToolRequestParams,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    ResourceListChangedNotification,
    ToolListChangedNotification,
)

from anyio_mcp.handlers import LogMessage, MessageHandler
from tests.verbs.servers import LEGACY, Era, Scripted, connected, text_result, tool

pytestmark = pytest.mark.anyio


# --- log messages ---------------------------------------------------------------------------------


class Talkative(Scripted):
    """A server whose tool sends log messages; with the request, as the modern era wants it."""

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        for number, level in enumerate(["info", "error"]):
            content: Any = {"level": level, "data": {"n": number}, "logger": "cook"}
            notification = LoggingMessageNotification(params=LoggingMessageNotificationParams(**content))
            await context.session.send_notification(notification, context.request_id)
        return text_result("done")


async def test_log_messages_reach_the_log_handler_in_order(era: Era) -> None:
    messages: list[LogMessage] = []
    both = anyio.Event()

    async def handler(message: LogMessage) -> None:
        messages.append(message)
        if len(messages) == 2:
            both.set()

    async with connected(Talkative().server, era, log_handler=handler) as client:
        await client.call_tool("x")
        await both.wait()
    assert [(message.level, message.data, message.logger) for message in messages] == [
        ("info", {"n": 0}, "cook"),
        ("error", {"n": 1}, "cook"),
    ]


async def test_log_messages_without_a_handler_go_to_the_log(
    era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "anyio_mcp.server")
    async with connected(Talkative().server, era) as client:
        await client.call_tool("x")
        while len(caplog.records) < 2:
            await anyio.lowlevel.checkpoint()
    found = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "anyio_mcp.server"]
    assert found == [("INFO", 'cook: {"n": 0}'), ("ERROR", 'cook: {"n": 1}')]


async def test_a_log_handler_that_raises_harms_nobody(era: Era, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    async def clumsy(message: LogMessage) -> None:
        calls.append(1)
        raise KeyError("clumsy")

    async with connected(Talkative().server, era, log_handler=clumsy) as client:
        await client.call_tool("x")
        while len(calls) < 2:
            await anyio.lowlevel.checkpoint()
        assert await client.ping()
    assert "log handler raised" in caplog.text


# --- other messages -------------------------------------------------------------------------------


class Changing(Scripted):
    """A server whose tool `change` says that things have changed."""

    async def calling(self, context: ServerRequestContext[Any], params: CallToolRequestParams) -> Any:
        if params.name == "change":
            await context.session.send_tool_list_changed()
            await context.session.send_resource_list_changed()
            return text_result("changed")
        return text_result("done", {"n": 1})


async def test_a_message_handler_sees_every_notification_in_order() -> None:
    messages: list[Any] = []
    both = anyio.Event()

    async def handler(message: Any) -> None:
        messages.append(type(message))
        if len(messages) == 2:
            both.set()

    async with connected(Changing().server, LEGACY, message_handler=handler) as client:
        await client.call_tool("change")
        await both.wait()
    assert messages == [ToolListChangedNotification, ResourceListChangedNotification]


class Diary(MessageHandler):
    """A handler object, and which of its methods were called."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.done = anyio.Event()

    async def on_message(self, message: Any) -> None:
        self.entries.append("message")

    async def on_notification(self, message: Any) -> None:
        self.entries.append("notification")

    async def on_tool_list_changed(self, message: Any) -> None:
        self.entries.append("tools")

    async def on_resource_list_changed(self, message: Any) -> None:
        self.entries.append("resources")
        self.done.set()


async def test_a_handler_object_has_a_method_for_each_kind() -> None:
    diary = Diary()
    async with connected(Changing().server, LEGACY, message_handler=diary) as client:
        await client.call_tool("change")
        await diary.done.wait()
    assert diary.entries == ["message", "notification", "tools", "message", "notification", "resources"]


async def test_a_message_handler_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    async def clumsy(message: Any) -> None:
        calls.append(1)
        raise KeyError("clumsy")

    async with connected(Changing().server, LEGACY, message_handler=clumsy) as client:
        await client.call_tool("change")
        while len(calls) < 2:
            await anyio.lowlevel.checkpoint()
        assert await client.ping()
    assert "message handler raised" in caplog.text


async def test_a_changed_list_of_tools_is_listed_anew() -> None:
    server = Changing()
    server.tools = [tool("x")]
    noticed = anyio.Event()

    async def handler(message: Any) -> None:
        if isinstance(message, ResourceListChangedNotification):
            noticed.set()

    async with connected(server.server, LEGACY, message_handler=handler) as client:
        await client.call_tool("x")
        await client.call_tool("x")
        assert server.log.count("tools/list") == 1
        await client.call_tool("change")
        await noticed.wait()
        await client.call_tool("x")
        assert server.log.count("tools/list") == 2

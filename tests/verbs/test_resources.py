"""Resources, their templates and, in the older era, subscriptions to them."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    BlobResourceContents,
    EmptyResult,
    ListResourcesResult,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceUpdatedNotification,
    SubscribeRequestParams,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import AnyUrl

from tests.verbs.servers import LEGACY, MODERN, Era, World, connected

pytestmark = pytest.mark.anyio


async def test_resources_and_templates_are_listed(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        resources = await client.list_resources()
        templates = await client.list_resource_templates()
        page = await client.list_resources_mcp()
        template_page = await client.list_resource_templates_mcp()
    assert {str(resource.uri) for resource in resources} == {"memo://text", "memo://bytes"}
    assert [template.uri_template for template in templates] == ["memo://people/{name}"]
    assert page.resources == resources
    assert template_page.resource_templates == templates
    assert page.next_cursor is template_page.next_cursor is None


@pytest.mark.parametrize("of_type", [str, AnyUrl])
async def test_a_resource_is_read_by_its_uri(world: World, era: Era, of_type: Any) -> None:
    async with connected(world.server, era) as client:
        (text,) = await client.read_resource(of_type("memo://text"))
        (person,) = await client.read_resource(of_type("memo://people/ada"))
        whole = await client.read_resource_mcp(of_type("memo://text"))
    assert isinstance(text, TextResourceContents)
    assert (text.text, text.mime_type, str(text.uri)) == ("written", "text/plain", "memo://text")
    assert isinstance(person, TextResourceContents)
    assert person.text == "about ada"
    assert whole.contents == [text]


async def test_a_resource_of_bytes_is_read_as_it_was_sent(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        (contents,) = await client.read_resource("memo://bytes")
    assert isinstance(contents, BlobResourceContents)
    assert base64.b64decode(contents.blob) == b"\x00\xff"
    assert contents.mime_type == "image/png"


async def test_what_is_not_there_is_the_servers_error(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        with pytest.raises(MCPError, match="Unknown resource") as caught:
            await client.read_resource("memo://nowhere/else")
        assert caught.value.data == {"uri": "memo://nowhere/else"}
        assert await client.read_resource("memo://text")


async def test_a_uri_is_sent_as_it_is_written(era: Era) -> None:
    """Not normalized: to the server `memo:a%2Fb` and `memo:a/b` may be two things."""
    read: list[str] = []

    async def read_resource(
        context: ServerRequestContext[Any], params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        read.append(str(params.uri))
        return ReadResourceResult(contents=[])

    uris = ["memo:a%2Fb", "MEMO://Host", "file:///a b", "x-y:", "memo://host/?q=1#f"]
    async with connected(Server("uris", on_read_resource=read_resource), era) as client:
        for uri in uris:
            assert await client.read_resource(uri) == []
    assert read == uris


async def test_the_callers_meta_reaches_the_server(world: World, era: Era) -> None:
    async with connected(world.server, era) as client:
        await client.read_resource("memo://text", meta={"example.com/key": 1})
        await client.read_resource_mcp("memo://text", meta={"example.com/key": 2})
    assert [meta["example.com/key"] for meta in world.log.metas("resources/read")] == [1, 2]


async def test_subscribing_brings_updates_until_it_is_undone() -> None:
    subscribed: list[str] = []

    async def subscribe(context: ServerRequestContext[Any], params: SubscribeRequestParams) -> EmptyResult:
        subscribed.append(str(params.uri))
        await context.session.send_resource_updated(params.uri)
        return EmptyResult()

    async def unsubscribe(
        context: ServerRequestContext[Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        subscribed.remove(str(params.uri))
        return EmptyResult()

    async def list_resources(context: ServerRequestContext[Any], params: Any) -> ListResourcesResult:
        return ListResourcesResult(resources=[])

    updated = anyio.Event()
    messages: list[Any] = []

    async def notice(message: Any) -> None:
        messages.append(message)
        updated.set()

    server = Server(
        "subscriptions",
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_list_resources=list_resources,
    )
    async with connected(server, LEGACY, message_handler=notice) as client:
        assert client.server_capabilities is not None
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.resources.subscribe
        await client.subscribe_resource(AnyUrl("memo://text"))
        assert subscribed == ["memo://text"]
        await updated.wait()
        await client.unsubscribe_resource("memo://text")
        assert subscribed == []
    (message,) = messages
    assert isinstance(message, ResourceUpdatedNotification)
    assert str(message.params.uri) == "memo://text"


async def test_subscriptions_of_the_older_era_are_refused_in_the_modern_one(world: World) -> None:
    async with connected(world.server, MODERN) as client:
        for subscribe in (client.subscribe_resource, client.unsubscribe_resource):
            with pytest.raises(MCPError) as caught:
                await subscribe("memo://text")
            assert caught.value.code == -32601

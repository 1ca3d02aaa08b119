"""The verbs of a group: listings over all servers, and calls that find theirs by name.

They give and take the group's names. How a session is kept, and what a failure of one server means for
the others, is not known here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from mcp import MCPError
from mcp.types import (
    METHOD_NOT_FOUND,
    BlobResourceContents,
    GetPromptResult,
    Prompt,
    Resource,
    ResourceTemplate,
    ServerCapabilities,
    TextResourceContents,
    Tool,
)
from pydantic import AnyUrl

from anyio_mcp.client import Client
from anyio_mcp.group.keeper import GroupKeeper
from anyio_mcp.group.member import Member
from anyio_mcp.group.names import URI_MARK, Naming, split
from anyio_mcp.handlers import ProgressHandler
from anyio_mcp.results import CallToolResult
from anyio_mcp.verbs.base import DEFAULT, Timeout

_T = TypeVar("_T")
_Listed = TypeVar("_Listed", Tool, Prompt, Resource, ResourceTemplate)


class GroupVerbs:
    """The base of a group."""

    _keeper: GroupKeeper
    _naming: Naming

    # All servers

    async def list_tools(self, *, timeout: Timeout = DEFAULT) -> list[Tool]:
        """The tools of every server, under the group's names.

        All servers are asked at the same time, each within `timeout` seconds; those that declare no
        tools are not. Where failures are reported, a server that fails is left out and is in
        `failures`; otherwise its error is raised. The other listings do the same.
        """
        listed = await self._list("tools/list", _tools, lambda client: client.list_tools(timeout=timeout))
        return [self._named(member, tool) for member, tool in listed]

    async def list_prompts(self, *, timeout: Timeout = DEFAULT) -> list[Prompt]:
        """The prompts of every server, under the group's names."""
        listed = await self._list(
            "prompts/list", _prompts, lambda client: client.list_prompts(timeout=timeout)
        )
        return [self._named(member, prompt) for member, prompt in listed]

    async def list_resources(self, *, timeout: Timeout = DEFAULT) -> list[Resource]:
        """The resources of every server, under the group's names and URIs."""
        listed = await self._list(
            "resources/list", _resources, lambda client: client.list_resources(timeout=timeout)
        )
        return [
            self._named(member, each, uri=f"{member.prefix}{URI_MARK}{each.uri}") for member, each in listed
        ]

    async def list_resource_templates(self, *, timeout: Timeout = DEFAULT) -> list[ResourceTemplate]:
        """The resource templates of every server, under the group's names and URIs."""
        listed = await self._list(
            "resources/templates/list",
            _resources,
            lambda client: client.list_resource_templates(timeout=timeout),
        )
        return [
            self._named(member, each, uri_template=f"{member.prefix}{URI_MARK}{each.uri_template}")
            for member, each in listed
        ]

    async def ping(self, *, timeout: Timeout = DEFAULT) -> dict[str, bool]:
        """Ask every server for a sign of life, at the same time: whether it gave one, by server.

        Where failures are reported, False stands for a server whose failure is in `failures`;
        otherwise it is raised, and all there is is True.
        """
        self._keeper.check_open()
        answers = await self._keeper.ask("ping", lambda member: member.client.ping(timeout=timeout))
        return {name: answers.get(name, False) for name in self._keeper.members}

    # One server

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        progress_handler: ProgressHandler | None = ...,
        raise_on_error: bool = ...,
        meta: dict[str, Any] | None = ...,
        result_type: type[_T],
    ) -> CallToolResult[_T]: ...

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = ...,
        progress_handler: ProgressHandler | None = ...,
        raise_on_error: bool = ...,
        meta: dict[str, Any] | None = ...,
        result_type: None = ...,
    ) -> CallToolResult[Any]: ...

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        progress_handler: ProgressHandler | None = None,
        raise_on_error: bool = True,
        meta: dict[str, Any] | None = None,
        result_type: type[Any] | None = None,
    ) -> CallToolResult[Any]:
        """Call a tool by the group's name for it: `Client.call_tool` of its server.

        Raises `ValueError` if the name belongs to no server.
        """
        server, tool = self.split(name)
        return await self._client(server).call_tool(
            tool,
            arguments,
            timeout=timeout,
            progress_handler=progress_handler,
            raise_on_error=raise_on_error,
            meta=meta,
            result_type=result_type,
        )

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *,
        timeout: Timeout = DEFAULT,
        meta: dict[str, Any] | None = None,
    ) -> GetPromptResult:
        """A prompt by the group's name for it: `Client.get_prompt` of its server."""
        server, prompt = self.split(name)
        return await self._client(server).get_prompt(prompt, arguments, timeout=timeout, meta=meta)

    async def read_resource(
        self, uri: AnyUrl | str, *, timeout: Timeout = DEFAULT, meta: dict[str, Any] | None = None
    ) -> list[TextResourceContents | BlobResourceContents]:
        """A resource by the group's URI for it, `{prefix}+{its URI}`: `Client.read_resource` of its server.

        The contents carry the server's own URIs. For a URI found in a result, use
        `group[server].read_resource(uri)`.
        """
        server, own = split(str(uri), URI_MARK, self._keeper.prefixes())
        return await self._client(server).read_resource(own, timeout=timeout, meta=meta)

    def split(self, name: str) -> tuple[str, str]:
        """The server and its own name of what the group calls `name`; `ValueError` if it is no server's."""
        return split(name, self._naming.separator, self._keeper.prefixes())

    def _client(self, server: str) -> Client:
        return self._keeper.members[server].client

    def _named(self, member: Member, item: _Listed, **changed: str) -> _Listed:
        name = f"{member.prefix}{self._naming.separator}{item.name}"
        return item.model_copy(update={"name": name, **changed})

    async def _list(
        self,
        operation: str,
        capability: Callable[[ServerCapabilities], object],
        fetch: Callable[[Client], Awaitable[list[_T]]],
    ) -> list[tuple[Member, _T]]:
        async def one(member: Member) -> list[_T]:
            client = member.client
            declared = client.server_capabilities if client.is_connected() else None
            if declared is not None and capability(declared) is None:
                return []
            try:
                return await fetch(client)
            except MCPError as error:
                # A server that was reached only now and has none, or that has no templates.
                if error.code != METHOD_NOT_FOUND:
                    raise
                return []

        self._keeper.check_open()
        members = dict(self._keeper.members)
        listed = await self._keeper.ask(operation, one)
        return [(members[name], item) for name, items in listed.items() for item in items]


def _tools(declared: ServerCapabilities) -> object:
    return declared.tools


def _prompts(declared: ServerCapabilities) -> object:
    return declared.prompts


def _resources(declared: ServerCapabilities) -> object:
    return declared.resources

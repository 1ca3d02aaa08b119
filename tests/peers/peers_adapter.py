"""Our client under the names, and with the arguments, of the two peers': so that their tests run on it.

What has no counterpart here raises `TypeError`. A test that needs it is named in `deselected.toml`, with the
reason. Nothing here is more than a translation: what a test finds out is found out about `anyio_mcp.Client`.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio_mcp
from anyio_mcp import Limits, SSETransport, StdioTransport, StreamableHttpTransport, Timeouts
from anyio_mcp.config import DEFAULT_CACHE

made: list[object] = []
"""Every client made since the plugin has looked: a test that makes none says nothing about ours."""


def seconds(value: Any, default: float | None) -> float | None:
    """FastMCP takes 0 for no limit."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is None:
        return default
    return math.inf if value == 0 else float(value)


def only(options: dict[str, Any]) -> None:
    """Raises `TypeError` for an argument that is given and has no counterpart here."""
    given = sorted(name for name, value in options.items() if value is not None)
    if given:
        raise TypeError(f"no counterpart of {', '.join(given)}")


# FastMCP


def fastmcp_source(source: Any, auth: Any, verify: Any) -> tuple[Any, Any]:
    """What FastMCP's client is given, and what authenticates at it, as ours takes them."""
    from fastmcp import FastMCP
    from fastmcp.client import transports
    from fastmcp.mcp_config import MCPConfig

    only({"verify": verify})
    if isinstance(source, FastMCP):
        return source._mcp_server, auth
    if isinstance(source, transports.FastMCPTransport):
        server = source.server
        return (server._mcp_server if isinstance(server, FastMCP) else server), auth
    if isinstance(source, transports.StreamableHttpTransport | transports.SSETransport):
        streams = isinstance(source, transports.StreamableHttpTransport)
        kind: Any = StreamableHttpTransport if streams else SSETransport
        return kind(str(source.url), headers=source.headers or None, auth=auth or source.auth), None
    if isinstance(source, transports.StdioTransport):
        return StdioTransport(source.command, source.args, env=source.env, cwd=source.cwd), auth
    if isinstance(source, MCPConfig):
        source = source.to_dict()
    return source, auth


class FastMCPClient(anyio_mcp.Client):
    """Instead of `fastmcp.Client`."""

    def __init__(
        self,
        transport: Any,
        name: str | None = None,
        *,
        timeout: Any = None,
        init_timeout: Any = None,
        auth: Any = None,
        verify: Any = None,
        cache: Any = None,
        input_required_max_rounds: int = 10,
        result_claims: Any = None,
        **options: Any,
    ) -> None:
        only({"result_claims": result_claims})
        made.append(self)
        source, auth = fastmcp_source(transport, auth, verify)
        kept = {True: DEFAULT_CACHE, None: DEFAULT_CACHE, False: None}
        super().__init__(
            source,
            name=name or f"Client-{secrets.token_hex(2)}",
            auth=auth,
            timeouts=Timeouts(call=seconds(timeout, None), connect=seconds(init_timeout, 30), total=None),
            limits=Limits(max_input_rounds=input_required_max_rounds),
            cache=kept[cache] if cache is None or isinstance(cache, bool) else cache,
            **options,
        )

    async def call_tool(self, name: str, arguments: Any = None, **options: Any) -> Any:
        from fastmcp.exceptions import ToolError

        only({key: options.pop(key, None) for key in ("version",)})
        if "timeout" in options:
            options["timeout"] = seconds(options["timeout"], None)
        if options.get("timeout", 0) is None:
            del options["timeout"]
        try:
            return await super().call_tool(name, arguments, **options)
        except anyio_mcp.ToolError as error:
            raise ToolError(str(error)) from error

    def new(self, **options: Any) -> Any:
        client = super().new(**options)
        made.append(client)
        return client


# The SDK


def _sampling(callback: Any) -> Callable[..., Any] | None:
    if callback is None:
        return None

    async def handler(messages: Any, params: Any, context: Any) -> Any:
        return await callback(context, params)

    return handler


def _elicitation(callback: Any) -> Callable[..., Any] | None:
    if callback is None:
        return None

    async def handler(message: str, response_type: Any, params: Any, context: Any) -> Any:
        return await callback(context, params)

    return handler


def _roots(callback: Any) -> Callable[..., Any] | None:
    if callback is None:
        return None

    async def handler(context: Any) -> Any:
        return (await callback(context)).roots

    return handler


class SDKClient:
    """Instead of `mcp.Client`. Its verbs return the protocol's own results."""

    def __init__(
        self,
        server: Any,
        *,
        raise_exceptions: bool = False,
        read_timeout_seconds: float | None = None,
        sampling_callback: Any = None,
        list_roots_callback: Any = None,
        logging_callback: Any = None,
        elicitation_callback: Any = None,
        input_required_max_rounds: int = 10,
        **options: Any,
    ) -> None:
        only({"raise_exceptions": raise_exceptions or None})
        made.append(self)
        self._ours = anyio_mcp.Client(
            server,
            timeouts=Timeouts(call=read_timeout_seconds, total=None),
            sampling_handler=_sampling(sampling_callback),
            roots=_roots(list_roots_callback),
            log_handler=logging_callback,
            elicitation_handler=_elicitation(elicitation_callback),
            limits=Limits(max_input_rounds=input_required_max_rounds),
            restart=None,
            **options,
        )

    async def __aenter__(self) -> SDKClient:
        await self._ours.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> bool | None:
        return await self._ours.__aexit__(*exception)

    @property
    def session(self) -> Any:
        return self._ours.session

    @property
    def protocol_version(self) -> Any:
        return self._ours.protocol_version

    @property
    def server_info(self) -> Any:
        return self._ours.server_info

    @property
    def server_capabilities(self) -> Any:
        return self._ours.server_capabilities

    @property
    def instructions(self) -> Any:
        return self._ours.instructions

    async def send_ping(self, *, meta: Any = None) -> Any:
        from mcp.types import EmptyResult

        only({"meta": meta})
        await self._ours.ping()
        return EmptyResult()

    async def send_progress_notification(
        self, progress_token: Any, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        await self._ours.progress(progress_token, progress, total, message)

    async def set_logging_level(self, level: Any, *, meta: Any = None) -> Any:
        from mcp.types import EmptyResult

        only({"meta": meta})
        await self._ours.set_logging_level(level)
        return EmptyResult()

    async def list_tools(self, *, cursor: Any = None, meta: Any = None, cache_mode: Any = "use") -> Any:
        only({"meta": meta})
        return await self._ours.list_tools_mcp(cursor=cursor, cache_mode=cache_mode)

    async def list_prompts(self, *, cursor: Any = None, meta: Any = None, cache_mode: Any = "use") -> Any:
        only({"meta": meta})
        return await self._ours.list_prompts_mcp(cursor=cursor, cache_mode=cache_mode)

    async def list_resources(self, *, cursor: Any = None, meta: Any = None, cache_mode: Any = "use") -> Any:
        only({"meta": meta})
        return await self._ours.list_resources_mcp(cursor=cursor, cache_mode=cache_mode)

    async def list_resource_templates(
        self, *, cursor: Any = None, meta: Any = None, cache_mode: Any = "use"
    ) -> Any:
        only({"meta": meta})
        return await self._ours.list_resource_templates_mcp(cursor=cursor, cache_mode=cache_mode)

    async def read_resource(self, uri: Any, *, meta: Any = None, **options: Any) -> Any:
        return await self._ours.read_resource_mcp(uri, meta=meta, **options)

    async def subscribe_resource(self, uri: Any, *, meta: Any = None) -> Any:
        from mcp.types import EmptyResult

        only({"meta": meta})
        await self._ours.subscribe_resource(uri)
        return EmptyResult()

    async def unsubscribe_resource(self, uri: Any, *, meta: Any = None) -> Any:
        from mcp.types import EmptyResult

        only({"meta": meta})
        await self._ours.unsubscribe_resource(uri)
        return EmptyResult()

    async def call_tool(
        self,
        name: str,
        arguments: Any = None,
        read_timeout_seconds: float | None = None,
        progress_callback: Any = None,
        *,
        meta: Any = None,
        **options: Any,
    ) -> Any:
        only(options)
        timed = {} if read_timeout_seconds is None else {"timeout": read_timeout_seconds}
        return await self._ours.call_tool_mcp(name, arguments, progress_callback, meta=meta, **timed)

    async def get_prompt(self, name: str, arguments: Any = None, *, meta: Any = None, **options: Any) -> Any:
        only(options)
        return await self._ours.get_prompt_mcp(name, arguments, meta=meta)

    async def complete(
        self, ref: Any, argument: Any, context_arguments: Any = None, *, meta: Any = None
    ) -> Any:
        only({"meta": meta})
        return await self._ours.complete_mcp(ref, argument, context_arguments)

    def listen(self, **options: Any) -> Any:
        return self._ours.listen(**options)

    async def send_roots_list_changed(self) -> None:
        await self._ours.send_roots_list_changed()

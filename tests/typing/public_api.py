"""What type checkers tell a user of this library. Checked by pyright in strict mode, never run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import anyio
import anyio.abc
import httpx2
from mcp.client import ClientRequestContext
from mcp.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.types import (
    BlobResourceContents,
    CompleteResult,
    Completion,
    ContentBlock,
    CreateMessageRequestParams,
    DiscoverResult,
    ElicitRequestParams,
    GetPromptResult,
    Implementation,
    InitializeResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    Prompt,
    PromptReference,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SamplingMessage,
    ServerCapabilities,
    TextResourceContents,
    Tool,
)
from mcp.types import CallToolResult as RawToolResult
from pydantic import AnyUrl, BaseModel

import anyio_mcp
from anyio_mcp import (
    DEFAULT,
    CallToolResult,
    Client,
    ConnectError,
    DeadlineExceededError,
    ElicitResult,
    Heartbeat,
    Limits,
    LogMessage,
    MCPClientError,
    MemoryTokenStore,
    MemoryTransport,
    MessageHandler,
    OAuth,
    RequestFailedError,
    Restart,
    ServerTokens,
    SessionLostError,
    SessionState,
    SessionStats,
    SSETransport,
    StdioTransport,
    StreamableHttpTransport,
    Timeouts,
    TokenStore,
    ToolError,
    Transport,
    UnknownContent,
)


class Model(BaseModel):
    n: int


@dataclass
class Record:
    n: int


# --- what a client is made of ---------------------------------------------------------------------


def sources(server: MCPServer, lowlevel: Server[Any], transport: Transport) -> list[Client]:
    return [
        Client("http://127.0.0.1/mcp"),
        Client(AnyUrl("http://127.0.0.1/mcp"), auth="token"),
        Client("http://127.0.0.1/mcp", auth=httpx2.BasicAuth("me", "secret")),
        Client(Path("server.py")),
        Client({"command": "server", "args": ["--fast"]}),
        Client(server),
        Client(lowlevel),
        Client(transport),
        Client(StreamableHttpTransport("http://x/mcp", headers={"a": "b"}, http_client=httpx2.AsyncClient())),
        Client(StdioTransport("server", ["--fast"], env={"A": "b"}, cwd=Path())),
        Client(MemoryTransport(server)),
    ]


def settings(server: MCPServer, tg: anyio.abc.TaskGroup) -> Client:
    return Client(
        server,
        task_group=tg,
        name="mine",
        mode="legacy",
        timeouts=Timeouts(connect=1, call=None, total=2.5, close=1),
        heartbeat=Heartbeat(interval=1, timeout=1),
        restart=Restart(max_attempts=1, backoff=0, jitter=0),
        limits=Limits(max_message_bytes=1),
        client_info=Implementation(name="me", version="1"),
        auto_initialize=False,
    )


def switched_off(server: MCPServer) -> Client:
    return Client(server, heartbeat=None, restart=None, timeouts=None, limits=None, roots=None)


# --- handlers -------------------------------------------------------------------------------------


async def sample(
    messages: list[SamplingMessage], params: CreateMessageRequestParams, context: ClientRequestContext
) -> str:
    return ""


def sample_in_a_thread(
    messages: list[SamplingMessage], params: CreateMessageRequestParams, context: ClientRequestContext
) -> str:
    return ""


async def elicit(
    message: str,
    response_type: type[Any] | None,
    params: ElicitRequestParams,
    context: ClientRequestContext,
) -> ElicitResult[dict[str, str]]:
    return ElicitResult(action="accept", content={"a": "b"})


async def log(message: LogMessage) -> None:
    assert_type(message.data, Any)


async def progress(done: float, total: float | None, message: str | None) -> None: ...


def progress_in_a_thread(done: float, total: float | None, message: str | None) -> None: ...


class Messages(MessageHandler):
    pass


def handlers(server: MCPServer) -> list[Client]:
    client = Client(
        server,
        roots=["/tmp", Path("/tmp")],
        sampling_handler=sample,
        elicitation_handler=elicit,
        log_handler=log,
        message_handler=Messages(),
        progress_handler=progress,
    )
    client.set_roots(["/tmp"])
    client.set_roots(lambda context: ["/tmp"])
    client.set_sampling_callback(sample_in_a_thread)
    client.set_elicitation_callback(elicit)
    return [
        client,
        Client(server, sampling_handler=sample_in_a_thread, progress_handler=progress_in_a_thread),
    ]


# --- the doors ------------------------------------------------------------------------------------


class Mine(Client):
    """A subclass, whose context is itself."""


async def contexts(server: MCPServer) -> None:
    async with Client(server) as client:
        assert_type(client, Client)
    async with Mine(server) as mine:
        assert_type(mine, Mine)
    async with anyio.create_task_group() as tg, Client(server, task_group=tg) as client:
        assert_type(client, Client)
        assert_type(client.new(), Client)
        assert_type(client.new(task_group=tg), Client)


async def service(client: Client) -> None:
    async with anyio.create_task_group() as tg:
        started: None = await tg.start(client.run)
        assert_type(started, None)
        tg.start_soon(client.run)
        tg.start_soon(client.close)
    run: Callable[[], Awaitable[None]] = client.run
    await run()


# --- what is known --------------------------------------------------------------------------------


async def known(client: Client) -> None:
    assert_type(client.name, str)
    assert_type(client.transport, Transport)
    assert_type(client.state, SessionState)
    assert_type(client.is_connected(), bool)
    assert_type(await client.initialize(), InitializeResult)
    assert_type(client.initialize_result, InitializeResult)
    assert_type(client.discover_result, DiscoverResult | None)
    assert_type(client.protocol_version, str | None)
    assert_type(client.server_info, Implementation | None)
    assert_type(client.server_capabilities, ServerCapabilities | None)
    assert_type(client.instructions, str | None)
    assert_type(client.stats(), SessionStats)
    assert_type(client.stats().late_replies, int)


# --- the verbs ------------------------------------------------------------------------------------


async def tools(client: Client) -> None:
    assert_type(await client.list_tools(), list[Tool])
    assert_type(await client.list_tools_mcp(cursor="x"), ListToolsResult)

    result = await client.call_tool("add", {"a": 1})
    assert_type(result, CallToolResult[Any])
    assert_type(result.content, list[ContentBlock | UnknownContent])
    assert_type(result.structured_content, Any)
    assert_type(result.meta, dict[str, Any] | None)
    assert_type(result.is_error, bool)
    assert_type(await client.call_tool("add", result_type=None), CallToolResult[Any])

    model = await client.call_tool("add", result_type=Model)
    assert_type(model, CallToolResult[Model])
    assert_type(model.data, Model | None)
    assert_type((await client.call_tool("add", result_type=Record)).data, Record | None)
    assert_type((await client.call_tool("add", result_type=list[int])).data, list[int] | None)
    assert_type(await client.call_tool("add", raise_on_error=False, result_type=int), CallToolResult[int])

    raw = await client.call_tool_mcp("add", {"a": 1}, progress, timeout=1, meta={"a": 1})
    assert_type(raw, RawToolResult)


async def timeouts(client: Client) -> None:
    await client.call_tool("add", timeout=1, progress_handler=progress, meta={"a": 1})
    await client.call_tool("add", timeout=0.5)
    await client.call_tool("add", timeout=None)
    await client.call_tool("add", timeout=DEFAULT)
    await client.ping(timeout=DEFAULT)


async def resources(client: Client) -> None:
    assert_type(await client.list_resources(), list[Resource])
    assert_type(await client.list_resources_mcp(), ListResourcesResult)
    assert_type(await client.list_resource_templates(), list[ResourceTemplate])
    assert_type(await client.list_resource_templates_mcp(), ListResourceTemplatesResult)
    contents = await client.read_resource("memo://x")
    assert_type(contents, list[TextResourceContents | BlobResourceContents])
    assert_type(await client.read_resource_mcp(AnyUrl("memo://x")), ReadResourceResult)
    assert_type(await client.subscribe_resource("memo://x"), None)
    assert_type(await client.unsubscribe_resource("memo://x"), None)


async def prompts(client: Client) -> None:
    assert_type(await client.list_prompts(), list[Prompt])
    assert_type(await client.list_prompts_mcp(), ListPromptsResult)
    assert_type(await client.get_prompt("greet", {"name": "x", "options": {"a": 1}}), GetPromptResult)
    assert_type(await client.get_prompt_mcp("greet"), GetPromptResult)


async def server(client: Client) -> None:
    assert_type(await client.ping(), bool)
    assert_type(await client.set_logging_level("info"), None)
    reference = PromptReference(name="greet")
    assert_type(await client.complete(reference, {"name": "a", "value": "b"}), Completion)
    assert_type(await client.complete_mcp(reference, {"name": "a", "value": "b"}), CompleteResult)
    assert_type(await client.cancel(1, "enough"), None)
    assert_type(await client.cancel("1"), None)
    assert_type(await client.progress("token", 1, 2, "message"), None)
    assert_type(await client.send_roots_list_changed(), None)


# --- errors ---------------------------------------------------------------------------------------


async def errors(client: Client) -> None:
    try:
        await client.call_tool("add")
    except ToolError as error:
        assert_type(error.result, CallToolResult[Any])
    except SessionLostError as error:
        assert_type(error.exit_code, int | None)
        assert_type(error.stderr_tail, tuple[str, ...])
        if error.reason == "silent":
            raise
    except DeadlineExceededError as error:
        assert_type(error.seconds, float)
        if error.phase == "call":
            raise TimeoutError from error
    except RequestFailedError as error:
        assert_type(error.cause, BaseException | None)
    except ConnectError as error:
        assert_type(error.exit_code, int | None)
    except MCPClientError as error:
        assert_type(error.cause, BaseException | None)


def names() -> tuple[str, ...]:
    return anyio_mcp.__all__


class Keyring(TokenStore):
    """A store of the user's own."""

    async def get(self, server_url: str) -> str | None: ...

    async def set(self, server_url: str, record: str) -> None: ...

    async def delete(self, server_url: str) -> None: ...


async def show(url: str) -> None: ...


def signing_in(url: str, provider: httpx2.Auth) -> None:
    Client(url, auth="oauth")
    Client(url, auth=OAuth(scopes=["read"], token_store=Keyring(), open_browser=show))
    Client(SSETransport(url, auth=OAuth(scopes="read", open_browser=print), headers={"x": "y"}))
    assert_type(ServerTokens(MemoryTokenStore(), url), ServerTokens)
    Client(url, auth=provider)

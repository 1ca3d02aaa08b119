"""The commands `demo`, `list` and `call`: options in, lines and an exit code out.

Owns the command line and nothing else: what the words mean is in `servers`, what the answers look
like in `render`, what an error means in `outcome`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, NoReturn, TypeVar

import anyio
import typer
from mcp.types import CallToolResult
from rich.console import Console
from rich.text import Text

from anyio_mcp.cli import demo as demo_command
from anyio_mcp.cli import outcome, render
from anyio_mcp.cli.outcome import UsageError
from anyio_mcp.cli.servers import arguments_of, source_of
from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts

ResultT = TypeVar("ResultT")

EXIT_CODES = "Exit codes: 0 done; 1 the server answered with an error; 2 usage; 3 no answer."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="An MCP client that refuses to hang.",
    epilog=EXIT_CODES,
)


class Backend(StrEnum):
    ASYNCIO = "asyncio"
    TRIO = "trio"


Server = Annotated[
    str,
    typer.Argument(
        metavar="SERVER",
        help="A URL, a .py or .js file, a .json with one server, or a command line in quotes.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print what the server sent, as JSON.")]
Seconds = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds to connect, and again for each request.")
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"anyio-mcp {version('anyio-mcp')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """An MCP client that refuses to hang."""


@app.command("demo", help="One client shared by many tasks, and a server that gets killed under it.")
def run_demo(
    backend: Annotated[Backend, typer.Option(help="The event loop to run on.")] = Backend.ASYNCIO,
) -> None:
    console = Console(highlight=False)

    async def work() -> None:
        await demo_command.run(console, backend)

    _run(work, backend=backend)


@app.command("list", help="List the tools, resources and prompts of a server.")
def run_list(server: Server, as_json: Json = False, timeout: Seconds = 30.0) -> None:
    async def work() -> render.Offer:
        async with _client(server, timeout) as client:
            return await _ask_for_everything(client)

    offer = _run(work)
    if as_json:
        typer.echo(render.offer_as_json(offer))
    else:
        _print(*render.offer_as_text(offer))


@app.command("call", help="Call a tool: anyio-mcp call SERVER add a=1 b=2")
def run_call(
    server: Server,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Its arguments. A value that is JSON is sent as such."),
    ] = None,
    as_json: Json = False,
    timeout: Seconds = 30.0,
) -> None:
    async def work() -> CallToolResult:
        arguments = arguments_of(words or ())
        async with _client(server, timeout) as client:
            return await client.call_tool_mcp(tool, arguments)

    result = _run(work)
    if as_json:
        typer.echo(render.as_json(render.dump(result)))
    elif not result.is_error:
        _print(*(Text(item) for item in render.result_as_text(result)))
    if result.is_error:
        _fail(outcome.in_one_line(f"ToolError: {render.error_text(result)}"), outcome.ANSWERED_WITH_ERROR)


def _client(server: str, timeout: float) -> Client:
    try:
        return Client(source_of(server), timeouts=Timeouts(connect=timeout, call=timeout))
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


async def _ask_for_everything(client: Client) -> render.Offer:
    """What the server says it has; a list it does not declare is not asked for."""
    capabilities = client.server_capabilities
    has_resources = capabilities is not None and capabilities.resources is not None
    return render.Offer(
        server=client.server_info,
        protocol_version=client.protocol_version,
        tools=await client.list_tools() if capabilities and capabilities.tools else (),
        resources=await client.list_resources() if has_resources else (),
        templates=await client.list_resource_templates() if has_resources else (),
        prompts=await client.list_prompts() if capabilities and capabilities.prompts else (),
    )


def _run(work: Callable[[], Awaitable[ResultT]], *, backend: Backend = Backend.ASYNCIO) -> ResultT:
    """Run `work` to its end; whatever it raises becomes one line on stderr and an exit code."""
    if find_spec(backend) is None:
        _fail(f"the backend {backend} is not installed: pip install 'anyio-mcp[{backend}]'", outcome.USAGE)
    try:
        return anyio.run(work, backend=backend)
    except Exception as error:
        _fail(outcome.one_line(error), outcome.exit_code(error))


def _fail(line: str, code: int) -> NoReturn:
    typer.echo(f"anyio-mcp: {line}", err=True)
    raise typer.Exit(code)


def _print(*lines: Text) -> None:
    console = Console(highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)

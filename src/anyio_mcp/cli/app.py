"""The commands `demo`, `list` and `call`: options in, lines and an exit code out.

Owns the command line and nothing else: what the words mean is in `servers`, what the answers look
like in `render`, how they are written in `output`, what an error means in `outcome`, and how a command ends
on a signal in `running`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from mcp import MCPError
from mcp.types import METHOD_NOT_FOUND, CallToolResult
from rich.console import Console
from rich.text import Text

from anyio_mcp.cli import demo as demo_command
from anyio_mcp.cli import outcome, output, render
from anyio_mcp.cli.outcome import UsageError
from anyio_mcp.cli.running import Interrupted, run_command
from anyio_mcp.cli.servers import arguments_of, need_schema, pairs_of, source_of
from anyio_mcp.client import Client
from anyio_mcp.config import Timeouts

ResultT = TypeVar("ResultT")

EXIT_CODES = (
    "Exit codes: 0 done; 1 the server answered with an error; 2 usage; 3 no answer; 4 the answer could not "
    "be written; 128 and a signal's number."
)

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
        help="A URL, a .py or .js file, a .json with one server, one of several as FILE.json:NAME, or a "
        "command line in quotes. What a command line starts gets this environment.",
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
    output.prepare()


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
        _write(render.offer_as_json(offer) + "\n")
    else:
        _print(*render.offer_as_text(offer))
    for title, error in offer.failures:
        output.complain(f"{title}: {outcome.one_line(error)}")
    # What a server does not have is no failure; what it could not tell is one.
    if failed := [error for _, error in offer.failures if not _is_unknown(error)]:
        raise typer.Exit(outcome.exit_code(failed[0]))


@app.command("call", help="Call a tool: anyio-mcp call SERVER add a=1 b=2")
def run_call(
    server: Server,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The tool's name.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Its arguments. A value that is JSON is sent as such, unless the tool wants a text.",
        ),
    ] = None,
    as_json: Json = False,
    timeout: Seconds = 30.0,
) -> None:
    async def work() -> CallToolResult:
        pairs = pairs_of(words or ())
        async with _client(server, timeout) as client:
            schema = await _input_schema(client, tool) if need_schema(pairs) else None
            arguments = arguments_of(pairs, schema)
            return await client.call_tool_mcp(tool, arguments)

    result = _run(work)
    if as_json:
        _write(render.as_json(render.dump(result)) + "\n")
    elif not result.is_error:
        # As it is, whoever reads it: rich would turn tabs into spaces.
        _write("".join(f"{item}\n" for item in render.result_as_text(result)))
    if result.is_error:
        _fail(outcome.in_one_line(f"ToolError: {render.error_text(result)}"), outcome.ANSWERED_WITH_ERROR)


def _client(server: str, timeout: float) -> Client:
    try:
        return Client(source_of(server), timeouts=Timeouts(connect=timeout, call=timeout))
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


async def _ask_for_everything(client: Client) -> render.Offer:
    """What the server says it has; a list it does not declare is not asked for, and one that it cannot give
    does not cost the others. Raises what the first one raised if there is none at all."""
    capabilities = client.server_capabilities
    has_tools = capabilities is not None and capabilities.tools is not None
    has_resources = capabilities is not None and capabilities.resources is not None
    has_prompts = capabilities is not None and capabilities.prompts is not None
    failures: list[tuple[str, Exception]] = []

    async def ask(title: str, is_there: bool, lists: Callable[[], Awaitable[Sequence[Any]]]) -> Sequence[Any]:
        try:
            return await lists() if is_there else ()
        except Exception as error:
            failures.append((title, error))
            return ()

    offer = render.Offer(
        server=client.server_info,
        protocol_version=client.protocol_version,
        tools=await ask("tools", has_tools, client.list_tools),
        resources=await ask("resources", has_resources, client.list_resources),
        templates=await ask("resource templates", has_resources, client.list_resource_templates),
        prompts=await ask("prompts", has_prompts, client.list_prompts),
        failures=failures,
    )
    if failures and not (offer.tools or offer.resources or offer.templates or offer.prompts):
        wrong = [error for _, error in failures if not _is_unknown(error)]
        if wrong:
            raise wrong[0]
    return offer


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, MCPError) and error.code == METHOD_NOT_FOUND


async def _input_schema(client: Client, tool: str) -> dict[str, Any] | None:
    """What the tool takes, if the server says so: a tool that cannot be listed may still be called."""
    try:
        return next((each.input_schema for each in await client.list_tools() if each.name == tool), None)
    except Exception:
        return None


def _run(work: Callable[[], Awaitable[ResultT]], *, backend: Backend = Backend.ASYNCIO) -> ResultT:
    """Run `work` to its end; whatever it raises becomes one line on stderr and an exit code."""
    if find_spec(backend) is None:
        _fail(f"the backend {backend} is not installed: pip install 'anyio-mcp[{backend}]'", outcome.USAGE)
    try:
        return run_command(work, backend)
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None
    except Exception as error:
        _fail(outcome.one_line(error), outcome.exit_code(error))


def _fail(line: str, code: int) -> NoReturn:
    output.complain(line)
    raise typer.Exit(code)


def _print(*lines: Text) -> None:
    console = output.StyledOutput()

    def work() -> None:
        for line in lines:
            console.print(line, soft_wrap=True)

    _deliver(work)


def _write(text: str) -> None:
    _deliver(lambda: output.write(text))


def _deliver(work: Callable[[], None]) -> None:
    """Write the answer, all of it, or say that it could not be written."""
    try:
        output.deliver(work)
    except output.UnwrittenError as error:
        if error.line:
            output.complain(error.line)
        raise typer.Exit(error.exit_code) from None

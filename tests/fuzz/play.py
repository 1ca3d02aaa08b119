"""Playing one case, and what must hold however wrong the server was.

The operation ends by its deadline, with a result or with an error that is documented; a result is what was
sent; nobody else's scope is cancelled; the next operation, on a server that is right again, succeeds.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import jsonschema
from mcp import MCPError
from mcp.types import ElicitResult, TextContent

from anyio_mcp import (
    Client,
    MCPClientError,
    RequestFailedError,
    Restart,
    SessionLostError,
    SSETransport,
    StdioTransport,
    Timeouts,
)
from anyio_mcp.auth import MemoryTokenStore, OAuth
from anyio_mcp.mcp_config import MCPConfig
from anyio_mcp.results import ResultSchemaError
from anyio_mcp.testing import ScriptedPeer, check_at_rest
from anyio_mcp.transports.infer import infer_transport
from tests.fuzz import traffic
from tests.fuzz.cases import Case
from tests.fuzz.servers import SseServer, StreamableServer, reply, say, serving
from tests.lag.meter import Meter
from tests.lag.plugin import ORDINARY

CHILD: Final = Path(__file__).with_name("child.py")
TYPED: Final = (MCPClientError, MCPError, httpx2.HTTPStatusError)
PATIENCE: Final = 0.3
"""Seconds a call may take whose server is wrong: an answer that cannot be recognized never comes."""
AMPLE: Final = 30.0
"""Seconds for what has to succeed, on a busy machine."""
MARGIN: Final = 30.0
"""Seconds after its deadline, and on a busy machine, that an operation may end."""

Call = Callable[[Client, float], Awaitable[Any]]

CALLS: Final[dict[str, Call]] = {
    "call_tool": lambda client, timeout: client.call_tool("t", {"a": "b"}, timeout=timeout),
    "call_tool_mcp": lambda client, timeout: client.call_tool_mcp("t", timeout=timeout),
    "list_tools": lambda client, timeout: client.list_tools(timeout=timeout, cache_mode="refresh"),
    "list_resources": lambda client, timeout: client.list_resources(timeout=timeout, cache_mode="refresh"),
    "list_resource_templates": lambda client, timeout: client.list_resource_templates(
        timeout=timeout, cache_mode="refresh"
    ),
    "list_prompts": lambda client, timeout: client.list_prompts(timeout=timeout, cache_mode="refresh"),
    "read_resource": lambda client, timeout: client.read_resource(
        "x://y", timeout=timeout, cache_mode="refresh"
    ),
    "get_prompt": lambda client, timeout: client.get_prompt("p", {"a": "b"}, timeout=timeout),
    "complete": lambda client, timeout: client.complete(
        {"type": "ref/prompt", "name": "p"}, {"name": "a", "value": "b"}, timeout=timeout
    ),
    "ping": lambda client, timeout: client.ping(timeout=timeout),
}


async def _task(client: Client, timeout: float) -> Any:
    task = await client.call_tool("t", task=True, timeout=timeout)
    with anyio.move_on_after(timeout):
        return await task
    return None


CALLS["task"] = _task


class Reports(logging.Handler):
    """What was logged as an error: a bug report of the library's, or of the event loop's."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # The handler of these cases answers whatever it is asked, and that may not fit. The SDK logs what
        # its sign-in raises.
        if record.name in ("anyio_mcp.handlers.handler", "mcp.client.auth.oauth2"):
            return
        cause = record.exc_info[1] if record.exc_info else None
        self.found.append(f"logged {record.name}: {record.getMessage()[:300]} {cause!r}"[:600])


class World:
    """A client and its server, for one case after another."""

    def __init__(
        self, arrange: Callable[[Case], None], client: Client, another: Callable[..., Client]
    ) -> None:
        self.client = client
        self.arrange = arrange
        self.another = another
        """Makes one that knows nothing yet."""

    async def play(self, case: Case) -> list[str]:
        """What was wrong, a line each."""
        findings: list[str] = []
        self.arrange(case)
        allowed = AMPLE if case.valid else PATIENCE
        began = time.monotonic()
        result: Any = None
        with anyio.CancelScope() as scope:
            try:
                result = await self._operate(case, allowed)
            except TYPED as error:
                if case.valid and not isinstance(error, ResultSchemaError):
                    findings.append(f"nothing was wrong, and it failed: {error!r}")
            except (TypeError, ValueError) as error:
                findings.append(f"untyped: {error!r}")
            except Exception as error:
                findings.append(f"untyped: {error!r}")
            except anyio.get_cancelled_exc_class():
                findings.append("the caller was cancelled")
                raise
        if scope.cancelled_caught:
            findings.append("a scope of the caller's was cancelled")
        seconds = time.monotonic() - began
        if seconds > allowed + 2 + MARGIN:
            findings.append(f"took {seconds:.1f} s, with a timeout of {allowed:g} s")
        if result is not None:
            findings += altered(case, result)
        findings += await self._heal(case)
        return findings

    async def _operate(self, case: Case, allowed: float) -> Any:
        if case.verb != "connect":
            return await CALLS[case.verb](self.client, allowed)
        timeouts = Timeouts(connect=allowed, call=allowed, close=1)
        client = self.another(timeouts=timeouts)
        try:
            async with client:
                repr(client)
                str(client.server_info)
        finally:
            # A client that could not be entered may still be saying goodbye.
            await client.close()
            check_at_rest(client)
        return None

    async def _heal(self, case: Case) -> list[str]:
        self.arrange(replace(case, says={}))
        for chance in (1, 2):
            try:
                result = await self.client.call_tool_mcp("healed", timeout=AMPLE)
                break
            except Exception as error:
                # A server may close a connection just when a request is on its way; and what it said before,
                # to a request that nobody waits for any more, may end the session now.
                lost = isinstance(error, RequestFailedError) and error.reason == "transport"
                if chance == 2 or not (lost or isinstance(error, SessionLostError)):
                    return [f"the next call failed: {error!r}"]
        if result.structured_content != traffic.STRUCTURED:
            return [f"the next call had the result of another: {result!r}"[:300]]
        return []


def expected(case: Case, method: str) -> dict[str, Any] | None:
    """The one result that a reader of JSON finds in what was said; None if there is none, or are several."""
    text = "".join(case.says[method]).encode("latin-1")
    if case.target == "http":
        text = text.partition(b"\r\n\r\n")[2]
    found: list[dict[str, Any]] = []
    for line in text.replace(b"\r", b"\n").split(b"\n"):
        line = line.removeprefix(b"data:").strip()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(message, dict) and message.get("id") == traffic.ID and "method" not in message:
            found.append(message)
    if len(found) != 1 or found[0].get("error") is not None:
        return None
    result = found[0].get("result")
    return result if isinstance(result, dict) else None


def altered(case: Case, result: Any) -> list[str]:
    """Whether a value came out as another than was sent."""
    if case.verb not in ("call_tool_mcp", "call_tool"):
        return []
    sent = expected(case, "tools/call")
    if sent is None or sent.get("resultType", "complete") != "complete":
        return []
    if any(place in str(sent) for place in (traffic.ID, traffic.TOKEN)):
        return []  # A value became a place that the server fills.
    if "structuredContent" in sent and not same(sent["structuredContent"], result.structured_content):
        return [f"altered: {sent['structuredContent']!r:.300} came as {result.structured_content!r:.300}"]
    content = sent.get("content")
    if isinstance(content, list):
        blocks = [each for each in content if isinstance(each, dict)]
        texts = [each.get("text") for each in blocks if each.get("type") == "text"]
        came = [each.text for each in result.content if isinstance(each, TextContent)]
        # A block that is none is kept as it came.
        whole = len(blocks) == len(content) and all(isinstance(text, str) for text in texts)
        whole = whole and not any(type(each).__name__ == "UnknownContent" for each in result.content)
        if whole and not same(texts, came):
            return [f"altered: {texts!r:.300} came as {came!r:.300}"]
    return []


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types; what is no number equals itself, and half a surrogate anything."""
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)
    if isinstance(one, str) and any("\ud800" <= each <= "\udfff" for each in one):
        return isinstance(other, str)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        if any("\ud800" <= each <= "\udfff" for key in one for each in key):
            return True
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _options(tasks: Any, era: str) -> dict[str, Any]:
    async def sampling(*_: Any) -> str:
        return "text"

    async def elicitation(message: str, response_type: Any, params: Any, context: Any) -> Any:
        repr(response_type)
        return ElicitResult(action="accept", content={"name": "x"})

    def nothing(*_: Any) -> None:
        pass

    return {
        "task_group": tasks,
        "mode": "legacy" if era == "legacy" else "auto",
        "timeouts": Timeouts(connect=AMPLE, call=AMPLE, close=1),
        "restart": Restart(max_attempts=5, backoff=0),
        "sampling_handler": sampling,
        "elicitation_handler": elicitation,
        "roots": ["file:///x"],
        "log_handler": nothing,
        "message_handler": nothing,
        "progress_handler": nothing,
    }


@asynccontextmanager
async def world(target: str, era: str) -> AsyncGenerator[Any]:
    """A world for the cases of one target and era. Leaving it shows whether anything is left."""
    match target:
        case "stdio":
            with tempfile.TemporaryDirectory() as directory:
                plan = Path(directory) / "plan"
                plan.write_text(json.dumps({"era": era, "says": {}}))

                def arrange(case: Case) -> None:
                    plan.with_suffix(".new").write_text(json.dumps({"era": era, "says": case.says}))
                    plan.with_suffix(".new").replace(plan)

                async with _clients(StdioTransport(sys.executable, [str(CHILD), str(plan)]), era) as clients:
                    yield World(arrange, *clients)
        case "http" | "sse":
            server = StreamableServer() if target == "http" else SseServer()
            server.plan.era = era
            async with serving(server) as port:
                server.plan.port = port

                def arrange(case: Case) -> None:
                    server.plan.says = case.says

                url = f"http://127.0.0.1:{port}/mcp"
                async with _clients(url if target == "http" else SSETransport(url), era) as clients:
                    yield World(arrange, *clients)
        case "schema":
            yield SchemaWorld(era)
        case "oauth":
            server = OAuthServer()
            server.plan.era = era
            async with serving(server) as port:
                server.plan.port = port
                yield OAuthWorld(server)
        case _:
            yield ConfigWorld()


@asynccontextmanager
async def _clients(source: Any, era: str) -> AsyncGenerator[tuple[Client, Callable[..., Client]]]:
    async with anyio.create_task_group() as tasks:
        options = _options(tasks, era)
        client = Client(source, **options)
        async with client:
            yield client, lambda **others: Client(source, **{**options, **others})
        check_at_rest(client)
        assert not tasks.cancel_scope.cancel_called


class SchemaWorld:
    """Output schemas against a validator that takes its time: the `jsonschema` package."""

    def __init__(self, era: str) -> None:
        self.era = era

    async def play(self, case: Case) -> list[str]:
        schema, value = json.loads(case.says["schema"][0]), json.loads(case.says["value"][0])
        peer = ScriptedPeer(era=self.era)
        tool = {"name": "t", "inputSchema": {"type": "object"}, "outputSchema": schema}
        peer.on("tools/list", {"tools": [tool]})
        peer.on("tools/call", {"content": [], "structuredContent": copy.deepcopy(value)})
        mode = "legacy" if self.era == "legacy" else "auto"
        async with Client(peer.transport, mode=mode) as client:
            try:
                result = await client.call_tool("t", timeout=AMPLE)
            except ResultSchemaError as error:
                if is_valid(schema, value) is True:
                    return [f"valid, and refused: {error}"]
                return []
            except TYPED:
                return []
            except Exception as error:
                return [f"untyped: {error!r}"]
        if not same(value, result.structured_content):
            return [f"altered: {value!r:.300} came as {result.structured_content!r:.300}"]
        # A null is no structured content, and there is nothing to check.
        checked = result.unchecked is None and value is not None
        if checked and isinstance(schema, dict) and is_valid(schema, value) is False:
            return ["invalid, and neither refused nor called unchecked"]
        return []


def is_valid(schema: Any, value: Any) -> bool | None:
    """None where the reference cannot tell either: no schema of the draft, remote references, recursion."""
    try:
        validator = jsonschema.Draft202012Validator
        if "$schema" in schema and "2020-12" not in str(schema["$schema"]):
            return None
        validator.check_schema(schema)
        return validator(schema).is_valid(value)
    except Exception:
        return None


class OAuthServer(StreamableServer):
    """A guarded server and its authorization server in one."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: dict[str, str] = {}

    async def respond(self, stream: Any, method: str, target: str, body: bytes) -> bool:
        path = urlsplit(target).path
        says = self.plan.says
        documents = {"/rm": "resource", "/register": "register", "/token": "token"}
        name = documents.get(path)
        if path.startswith("/.well-known/oauth-protected-resource"):
            name = "resource"
        elif path.startswith("/.well-known/"):
            name = "authority"
        elif path == "/mcp" and self.headers.get("authorization") != "Bearer good":
            name = "401"
        if name is None or name not in says:
            if path != "/mcp":
                await stream.send(reply(404))
                return True
            return await super().respond(stream, method, target, body)
        await say(stream, says[name], None, self.plan.port)
        return False


class OAuthWorld:
    def __init__(self, server: OAuthServer) -> None:
        self.server = server

    async def play(self, case: Case) -> list[str]:
        self.server.plan.says = case.says
        visits = 0

        async def browser(url: str) -> None:
            nonlocal visits
            visits += 1
            query = parse_qs(urlsplit(url).query)
            back = urlsplit(query["redirect_uri"][0])
            if back.hostname not in ("127.0.0.1", "localhost"):
                return
            stream = await anyio.connect_tcp("127.0.0.1", back.port)
            async with stream:
                line = f"GET {back.path}?code=x&state={query['state'][0]} HTTP/1.1\r\nHost: x\r\n\r\n"
                await stream.send(line.encode())
                await stream.receive()

        allowed = AMPLE if case.valid else 2.0
        timeouts = Timeouts(connect=allowed, call=allowed, close=1)
        auth = OAuth(token_store=MemoryTokenStore(), open_browser=browser)
        url = f"http://127.0.0.1:{self.server.plan.port}/mcp"
        mode = "legacy" if case.era == "legacy" else "auto"
        client = Client(url, auth=auth, mode=mode, timeouts=timeouts, restart=None)
        findings: list[str] = []
        began = time.monotonic()
        try:
            async with client:
                await client.call_tool_mcp("t")
        except TYPED as error:
            if case.valid:
                findings.append(f"nothing was wrong, and it failed: {error!r}")
        except Exception as error:
            findings.append(f"untyped: {error!r}")
        if (seconds := time.monotonic() - began) > 2 * allowed + 2 + MARGIN:
            findings.append(f"took {seconds:.1f} s, with a timeout of {allowed:g} s")
        if visits > 1:
            findings.append(f"opened {visits} browsers")
        await client.close()
        check_at_rest(client)
        return findings


class ConfigWorld:
    async def play(self, case: Case) -> list[str]:
        # Without a pause these cases, which never wait, would be most of all.
        await anyio.sleep(0.02)
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "mcp.json"
            path.write_bytes(case.says["file"][0].encode("latin-1"))
            try:
                config = MCPConfig.load(path)
                repr(config)
                for server in config.servers.values():
                    repr(server)
                    transport = infer_transport(server)
                    repr(transport)
                    repr(Client(transport))
            except (ValueError, TypeError, OSError, MCPClientError) as error:
                str(error)
            except Exception as error:
                return [f"untyped: {error!r}"]
        return []


def long_steps(meter: Meter) -> list[str]:
    """The steps that were too long since the meter began. The collector's share is everybody's."""
    return [
        f"a step held the event loop: {step}"
        for step in meter.current
        if step.seconds - step.collecting > ORDINARY
    ]

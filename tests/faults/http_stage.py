"""How a cell over HTTP is played: a server that behaves except where a scene says otherwise, and a client.

The client is the public one, on a real socket, in a task group of the caller's with another task of the
caller's beside it. Which faults there are is the business of the files that list them.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio
import httpx2
from anyio.abc import TaskGroup

from anyio_mcp import (
    Client,
    DeadlineExceededError,
    Heartbeat,
    Limits,
    Restart,
    StreamableHttpTransport,
    Timeouts,
)
from anyio_mcp.testing import check_at_rest
from anyio_mcp.transports._policy import HttpPolicy
from anyio_mcp.transports.base import Transport
from tests.faults.http_driver import QUICK
from tests.faults.http_outcomes import AMPLE, CLOSE
from tests.faults.http_server import (
    CERTIFICATE,
    FaultServer,
    Handler,
    Received,
    Talk,
    error_answer,
    fault_server,
    never,
)
from tests.faults.matrix import Cell, Era, Observed

MODES: Final[dict[Era, str]] = {"legacy": "legacy", "modern": "auto"}
VERSIONS: Final[dict[Era, str]] = {"legacy": "2025-11-25", "modern": "2026-07-28"}


class Stage:
    """One client, its server, and whether the fault is still made."""

    def __init__(self, cell: Cell, client: Client, server: FaultServer, tg: TaskGroup) -> None:
        self.cell = cell
        self.client = client
        self.server = server
        self.tg = tg
        """The caller's own."""
        self.broken = True
        self.met = 0
        """Requests that have met the fault."""


Meets: TypeAlias = Callable[[Received], bool]
Act: TypeAlias = Callable[[Stage], Awaitable[None]]
Serves: TypeAlias = Callable[[Era, Talk], Awaitable[None]]


def post(*methods: str) -> Meets:
    """The POSTs of these JSON-RPC methods."""
    return lambda received: received.method == "POST" and received.rpc_method in methods


def http(method: str) -> Meets:
    return lambda received: received.method == method


def anything(received: Received) -> bool:
    return True


CALLS: Final = post("tools/call")
BEGINNING: Final = post("server/discover", "initialize")
PROBE: Final = post("server/discover")
HANDSHAKE: Final = post("initialize")
INITIALIZED: Final = post("notifications/initialized")
NOTIFICATIONS: Final = post("notifications/roots/list_changed", "notifications/progress")


async def call(stage: Stage) -> None:
    """The call that meets the fault, under the client's own deadlines."""
    result = await stage.client.call_tool("echo")
    assert result.content[0].text == "echo"


async def notify(stage: Stage) -> None:
    if stage.cell.era == "legacy":
        await stage.client.send_roots_list_changed()
    else:
        await stage.client.progress("nobody's", 1)


async def nothing(stage: Stage) -> None:
    """For what the client meets by itself."""


def got(count: int) -> Act:
    """Wait until the server was asked for a stream this often, then call."""

    async def act(stage: Stage) -> None:
        await stage.server.until(lambda server: len(server.of("GET")) >= count)
        await call(stage)

    return act


async def when_lost(stage: Stage) -> None:
    """Wait until the session is over, then call."""
    while stage.client.is_connected():
        await anyio.sleep(0.001)
    await call(stage)


ECHO: Final = {"content": [{"type": "text", "text": "echo"}], "resultType": "complete"}


async def behave(era: Era, talk: Talk) -> None:
    """What a server does that makes no mistake. One of the modern era knows the handshake as well."""
    received = talk.received
    if received.method != "POST":
        await talk.reply(405 if received.method == "GET" else 204)
    elif received.rpc_method is None or received.rpc_method.startswith("notifications/"):
        await talk.reply(202)
    elif (result := result_of(era, received.rpc_method)) is not None:
        begins = received.rpc_method == "initialize"
        await talk.result(result, {"mcp-session-id": "S-1"} if begins else None)
    else:
        await talk.reply(404, error_answer(talk.id, -32601, "unknown method"), "application/json")


def result_of(era: Era, method: str) -> dict[str, Any] | None:
    """The right result of a request. None: no such method."""
    match method:
        case "initialize":
            return {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "fault server", "version": "1"},
            }
        case "server/discover" if era == "modern":
            return {
                "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}},
                "resultType": "complete",
                "ttlMs": 0,
                "cacheScope": "private",
            }
        case "tools/list":
            tools = [{"name": "echo", "inputSchema": {"type": "object"}}]
            return {"tools": tools, "ttlMs": 0, "cacheScope": "private"}
        case "tools/call":
            return ECHO
        case "ping":
            return {}
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One fault of an HTTP server, and the client that meets it."""

    fault: Handler
    serves: Serves = behave
    """Whatever does not meet the fault."""
    transport: Callable[..., Transport] = StreamableHttpTransport
    tls: bool = False
    meets: Meets = CALLS
    times: int | None = None
    """How many requests meet it; None: all, until it is mended."""
    reads: float = math.inf
    """Bytes of a body that the server takes."""
    dead: bool = False
    """Once a request has met it, no other is answered."""
    act: Act = call
    connect: float = AMPLE
    call: float = AMPLE
    heartbeat: Heartbeat | None = None
    limits: Limits = field(default_factory=Limits)
    policy: HttpPolicy = QUICK
    speaks: str | None = None
    """The version that is negotiated in spite of the fault."""
    check: Callable[[Stage], None] = lambda stage: None
    """Of what has reached the server and was counted by the client, while the fault is still made."""

    async def __call__(self, cell: Cell) -> Observed:
        async with (
            fault_server(lambda talk: self._serve(stage, talk), tls=self.tls, reads=self.reads) as server,
            self._http_client() as http_client,
        ):
            async with anyio.create_task_group() as tg:
                undisturbed = anyio.Event()
                leave = anyio.Event()

                async def bystander() -> None:
                    await leave.wait()
                    undisturbed.set()

                tg.start_soon(bystander)
                transport = self.transport(server.url, _policy=self.policy, http_client=http_client)
                stage = Stage(cell, self._client(cell, transport, tg), server, tg)
                play = {"connecting": self._connecting, "closing": self._closing}
                observed = await play.get(cell.phase, self._using)(stage)
                assert not tg.cancel_scope.cancel_called
                leave.set()
            assert undisturbed.is_set(), "the caller's own task was cancelled"
            check_at_rest(stage.client)
            if http_client is not None:
                await http_client.aclose()
            await server.until(lambda server: server.open == 0)
            return observed

    def _http_client(self) -> AbstractAsyncContextManager[httpx2.AsyncClient | None]:
        """One that trusts the certificate of the server, if it has one; else the transport brings its own."""
        if not self.tls:
            return nullcontext()
        return httpx2.AsyncClient(verify=ssl.create_default_context(cafile=CERTIFICATE))

    def _client(self, cell: Cell, transport: Transport, tg: TaskGroup) -> Client:
        return Client(
            transport,
            task_group=tg,
            mode=MODES[cell.era],
            timeouts=Timeouts(connect=self.connect, call=self.call, close=CLOSE),
            heartbeat=self.heartbeat,
            restart=Restart(backoff=0),
            limits=self.limits,
            roots=[],
        )

    async def _serve(self, stage: Stage, talk: Talk) -> None:
        makes_fault = stage.broken and (self.times is None or stage.met < self.times)
        if stage.broken and self.dead and stage.met:
            await never(talk)
        elif makes_fault and self.meets(talk.received):
            stage.met += 1
            await self.fault(talk)
        else:
            await self.serves(stage.cell.era, talk)

    async def _connecting(self, stage: Stage) -> Observed:
        error: Exception | None = None
        survived = works = False
        began = anyio.current_time()
        try:
            async with stage.client:
                seconds = anyio.current_time() - began
                assert stage.client.protocol_version == (self.speaks or VERSIONS[stage.cell.era])
                await self.act(stage)
                self._mend(stage)
                works = await echoes(stage.client)
                survived = stage.client.stats().sessions_started == 1
        except Exception as caught:
            error = caught
            seconds = anyio.current_time() - began
            self._mend(stage)
            works = await self._works_at_last(stage)
        return Observed(error=error, survived=survived, works=works, seconds=seconds)

    async def _works_at_last(self, stage: Stage) -> bool:
        # A connect deadline that is short enough to be waited for may be too short for a busy machine.
        for _ in range(5):
            try:
                async with stage.client:
                    return await echoes(stage.client)
            except DeadlineExceededError as error:
                if error.phase != "connect" or self.connect == AMPLE:
                    raise
        return False

    async def _using(self, stage: Stage) -> Observed:
        async with stage.client:
            began = anyio.current_time()
            error = await error_of(self.act, stage)
            seconds = anyio.current_time() - began
            self._mend(stage)
            works = await echoes(stage.client)
            survived = stage.client.stats().sessions_started == 1
        return Observed(error=error, survived=survived, works=works, seconds=seconds)

    async def _closing(self, stage: Stage) -> Observed:
        async with stage.client:
            await self.act(stage)
            began = anyio.current_time()
        seconds = anyio.current_time() - began
        self._mend(stage)
        async with stage.client:
            works = await echoes(stage.client)
        return Observed(error=None, survived=False, works=works, seconds=seconds)

    def _mend(self, stage: Stage) -> None:
        assert stage.met > 0, "nothing met the fault"
        self.check(stage)
        stage.broken = False


async def echoes(client: Client) -> bool:
    """A call that has all the time it needs."""
    result = await client.call_tool("echo", timeout=AMPLE)
    return result.content[0].text == "echo"


async def error_of(act: Act, stage: Stage) -> Exception | None:
    try:
        await act(stage)
    except Exception as error:
        return error
    return None

"""Connecting: what keeps a session over HTTP from beginning, and what an odd beginning comes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from unittest import mock

import anyio
import httpx2

from anyio_mcp import Client, DeadlineExceededError, Restart, StreamableHttpTransport, Timeouts
from anyio_mcp._session import dispatcher
from anyio_mcp.testing import check_at_rest
from anyio_mcp.transports.base import Transport
from tests.faults.http_answers import BREAKS, BY_HANDSHAKE
from tests.faults.http_driver import QUICK
from tests.faults.http_outcomes import (
    CLOSE,
    CONNECT,
    WORKS,
    Cells,
    answered,
    connecting,
    failed,
    not_connected,
    refused,
)
from tests.faults.http_server import (
    Handler,
    Talk,
    fault_server,
    never,
)
from tests.faults.http_stage import (
    BEGINNING,
    HANDSHAKE,
    INITIALIZED,
    MODES,
    PROBE,
    Scene,
    Serves,
    behave,
    echoes,
    nothing,
)
from tests.faults.matrix import Cell, Observed, Outcome
from tests.servers import free_port

CELLS: Final = Cells("HTTP: connecting")

PATIENT: Final = 1.2
"""A connect deadline with time left for the handshake when the probe has used up its share."""


# --- what the server says of itself ------------------------------------------------------------------

BEGIN: Final[Mapping[str, Any]] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "fault server", "version": "1"},
}


def begins(**members: Any) -> Handler:
    """An `initialize` result of which some members are wrong, or missing (None)."""
    result = {name: value for name, value in {**BEGIN, **members}.items() if value is not None}

    async def handler(talk: Talk) -> None:
        await talk.result(result)

    return handler


def discovers(**members: Any) -> Handler:
    result = {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        **members,
    }

    async def handler(talk: Talk) -> None:
        await talk.result({name: value for name, value in result.items() if value is not None})

    return handler


def refuses(code: int, data: Any = None, status: int = 200) -> Handler:
    async def handler(talk: Talk) -> None:
        error = {"code": code, "message": "no", "data": data}
        body = json.dumps({"jsonrpc": "2.0", "id": talk.id, "error": error}).encode()
        await talk.reply(status, body, "application/json")

    return handler


for _fault, _handler in (
    ("a protocol version nobody knows", begins(protocolVersion="1999-01-01")),
    ("a protocol version that is absurd", begins(protocolVersion="-1")),
    ("a protocol version that is no text", begins(protocolVersion=17)),
    ("no protocol version", begins(protocolVersion=None)),
):
    CELLS.add(
        _fault,
        "connecting",
        not_connected(cause=None),
        Scene(fault=_handler, meets=HANDSHAKE),
        eras=("legacy",),
    )


def _refuses_posts(status: int) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.reply(status)

    return handler


def at_url(url: str, **_: Any) -> Any:
    """The URL itself: nobody has said how it is reached."""
    return url


for _code in (400, 404, 405):
    CELLS.add(
        f"to a URL given as text; {_code} to every POST, and no stream of HTTP+SSE",
        "connecting",
        connecting(refused(_code)),
        Scene(fault=_refuses_posts(_code), meets=BEGINNING, transport=at_url),
        within=CLOSE,
    )
CELLS.add(
    "refuses `initialize`",
    "connecting",
    connecting(answered(-32602)),
    Scene(fault=refuses(-32602), meets=HANDSHAKE),
    eras=("legacy",),
)
for _fault, _handler in (
    ("does not know `server/discover` (-32601)", refuses(-32601)),
    ("refuses `server/discover` (-32602)", refuses(-32602, status=400)),
    ("a discovery without versions", discovers(supportedVersions=None)),
    ("a discovery with an empty list of versions", discovers(supportedVersions=[])),
    ("a discovery of older versions only", discovers(supportedVersions=["2025-11-25"])),
    ("a discovery of versions that are no texts", discovers(supportedVersions=[1, None])),
    ("answers `server/discover` with 500", refuses(-32601, status=500)),
    ("answers `server/discover` with 501", refuses(-32601, status=501)),
    ("answers `server/discover` with 502", refuses(-32601, status=502)),
):
    CELLS.add(
        _fault,
        "connecting",
        BY_HANDSHAKE,
        Scene(fault=_handler, meets=PROBE, speaks="2025-11-25", act=nothing),
        eras=("modern",),
    )
CELLS.add(
    "a discovery without capabilities",
    "connecting",
    Outcome(),
    Scene(fault=discovers(capabilities=None), meets=PROBE, act=nothing),
    eras=("modern",),
)
for _fault, _handler in (
    ("no server info", begins(serverInfo=None)),
    ("server info that is none", begins(serverInfo="me")),
    ("no capabilities", begins(capabilities=None)),
    ("capabilities that are none", begins(capabilities=[1, 2])),
):
    CELLS.add(
        _fault, "connecting", Outcome(), Scene(fault=_handler, meets=HANDSHAKE, act=nothing), eras=("legacy",)
    )
CELLS.add(
    "knows no version of ours (-32022)",
    "connecting",
    connecting(answered(-32022)),
    Scene(fault=refuses(-32022, {"supported": ["2099-01-01"], "requested": "2026-07-28"}), meets=BEGINNING),
    eras=("modern",),
)
CELLS.add(
    "never answers `server/discover`",
    "connecting",
    BY_HANDSHAKE,
    Scene(fault=never, meets=PROBE, speaks="2025-11-25", act=nothing, connect=PATIENT),
    within=PATIENT / 3,
    bound="a third of `connect`, at most 10 s",
    eras=("modern",),
)
CELLS.add(
    "a session id that cannot be sent back",
    "connecting",
    Outcome(note="counted; the session has no id"),
    Scene(
        fault=lambda talk: talk.result(dict(BEGIN), {"mcp-session-id": "with blank"}),
        meets=HANDSHAKE,
    ),
    eras=("legacy",),
)


# --- `notifications/initialized` ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Impatient:
    """A scene in which the client waits for its first notification a tenth of a second, not five."""

    scene: Scene

    async def __call__(self, cell: Cell) -> Observed:
        with mock.patch.object(dispatcher, "INITIALIZED_PATIENCE", 0.1):
            return await self.scene(cell)


async def acknowledged_without_an_end(talk: Talk) -> None:
    await talk.head(202, {"content-length": "10"})
    await talk.hang()


for _fault, _handler in BREAKS.items():
    CELLS.add(
        f"`notifications/initialized`; {_fault}",
        "connecting",
        WORKS,
        Scene(fault=_handler, meets=INITIALIZED),
        eras=("legacy",),
    )
CELLS.add(
    "`notifications/initialized`; never acknowledged",
    "connecting",
    WORKS,
    Impatient(scene=Scene(fault=never, meets=INITIALIZED)),
    within=0.1,
    bound="5 s, then the session goes on",
    eras=("legacy",),
)
CELLS.add(
    "`notifications/initialized`; acknowledged in a body that never ends",
    "connecting",
    WORKS,
    Scene(fault=acknowledged_without_an_end, meets=INITIALIZED),
    eras=("legacy",),
)


# --- no server, or one that speaks something else ----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A server that is not there, until it is started (again)."""

    serves: Serves = behave
    transport: Callable[..., Transport] = StreamableHttpTransport
    ends_session: bool = False
    """A session over this transport ends with its server, and does not wait for a call to notice."""

    async def __call__(self, cell: Cell) -> Observed:
        port = free_port()

        async def serve(talk: Talk) -> None:
            await self.serves(cell.era, talk)

        async with anyio.create_task_group() as tg, AsyncExitStack() as servers:
            client = Client(
                self.transport(f"http://127.0.0.1:{port}/mcp", _policy=QUICK),
                task_group=tg,
                mode=MODES[cell.era],
                timeouts=Timeouts(close=CLOSE),
                restart=Restart(backoff=0),
            )
            error: Exception | None = None
            if cell.phase == "connecting":
                began = anyio.current_time()
                try:
                    await client.__aenter__()
                except Exception as caught:
                    error = caught
                seconds = anyio.current_time() - began
                await servers.enter_async_context(fault_server(serve, port=port))
                await client.__aenter__()
            else:
                async with AsyncExitStack() as first:
                    await first.enter_async_context(fault_server(serve, port=port))
                    await client.__aenter__()
                    assert await echoes(client)
                while self.ends_session and client.is_connected():
                    await anyio.sleep(0.001)
                began = anyio.current_time()
                try:
                    await echoes(client)
                except Exception as caught:
                    error = caught
                seconds = anyio.current_time() - began
                await servers.enter_async_context(fault_server(serve, port=port))
            works = await echoes(client)
            survived = client.stats().sessions_started == 1
            await client.__aexit__(None, None, None)
            assert not tg.cancel_scope.cancel_called
            check_at_rest(client)
        return Observed(error=error, survived=survived, works=works, seconds=seconds)


CELLS.add("connection refused", "connecting", not_connected("transport"), Absent())
CELLS.add(
    "a call after the server is stopped and before it is started again",
    "idle",
    failed("transport", httpx2.ConnectError),
    Absent(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTls:
    """A server asked to speak TLS that does not. There is nothing to mend: it gets its own client."""

    greets: bool
    connect: float = 20.0

    async def __call__(self, cell: Cell) -> Observed:
        async def listens(stream: Any) -> None:
            async with stream:
                if self.greets:
                    await stream.send(b"220 mail.example ESMTP\r\n")
                with anyio.CancelScope():
                    try:
                        while True:
                            await stream.receive()
                    except (anyio.EndOfStream, anyio.BrokenResourceError):
                        return

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tg:
            tg.start_soon(listener.serve, listens)
            client = Client(
                StreamableHttpTransport(f"https://127.0.0.1:{port}/mcp", _policy=QUICK),
                task_group=tg,
                mode=MODES[cell.era],
                timeouts=Timeouts(connect=self.connect, close=CLOSE),
            )
            began = anyio.current_time()
            error: Exception | None = None
            try:
                await client.__aenter__()
            except Exception as caught:
                error = caught
            seconds = anyio.current_time() - began
            assert not tg.cancel_scope.cancel_called
            # The error comes at its time, whatever is still to be cleaned up then.
            await client.close()
            check_at_rest(client)
            tg.cancel_scope.cancel()
        return Observed(error=error, survived=False, works=True, seconds=seconds)


CELLS.add(
    "TLS asked of a server that speaks something else",
    "connecting",
    not_connected("transport"),
    NoTls(greets=True),
)
CELLS.add(
    "a TLS handshake that is never answered",
    "connecting",
    Outcome(
        raises=DeadlineExceededError, attributes={"phase": "connect", "seconds": CONNECT}, survives=False
    ),
    NoTls(greets=False, connect=CONNECT),
    within=CONNECT,
)

"""Whatever is raised where a peer's bytes are handled is the fault of one message: the session lives on, or
is lost by a typed error, and the caller's own tasks are left alone."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from anyio_mcp._session import actor, receiver
from anyio_mcp._session.boundary import Bugs
from anyio_mcp._session.correlation import Correlation
from anyio_mcp._session.courtesies import Courtesies
from anyio_mcp._session.dispatcher import SessionDispatcher
from anyio_mcp._session.errands import Errands
from anyio_mcp._session.inbound import Inbound
from anyio_mcp._session.notifications import Notifications
from anyio_mcp._session.receiver import Receiver, Violations
from anyio_mcp._session.slots import HandlerSlots
from anyio_mcp._session.telling import Telling
from anyio_mcp._session.typed import TypedSession
from anyio_mcp.client import Client
from anyio_mcp.config import Heartbeat
from anyio_mcp.errors import MCPClientError
from anyio_mcp.testing import PeerRequest, ScriptedPeer
from anyio_mcp.testing.connection import ScriptedConnection
from anyio_mcp.transports.base import Liveness
from tests.actor.support import in_time

pytestmark = pytest.mark.anyio


class BugError(Exception):
    """What nobody has thought of."""


CALLEES: list[tuple[Any, str]] = [
    *((Correlation, name) for name in ("resolve", "reject", "report_progress", "is_waiting")),
    *((Receiver, name) for name in ("_settle", "_take_notification", "_take_progress")),
    *((Inbound, name) for name in ("take_request", "cancel", "_answer", "refuse")),
    *((Notifications, name) for name in ("take", "_watch", "_notify")),
    *((Telling, name) for name in ("__call__", "_refuse", "_tell_extension")),
    *((HandlerSlots, name) for name in ("take", "give_back")),
    *((Courtesies, name) for name in ("refuse", "_send")),
    *((SessionDispatcher, name) for name in ("deliver_answer", "refuse", "quiet_since", "_request")),
    *((ScriptedConnection, name) for name in ("send", "abandon", "liveness")),
    *((TypedSession, name) for name in ("_on_request", "_on_tools_changed", "_on_resource_updated")),
    *((TypedSession, name) for name in ("_intercept_notification", "send_discover")),
    (Violations, "add"),
    (Errands, "begin"),
    (receiver, "as_request_id"),
    (receiver, "run_notify_intercept"),
    (receiver, "_at_hand"),
    (actor, "watch_for_silence"),
]


OWN_SIDE = {"_request"}
"""What the caller's own task calls, before anything of the peer's is looked at."""


def everything(request: PeerRequest) -> dict[str, Any]:
    """An answer behind one of each that a server can say, well made and not."""
    connection = request.connection
    connection.notify("notifications/message", {"level": "info", "data": "x"})
    connection.notify("notifications/message", {"level": "nonsense"})
    connection.notify("notifications/tools/list_changed")
    connection.notify("notifications/resources/updated", {"uri": "memo://x"})
    connection.notify("notifications/cancelled", {"requestId": 4711})
    connection.notify("notifications/unheard-of", {})
    connection.notify("notifications/progress", {"progressToken": "nobody", "progress": "much"})
    request.progress(1)
    connection.violate()
    connection.refuse(None, -32600, "what?")
    connection.answer(4711, {})
    connection.request("a", "ping")
    connection.request("a", "sampling/createMessage", {"messages": [], "maxTokens": 1})
    connection.request("b", "sampling/createMessage", {"messages": [], "maxTokens": 1})
    connection.request("c", "unheard/of")
    return {"content": []}


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize(("owner", "name"), CALLEES, ids=lambda each: getattr(each, "__name__", each))
@in_time
async def test_a_bug_in_any_callee_leaves_the_caller_alone(
    owner: Any, name: str, era: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = ScriptedPeer(era=era)
    undisturbed = 0

    async def sample(*_: Any) -> str:
        return ""

    def broken(*_: Any, **__: Any) -> Any:
        raise BugError

    async def bystander() -> None:
        nonlocal undisturbed
        while True:
            await anyio.sleep(1)
            undisturbed += 1

    async with anyio.create_task_group() as tg:
        client = Client(
            peer.transport,
            task_group=tg,
            sampling_handler=sample,
            progress_handler=lambda *_: None,
            message_handler=lambda _: None,
            heartbeat=Heartbeat(interval=2, timeout=1),
        )
        async with client:
            tg.start_soon(bystander)
            peer.connection.evidence = Liveness.ASK
            peer.on("tools/call", everything)
            monkeypatch.setattr(owner, name, broken)
            # A bug on the caller's own side of the session is the caller's to see.
            for seconds in (10, 10, math.inf):
                with anyio.move_on_after(1 if seconds == math.inf else math.inf):
                    with suppress(MCPClientError, *((BugError,) if name in OWN_SIDE else ())):
                        await client.call_tool_mcp("echo", timeout=seconds)
            monkeypatch.undo()
            before = undisturbed
            await anyio.sleep(3)
            assert undisturbed - before >= 2
            peer.on("tools/call", {"content": []})
            await client.call_tool_mcp("echo", timeout=10)
        tg.cancel_scope.cancel()
    assert undisturbed


@in_time
async def test_a_bug_is_reported_at_a_bounded_rate(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peer = ScriptedPeer()

    def broken(*_: Any) -> Any:
        raise BugError

    async with Client(peer.transport) as client:
        monkeypatch.setattr(Receiver, "_take_progress", broken)
        for _ in range(1000):
            peer.connection.notify("notifications/progress", {"progressToken": 1, "progress": 1})
        assert await client.ping()
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == 10
    assert all("please report it" in record.getMessage() for record in records)


@in_time
async def test_nothing_is_started_in_a_group_that_is_being_left() -> None:
    """On trio such a group raises; the caller of a verb must not see it."""
    peer = ScriptedPeer()
    refused = list[bool]()

    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, task_group=tg)
        async with client:
            session = client.session

            async def keep_trying() -> None:
                async def nothing() -> None:
                    await anyio.lowlevel.checkpoint()

                while len(refused) < 100:
                    if not session.errands.begin(nothing, name="nothing"):
                        refused.append(True)
                    await anyio.lowlevel.checkpoint()

            tg.start_soon(keep_trying)
            await anyio.lowlevel.checkpoint()
            peer.connection.lose()
    assert len(refused) == 100


def test_bugs_are_counted() -> None:
    async def main() -> int:
        bugs = Bugs()
        for _ in range(20):
            bugs.report("a test", BugError())
        return bugs.count

    assert anyio.run(main) == 20

"""Interleavings drawn by Hypothesis: several tasks enter, leave and call, are cancelled, and the connection
is killed and the client closed under them, at the same instants or some scheduler passes apart.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import MCPError

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.config import Restart
from anyio_mcp.errors import MCPClientError
from anyio_mcp.testing import (
    FaultPlan,
    FaultyTransport,
    PeerRequest,
    ScriptedPeer,
    check_at_rest,
    check_never_hangs,
)
from anyio_mcp.testing.strategies import fault_plans
from tests.actor.support import outcome

Door: TypeAlias = Literal["supplied", "owner", "run"]

EXAMPLES = int(os.environ.get("ANYIO_MCP_EXAMPLES", "100"))
"""Plans drawn per test; more of them find rarer things."""

GRID = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Few instants, so that things coincide."""


@dataclass(frozen=True)
class Pause:
    """Some scheduler passes, or some time."""

    passes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Call:
    """A call that the server takes so long to answer; None: for ever."""

    takes: float | None = 0.0
    timeout: float = 5.0


@dataclass(frozen=True)
class Block:
    """`async with client:` and what happens in it."""

    steps: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Worker:
    start: Pause
    steps: tuple[Any, ...]
    cancelled: Pause | None = None


@dataclass(frozen=True)
class Event:
    at: Pause
    what: Literal["kill", "close"]


@dataclass(frozen=True)
class Plan:
    era: Literal["modern", "legacy"]
    workers: tuple[Worker, ...]
    events: tuple[Event, ...] = ()
    connecting: tuple[float | None, ...] = (0.0,)
    """How long each attempt takes, the last one standing for all others; None: it fails."""
    farewell: float = 0.0
    seed: int = 0

    def is_quiet(self, door: Door) -> bool:
        """Nothing goes wrong but that lease holders are cancelled."""
        return (
            not self.events
            and None not in self.connecting
            and (
                door == "supplied"
                or (door == "owner" and not any(worker.cancelled for worker in self.workers))
            )
        )


grid = st.sampled_from(GRID)
pauses = st.builds(Pause, passes=st.integers(0, 6), seconds=grid)
calls = st.builds(Call, takes=st.none() | grid, timeout=st.sampled_from((0.0, 0.5, 1.0, 5.0)))
steps = st.recursive(
    pauses | calls,
    lambda inner: st.builds(Block, st.lists(inner, max_size=3).map(tuple)) | inner,
    max_leaves=4,
)
workers = st.builds(
    Worker,
    start=pauses,
    steps=st.lists(st.builds(Block, st.lists(steps, max_size=3).map(tuple)), min_size=1, max_size=3).map(
        tuple
    ),
    cancelled=st.none() | pauses,
)
plans = st.builds(
    Plan,
    era=st.sampled_from(("modern", "legacy")),
    workers=st.lists(workers, min_size=1, max_size=4).map(tuple),
    events=st.lists(st.builds(Event, at=pauses, what=st.sampled_from(("kill", "close"))), max_size=3).map(
        tuple
    ),
    connecting=st.lists(st.sampled_from((0.0, 0.0, 0.5, 1.0, None)), min_size=1, max_size=4).map(tuple),
    farewell=st.sampled_from((0.0, 0.0, 0.5, 2.0)),
    seed=st.integers(0, 1000),
)


@pytest.fixture(autouse=True)
def shuffled(monkeypatch: pytest.MonkeyPatch) -> None:
    """trio shuffles each batch of tasks; drawn plans say how, so that what was found stays found."""
    monkeypatch.setattr(sys.modules["trio._core._run"], "_ALLOW_DETERMINISTIC_SCHEDULING", True)


class Run:
    """One plan, carried out."""

    def __init__(self, plan: Plan, door: Door) -> None:
        self.plan = plan
        self.door: Door = door
        self.quiet = plan.is_quiet(door)
        self.peer = ScriptedPeer(era=plan.era, on_connect=self.connecting, farewell=plan.farewell)
        self.peer.on("tools/call", self.answer)
        self.client: Client

    async def connecting(self, attempt: int) -> None:
        seconds = self.plan.connecting[min(attempt, len(self.plan.connecting)) - 1]
        if seconds is None:
            raise OSError(111, "refused by plan")
        await anyio.sleep(seconds)

    async def answer(self, request: PeerRequest) -> dict[str, Any] | None:
        takes = request.params["arguments"]["takes"]
        if takes is None:
            return None
        await anyio.sleep(takes)
        return {"content": []}

    async def __call__(self) -> None:
        if self.door == "supplied":
            async with anyio.create_task_group() as tg:
                await self.carry_out(tg)
                # The group is still open: what ends the sessions is that nobody holds a lease.
                await self.peer.until(lambda: self.peer.open_connections == 0)
                await anyio.sleep(self.plan.farewell + 1)
                assert len(self.alive()) == 0
        else:
            await self.carry_out(None)
        check_at_rest(self.client)
        assert self.peer.open_connections == 0
        assert self.peer.most_open_connections <= 1

    def alive(self) -> list[SessionState]:
        state = self.client.state
        return [state] if state in (SessionState.CONNECTING, SessionState.READY) else []

    async def carry_out(self, sessions: anyio.abc.TaskGroup | None) -> None:
        restart = Restart(max_attempts=2, backoff=0.5, jitter=0)
        self.client = Client(self.peer.transport, task_group=sessions, restart=restart)
        async with anyio.create_task_group() as everything:
            everything.start_soon(self.observe)
            async with anyio.create_task_group() as tg:
                if self.door == "run":
                    tg.start_soon(self.serve)
                for number, worker in enumerate(self.plan.workers):
                    tg.start_soon(self.work, worker, name=f"worker {number}")
                for event in self.plan.events:
                    tg.start_soon(self.happen, event)
            everything.cancel_scope.cancel()

    async def serve(self) -> None:
        with anyio.move_on_after(4):
            error = await outcome(self.client.run)
            if isinstance(error, MCPClientError):
                self.expected(error)
            elif error is not None:
                # Some worker's block was there first.
                assert "run a second time" in str(error)

    async def happen(self, event: Event) -> None:
        await pause(event.at)
        if event.what == "close":
            await self.client.close()
        elif self.peer.connections:
            self.peer.connection.lose()

    async def work(self, worker: Worker) -> None:
        await pause(worker.start)
        async with anyio.create_task_group() as tg:
            if worker.cancelled is not None:
                tg.start_soon(self.cancel, tg, worker.cancelled)
            for step in worker.steps:
                await self.take(step)
            tg.cancel_scope.cancel()

    async def cancel(self, tg: anyio.abc.TaskGroup, at: Pause) -> None:
        await pause(at)
        tg.cancel_scope.cancel()

    async def take(self, step: Pause | Call | Block) -> None:
        if isinstance(step, Pause):
            await pause(step)
        elif isinstance(step, Call):
            await self.call(step)
        else:
            try:
                async with self.client:
                    if self.quiet:
                        assert self.client.is_connected()
                    for inner in step.steps:
                        await self.take(inner)
            except MCPClientError as error:
                self.expected(error)

    async def call(self, call: Call) -> None:
        try:
            await self.client.call_tool_mcp("echo", {"takes": call.takes}, timeout=call.timeout)
        except TimeoutError:
            pass
        except MCPClientError as error:
            self.expected(error)

    def expected(self, error: MCPClientError) -> None:
        assert not self.quiet, f"nothing was wrong, and yet {error!r}"

    async def observe(self) -> None:
        """Between the instants of the plan: no session without a lease, and never more than one."""
        await anyio.sleep(0.25)
        while True:
            self.look()
            await anyio.sleep(0.5)
            for _ in range(8):
                self.look()
                await anyio.lowlevel.checkpoint()

    def look(self) -> None:
        leases = self.client.stats().leases
        assert leases or not self.alive(), f"a session {self.client.state} and no lease"
        assert self.peer.open_connections <= 1


async def pause(step: Pause) -> None:
    if step.seconds:
        await anyio.sleep(step.seconds)
    for _ in range(step.passes):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("door", ["supplied", "owner", "run"])
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans)
def test_no_interleaving_hangs_or_leaves_anything(plan: Plan, door: Door, backend: str) -> None:
    sys.modules["trio._core._run"]._r.seed(plan.seed)
    check_never_hangs(Run(plan, door), backend=backend, seconds=600)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=fault_plans(), seed=st.integers(0, 1000), era=st.sampled_from(("modern", "legacy")))
def test_no_faults_of_a_transport_make_a_call_hang(
    plan: FaultPlan, seed: int, era: Any, backend: str
) -> None:
    sys.modules["trio._core._run"]._r.seed(seed)

    async def scenario() -> None:
        peer = ScriptedPeer(era=era)
        transport = FaultyTransport(peer.transport, plan)
        client = Client(transport, restart=Restart(max_attempts=2, backoff=0.5, jitter=0))

        async def use(number: int) -> None:
            await anyio.sleep(number)
            with suppress(MCPClientError, MCPError):
                async with client:
                    for _ in range(5):
                        began = anyio.current_time()
                        with suppress(MCPClientError, MCPError):
                            await client.call_tool_mcp("echo", timeout=20)
                        assert anyio.current_time() - began <= 20

        async with anyio.create_task_group() as tg:
            for number in range(3):
                tg.start_soon(use, number)
        check_at_rest(client)
        assert peer.open_connections == 0
        assert peer.most_open_connections <= 1

    check_never_hangs(scenario, backend=backend, seconds=600)

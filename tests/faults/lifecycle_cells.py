"""The fault matrix of how a client is used: cancelled, left, raised in, shared, shut down. The faults are
the caller's own; the peer is scripted, and keeps to the rules.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread

from anyio_mcp import (
    Client,
    DeadlineExceededError,
    NotConnectedError,
    SessionLostError,
)
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest, silence
from tests.faults.matrix import Cell, Era, Observed, Outcome, Phase

ERAS: Final[tuple[Era, ...]] = ("legacy", "modern")

CLOSE: Final = 5.0
"""The default of `Timeouts.close`."""

RESULT: Final = {"content": [{"type": "text", "text": "echo"}]}

BEGINNING: Final = {
    "protocolVersion": "2025-11-25",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "scripted peer", "version": "1"},
}
"""The answer to either era's first question."""


@dataclass(slots=True, eq=False)
class World:
    """A peer, and the client that is misused. `set_up` makes it."""

    era: Era
    peer: ScriptedPeer
    error: Exception | None = None
    survived: bool = False
    seconds: float = 0.0
    seen: list[Any] = field(default_factory=list[Any])
    needs_a_new_client: bool = False
    """The one there was is bound to a task group that has ended."""
    _client: Client | None = None

    def set_up(self, **options: Any) -> Client:
        mode = "legacy" if self.era == "legacy" else "auto"
        self._client = Client(self.peer.transport, mode=mode, **options)
        self.needs_a_new_client = "task_group" in options
        return self._client

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    async def measure(self, function: Callable[[], Awaitable[object]]) -> None:
        """What it raises, and how long it takes."""
        began = anyio.current_time()
        try:
            await function()
        except Exception as error:
            self.error = error
        finally:
            self.seconds = anyio.current_time() - began

    async def measure_call(self) -> None:
        await self.measure(lambda: self.client.call_tool("echo"))

    async def is_alive(self) -> None:
        """The session that was there before is there still."""
        self.peer.on("tools/call", RESULT)
        await self.client.call_tool("echo")
        assert self.client.stats().sessions_started == 1
        self.survived = True

    async def was_told(self, request: PeerRequest) -> None:
        """The peer has learned that nobody waits for this request."""
        expected = {"requestId": request.id}
        await self.peer.until(lambda: expected in self.peer.notifications_of("notifications/cancelled"))


Program: TypeAlias = Callable[[World], Awaitable[None]]

CELLS: list[Cell] = []


def lifecycle(
    fault: str,
    phase: Phase,
    outcome: Outcome,
    *,
    within: float = 0.0,
    eras: tuple[Era, ...] = ERAS,
    clock: Any = "virtual",
) -> Callable[[Program], Program]:
    """The cells of a program, one for each era."""

    def register(program: Program) -> Program:
        async def run(cell: Cell) -> Observed:
            world = World(cell.era, ScriptedPeer(era=cell.era))
            await program(world)
            check_at_rest(world.client)
            assert world.peer.open_connections == 0
            world.peer.on_connect = None
            world.peer.farewell = 0
            world.peer.on("tools/call", RESULT)
            client = world.set_up() if world.needs_a_new_client else world.client
            async with client:
                assert (await client.call_tool("echo")).content
            return Observed(error=world.error, survived=world.survived, works=True, seconds=world.seconds)

        CELLS.extend(
            Cell(
                area="lifecycle",
                fault=fault,
                phase=phase,
                era=era,
                outcome=outcome,
                within=within,
                run=run,
                clock=clock,
            )
            for era in eras
        )
        return program

    return register


FINE: Final = Outcome()
"""Nothing is raised, and the session goes on."""
ENDED: Final = Outcome(survives=False)
"""Nothing is raised; the session was to end."""


def closed(text: str = "") -> Outcome:
    return Outcome(
        raises=SessionLostError,
        attributes={"reason": "closed", "args": lambda args: text in args[0]},
        survives=False,
    )


def not_connected(text: str) -> Outcome:
    return Outcome(
        raises=NotConnectedError, attributes={"args": lambda args: text in args[0]}, survives=False
    )


def never(world: World) -> None:
    async def wait(attempt: int) -> None:
        await anyio.sleep(math.inf)

    world.peer.on_connect = wait


def silent(world: World) -> None:
    world.peer.on("tools/call", silence)


# --- cancelled --------------------------------------------------------------------------------------


@lifecycle("cancelled", "connecting", ENDED)
async def cancelled_while_connecting(world: World) -> None:
    never(world)
    client = world.set_up()
    async with anyio.create_task_group() as tg:
        tg.start_soon(world.measure, client.__aenter__)
        await world.peer.until(lambda: world.peer.attempts == 1)
        tg.cancel_scope.cancel()


@lifecycle("move_on_after", "connecting", ENDED, within=3.0)
async def left_behind_while_connecting(world: World) -> None:
    never(world)
    client = world.set_up()
    began = anyio.current_time()
    with anyio.move_on_after(3) as scope:
        async with client:
            raise AssertionError
    assert scope.cancelled_caught
    world.seconds = anyio.current_time() - began


@lifecycle("cancelled while the server begins", "connecting", ENDED)
async def cancelled_while_negotiating(world: World) -> None:
    for method in ("initialize", "server/discover"):
        world.peer.on(method, silence)
    client = world.set_up()
    async with anyio.create_task_group() as tg:
        tg.start_soon(world.measure, client.__aenter__)
        await world.peer.until(lambda: bool(world.peer.requests))
        tg.cancel_scope.cancel()
    # The specification forbids it for `initialize`.
    assert world.era == "modern" or not world.peer.notifications_of("notifications/cancelled")
    for method in ("initialize", "server/discover"):
        world.peer.on(method, BEGINNING)


_VERBS: dict[str, tuple[str, Callable[[Client], Awaitable[object]]]] = {
    "call_tool": ("tools/call", lambda client: client.call_tool("echo")),
    "list_tools": ("tools/list", lambda client: client.list_tools()),
    "list_resources": ("resources/list", lambda client: client.list_resources()),
    "list_prompts": ("prompts/list", lambda client: client.list_prompts()),
    "read_resource": ("resources/read", lambda client: client.read_resource("file:///x")),
    "get_prompt": ("prompts/get", lambda client: client.get_prompt("x")),
}


def _cancelled_verb(method: str, verb: Callable[[Client], Awaitable[object]]) -> Program:
    async def program(world: World) -> None:
        world.peer.on(method, silence)
        client = world.set_up()
        async with client:
            async with anyio.create_task_group() as tg:
                tg.start_soon(world.measure, lambda: verb(client))
                (request,) = await world.peer.received(method)
                tg.cancel_scope.cancel()
            await world.was_told(request)
            assert client.stats().calls_in_flight == client.stats().waiters == 0
            # The late answer is dropped, and counted.
            request.answer({})
            while not client.stats().late_replies:
                await anyio.lowlevel.checkpoint()
            await world.is_alive()

    return program


for _name, (_method, _verb) in _VERBS.items():
    lifecycle(f"{_name} is cancelled", "in flight", FINE)(_cancelled_verb(_method, _verb))


@lifecycle("move_on_after around a call", "in flight", FINE, within=3.0)
async def left_behind_by_a_call(world: World) -> None:
    silent(world)
    async with world.set_up() as client:
        began = anyio.current_time()
        with anyio.move_on_after(3):
            await client.call_tool("echo")
        world.seconds = anyio.current_time() - began
        await world.was_told(world.peer.requests_of("tools/call")[0])
        await world.is_alive()


@lifecycle("move_on_after around the block", "in flight", ENDED, within=3.0)
async def left_behind_with_its_block(world: World) -> None:
    silent(world)
    began = anyio.current_time()
    with anyio.move_on_after(3) as scope:
        async with world.set_up() as client:
            await client.call_tool("echo")
    assert scope.cancelled_caught
    world.seconds = anyio.current_time() - began


@lifecycle("the block is cancelled, the server never lets go", "closing", ENDED, within=CLOSE)
async def cancelled_with_a_long_goodbye(world: World) -> None:
    world.peer.farewell = math.inf
    began = anyio.current_time()
    async with anyio.create_task_group() as tg, world.set_up():
        tg.cancel_scope.cancel()
        began = anyio.current_time()
    world.seconds = anyio.current_time() - began


@lifecycle("500 calls, cancelled at random", "in flight", FINE, within=60.0)
async def calls_cancelled_at_random(world: World) -> None:
    chance = random.Random(3)
    accounts = {"answered": 0, "cancelled": 0, "late": 0}

    async def slowly(request: PeerRequest) -> dict[str, Any]:
        await anyio.sleep(chance.uniform(0, 10))
        return RESULT

    world.peer.on("tools/call", slowly)
    async with world.set_up() as client:

        async def call(patience: float, timeout: float) -> None:
            with anyio.move_on_after(patience) as scope:
                try:
                    await client.call_tool("echo", timeout=timeout)
                    accounts["answered"] += 1
                except DeadlineExceededError:
                    accounts["late"] += 1
            if scope.cancelled_caught:
                accounts["cancelled"] += 1

        began = anyio.current_time()
        async with anyio.create_task_group() as tg:
            for _ in range(500):
                tg.start_soon(call, chance.uniform(0, 10), chance.uniform(0, 10))
        world.seconds = anyio.current_time() - began
        assert sum(accounts.values()) == 500
        assert all(accounts.values()), accounts
        assert client.stats().calls_in_flight == client.stats().waiters == 0
        await world.is_alive()


# --- left -------------------------------------------------------------------------------------------


class BodyError(Exception):
    """What the body of a block raises."""


@lifecycle("the body raises with calls in flight", "closing", Outcome(raises=BodyError, survives=False))
async def raised_in_the_body(world: World) -> None:
    silent(world)
    client = world.set_up()
    others: list[BaseException] = []

    async def call() -> None:
        try:
            await client.call_tool("echo")
        except SessionLostError as error:
            others.append(error)

    async with anyio.create_task_group() as tg:

        async def block() -> None:
            async with client:
                for _ in range(3):
                    tg.start_soon(call)
                await world.peer.received("tools/call", 3)
                raise BodyError

        await world.measure(block)
    assert len(others) == 3
    assert len(set(map(id, others))) == 3, "each has an exception of its own"


def _left_with_calls(door: str) -> Program:
    async def program(world: World) -> None:
        silent(world)
        async with anyio.create_task_group() as tg:
            client = world.set_up(**({"task_group": tg} if door == "task_group" else {}))
            async with client:
                tg.start_soon(world.measure_call)
                await world.peer.received("tools/call")

    return program


for _door in ("block", "task_group"):
    lifecycle(f"left with calls in flight elsewhere ({_door})", "closing", closed())(_left_with_calls(_door))


@lifecycle("closed with calls in flight", "closing", closed("closed"))
async def closed_under_a_call(world: World) -> None:
    silent(world)
    async with world.set_up() as client, anyio.create_task_group() as tg:
        tg.start_soon(world.measure_call)
        await world.peer.received("tools/call")
        await client.close()


@lifecycle("entered in one task and left in another", "closing", ENDED)
async def left_by_another_task(world: World) -> None:
    async with anyio.create_task_group() as tg:
        client = world.set_up(task_group=tg)

        async def enter() -> None:
            await client.__aenter__()

        async def leave() -> None:
            await client.__aexit__(None, None, None)

        async with anyio.create_task_group() as entering:
            entering.start_soon(enter)
        assert client.is_connected()
        async with anyio.create_task_group() as leaving:
            leaving.start_soon(world.measure, leave)


@lifecycle("entered in one task and left in another, which owns nothing", "closing", ENDED)
async def left_by_a_stranger(world: World) -> None:
    async with world.set_up() as client:

        async def leave() -> None:
            await client.__aexit__(None, None, None)

        async with anyio.create_task_group() as tg:
            tg.start_soon(world.measure, leave)
        assert isinstance(world.error, RuntimeError)
        assert "must be left by the task that entered it" in str(world.error)
        assert world.peer.open_connections == 0
        world.error = None


def _overlapping(door: str) -> Program:
    async def program(world: World) -> None:
        async with anyio.create_task_group() as tg:
            client = world.set_up(**({"task_group": tg} if door == "task_group" else {}))
            first_in, second_in, first_out = anyio.Event(), anyio.Event(), anyio.Event()

            async def first() -> None:
                async with client:
                    first_in.set()
                    await second_in.wait()
                    began = anyio.current_time()
                    if door == "block":
                        # The owner waits for its guest, as a nursery would.
                        first_out.set()
                first_out.set()
                world.seconds = anyio.current_time() - began

            async def second() -> None:
                await first_in.wait()
                async with client:
                    second_in.set()
                    await first_out.wait()
                    await world.measure_call()
                    await world.is_alive()

            async with anyio.create_task_group() as both:
                both.start_soon(first)
                both.start_soon(second)

    return program


for _door in ("block", "task_group"):
    lifecycle(f"overlapping contexts, the first leaves first ({_door})", "in flight", FINE)(
        _overlapping(_door)
    )


@lifecycle("the supplied task group is cancelled", "in flight", closed("task group"))
async def cancelled_with_its_group(world: World) -> None:
    silent(world)
    async with anyio.create_task_group() as outside, anyio.create_task_group() as tg:
        client = world.set_up(task_group=tg)
        await client.__aenter__()
        outside.start_soon(world.measure_call)
        await world.peer.received("tools/call")
        tg.cancel_scope.cancel()
    await client.__aexit__(None, None, None)


@lifecycle("entered in a task group that was cancelled", "connecting", not_connected("is cancelled"))
async def entered_in_a_cancelled_group(world: World) -> None:
    async with anyio.create_task_group() as tg:
        tg.cancel_scope.cancel()
        client = world.set_up(task_group=tg)
        with anyio.CancelScope(shield=True):
            await world.measure(client.__aenter__)


# --- used at the wrong time -------------------------------------------------------------------------


@lifecycle("used before it is entered", "connecting", not_connected("not connected"))
async def used_before(world: World) -> None:
    world.set_up()
    await world.measure_call()


@lifecycle("used after it was left", "closing", not_connected("not connected"))
async def used_after(world: World) -> None:
    async with world.set_up():
        pass
    await world.measure_call()


@lifecycle("used after it was closed", "closing", not_connected("not connected"))
async def used_after_closing(world: World) -> None:
    async with world.set_up() as client:
        await client.close()
        await world.measure_call()


@lifecycle("left once too often", "closing", Outcome(raises=RuntimeError, survives=False))
async def left_too_often(world: World) -> None:
    async with world.set_up() as client:
        pass
    await world.measure(lambda: client.__aexit__(None, None, None))


# --- progress ---------------------------------------------------------------------------------------


@lifecycle("a progress handler slower than the progress", "in flight", FINE, within=10.0)
async def slow_progress(world: World) -> None:
    def reports(request: PeerRequest) -> dict[str, Any]:
        for step in range(10):
            request.progress(step, 10)
        return RESULT

    async def note(progress: float, total: float | None, message: str | None) -> None:
        await anyio.sleep(1)
        world.seen.append(progress)

    world.peer.on("tools/call", reports)
    async with world.set_up() as client:
        await world.measure(lambda: client.call_tool("echo", progress_handler=note))
        assert world.seen == list(range(10)), "in order, and before the call returns"
        await world.is_alive()


# --- event loops ------------------------------------------------------------------------------------


@lifecycle(
    "used in a second event loop", "in flight", not_connected("another event loop"), within=1.0, clock="real"
)
async def used_in_another_loop(world: World) -> None:
    def elsewhere() -> Exception | None:
        async def main() -> Exception | None:
            try:
                await world.client.call_tool("echo")
            except Exception as error:
                return error
            return None

        return asyncio.run(main())

    async with world.set_up() as client:
        began = anyio.current_time()
        world.error = await anyio.to_thread.run_sync(elsewhere)
        world.seconds = anyio.current_time() - began
        assert (await client.call_tool("echo")).content


def _in_a_loop_of_its_own(world: World, use: Callable[[Client], Awaitable[object]]) -> None:
    """Run `use` in an event loop that ends behind it, whatever it has left there."""

    async def main() -> object:
        # Made where it is waited for.
        world.peer = ScriptedPeer(era=world.era)
        silent(world)
        return await use(world.set_up())

    asyncio.run(main())


@lifecycle("the event loop ends with a call in flight", "closing", ENDED, within=1.0, clock="real")
async def loop_ends_under_a_call(world: World) -> None:
    kept: list[object] = []

    async def hold(client: Client) -> None:
        async with client:
            await client.call_tool("echo")

    async def use(client: Client) -> None:
        kept.append(asyncio.create_task(hold(client)))
        await world.peer.received("tools/call")

    began = anyio.current_time()
    await anyio.to_thread.run_sync(_in_a_loop_of_its_own, world, use)
    world.seconds = anyio.current_time() - began


@lifecycle(
    "the event loop ends, the context was never left",
    "closing",
    not_connected("never left"),
    within=1.0,
    clock="real",
)
async def loop_ends_in_a_context(world: World) -> None:
    await anyio.to_thread.run_sync(_in_a_loop_of_its_own, world, Client.__aenter__)
    await world.measure_call()
    world.set_up()

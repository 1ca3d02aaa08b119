"""The test kit itself: what the other tests here stand on."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from hypothesis import given
from mcp import MCPError
from mcp.types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from anyio_mcp.client import Client
from anyio_mcp.config import Limits, Timeouts
from anyio_mcp.errors import ConnectError, RequestFailedError, SessionLostError
from anyio_mcp.testing import (
    DeadlockError,
    Fault,
    FaultKind,
    FaultPlan,
    FaultyTransport,
    HangError,
    Interruption,
    LeakError,
    PeerRequest,
    ScriptedPeer,
    VirtualTime,
    backend_options,
    cancel_everywhere,
    check_at_rest,
    check_never_hangs,
    clocks,
    never_hang,
    silence,
    task_dump,
)
from anyio_mcp.testing.strategies import fault_plans
from anyio_mcp.transports.base import Connection, ConnectionLost, Outgoing, RequestFault, Violation
from tests.actor.support import in_time, passes

# --- virtual time ---------------------------------------------------------------------------------


def run(function: Callable[[], Awaitable[Any]], backend: str) -> Any:
    return anyio.run(function, backend=backend, backend_options=backend_options(backend))


def test_virtual_hours_take_no_time(backend: str) -> None:
    async def main() -> float:
        began = anyio.current_time()
        for _ in range(100):
            await anyio.sleep(3600)
        with anyio.move_on_after(3600):
            await anyio.sleep_forever()
        return anyio.current_time() - began

    began = time.perf_counter()
    assert run(main, backend) == pytest.approx(101 * 3600)
    assert time.perf_counter() - began < 5


def test_sleepers_wake_in_the_order_of_their_deadlines(backend: str) -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await anyio.sleep(seconds)
        woken.append(seconds)

    async def main() -> None:
        async with anyio.create_task_group() as tg:
            for seconds in (5.0, 0.001, 86400.0 * 3, 2.5, 7.0):
                tg.start_soon(sleeper, seconds)

    run(main, backend)
    assert woken == sorted(woken)


def test_time_stands_still_while_anything_can_run(backend: str) -> None:
    async def main() -> None:
        began = anyio.current_time()
        with anyio.move_on_after(0.001):
            await passes(2000)
            assert anyio.current_time() == began

    run(main, backend)


def test_a_thread_may_wake_a_loop_that_waits_for_no_deadline(backend: str) -> None:
    async def main() -> str:
        return await anyio.to_thread.run_sync(lambda: time.sleep(0.05) or "done")

    assert run(main, backend) == "done"


def test_a_deadlock_is_an_error(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "PATIENCE", 0.01)
    clock = VirtualTime(backend)
    unwound: list[bool] = []

    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            unwound.append(True)

    with pytest.raises(BaseException) as caught:
        anyio.run(main, backend=backend, backend_options=dict(clock.options))
    assert "nothing can happen any more" in str(caught.value)
    assert isinstance(clock.verdict, DeadlockError)
    assert unwound == [True]


def test_a_task_that_spins_is_an_error(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "SPINNING", 0.05)

    async def main() -> None:
        while True:
            await anyio.lowlevel.checkpoint()

    with pytest.raises(HangError, match="virtual time stands still"):
        check_never_hangs(main, backend=backend)


def test_there_is_no_virtual_time_for_other_backends() -> None:
    with pytest.raises(ValueError, match="'curio'"):
        backend_options("curio")


def test_the_kit_needs_neither_pytest_nor_hypothesis_nor_trio() -> None:
    program = (
        "import sys; import anyio_mcp.testing; "
        "print(sorted({'pytest', '_pytest', 'hypothesis', 'trio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# --- scenarios ------------------------------------------------------------------------------------


def test_a_scenario_that_ends_gives_its_result_or_its_exception(backend: str) -> None:
    async def fine() -> int:
        await anyio.sleep(10)
        return 7

    async def broken() -> None:
        await anyio.sleep(10)
        raise KeyError("mine")

    assert check_never_hangs(fine, backend=backend) == 7
    with pytest.raises(KeyError, match="mine"):
        check_never_hangs(broken, backend=backend)


async def wait_for_a_bus_that_never_comes() -> None:
    await anyio.Event().wait()


def test_a_scenario_that_hangs_fails_and_shows_where(backend: str) -> None:
    async def hang() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(wait_for_a_bus_that_never_comes)

    with pytest.raises(HangError) as caught:
        check_never_hangs(hang, backend=backend, seconds=100)
    assert "still running after 100 seconds" in str(caught.value)
    assert "in wait_for_a_bus_that_never_comes" in str(caught.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scenario_that_resists_cancellation_does_not_hang_the_test(backend: str) -> None:
    async def resist() -> None:
        with anyio.CancelScope(shield=True):
            await wait_for_a_bus_that_never_comes()

    with pytest.raises(HangError, match="after being cancelled"):
        check_never_hangs(resist, backend=backend)
    gc.collect()  # here, where what is left of an event loop that was broken off may complain


@in_time
async def hangs_within_a_test() -> None:
    await anyio.sleep_forever()


@pytest.mark.anyio
async def test_never_hang_works_within_a_test() -> None:
    with pytest.raises(HangError):
        await hangs_within_a_test()
    with pytest.raises(HangError):
        await never_hang(anyio.sleep_forever, seconds=5)


@pytest.mark.anyio
async def test_tasks_left_behind_are_a_leak() -> None:
    async with anyio.create_task_group() as elsewhere:

        async def leave_one() -> None:
            elsewhere.start_soon(anyio.sleep_forever, name="left behind")

        with pytest.raises(LeakError, match="task left behind"):
            await never_hang(leave_one)
        elsewhere.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_task_dump_names_the_frames_of_every_task() -> None:
    async with anyio.create_task_group() as tg:
        for number in range(45):
            tg.start_soon(wait_for_a_bus_that_never_comes, name=f"passenger {number}")
        await passes(2)
        dump = task_dump()
        tg.cancel_scope.cancel()
    assert "task passenger " in dump
    assert "in wait_for_a_bus_that_never_comes" in dump
    assert "more tasks" in dump


def test_cancellation_happens_once_at_every_checkpoint(backend: str) -> None:
    reached: list[int] = []

    async def scenario(interrupt: Interruption) -> None:
        steps = 0

        async def part() -> str:
            nonlocal steps
            for _ in range(5):
                await anyio.sleep(1)
                steps += 1
            return "done"

        result = await interrupt(part)
        assert (result == "done") == (steps == 5)
        reached.append(steps)

    assert cancel_everywhere(scenario, backend=backend) == 5
    assert reached == [0, 1, 2, 3, 4, 5]


def test_a_failure_says_at_which_checkpoint(backend: str) -> None:
    async def scenario(interrupt: Interruption) -> None:
        cleaned = True

        async def part() -> None:
            nonlocal cleaned
            await anyio.sleep(1)
            cleaned = False
            await anyio.sleep(1)
            cleaned = True

        await interrupt(part)
        assert cleaned

    with pytest.raises(AssertionError) as caught:
        cancel_everywhere(scenario, backend=backend)
    assert caught.value.__notes__[-1] == f"cancelled at checkpoint 2 of 2 on {backend}"


def test_a_hang_after_a_cancellation_is_found(backend: str) -> None:
    async def scenario(interrupt: Interruption) -> None:
        ready = anyio.Event()

        async def part() -> None:
            await anyio.sleep(1)
            ready.set()  # forgotten on the other path

        await interrupt(part)
        await ready.wait()

    with pytest.raises(HangError):
        cancel_everywhere(scenario, backend=backend)


def test_a_scenario_that_interrupts_nothing_is_an_error(backend: str) -> None:
    async def scenario(interrupt: Interruption) -> None:
        await anyio.sleep(1)

    with pytest.raises(ValueError, match="interrupted nothing"):
        cancel_everywhere(scenario, backend=backend)


def test_a_client_that_is_held_is_not_at_rest(backend: str) -> None:
    async def scenario() -> None:
        async with Client(ScriptedPeer().transport) as client:
            with pytest.raises(LeakError, match="not at rest"):
                check_at_rest(client)
        check_at_rest(client)

    check_never_hangs(scenario, backend=backend)


# --- the scripted peer ----------------------------------------------------------------------------


def asking(request_id: int, method: str = "tools/call", **params: Any) -> Outgoing:
    return Outgoing(JSONRPCRequest(jsonrpc="2.0", id=request_id, method=method, params=params))


def connect(peer: Any, **timeouts: float) -> Any:
    return peer.transport.connect(timeouts=Timeouts(**timeouts), limits=Limits())


@pytest.mark.anyio
@in_time
async def test_the_peer_answers_as_its_era_does() -> None:
    for era, methods in (("modern", ["server/discover"]), ("legacy", ["initialize", "ping"])):
        peer = ScriptedPeer(era=era)
        async with connect(peer) as connection:
            for number, method in enumerate([*methods, "tools/list", "tools/call", "no/such"]):
                await connection.send(asking(number, method))
                item = await connection.incoming.receive()
                assert item.id == number
                assert isinstance(item, JSONRPCResponse) == (method != "no/such")
                if era == "modern" and isinstance(item, JSONRPCResponse):
                    assert item.result["resultType"] == "complete"
        assert [request.method for request in peer.requests] == [
            *methods,
            "tools/list",
            "tools/call",
            "no/such",
        ]


@pytest.mark.anyio
@in_time
async def test_handlers_answer_wait_fail_and_stay_silent() -> None:
    peer = ScriptedPeer(era="legacy")

    async def slowly(request: PeerRequest) -> dict[str, Any]:
        await anyio.sleep(5)
        return {"slow": True}

    def broken(request: PeerRequest) -> None:
        raise ValueError("mine")

    async def refusing(request: PeerRequest) -> None:
        raise MCPError(-5, "no", [1])

    peer.on("fixed", {"a": 1})
    peer.on("slow", slowly)
    peer.on("broken", broken)
    peer.on("refusing", refusing)
    peer.on("silent", silence)
    async with connect(peer) as connection:
        for number, method in enumerate(("slow", "fixed", "broken", "refusing", "silent")):
            await connection.send(asking(number, method))
        fixed, fault, refused, slow = [await connection.incoming.receive() for _ in range(4)]
        assert (fixed.id, fixed.result) == (1, {"a": 1})
        assert isinstance(fault, RequestFault)
        assert (fault.request_id, str(fault.error)) == (2, "mine")
        assert (refused.id, refused.error.code, refused.error.data) == (3, -5, [1])
        assert slow.id == 0
        with anyio.move_on_after(1000) as scope:
            await connection.incoming.receive()
        assert scope.cancelled_caught


@pytest.mark.anyio
@in_time
async def test_an_assertion_in_a_handler_fails_the_test() -> None:
    peer = ScriptedPeer()

    async def wrong(request: PeerRequest) -> None:
        raise AssertionError("expected something else")

    peer.on("tools/call", wrong)
    with pytest.raises(ExceptionGroup):
        async with connect(peer) as connection:
            await connection.send(asking(1))
            await anyio.sleep(1)


@pytest.mark.anyio
@in_time
async def test_the_peer_counts_connections_and_may_refuse_or_hang() -> None:
    async def plan(attempt: int) -> None:
        if attempt == 1:
            raise OSError("refused")
        if attempt == 2:
            await anyio.sleep_forever()

    peer = ScriptedPeer(on_connect=plan, farewell=3.0)
    with pytest.raises(OSError, match="refused"):
        await connect(peer).__aenter__()
    with anyio.move_on_after(5) as scope:
        await connect(peer).__aenter__()
    assert scope.cancelled_caught
    async with connect(peer):
        async with connect(peer):
            assert (peer.attempts, peer.open_connections) == (4, 2)
            began = anyio.current_time()
        assert anyio.current_time() - began == pytest.approx(3)
        assert peer.open_connections == 1
        began = anyio.current_time()
    assert (peer.open_connections, peer.most_open_connections) == (0, 2)
    async with connect(peer, close=1):
        began = anyio.current_time()
    assert anyio.current_time() - began == pytest.approx(1)


@pytest.mark.anyio
@in_time
async def test_a_wedged_connection_takes_nothing_until_it_is_freed() -> None:
    peer = ScriptedPeer()
    async with connect(peer) as connection:
        peer.connection.wedge()
        with anyio.move_on_after(10) as scope:
            await connection.send(asking(1))
        assert scope.cancelled_caught
        assert peer.requests == []
        peer.connection.unwedge()
        await connection.send(asking(2))
        assert [request.id for request in peer.requests] == [2]
        assert peer.connection.sending == 0


@pytest.mark.anyio
@in_time
async def test_a_lost_connection_says_so_once_and_moves_nothing_more() -> None:
    peer = ScriptedPeer()
    async with connect(peer) as connection:
        peer.connection.notify("before")
        peer.connection.lose("exited", exit_code=3, stderr_tail=("last words",))
        peer.connection.lose("eof")
        peer.connection.notify("after")
        items = [item async for item in connection.incoming]
        assert isinstance(items[0], JSONRPCNotification)
        assert isinstance(items[1], ConnectionLost)
        error = items[1].error
        assert (error.reason, error.exit_code, error.stderr_tail) == ("exited", 3, ("last words",))
        assert len(items) == 2
        receipts: list[Exception | None] = []
        notification = JSONRPCNotification(jsonrpc="2.0", method="x")
        await connection.send(Outgoing(notification, receipt=receipts.append))
        assert isinstance(receipts[0], RequestFailedError)
        assert peer.notifications == []


@pytest.mark.anyio
@in_time
async def test_receipts_say_what_the_script_says() -> None:
    peer = ScriptedPeer()
    error = RequestFailedError("no", reason="transport")
    peer.on_delivery("fails", error)
    peer.on_delivery("never", None)
    receipts: dict[str, list[Exception | None]] = {"fine": [], "fails": [], "never": []}
    async with connect(peer) as connection:
        for method, receipt in receipts.items():
            notification = JSONRPCNotification(jsonrpc="2.0", method=method)
            await connection.send(Outgoing(notification, receipt=receipt.append))
    assert receipts == {"fine": [None], "fails": [error], "never": []}


@pytest.mark.anyio
@in_time
async def test_what_is_abandoned_is_recorded() -> None:
    peer = ScriptedPeer(abandoning_tells=True)
    async with connect(peer) as connection:
        assert connection.abandon(5)
        peer.abandoning_tells = False
        assert not connection.abandon("x")
    assert peer.abandoned == [5, "x"]


# --- faults ---------------------------------------------------------------------------------------


async def trial(*faults: Fault) -> tuple[ScriptedPeer, list[Any]]:
    """Three requests through a faulty transport, and what came back within a while."""
    peer = ScriptedPeer(era="legacy")
    transport = FaultyTransport(peer.transport, FaultPlan(faults=faults))
    items: list[Any] = []

    async def receive(connection: Connection) -> None:
        while True:
            try:
                items.append(await connection.incoming.receive())
            except anyio.EndOfStream:
                return

    async with (
        transport.connect(timeouts=Timeouts(), limits=Limits()) as connection,
        anyio.create_task_group() as tg,
    ):
        tg.start_soon(receive, connection)
        for number in (1, 2, 3):
            with anyio.move_on_after(50):
                await connection.send(asking(number))
            await anyio.sleep(1)
        await anyio.sleep(100)
        tg.cancel_scope.cancel()
    assert len(transport.injected) == len(faults)
    return peer, items


def ids(items: list[Any]) -> list[Any]:
    return [getattr(item, "id", type(item).__name__) for item in items]


def out(kind: FaultKind, message: int = 2, **more: Any) -> Fault:
    return Fault(kind=kind, way="out", message=message, **more)


def in_(kind: FaultKind, message: int = 2, **more: Any) -> Fault:
    return Fault(kind=kind, way="in", message=message, **more)


@pytest.mark.parametrize(
    ("fault", "sent", "received"),
    [
        (out(FaultKind.DROP), [1, 3], [1, 3]),
        (out(FaultKind.CORRUPT), [1, 3], [1, 3]),
        (out(FaultKind.DELAY, seconds=10), [1, 2, 3], [1, 2, 3]),
        (out(FaultKind.DUPLICATE), [1, 2, 2, 3], [1, 2, 2, 3]),
        (out(FaultKind.FAIL), [1, 3], [1, "RequestFault", 3]),
        (out(FaultKind.LOSE), [1], [1, "ConnectionLost"]),
        (out(FaultKind.WEDGE), [1, 3], [1, 3]),
        (in_(FaultKind.DROP), [1, 2, 3], [1, 3]),
        (in_(FaultKind.FAIL), [1, 2, 3], [1, 3]),
        (in_(FaultKind.CORRUPT), [1, 2, 3], [1, "Violation", 3]),
        (in_(FaultKind.DELAY, seconds=10), [1, 2, 3], [1, 2, 3]),
        (in_(FaultKind.DUPLICATE), [1, 2, 3], [1, 2, 2, 3]),
        (in_(FaultKind.LOSE), None, [1, "ConnectionLost"]),
        (in_(FaultKind.WEDGE), [1, 2, 3], [1]),
    ],
    ids=lambda value: f"{value.kind.value}-{value.way}" if isinstance(value, Fault) else None,
)
@pytest.mark.anyio
@in_time
async def test_each_fault_does_what_it_says(
    fault: Fault, sent: list[int] | None, received: list[Any]
) -> None:
    peer, items = await trial(fault)
    if sent is not None:
        assert [request.id for request in peer.requests] == sent
    assert ids(items) == received


@pytest.mark.anyio
@in_time
async def test_a_loss_ends_a_delay() -> None:
    _, items = await trial(in_(FaultKind.WEDGE, message=1), out(FaultKind.LOSE, message=2))
    assert ids(items) == ["ConnectionLost"]


@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.anyio
@in_time
async def test_a_receipt_is_given_exactly_once_unless_it_is_stuck(kind: FaultKind) -> None:
    peer = ScriptedPeer()
    transport = FaultyTransport(peer.transport, FaultPlan(faults=(out(kind, message=1),)))
    receipts: list[Exception | None] = []
    async with transport.connect(timeouts=Timeouts(), limits=Limits()) as connection:
        with anyio.move_on_after(100):
            notification = JSONRPCNotification(jsonrpc="2.0", method="x")
            await connection.send(Outgoing(notification, receipt=receipts.append))
    assert len(receipts) == (0 if kind is FaultKind.WEDGE else 1)
    assert any(receipts) == (kind in (FaultKind.FAIL, FaultKind.LOSE))


@pytest.mark.anyio
@in_time
async def test_a_plan_names_connections_and_attempts() -> None:
    peer = ScriptedPeer()
    plan = FaultPlan(faults=(out(FaultKind.DROP, message=1, connection=3),), failing_connects=(1,))
    transport = FaultyTransport(peer.transport, plan)
    with pytest.raises(ConnectError):
        await transport.connect(timeouts=Timeouts(), limits=Limits()).__aenter__()
    for _ in (2, 3):
        async with transport.connect(timeouts=Timeouts(), limits=Limits()) as connection:
            await connection.send(asking(1))
    assert len(peer.requests) == 1
    assert transport.describe == "a scripted peer (with faults)"
    assert transport.kind == peer.transport.kind


@given(plan=fault_plans())
def test_any_plan_can_be_carried_out(plan: FaultPlan) -> None:
    async def scenario() -> None:
        transport = FaultyTransport(ScriptedPeer().transport, plan)
        for _ in range(3):
            try:
                async with (
                    transport.connect(timeouts=Timeouts(), limits=Limits()) as connection,
                    anyio.create_task_group() as tg,
                ):
                    tg.start_soon(drain, connection)
                    with anyio.move_on_after(1000):
                        for number in range(20):
                            await connection.send(asking(number))
                    tg.cancel_scope.cancel()
            except ConnectError:
                pass

    check_never_hangs(scenario, backend="asyncio", seconds=5000)


async def drain(connection: Connection) -> None:
    lost = False
    async for item in connection.incoming:
        assert not lost
        lost = isinstance(item, ConnectionLost)
        assert isinstance(item, JSONRPCResponse | RequestFault | Violation | ConnectionLost)
        if isinstance(item, ConnectionLost):
            assert isinstance(item.error, SessionLostError)

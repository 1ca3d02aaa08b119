"""Nothing that arrived is lost: notifications are handled before the call behind them returns, or before the
block is left, within the close deadline; what exceeds the bounds is counted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from anyio_mcp._session.notifications import NOTIFICATION_BYTES
from anyio_mcp.client import Client
from anyio_mcp.errors import SessionLostError
from anyio_mcp.testing import PeerRequest, ScriptedPeer, check_at_rest
from tests.actor.support import in_time, outcome

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> Any:
    return request.param


async def hang(_: Any) -> None:
    await anyio.sleep_forever()


def logs(number: int, data: Any = None) -> Callable[[PeerRequest], dict[str, Any]]:
    def answer(request: PeerRequest) -> dict[str, Any]:
        for each in range(number):
            message = {"level": "info", "data": each if data is None else data}
            request.connection.notify("notifications/message", message)
        return {"content": []}

    return answer


@in_time
async def test_what_came_before_an_answer_is_handled_before_the_call_returns(era: Any) -> None:
    peer, seen = ScriptedPeer(era=era), list[Any]()
    peer.on("tools/call", logs(500))

    async def handler(message: Any) -> None:
        seen.append(message.data)

    async with Client(peer.transport, log_handler=handler) as client:
        await client.call_tool_mcp("echo")
        assert seen == list(range(500))


@in_time
async def test_a_call_does_not_wait_for_a_handler_that_waits(era: Any) -> None:
    peer, handled = ScriptedPeer(era=era), anyio.Event()
    peer.on("tools/call", logs(3))

    async def handler(_: Any) -> None:
        await handled.wait()

    async with Client(peer.transport, log_handler=handler) as client:
        began = anyio.current_time()
        await client.call_tool_mcp("echo")
        assert anyio.current_time() == began
        handled.set()


@in_time
async def test_a_handler_that_calls_the_client_does_not_wait_for_itself(era: Any) -> None:
    peer, seen = ScriptedPeer(era=era), list[Any]()
    peer.on("tools/call", logs(20))
    client = Client(peer.transport)

    async def handler(message: Any) -> None:
        await client.ping()
        seen.append(message.data)

    client = Client(peer.transport, log_handler=handler)
    async with client:
        began = anyio.current_time()
        await client.call_tool_mcp("echo")
        while len(seen) < 20:
            await anyio.lowlevel.checkpoint()
        assert anyio.current_time() == began


@pytest.mark.parametrize("door", ["owned", "supplied", "run"])
@pytest.mark.parametrize("end", ["left", "closed", "lost"])
@in_time
async def test_what_has_arrived_is_handed_over_before_the_block_is_left(
    door: str, end: str, era: Any
) -> None:
    peer, seen = ScriptedPeer(era=era), list[Any]()
    peer.on("tools/call", logs(40))

    async def handler(message: Any) -> None:
        await anyio.sleep(0.1)
        seen.append(message.data)

    async def use(client: Client) -> None:
        await client.call_tool_mcp("echo")
        if end == "lost":
            peer.connection.lose()
            await outcome(client.ping)
        if end == "closed" or door == "run":
            await client.close()
            assert len(seen) == 40

    async with anyio.create_task_group() as tg:
        client = Client(
            peer.transport,
            log_handler=handler,
            restart=None,
            task_group=tg if door == "supplied" else None,
        )
        if door == "run":
            await tg.start(client.run)
            await use(client)
        else:
            async with client:
                await use(client)
        assert seen == list(range(40))
    assert client.stats().dropped_notifications == 0
    check_at_rest(client)


@in_time
async def test_a_handler_that_hangs_holds_up_leaving_until_the_close_deadline(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    peer.on("tools/call", logs(40))
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, log_handler=hang, task_group=tg)
        async with client:
            await client.call_tool_mcp("echo")
            began = anyio.current_time()
        assert anyio.current_time() - began == pytest.approx(5)
    # One every second, and the rest by nobody.
    assert 30 <= client.stats().dropped_notifications < 40
    check_at_rest(client)


@in_time
async def test_a_new_session_does_not_wait_for_the_handlers_of_the_lost_one(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    peer.on("tools/call", logs(1))
    async with Client(peer.transport, log_handler=hang) as client:
        await client.call_tool_mcp("echo")
        peer.connection.lose()
        with pytest.raises(SessionLostError):
            await client.ping()
        began = anyio.current_time()
        assert await client.ping()
        assert anyio.current_time() == began


@in_time
async def test_a_handler_that_closes_the_client_does_not_wait_for_itself(era: Any) -> None:
    peer, closed = ScriptedPeer(era=era), anyio.Event()
    peer.on("tools/call", logs(1))

    async def handler(_: Any) -> None:
        await client.close()
        closed.set()

    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, log_handler=handler, task_group=tg)
        began = anyio.current_time()
        async with client:
            await outcome(lambda: client.call_tool_mcp("echo"))
            await closed.wait()
        assert anyio.current_time() == began
    check_at_rest(client)


@in_time
async def test_cancelling_the_group_of_the_session_waits_for_no_handler(era: Any) -> None:
    peer = ScriptedPeer(era=era)
    peer.on("tools/call", logs(40))
    began = anyio.current_time()
    async with anyio.create_task_group() as tg:
        client = Client(peer.transport, log_handler=hang, task_group=tg)
        await client.__aenter__()
        await client.call_tool_mcp("echo")
        tg.cancel_scope.cancel()
    assert anyio.current_time() == began


# --- bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["x" * 2**20, [[]] * 2**14, {str(n): n for n in range(2**13)}], ids=type)
@in_time
async def test_what_waits_for_a_handler_is_bounded_in_bytes(data: Any) -> None:
    peer, seen = ScriptedPeer(), 0
    peer.on("tools/call", logs(50, data))

    async def handler(_: Any) -> None:
        nonlocal seen
        seen += 1
        await anyio.sleep(30)

    async with Client(peer.transport, log_handler=handler) as client:
        await client.call_tool_mcp("echo")
        await anyio.sleep(100)
        assert seen + client.stats().dropped_notifications == 50
        # Each holds 0.9 to 1.1 MiB, those that are being handled as well.
        assert 12 <= seen <= 20


@in_time
async def test_one_notification_larger_than_the_bound_is_handed_over_when_it_is_the_only_one() -> None:
    peer, seen = ScriptedPeer(), list[int]()
    peer.on("tools/call", logs(1, "x" * (NOTIFICATION_BYTES + 1)))

    async def handler(message: Any) -> None:
        seen.append(len(message.data))

    async with Client(peer.transport, log_handler=handler) as client:
        for _ in range(3):
            await client.call_tool_mcp("echo")
        assert client.stats().dropped_notifications == 0
    assert seen == [NOTIFICATION_BYTES + 1] * 3


@in_time
async def test_what_does_not_validate_is_counted_and_logged_at_a_bounded_rate(
    era: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer = ScriptedPeer(era=era)
    async with Client(peer.transport) as client:
        for _ in range(900):
            peer.connection.notify("notifications/message", {"level": "info", "text": "secret" * 100})
        assert await client.ping()
        await anyio.sleep(11)
        peer.connection.notify("notifications/message", {"level": "info"})
        assert await client.ping()
        assert client.stats().violations == 901
    records = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(records) == 11
    assert all(record.exc_info is None and len(record.getMessage()) < 500 for record in records)
    assert "secret" not in caplog.text
    assert "(890 more like this)" in records[-1].getMessage()

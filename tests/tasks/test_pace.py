"""How often the server is asked for a task."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import pytest

from anyio_mcp._session.tasks.pace import CEILING, FLOOR, UNTOLD, Pace
from tests.tasks.servers import TaskServer

pytestmark = pytest.mark.anyio


async def pauses(server: TaskServer, interval: Any, seconds: float) -> list[float]:
    """The pauses between polls of one task that is followed for some time."""
    server.on_new = lambda task: setattr(task, "interval", interval)
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        with anyio.move_on_after(seconds):
            await task.result(timeout=None)
    return [after - before for before, after in pairwise(server.only.polls)]


async def test_polling_backs_off_to_the_servers_interval(server: TaskServer) -> None:
    found = await pauses(server, 4000, 60)
    assert found[0] < 0.2
    assert all(before <= after + 1e-6 for before, after in pairwise(found))
    assert found[-5:] == pytest.approx([4.0] * 5)


@pytest.mark.parametrize("interval", [0, -1, -(10**9), None, "soon", True, [1], 10**400])
async def test_a_server_that_names_no_interval_is_asked_at_the_usual_one(
    server: TaskServer, interval: Any
) -> None:
    found = await pauses(server, interval, 60)
    assert found[-5:] == pytest.approx([UNTOLD] * 5)
    assert len(found) < 70


async def test_a_server_cannot_have_itself_asked_without_a_pause(server: TaskServer) -> None:
    found = await pauses(server, 0.001, 5)
    assert min(found) >= FLOOR * 0.99
    assert len(found) <= 5 / FLOOR


async def test_an_absurdly_long_interval_is_capped(server: TaskServer) -> None:
    found = await pauses(server, 10**12, 600)
    assert max(found) == pytest.approx(CEILING)


async def test_a_server_may_change_its_mind(server: TaskServer) -> None:
    server.on_new = lambda task: setattr(task, "interval", 30_000)
    async with server.client() as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)
        tg.start_soon(task.wait)
        await anyio.sleep(100)
        server.only.interval = 1000
        await anyio.sleep(60)
        server.only.polls.clear()
        await anyio.sleep(20)
        assert 19 <= len(server.only.polls) <= 21
        server.only.finish()


async def test_a_flood_of_pushes_is_no_flood_of_questions(server: TaskServer) -> None:
    async with server.client() as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)
        tg.start_soon(task.wait)
        for _ in range(500):
            server.push(server.only)
            await anyio.sleep(0.001)
        asked = server.asked("tasks/get")
        assert asked < 10
        server.only.finish()
        server.push(server.only)


def test_a_pause_is_doubled_up_to_the_interval_and_begins_anew_when_told_to_hurry() -> None:
    pace = Pace()
    assert [pace.pause(0.3) for _ in range(5)] == [FLOOR, FLOOR * 2, FLOOR * 4, 0.3, 0.3]
    pace.hurry()
    assert pace.pause(0.3) == FLOOR

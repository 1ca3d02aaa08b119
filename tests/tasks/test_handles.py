"""A handle of a task: the same in both dialects."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError

from anyio_mcp import (
    DeadlineExceededError,
    SessionLostError,
    TaskError,
    TaskSnapshot,
    Timeouts,
    ToolError,
    ToolTask,
)
from tests.tasks.servers import CORE, TaskServer, text_result

pytestmark = pytest.mark.anyio


def said(result: Any) -> str:
    return result.content[0].text


async def test_a_call_as_a_task_gives_a_handle_at_once_and_the_result_when_there_is_one(
    server: TaskServer,
) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", {"n": 1}, task=True)
        assert isinstance(task, ToolTask)
        assert (task.task_id, task.returned_immediately) == ("task-1", False)
        assert server.only.params["arguments"] == {"n": 1}
        assert (await task.status()).status == "working"
        server.only.finish(text_result("here"))
        assert said(await task) == "here"
        assert (await task.status()).status == "completed"
        assert "completed" in repr(task)


async def test_a_snapshot_tells_the_same_in_seconds_whatever_the_dialect(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.change("working", "half way")
        assert await task.status() == TaskSnapshot(
            task_id="task-1",
            status="working",
            status_message="half way",
            created_at="2026-07-28T10:00:00Z",
            last_updated_at="2026-07-28T10:00:01Z",
            ttl=60.0,
            poll_interval=1.0,
        )


async def test_a_result_is_fetched_once_however_often_it_is_awaited(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish()
        assert said(await task) == said(await task) == said(await task.result()) == "done"
        asked = server.asked("tasks/get") + server.asked("tasks/result")
        await task
        await task.status()
        assert server.asked("tasks/get") + server.asked("tasks/result") == asked
    assert said(await task) == "done"


async def test_several_who_await_one_task_all_get_its_result(server: TaskServer) -> None:
    results: list[str] = []
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)

        async def collect() -> None:
            results.append(said(await task))

        async with anyio.create_task_group() as tg:
            for _ in range(5):
                tg.start_soon(collect)
            await anyio.sleep(7)
            server.only.finish()
    assert results == ["done"] * 5


async def test_a_tool_that_fails_in_a_task_raises_what_the_call_would_have_raised(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish(text_result("broken", is_error=True))
        for _ in range(2):
            with pytest.raises(ToolError, match="broken"):
                await task
        quiet = client.tool_task(task.task_id, raise_on_error=False)
        assert (await quiet).is_error


async def test_a_task_that_fails_raises_the_servers_error(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.fail(-32603, "out of coffee")
        for _ in range(2):
            with pytest.raises(MCPError, match="out of coffee") as caught:
                await task
            assert caught.value.code == -32603
        assert (await task.wait()).status == "failed"


async def test_a_cancelled_task_has_no_result(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        await task.cancel()
        assert (await task.wait()).status == "cancelled"
        with pytest.raises(TaskError, match="was cancelled") as caught:
            await task
        assert caught.value.task.status == "cancelled"
        await task.cancel()  # it has ended: nothing to ask for
        assert server.asked("tasks/cancel") == 1
        assert server.asked("tasks/result") == 0


async def test_cancelling_a_task_that_has_ended_meanwhile_is_no_error(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish()
        await task.cancel()
        assert said(await task) == "done"


async def test_a_refusal_to_cancel_is_raised_when_the_task_goes_on(server: TaskServer) -> None:
    def refuse(request: Any) -> Any:
        raise MCPError(-32601, "no cancelling here")

    server.peer.on("tasks/cancel", refuse)
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        with pytest.raises(MCPError, match="no cancelling here"):
            await task.cancel()


async def test_cancelling_a_wait_leaves_the_task_alone(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        with anyio.move_on_after(10) as scope:
            await task
        assert scope.cancelled_caught
        assert server.asked("tasks/cancel") == 0
        server.only.finish()
        assert said(await task) == "done"


# Waiting for a state


async def test_waiting_without_a_state_waits_for_the_end(server: TaskServer) -> None:
    async with server.client() as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)
        tg.start_soon(_finish_after, server, 20.0)
        began = anyio.current_time()
        assert (await task.wait()).status == "completed"
        assert 20 <= anyio.current_time() - began <= 21.5


async def test_waiting_for_a_state_returns_when_the_task_is_in_it(server: TaskServer) -> None:
    async with server.client() as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)
        assert (await task.wait(state="working")).status == "working"
        tg.start_soon(_finish_after, server, 3.0)
        assert (await task.wait(state="completed")).status == "completed"


async def test_waiting_for_a_state_that_will_not_come_ends_when_the_task_does(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish()
        with pytest.raises(TaskError, match="is completed and will not be cancelled") as caught:
            await task.wait(state="cancelled")
        assert caught.value.task.status == "completed"


# Deadlines


async def test_a_wait_ends_at_its_own_deadline(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        for wait in (task.wait, task.result):
            began = anyio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                await wait(timeout=7)
            assert anyio.current_time() - began == pytest.approx(7)
            assert (caught.value.phase, caught.value.seconds) == ("call", 7.0)
        assert server.asked("tasks/cancel") == 0
        assert client.stats().waiters == 0


async def test_a_wait_ends_at_its_deadline_when_the_server_falls_silent(server: TaskServer) -> None:
    server.peer.on("tasks/get", lambda _: None)
    async with server.client(heartbeat=None) as client:
        task = await client.call_tool("slow", task=True)
        for wait in (task.wait, task.result, task.status, task.cancel):
            server.peer.on("tasks/cancel", lambda _: None)
            with pytest.raises(DeadlineExceededError):
                await wait(timeout=7)


async def test_changes_of_a_task_extend_the_clients_deadline_up_to_its_total(server: TaskServer) -> None:
    async with server.client(timeouts=Timeouts(call=60, total=200)) as client:
        task = await client.call_tool("slow", task=True)

        async def report() -> None:
            for percent in range(100):
                await anyio.sleep(40)
                server.only.change("working", f"{percent} %")

        async with anyio.create_task_group() as tg:
            tg.start_soon(report)
            began = anyio.current_time()
            with pytest.raises(DeadlineExceededError):
                await task
            assert anyio.current_time() - began == pytest.approx(200)
            tg.cancel_scope.cancel()


async def test_without_changes_the_clients_deadline_applies(server: TaskServer) -> None:
    async with server.client(timeouts=Timeouts(call=60, total=200)) as client:
        task = await client.call_tool("slow", task=True)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await task
        assert anyio.current_time() - began == pytest.approx(60)


async def test_who_waits_for_a_task_is_told_at_once_when_the_session_is_lost(server: TaskServer) -> None:
    errors: list[Exception] = []
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.interval = 30_000

        async def wait(what: Any) -> None:
            try:
                await what()
            except SessionLostError as error:
                errors.append(error)

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait, task.wait)
            tg.start_soon(wait, task.result)
            await anyio.sleep(100)
            began = anyio.current_time()
            server.peer.connection.lose()
        assert anyio.current_time() == began
        assert len(errors) == 2


# What the server pushes


async def test_a_push_wakes_who_waits_at_once(server: TaskServer) -> None:
    ended: list[float] = []
    async with server.client() as client:
        server.on_new = lambda task: setattr(task, "interval", 30_000)
        task = await client.call_tool("slow", task=True)

        async def wait(what: Any) -> None:
            await what()
            ended.append(anyio.current_time())

        async with anyio.create_task_group() as tg:
            tg.start_soon(wait, task.wait)
            tg.start_soon(wait, task.result)
            await anyio.sleep(100)
            asked = server.asked("tasks/get")
            server.only.finish()
            now = anyio.current_time()
            server.push(server.only)
        assert ended == [now, now]
        assert server.asked("tasks/get") == asked


@pytest.mark.parametrize("method", ["notifications/tasks/status", "notifications/tasks"])
async def test_either_name_of_the_notification_is_understood(server: TaskServer, method: str) -> None:
    async with server.client() as client, anyio.create_task_group() as tg:
        server.on_new = lambda task: setattr(task, "interval", 30_000)
        task = await client.call_tool("slow", task=True)
        tg.start_soon(task.wait)
        await anyio.sleep(100)
        now = anyio.current_time()
        server.only.finish()
        server.push(server.only, method)
        await task
        assert anyio.current_time() == now


async def test_what_arrives_after_the_end_changes_nothing(server: TaskServer) -> None:
    seen: list[TaskSnapshot] = []

    async def note(snapshot: TaskSnapshot) -> None:
        seen.append(snapshot)

    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish()
        assert (await task.wait()).status == "completed"
        task.on_status_change(note)
        server.only.change("working", "a late one")
        server.push(server.only)
        await client.ping()
        await anyio.sleep(1)
        assert (await task.status()).status == "completed"
        assert seen == []


async def test_a_callback_is_told_of_every_change_in_order(server: TaskServer) -> None:
    seen: list[tuple[str, str | None]] = []
    running = 0

    async def note(snapshot: TaskSnapshot) -> None:
        nonlocal running
        running += 1
        assert running == 1, "one change after the other"
        await anyio.sleep(0.1)  # slower than the changes
        running -= 1
        seen.append((snapshot.status, snapshot.status_message))

    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        task.on_status_change(note)
        server.push(server.only)  # no change
        for message in ("one", "two"):
            server.only.change("working", message)
            server.push(server.only)
        await anyio.sleep(1)
        assert seen == [("working", "one"), ("working", "two")]
        server.only.change("working", "three")
        await task.status()  # learned by asking, not by a push
        server.only.finish()
        await task
        await anyio.sleep(1)
        assert seen[2:] == [("working", "three"), ("completed", None)]


async def test_a_callback_that_raises_or_hangs_harms_nobody_else(
    server: TaskServer, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    async def broken(snapshot: TaskSnapshot) -> None:
        raise ValueError("a broken callback")

    async def endless(snapshot: TaskSnapshot) -> None:
        await anyio.sleep_forever()

    async def note(snapshot: TaskSnapshot) -> None:
        seen.append(snapshot.status)

    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        for callback in (broken, endless, note):
            task.on_status_change(callback)
        for message in ("one", "two"):
            server.only.change("working", message)
            server.push(server.only)
            await anyio.sleep(1)
        server.only.finish()
        assert said(await task) == "done"
        await anyio.sleep(1)
        assert seen == ["working", "working", "completed"]
    assert "the task status handler raised" in caplog.text


def test_a_callback_that_cannot_be_called_is_refused() -> None:
    from anyio_mcp import Client

    task = Client(TaskServer(CORE).peer.transport).tool_task("task-1")
    with pytest.raises(TypeError, match="a task status handler must be a function"):
        task.on_status_change("no function")  # type: ignore[arg-type]


async def test_nobody_is_told_once_the_last_handle_is_gone(server: TaskServer) -> None:
    @dataclass
    class Watcher:
        seen: int = 0

        async def note(self, snapshot: TaskSnapshot) -> None:
            self.seen += 1

    watcher = Watcher()
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        task.on_status_change(watcher.note)
        gone = weakref.ref(task)
        del task
        gc.collect()
        assert gone() is None
        server.only.change("working", "for nobody")
        server.push(server.only)
        await anyio.sleep(1)
        assert watcher.seen == 0
        again = client.tool_task("task-1")
        again.on_status_change(watcher.note)
        await again.status()
        server.only.finish()
        server.push(server.only)
        await anyio.sleep(1)
        assert watcher.seen == 1


async def test_two_handles_of_one_task_share_what_is_known(server: TaskServer) -> None:
    async with server.client() as client:
        task = await client.call_tool("slow", task=True)
        server.only.finish()
        await task
        asked = len(server.peer.requests)
        assert said(await client.tool_task(task.task_id)) == "done"
        assert len(server.peer.requests) == asked


async def _finish_after(server: TaskServer, seconds: float) -> None:
    await anyio.sleep(seconds)
    server.only.finish()

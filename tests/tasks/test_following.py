"""A plain call that a modern server makes a task of: followed to its end, and cancelled when unwanted."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.client.extension import ClaimContext, UnexpectedClaimedResult

from anyio_mcp import Client, DeadlineExceededError, RequestFailedError, TaskError, ToolError
from anyio_mcp._session.errands import MAX_ERRANDS, Errands
from anyio_mcp._session.tasks.starting import CreatedTask
from anyio_mcp.testing import Interruption, PeerRequest, cancel_everywhere, silence
from tests.tasks.servers import EXTENSION, QUESTION, FakeTask, TaskServer, text_result

pytestmark = pytest.mark.anyio


def said(result: Any) -> str:
    return result.content[0].text


async def finish(server: TaskServer, result: dict[str, Any] | None = None, *, after: float = 10) -> None:
    task = await server.made()
    await anyio.sleep(after)
    task.finish(result)


async def cancelled(server: TaskServer) -> str:
    """The id of the task that the server was asked to cancel; waits for it."""
    (request,) = await server.peer.received("tasks/cancel")
    return request.params["taskId"]


async def test_a_plain_call_returns_the_result_of_the_task_it_became(extension: TaskServer) -> None:
    async with extension.client() as client, anyio.create_task_group() as tg:
        tg.start_soon(finish, extension)
        assert said(await client.call_tool("slow")) == "done"
        assert extension.asked("tools/call") == 1
        assert extension.asked("tasks/cancel") == 0


async def test_the_protocols_own_result_is_the_same(extension: TaskServer) -> None:
    async with extension.client() as client, anyio.create_task_group() as tg:
        tg.start_soon(finish, extension, text_result("broken", is_error=True))
        assert (await client.call_tool_mcp("slow")).is_error


async def test_a_tool_that_fails_in_its_task_is_a_tool_error(extension: TaskServer) -> None:
    async with extension.client() as client, anyio.create_task_group() as tg:
        tg.start_soon(finish, extension, text_result("broken", is_error=True))
        with pytest.raises(ToolError, match="broken"):
            await client.call_tool("slow")


async def test_a_task_that_fails_raises_what_the_call_would_have_raised(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.fail(-32602, "no such tool")
    async with extension.client() as client:
        with pytest.raises(MCPError, match="no such tool") as caught:
            await client.call_tool("slow")
        assert caught.value.code == -32602
    assert extension.asked("tasks/cancel") == 0


async def test_a_task_that_fails_for_no_known_reason_says_what_the_server_says(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.change("failed", "the disk is full")
    async with extension.client() as client:
        with pytest.raises(TaskError, match="the disk is full"):
            await client.call_tool("slow")


async def test_a_task_that_somebody_else_cancels_is_an_error(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.change("cancelled")
    async with extension.client() as client:
        with pytest.raises(TaskError, match="was cancelled"):
            await client.call_tool("slow")
    assert extension.asked("tasks/cancel") == 0


async def test_a_task_that_has_ended_when_it_is_made_is_asked_for_its_result(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.finish()
    async with extension.client() as client:
        assert said(await client.call_tool("slow")) == "done"


async def test_the_deadline_of_the_call_covers_its_task(extension: TaskServer) -> None:
    async with extension.client() as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("slow", timeout=20)
        assert anyio.current_time() - began == pytest.approx(20)
        assert caught.value.seconds == 20
        assert await cancelled(extension) == "task-1"


async def test_a_cancelled_caller_returns_at_once_and_the_server_is_told(extension: TaskServer) -> None:
    async with extension.client() as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(client.call_tool, "slow")
            await extension.made()
            await anyio.sleep(10)
            # The server reads nothing any more: telling it takes as long as it takes.
            extension.peer.connection.wedge()
            tg.cancel_scope.cancel()
            began = anyio.current_time()
        assert anyio.current_time() == began
        assert extension.asked("tasks/cancel") == 0
        extension.peer.connection.unwedge()
        assert await cancelled(extension) == "task-1"
        assert extension.only.status == "cancelled"
        # Never a `cancelled` notification for a task (the extension's specification).
        assert extension.peer.notifications_of("notifications/cancelled") == []


async def test_a_server_that_never_answers_the_cancellation_holds_nobody(extension: TaskServer) -> None:
    extension.peer.on("tasks/cancel", silence)
    async with extension.client(heartbeat=None) as client:
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("slow", timeout=5)
        await cancelled(extension)
        assert client.stats().calls_in_flight == 1
        await anyio.sleep(60)
        assert client.stats().calls_in_flight == 0


async def test_a_violation_on_the_way_cancels_the_task(extension: TaskServer) -> None:
    async with extension.client() as client:
        extension.peer.on("tasks/get", {"taskId": "task-1", "status": "asleep"})
        with pytest.raises(RequestFailedError, match="no known status"):
            await client.call_tool("slow")
        assert await cancelled(extension) == "task-1"


async def test_a_session_that_is_lost_ends_the_call(extension: TaskServer) -> None:
    async with extension.client() as client:
        with anyio.move_on_after(5):
            await client.call_tool("slow")
        extension.on_new = lambda task: extension.peer.connection.lose()
        with pytest.raises(RuntimeError, match="lost"):
            await client.call_tool("slow")


async def test_a_task_of_a_plain_call_is_forgotten_when_the_call_has_returned(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.finish()
    async with extension.client() as client:
        for _ in range(3):
            await client.call_tool("slow")
        asked = extension.asked("tasks/get")
        # The server still knows it, nobody here does.
        assert (await client.get_task_status("task-1")).status == "completed"
        assert extension.asked("tasks/get") == asked + 1


async def test_a_tool_known_to_run_as_a_task_only_is_run_as_one(core: TaskServer) -> None:
    tool = {"name": "slow", "inputSchema": {"type": "object"}, "execution": {"taskSupport": "required"}}
    core.peer.on("tools/list", {"tools": [tool]})
    async with core.client() as client:
        await client.list_tools()
        async with anyio.create_task_group() as tg:
            tg.start_soon(finish, core)
            assert said(await client.call_tool("slow")) == "done"
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("slow", timeout=5)
        await core.peer.received("tasks/cancel")


# The SDK's session


async def test_the_raw_session_says_that_it_got_a_task(extension: TaskServer) -> None:
    async with extension.client() as client:
        with pytest.raises(UnexpectedClaimedResult) as caught:
            await client.session.call_tool("slow")
        created = caught.value.result
        assert isinstance(created, CreatedTask)
        assert created.snapshot().task_id == "task-1"


async def test_the_claim_of_the_extension_resolves_a_task(extension: TaskServer) -> None:
    extension.on_new = lambda task: task.finish()
    async with extension.client() as client:
        session = client.session
        created = await session.call_tool("slow", allow_claimed=True)
        assert isinstance(created, CreatedTask)
        claim = session.tasks_extension.claims()[0]
        context = ClaimContext(session=session, tool_name="slow", read_timeout_seconds=None)
        assert said(await claim.resolve(created, context)) == "done"


async def test_a_task_that_was_made_for_a_caller_who_has_left_is_cancelled(server: TaskServer) -> None:
    made = server._create
    server.peer.on("tools/call", silence)
    async with server.client() as client:
        with anyio.move_on_after(5):
            await client.call_tool("slow", task=True)
        (request,) = server.peer.requests_of("tools/call")
        request.answer(made(request))
        assert await cancelled(server) == server.only.id
        # Whatever else comes late is nobody's business.
        for result in ({"task": "nonsense"}, {"resultType": "task"}, {"content": []}):
            request.answer(result)
        await client.ping()
        assert server.asked("tasks/cancel") == 1


async def test_a_task_made_for_a_caller_who_leaves_before_looking_is_cancelled(server: TaskServer) -> None:
    made = server._create
    reported = anyio.Event()

    def answer(request: PeerRequest) -> dict[str, Any]:
        request.progress(0.5)
        return made(request)

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reported.set()
        await anyio.sleep_forever()

    server.peer.on("tools/call", answer)
    async with server.client() as client, anyio.create_task_group() as tg:
        tg.start_soon(partial(client.call_tool, "slow", task=True, progress_handler=note))
        await reported.wait()
        while client.stats().calls_in_flight:
            await anyio.lowlevel.checkpoint()
        tg.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await cancelled(server) == server.only.id


# Errands


async def test_errands_are_bounded_and_what_they_raise_is_nobodys() -> None:
    errands = Errands()

    async def fail() -> None:
        raise ValueError("nobody cares")

    assert not errands.begin(fail, name="too early")
    async with anyio.create_task_group() as tg:
        errands.run_in(tg)
        assert errands.begin(fail, name="fails")
        await anyio.sleep(1)
        begun = [errands.begin(anyio.sleep_forever, name="hangs") for _ in range(MAX_ERRANDS + 5)]
        assert begun.count(True) == MAX_ERRANDS
        assert errands.refused == 1 + 5
        errands.run_in(None)
        tg.cancel_scope.cancel()


async def test_a_task_cancelled_when_too_much_is_under_way_is_counted(extension: TaskServer) -> None:
    extension.peer.on("tasks/cancel", silence)
    async with extension.client(heartbeat=None) as client:
        async with anyio.create_task_group() as tg:
            for _ in range(MAX_ERRANDS + 3):
                tg.start_soon(client.call_tool, "slow")
            await extension.made(MAX_ERRANDS + 3)
            await anyio.sleep(1)
            tg.cancel_scope.cancel()
        assert client.session.errands.refused == 3


# Wherever it is cut off


async def answer_name(message: str, response_type: Any, params: Any, context: Any) -> dict[str, str]:
    await anyio.lowlevel.checkpoint()
    return {"name": "Ada"}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("as_task", [False, True])
def test_following_a_task_can_be_cancelled_anywhere_and_leaves_nothing(backend: str, as_task: bool) -> None:
    async def at_a_checkpoint(interruption: Interruption) -> None:
        server = TaskServer(EXTENSION)

        def ask(task: FakeTask) -> None:
            task.questions["name"] = QUESTION
            task.change("input_required")

        server.on_new = ask
        async with Client(server.peer.transport, elicitation_handler=answer_name) as client:

            async def play() -> None:
                await (await server.made()).changed.wait()
                await anyio.sleep(1)
                server.only.finish()

            async def use() -> str:
                if as_task:
                    return said(await (await client.call_tool("slow", task=True)))
                return said(await client.call_tool("slow"))

            async with anyio.create_task_group() as tg:
                tg.start_soon(play)
                outcome = await interruption(use)
                tg.cancel_scope.cancel()
            assert outcome in ("done", None)
            # Time for the server to be told; then nothing is left, and the session works.
            await anyio.sleep(30)
            stats = client.stats()
            assert (stats.waiters, stats.calls_in_flight) == (0, 0)
            assert await client.ping()
            if outcome is None and server.tasks and not as_task:
                # Also when the call was cut off before it knew of the task.
                assert server.only.is_final

    assert cancel_everywhere(at_a_checkpoint, backend=backend) > 5

"""What a task asks of the user: the same handlers answer as for any question of the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp.types import METHOD_NOT_FOUND, SamplingMessage

from anyio_mcp import DeadlineExceededError, ElicitResult, RequestFailedError
from anyio_mcp.testing import PeerRequest
from tests.tasks.servers import QUESTION, FakeTask, TaskServer

pytestmark = pytest.mark.anyio

SAMPLE = {
    "method": "sampling/createMessage",
    "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": "Say something"}}],
        "maxTokens": 10,
    },
}


def said(result: Any) -> str:
    return result.content[0].text


def asks(*keys: str, finish: bool = True) -> Callable[[FakeTask], None]:
    """A task that asks before it does anything, and is done when it has been answered."""

    def on_new(task: FakeTask) -> None:
        task.questions = dict.fromkeys(keys, QUESTION)
        task.change("input_required", "I have questions")
        change = task.change

        def then(status: str, message: str | None = None) -> None:
            change(status, message)
            if status == "working" and finish:
                task.finish()

        task.change = then  # type: ignore[method-assign]

    return on_new


class Asked:
    """An elicitation handler that counts."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.times = 0

    async def __call__(self, message: str, response_type: Any, params: Any, context: Any) -> dict[str, str]:
        self.times += 1
        await anyio.sleep(self.seconds)
        return {"name": "Ada"}


def accepted(task: FakeTask) -> list[Any]:
    return [{k: answer[k] for k in ("action", "content")} for answer in task.answers.values()]


async def test_the_handlers_answer_what_a_task_asks(server: TaskServer) -> None:
    server.on_new = asks("name")
    asked = Asked()
    async with server.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        assert said(await task) == "done"
        assert accepted(server.only) == [{"action": "accept", "content": {"name": "Ada"}}]
        assert asked.times == 1


async def test_the_handlers_answer_what_a_plain_call_asks_in_its_task(extension: TaskServer) -> None:
    extension.on_new = asks("one", "two")
    asked = Asked()
    async with extension.client(elicitation_handler=asked) as client:
        assert said(await client.call_tool("slow")) == "done"
    assert asked.times == 2
    assert extension.only.answers.keys() == {"one", "two"}
    (update,) = extension.peer.requests_of("tasks/update")
    assert update.headers["mcp-name"] == "task-1"


async def test_sampling_in_a_task_goes_to_the_sampling_handler(server: TaskServer) -> None:
    def on_new(task: FakeTask) -> None:
        asks("text")(task)
        task.questions = {"text": SAMPLE}

    async def sample(messages: list[SamplingMessage], params: Any, context: Any) -> str:
        return "something"

    server.on_new = on_new
    async with server.client(sampling_handler=sample) as client:
        assert said(await (await client.call_tool("slow", task=True))) == "done"
        assert server.only.answers["text"]["content"]["text"] == "something"


async def test_a_question_is_answered_once_though_the_server_repeats_it(extension: TaskServer) -> None:
    extension.on_new = asks("name", finish=False)
    # Accepts the answer, and is slow to notice it: acknowledgements are only eventually consistent.
    extension.peer.on("tasks/update", {})
    asked = Asked()
    async with extension.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        async with anyio.create_task_group() as tg:
            tg.start_soon(task.wait)
            tg.start_soon(task.result)
            await anyio.sleep(30)
            assert asked.times == 1
            extension.only.finish()
        assert extension.asked("tasks/update") == 1


async def test_a_question_that_comes_later_is_answered_later(extension: TaskServer) -> None:
    extension.on_new = asks("one", finish=False)
    asked = Asked()
    async with extension.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        async with anyio.create_task_group() as tg:
            tg.start_soon(task.wait)
            await extension.peer.received("tasks/update")
            extension.only.questions = {"two": QUESTION}
            extension.only.change("input_required")
            await extension.peer.received("tasks/update", 2)
            extension.only.finish()
        assert asked.times == 2
        assert extension.peer.requests_of("tasks/update")[1].params["inputResponses"].keys() == {"two"}


async def test_an_answer_is_followed_by_a_question_soon(extension: TaskServer) -> None:
    extension.on_new = lambda task: setattr(task, "interval", 30_000)
    async with extension.client(elicitation_handler=Asked()) as client:
        task = await client.call_tool("slow", task=True)
        async with anyio.create_task_group() as tg:
            tg.start_soon(task.wait)
            await anyio.sleep(200)
            extension.only.questions = {"name": QUESTION}
            extension.only.change("input_required")
            await extension.peer.received("tasks/update")
            answered = anyio.current_time()
            extension.only.finish()
        assert anyio.current_time() - answered < 1


async def test_waiting_for_the_question_leaves_it_alone(server: TaskServer) -> None:
    server.on_new = asks("name")
    asked = Asked()
    async with server.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        assert (await task.wait(state="input_required")).status_message == "I have questions"
        await anyio.sleep(10)
        assert asked.times == 0
        assert said(await task) == "done"
        assert asked.times == 1


async def test_a_refusal_is_raised_to_who_waits_and_the_question_stays_open(extension: TaskServer) -> None:
    extension.on_new = asks("name")
    async with extension.client() as client:
        task = await client.call_tool("slow", task=True)
        for _ in range(2):
            with pytest.raises(MCPError, match="not supported"):
                await task
        assert extension.asked("tasks/cancel") == 0
        with pytest.raises(MCPError, match="not supported"):
            await client.call_tool("slow")
        await extension.peer.received("tasks/cancel")  # nobody has a handle of that one


async def test_declining_is_an_answer(server: TaskServer) -> None:
    async def decline(message: str, response_type: Any, params: Any, context: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    server.on_new = asks("name")
    async with server.client(elicitation_handler=decline) as client:
        assert said(await (await client.call_tool("slow", task=True))) == "done"
        assert server.only.answers["name"]["action"] == "decline"


async def test_a_handler_counts_against_the_deadline_of_who_waits(server: TaskServer) -> None:
    server.on_new = asks("name")
    asked = Asked(seconds=1000)
    async with server.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await task.result(timeout=20)
        assert anyio.current_time() - began == pytest.approx(20)


async def test_a_question_whose_handler_was_cancelled_can_be_answered_later(extension: TaskServer) -> None:
    extension.on_new = asks("name")
    asked = Asked(seconds=1000)
    async with extension.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)
        with pytest.raises(DeadlineExceededError):
            await task.result(timeout=20)
        asked.seconds = 0
        assert said(await task) == "done"
        assert asked.times == 2


async def test_a_question_that_is_none_is_a_violation(extension: TaskServer) -> None:
    def on_new(task: FakeTask) -> None:
        task.questions = {"name": {"method": "shell/run", "params": {}}}
        task.change("input_required")

    extension.on_new = on_new
    async with extension.client(elicitation_handler=Asked()) as client:
        task = await client.call_tool("slow", task=True)
        with pytest.raises(RequestFailedError) as caught:
            await task
        assert caught.value.reason == "violation"


async def test_a_task_that_never_stops_asking_is_a_violation(extension: TaskServer) -> None:
    def more(request: PeerRequest) -> dict[str, Any]:
        task = extension.only
        task.questions = {f"{len(task.polls)}-{n}": QUESTION for n in range(50)}
        return {}

    extension.on_new = asks("name", finish=False)
    extension.peer.on("tasks/update", more)
    async with extension.client(elicitation_handler=Asked()) as client:
        with pytest.raises(RequestFailedError, match="more than 1000 questions"):
            await client.call_tool("slow", timeout=None)


# Servers of 2025-11-25 that put their questions elsewhere


async def test_a_server_that_gives_no_result_before_the_end_is_polled_on(core: TaskServer) -> None:
    """FastMCP 3: `tasks/result` is refused until the task has ended, and questions come by themselves."""

    def refuse(request: PeerRequest) -> dict[str, Any]:
        task = core.tasks[request.params["taskId"]]
        if not task.is_final:
            raise MCPError(-32602, "Task not completed yet")
        return task.result or {}

    core.on_new = asks("name")
    core.peer.on("tasks/result", refuse)
    asked = Asked()
    async with core.client(elicitation_handler=asked) as client:
        task = await client.call_tool("slow", task=True)

        async def ask() -> None:
            await anyio.sleep(10)
            await core.peer.answer_to(core.peer.ask(QUESTION["method"], QUESTION["params"]))
            core.only.finish()

        async with anyio.create_task_group() as tg:
            tg.start_soon(ask)
            assert said(await task) == "done"
        assert asked.times == 1
        assert core.asked("tasks/result") == 2


async def test_a_wait_for_the_result_that_breaks_is_followed_by_polling(core: TaskServer) -> None:
    broken = False
    result = core._result

    async def break_once(request: PeerRequest) -> dict[str, Any]:
        nonlocal broken
        if not broken:
            broken = True
            raise RequestFailedError("the stream broke", reason="transport")
        return await result(request)

    core.on_new = asks("name")
    core.peer.on("tasks/result", break_once)
    async with core.client(elicitation_handler=Asked()) as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)

        async def finish() -> None:
            await anyio.sleep(10)
            core.only.finish()

        tg.start_soon(finish)
        assert said(await task) == "done"


async def test_a_result_too_large_to_take_is_raised(core: TaskServer) -> None:
    def oversized(request: PeerRequest) -> dict[str, Any]:
        raise RequestFailedError("too large", reason="oversized")

    core.on_new = asks("name")
    core.peer.on("tasks/result", oversized)
    async with core.client(elicitation_handler=Asked()) as client:
        with pytest.raises(RequestFailedError, match="too large"):
            await (await client.call_tool("slow", task=True))


async def test_a_task_that_fails_while_its_result_is_waited_for_raises_its_error(core: TaskServer) -> None:
    core.on_new = asks("name", finish=False)
    async with core.client(elicitation_handler=Asked(seconds=1)) as client, anyio.create_task_group() as tg:
        task = await client.call_tool("slow", task=True)

        async def fail() -> None:
            await anyio.sleep(10)
            core.only.fail(-32000, "out of paper")

        tg.start_soon(fail)
        for _ in range(2):
            with pytest.raises(MCPError, match="out of paper"):
                await task


async def test_a_refusal_that_the_end_of_the_task_overtakes_is_not_its_error(core: TaskServer) -> None:
    def refuse_once(request: PeerRequest) -> dict[str, Any]:
        if core.only.is_final:
            return core.only.result or {}
        core.only.finish()
        raise MCPError(-32602, "Task not completed yet")

    core.on_new = asks("name")
    core.peer.on("tasks/result", refuse_once)
    async with core.client(elicitation_handler=Asked()) as client:
        assert said(await (await client.call_tool("slow", task=True))) == "done"


async def test_a_result_that_is_here_does_not_depend_on_the_task_being_known(core: TaskServer) -> None:
    """A server may forget a task with its result."""

    def forget(request: PeerRequest) -> dict[str, Any]:
        raise MCPError(METHOD_NOT_FOUND, "gone")

    core.on_new = asks("name")
    async with core.client(elicitation_handler=Asked()) as client:
        task = await client.call_tool("slow", task=True)
        await task.wait(state="input_required")
        core.peer.on("tasks/get", forget)
        assert said(await task) == "done"
        assert (await task.status()).status == "completed"

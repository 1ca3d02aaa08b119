"""Every verb ends: at its deadline, or when the session does. On a virtual clock, against a deaf server."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import EmptyResult, PingRequest, PromptReference

from anyio_mcp.client import Client
from anyio_mcp.config import Heartbeat, Timeouts
from anyio_mcp.errors import DeadlineExceededError, NotConnectedError, SessionLostError
from anyio_mcp.testing import VirtualTime
from anyio_mcp.verbs.base import DEFAULT
from tests.verbs.servers import LEGACY, Scripted, text_result

pytestmark = pytest.mark.anyio

Verb = Callable[..., Awaitable[Any]]

REF = PromptReference(name="greet")
ARGUMENT = {"name": "name", "value": ""}
VERBS: dict[str, Verb] = {
    "initialize": lambda client, **options: client.initialize(**options),
    "ping": lambda client, **options: client.ping(**options),
    "cancel": lambda client, **options: client.cancel(99, **options),
    "progress": lambda client, **options: client.progress("token", 1, **options),
    "set_logging_level": lambda client, **options: client.set_logging_level("info", **options),
    "send_roots_list_changed": lambda client, **options: client.send_roots_list_changed(**options),
    "complete": lambda client, **options: client.complete(REF, ARGUMENT, **options),
    "complete_mcp": lambda client, **options: client.complete_mcp(REF, ARGUMENT, **options),
    "list_tools": lambda client, **options: client.list_tools(**options),
    "list_tools_mcp": lambda client, **options: client.list_tools_mcp(**options),
    "list_resources": lambda client, **options: client.list_resources(**options),
    "list_resources_mcp": lambda client, **options: client.list_resources_mcp(**options),
    "list_resource_templates": lambda client, **options: client.list_resource_templates(**options),
    "list_resource_templates_mcp": lambda client, **options: client.list_resource_templates_mcp(**options),
    "list_prompts": lambda client, **options: client.list_prompts(**options),
    "list_prompts_mcp": lambda client, **options: client.list_prompts_mcp(**options),
    "call_tool": lambda client, **options: client.call_tool("add", **options),
    "call_tool_mcp": lambda client, **options: client.call_tool_mcp("add", **options),
    "read_resource": lambda client, **options: client.read_resource("memo://x", **options),
    "read_resource_mcp": lambda client, **options: client.read_resource_mcp("memo://x", **options),
    "get_prompt": lambda client, **options: client.get_prompt("greet", **options),
    "get_prompt_mcp": lambda client, **options: client.get_prompt_mcp("greet", **options),
    "subscribe_resource": lambda client, **options: client.subscribe_resource("memo://x", **options),
    "unsubscribe_resource": lambda client, **options: client.unsubscribe_resource("memo://x", **options),
}
EACH_VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Any]:
    return request.param, VirtualTime(request.param).options


def test_no_verb_is_left_out() -> None:
    doors = {"close", "run"}
    public = {
        name
        for name, _ in inspect.getmembers(Client, inspect.iscoroutinefunction)
        # Background tasks are polled; they have bounds, and tests, of their own.
        if not name.startswith("_") and "task" not in name
    }
    assert public - doors == VERBS.keys()


class Deaf:
    """An SDK-style transport to nobody: what is sent waits for ever, and nothing is ever received."""

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[tuple[Any, Any]]:
        to_client, read = anyio.create_memory_object_stream[SessionMessage](0)
        write, self.unread = anyio.create_memory_object_stream[SessionMessage](0)
        async with to_client, read, write, self.unread:
            yield read, write


@asynccontextmanager
async def unheard(**options: Any) -> AsyncGenerator[Client]:
    """A client whose every message is never even taken; without a heartbeat, which would notice."""
    with anyio.fail_after(10_000):
        async with Client(Deaf(), auto_initialize=False, heartbeat=None, **options) as client:
            yield client


@EACH_VERB
async def test_every_verb_ends_at_its_own_deadline(verb: Verb) -> None:
    async with unheard() as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await verb(client, timeout=7)
        assert anyio.current_time() - began == pytest.approx(7)
        assert (caught.value.phase, caught.value.seconds) == ("call", 7.0)
        stats = client.stats()
        assert (stats.calls_in_flight, stats.waiters) == (0, 0)


@EACH_VERB
async def test_every_verb_ends_at_the_clients_deadline(verb: Verb) -> None:
    async with unheard(timeouts=Timeouts(call=11)) as client:
        for options in ({}, {"timeout": DEFAULT}):
            began = anyio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                await verb(client, **options)
            assert anyio.current_time() - began == pytest.approx(11)
            assert caught.value.seconds == 11.0


@EACH_VERB
async def test_a_timeout_of_zero_ends_every_verb_at_once_and_sends_nothing(verb: Verb) -> None:
    async with unheard() as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError, match="within 0 seconds"):
            await verb(client, timeout=0)
        assert anyio.current_time() == began


@EACH_VERB
async def test_what_is_no_duration_is_refused_by_every_verb(verb: Verb) -> None:
    async with unheard() as client:
        for mistake in (True, "5", [5]):
            with pytest.raises(TypeError, match="timeout must be seconds"):
                await verb(client, timeout=mistake)
        for mistake in (-1, math.nan):
            with pytest.raises(ValueError, match="timeout must not be negative"):
                await verb(client, timeout=mistake)
        assert anyio.current_time()


@EACH_VERB
async def test_every_verb_ends_when_the_session_does(verb: Verb) -> None:
    errors: list[SessionLostError] = []

    async with unheard() as client:

        async def call(timeout: float | None) -> None:
            with pytest.raises(SessionLostError) as caught:
                await verb(client, timeout=timeout)
            errors.append(caught.value)

        async with anyio.create_task_group() as tg:
            for timeout in (None, math.inf, 5000):
                tg.start_soon(call, timeout)
            await anyio.sleep(1000)
            assert errors == []
            await client.close()
    assert [error.reason for error in errors] == ["closed"] * 3
    assert len({id(error) for error in errors}) == 3


@EACH_VERB
async def test_every_verb_outside_a_context_says_so(verb: Verb) -> None:
    client = Client(Deaf(), name="mine")
    with pytest.raises(NotConnectedError, match="mine is not connected: use it inside `async with client`"):
        await verb(client)


@EACH_VERB
async def test_every_verb_can_be_cancelled_at_once(verb: Verb) -> None:
    async with unheard() as client:
        began = anyio.current_time()
        with anyio.move_on_after(3) as scope:
            await verb(client)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(3)
        stats = client.stats()
        assert (stats.calls_in_flight, stats.waiters) == (0, 0)


# --- progress and the deadline --------------------------------------------------------------------


class Slow(Scripted):
    """A server that reports progress so often, so far apart, and then answers."""

    def __init__(self, steps: int, every: float) -> None:
        super().__init__()
        self.steps = steps
        self.every = every

    async def calling(self, context: Any, params: Any) -> Any:
        for step in range(self.steps):
            await anyio.sleep(self.every)
            await context.session.report_progress(step)
        return text_result("done")


@asynccontextmanager
async def slow(steps: int, every: float, **timeouts: Any) -> AsyncGenerator[Client]:
    server = Slow(steps, every)
    with anyio.fail_after(100_000):
        async with Client(server.server, timeouts=Timeouts(**timeouts), heartbeat=None) as client:
            yield client


async def ignore(*_: Any) -> None:
    pass


async def test_progress_extends_the_clients_deadline() -> None:
    async with slow(5, 8, call=10) as client:
        began = anyio.current_time()
        await client.call_tool("x", progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(40)


async def test_progress_extends_it_no_further_than_the_total() -> None:
    async with slow(100, 8, call=10, total=35) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("x", progress_handler=ignore)
        assert anyio.current_time() - began == pytest.approx(35)
        assert caught.value.seconds == pytest.approx(35)


async def test_progress_does_not_extend_the_deadline_of_the_call() -> None:
    async with slow(5, 8, call=10) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError) as caught:
            await client.call_tool("x", progress_handler=ignore, timeout=15)
        assert anyio.current_time() - began == pytest.approx(15)
        assert caught.value.seconds == 15.0


async def hangs(*_: Any) -> None:
    await anyio.sleep_forever()


async def test_a_progress_handler_that_hangs_is_covered_by_the_deadline() -> None:
    async with slow(2, 50, call=60, total=1000) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.call_tool("x", progress_handler=hangs, timeout=60)
        assert anyio.current_time() - began == pytest.approx(60)


async def test_a_result_that_came_while_a_progress_handler_hangs_is_not_lost() -> None:
    async with slow(2, 1, call=10, total=100) as client:
        began = anyio.current_time()
        result = await client.call_tool("x", progress_handler=hangs)
        assert anyio.current_time() - began == pytest.approx(11), "one second, then extended by ten"
    assert result.content


async def test_without_a_limit_a_call_waits_as_long_as_it_takes() -> None:
    async with slow(1, 50_000) as client:
        began = anyio.current_time()
        await client.call_tool("x", timeout=None)
        assert anyio.current_time() - began == pytest.approx(50_000)


async def test_a_request_of_the_raw_session_has_the_clients_deadline_as_well() -> None:
    async with slow(1, 1000, call=10) as client:
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.session.call_tool("x")
        assert anyio.current_time() - began == pytest.approx(10)
        began = anyio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.session.call_tool("x", read_timeout_seconds=3)
        assert anyio.current_time() - began == pytest.approx(3)


# --- a session that a call had to start anew ----------------------------------------------------


class Reborn(Scripted):
    """A server whose connection can be cut, and that may ask its client for a sign of life."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0

    async def calling(self, context: Any, params: Any) -> Any:
        if params.name == "ask":
            await context.session.send_request(PingRequest(), EmptyResult)
        elif params.name == "slow":
            await anyio.sleep(100)
        return text_result("done")


async def test_a_session_does_not_live_under_the_deadline_of_the_call_that_started_it() -> None:
    server = Reborn()
    with anyio.fail_after(10_000):
        async with Client(server.server, mode=LEGACY, heartbeat=None) as client:
            assert client._keeper.actor is not None
            client._keeper.actor.close()
            await client.call_tool("x", timeout=5)
            assert client.stats().sessions_started == 2
            await anyio.sleep(10)
            await client.call_tool("ask", timeout=100)


async def test_a_heartbeat_does_not_beat_under_the_deadline_of_the_call_that_started_its_session() -> None:
    server = Reborn()
    beat = Heartbeat(interval=15, timeout=10)
    with anyio.fail_after(10_000):
        async with Client(server.server, mode=LEGACY, heartbeat=beat) as client:
            assert client._keeper.actor is not None
            client._keeper.actor.close()
            await client.call_tool("x", timeout=5)
            await anyio.sleep(10)
            await client.call_tool("slow", timeout=1000)
            assert client.stats().sessions_started == 2

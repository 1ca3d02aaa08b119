"""What may happen to a session while somebody uses it, at every checkpoint of the user: the connection is
lost, the client is closed, the task group of the session is cancelled.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import pytest

from anyio_mcp.client import Client
from anyio_mcp.config import Restart
from anyio_mcp.errors import ConnectError, MCPClientError, NotConnectedError, SessionLostError
from anyio_mcp.testing import Interruption, PeerRequest, ScriptedPeer, cancel_everywhere, check_at_rest
from tests.actor.support import outcome

SECONDS = 60.0
EAGER = Restart(max_attempts=3, backoff=0.0, jitter=0.0)


class Stage:
    """A peer, a client, and the accident that is about to happen."""

    def __init__(self, era: Any, tasks: anyio.abc.TaskGroup | None, elsewhere: anyio.abc.TaskGroup) -> None:
        self.peer = ScriptedPeer(era=era, on_connect=self.connecting, farewell=0.5)
        self.peer.on("tools/call", self.call)
        self.client = Client(self.peer.transport, task_group=tasks, restart=EAGER)
        self.tasks = tasks
        self.elsewhere = elsewhere

    async def connecting(self, attempt: int) -> None:
        await anyio.sleep(0.5)

    async def call(self, request: PeerRequest) -> dict[str, Any]:
        request.progress(1)
        await anyio.sleep(0.5)
        return {"content": []}

    async def use(self) -> list[object]:
        """Two blocks and two calls in each; what became of them."""
        results: list[object] = []

        async def block() -> None:
            async with self.client:
                results.extend([await outcome(self.one_call) for _ in range(2)])

        return [*[await outcome(block) for _ in range(2)], *results]

    async def one_call(self) -> None:
        await self.client.call_tool_mcp("echo", {}, self.progress, timeout=20)

    async def progress(self, *_: object) -> None:
        await anyio.sleep(0.1)


Accident = Callable[[Stage], None]


def loss(stage: Stage) -> None:
    if stage.peer.connections:
        stage.peer.connection.lose("exited", exit_code=1)


def closing(stage: Stage) -> None:
    stage.elsewhere.start_soon(stage.client.close)


def cancellation(stage: Stage) -> None:
    assert stage.tasks is not None
    stage.tasks.cancel_scope.cancel()


def everywhere(
    accident: Accident,
    verify: Callable[[Stage, list[object]], Awaitable[None]],
    *,
    door: str,
    era: str,
    backend: str,
) -> int:
    """The accident at every checkpoint of `Stage.use`, each in a run of its own."""
    stages: list[Stage] = []

    async def scenario(interrupt: Interruption) -> None:
        # The user lives elsewhere: the group of the session may be the one that is cancelled.
        async with anyio.create_task_group() as elsewhere, anyio.create_task_group() as tg:
            stage = Stage(era, tg if door == "supplied" else None, elsewhere)
            stages[:] = [stage]
            over = anyio.Event()
            elsewhere.start_soon(play, stage, interrupt, over)
            await over.wait()

    async def play(stage: Stage, interrupt: Interruption, over: anyio.Event) -> None:
        results = await interrupt(stage.use)
        assert results is not None
        await verify(stage, results)
        over.set()

    return cancel_everywhere(
        scenario, backend=backend, seconds=SECONDS, cancel=lambda scope: accident(stages[0])
    )


@pytest.fixture(params=["modern", "legacy"])
def era(request: pytest.FixtureRequest) -> str:
    return request.param


async def works_again(stage: Stage) -> None:
    await anyio.sleep(2)
    check_at_rest(stage.client)
    async with stage.client:
        await stage.one_call()
    await anyio.sleep(2)
    check_at_rest(stage.client)
    assert stage.peer.open_connections == 0
    assert stage.peer.most_open_connections == 1


@pytest.mark.parametrize("door", ["owner", "supplied"])
def test_a_loss_at_any_time_fails_at_most_what_is_under_way(door: str, era: str, backend: str) -> None:
    async def verify(stage: Stage, results: list[object]) -> None:
        failed = [result for result in results if result is not None]
        assert len(failed) <= 1
        for error in failed:
            assert isinstance(error, SessionLostError | ConnectError), error
            assert error.exit_code == 1
        await works_again(stage)

    assert everywhere(loss, verify, door=door, era=era, backend=backend) >= 10


@pytest.mark.parametrize("door", ["owner", "supplied"])
def test_closing_at_any_time_ends_the_block_that_is_open(door: str, era: str, backend: str) -> None:
    async def verify(stage: Stage, results: list[object]) -> None:
        for error in results:
            assert error is None or isinstance(error, SessionLostError | NotConnectedError), error
            assert not isinstance(error, SessionLostError) or error.reason == "closed"
        await works_again(stage)

    assert everywhere(closing, verify, door=door, era=era, backend=backend) >= 10


def test_cancelling_the_sessions_task_group_at_any_time_is_told_to_every_call(era: str, backend: str) -> None:
    async def verify(stage: Stage, results: list[object]) -> None:
        for error in results:
            assert error is None or isinstance(error, MCPClientError), error
            assert error is None or isinstance(error, SessionLostError | NotConnectedError), error
        await anyio.sleep(2)
        check_at_rest(stage.client)
        assert stage.peer.open_connections == 0

    assert everywhere(cancellation, verify, door="supplied", era=era, backend=backend) >= 10

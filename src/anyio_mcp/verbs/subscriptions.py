"""`listen()`: a stream of change events that survives drops (`subscriptions/listen`, 2026-07-28)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self, final

import anyio
from mcp.client import subscriptions as sdk
from mcp.shared.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.types import SubscriptionFilter

from anyio_mcp._session.keeper import SessionKeeper
from anyio_mcp._session.watchdog import CallDeadline, guard
from anyio_mcp._text import get_logger
from anyio_mcp.config import Restart, Timeouts
from anyio_mcp.errors import SessionLostError
from anyio_mcp.verbs.base import DEFAULT, Operations, Timeout

logger = get_logger(__name__)


@final
class Subscription:
    """An open subscription: iterate over it for events.

    An event says that something changed, not how: fetch it again. Nothing is replayed after a drop, so
    a subscription that was re-established yields one event for everything it covers.
    """

    def __init__(
        self,
        keeper: SessionKeeper,
        wanted: SubscriptionFilter,
        *,
        restart: Restart | None,
        timeouts: Timeouts,
    ) -> None:
        self._keeper = keeper
        self._wanted = wanted
        self._restart = restart
        self._timeouts = timeouts
        self._stack = AsyncExitStack()
        self._inner: sdk.Subscription | None = None
        self._missed: deque[ServerEvent] = deque()
        """What may have changed during a drop: at most one event for each thing subscribed to."""
        self._dropped: sdk.SubscriptionLost | None = None
        """Why the stream ended, until there is another. Kept, so that a wait that is cancelled while it
        listens again is taken up by the next one, and not mistaken for the end."""
        self._losses = 0
        """Consecutive drops without an event in between."""

    @property
    def honored(self) -> SubscriptionFilter:
        """What the server agreed to report: a subset of what was asked for."""
        if self._inner is None:
            raise SessionLostError("the subscription is not open", reason="closed")
        return self._inner.honored

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerEvent:
        """Wait for the next event; the loop ends when the server ends the subscription in order.

        A drop is followed by listening again, in a new session if need be, as `Restart` allows; past
        that the reason is raised. Cancelling the wait loses no event.
        """
        while True:
            if self._missed:
                return self._missed.popleft()
            if self._dropped is not None:
                await self._listen_again(self._dropped)
                continue
            if self._inner is None:
                raise StopAsyncIteration
            try:
                event = await self._inner.__anext__()
            except sdk.SubscriptionLost as error:
                self._dropped = error
                self._losses += 1
            else:
                self._losses = 0
                return event

    async def open(self, deadline: CallDeadline) -> None:
        """Ask the server, and wait until it has agreed."""
        session = await self._keeper.session(deadline)
        wanted = self._wanted
        with guard(session.failure, deadline, what="'subscriptions/listen'"):
            self._inner = await self._stack.enter_async_context(
                sdk.listen(
                    session,
                    tools_list_changed=bool(wanted.tools_list_changed),
                    prompts_list_changed=bool(wanted.prompts_list_changed),
                    resources_list_changed=bool(wanted.resources_list_changed),
                    resource_subscriptions=wanted.resource_subscriptions or (),
                )
            )

    async def close(self) -> None:
        """End the subscription; the server is told by the session, later."""
        self._dropped = None
        await self._leave()

    async def _leave(self) -> None:
        stack, self._stack = self._stack, AsyncExitStack()
        self._inner = None
        await stack.aclose()

    async def _listen_again(self, error: sdk.SubscriptionLost) -> None:
        await self._leave()
        if self._restart is None or self._losses > self._restart.max_attempts:
            raise SessionLostError("the subscription was dropped", reason="eof", cause=error) from error
        logger.info("the subscription was dropped; listening again")
        # A server that drops every subscription at once must not make a busy loop of this.
        await anyio.sleep(self._restart.delay(self._losses - 1, random.random()))
        await self.open(CallDeadline(self._timeouts.call_seconds, self._timeouts.total_seconds))
        self._dropped = None
        self._missed.extend(_everything_in(self.honored))


class SubscriptionVerbs(Operations):
    """Verbs of `subscriptions/*`."""

    @asynccontextmanager
    async def listen(
        self,
        *,
        tools_list_changed: bool = False,
        prompts_list_changed: bool = False,
        resources_list_changed: bool = False,
        resource_subscriptions: Sequence[str] = (),
        timeout: Timeout = DEFAULT,
    ) -> AsyncGenerator[Subscription]:
        """Listen for changes: `async with client.listen(tools_list_changed=True) as events`.

        Entering waits until the server has agreed, within `timeout` seconds; `events.honored` says to
        what. Leaving ends the subscription. Raises `MCPError` if the server refuses, `RuntimeError` in
        the era before 2026-07-28 (there, see `subscribe_resource` and `message_handler`), and what
        every call raises.
        """
        if isinstance(resource_subscriptions, str):
            raise TypeError("resource_subscriptions takes a sequence of URIs, not a single string")
        wanted = SubscriptionFilter(
            tools_list_changed=tools_list_changed or None,
            prompts_list_changed=prompts_list_changed or None,
            resources_list_changed=resources_list_changed or None,
            resource_subscriptions=list(resource_subscriptions) or None,
        )
        subscription = Subscription(self._keeper, wanted, restart=self._restart, timeouts=self._timeouts)
        try:
            await subscription.open(self._deadline(timeout))
            yield subscription
        finally:
            await subscription.close()


def _everything_in(honored: SubscriptionFilter) -> list[ServerEvent]:
    events: list[ServerEvent] = []
    if honored.tools_list_changed:
        events.append(ToolsListChanged())
    if honored.prompts_list_changed:
        events.append(PromptsListChanged())
    if honored.resources_list_changed:
        events.append(ResourcesListChanged())
    events.extend(ResourceUpdated(uri) for uri in honored.resource_subscriptions or ())
    return events

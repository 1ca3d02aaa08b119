"""What the sessions of one event loop share of an authorization: one attempt to obtain a token at a time.

A refresh token that rotates is good for one refresh, and a person is asked once, however many calls of
however many sessions wait. Must not know how a token is obtained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, Generic, TypeVar, final
from weakref import WeakValueDictionary

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import RunVar
from mcp.client.auth import OAuthFlowError

from anyio_mcp.auth.store import FileTokenStore

QUIET_SECONDS: Final = 30.0
"""For a token to be obtained without a person, counted from its start, whoever has come to wait since."""

GRACE_SECONDS: Final = 0.5
"""How long a refresh may go on when the session it runs in is closed: what it brings back cannot be had
twice."""

PAUSE_SECONDS: Final = 300.0
"""Before a person is asked again, once that has been of no use."""

MAX_FAILURES: Final = 3
"""Sign-ins in a row that may fail, or that nobody finishes, before a pause. One whose token is refused is
followed by a pause at once."""

_MAX_PAUSED: Final = 64

Need = Hashable
StateT = TypeVar("StateT")


@final
class Renewal:
    """One attempt to obtain a token, for all who wait for it. Runs in a task of its own."""

    __slots__ = ("_done", "_lasting", "_scope", "_waiters", "asks_a_person", "error", "finished", "need")

    def __init__(self, need: Need, *, lasting: bool, asks_a_person: bool) -> None:
        self.need = need
        self.asks_a_person = asks_a_person
        self.finished = False
        """It ran to its end; otherwise it was given up, by the last who waited or with its session."""
        self.error: Exception | None = None
        self._lasting = lasting
        self._done = anyio.Event()
        self._scope = anyio.CancelScope()
        self._waiters = 0

    async def wait(self) -> None:
        """Wait for its end. When the last one who waits is cancelled, it is given up, unless it is
        lasting."""
        self._waiters += 1
        try:
            await self._done.wait()
        finally:
            self._waiters -= 1
            if not self._waiters and not self._lasting:
                self._scope.cancel()

    async def run(self, obtain: Callable[[], Awaitable[None]]) -> None:
        """Run `obtain`. Raises nothing but cancellation: what it raises is for those who wait."""
        try:
            with self._scope:
                await (_completed(obtain) if self._lasting else obtain())
                self.finished = True
        except Exception as error:  # also an error of a store, or of a function of the user's
            self.error = error
            self.finished = True
        finally:
            self._done.set()


async def _completed(obtain: Callable[[], Awaitable[None]]) -> None:
    """Run `obtain`; cancelled from outside, leave it a moment to end."""
    ended = anyio.Event()
    failure: Exception | None = None
    # Shielded: an authorization server that has taken a refresh token gives its successor once. Bounded by
    # QUIET_SECONDS, and by GRACE_SECONDS from the cancellation on.
    shield = anyio.CancelScope(shield=True, deadline=anyio.current_time() + QUIET_SECONDS)

    async def shielded() -> None:
        nonlocal failure
        try:
            with shield:
                await obtain()
        except Exception as error:
            failure = error
        finally:
            ended.set()

    async with anyio.create_task_group() as tg:
        tg.start_soon(shielded, name="anyio_mcp oauth refresh")
        try:
            await ended.wait()
        finally:
            shield.deadline = min(shield.deadline, anyio.current_time() + GRACE_SECONDS)
    if failure is not None:
        raise failure
    if shield.cancelled_caught:
        raise OAuthFlowError(f"no token was obtained in {QUIET_SECONDS:g} s")


@final
class Authorization(Generic[StateT]):
    """The authorization of one client for one server, with one store. Not for threads: each event loop has
    its own."""

    __slots__ = ("__weakref__", "_failures", "_owner", "_paused_until", "last_failure", "renewal", "state")

    def __init__(self, owner: object, state: StateT) -> None:
        self._owner = owner  # kept, so that its id() is nobody else's
        self.state = state
        """What has been obtained."""
        self.renewal: Renewal | None = None
        self.last_failure: Exception | None = None
        self._failures = 0
        # By status: a step-up that did not help says nothing against signing in.
        self._paused_until: dict[int, float] = {}

    def start(
        self,
        tasks: TaskGroup,
        need: Need,
        obtain: Callable[[], Awaitable[None]],
        *,
        lasting: bool,
        asks_a_person: bool,
    ) -> Renewal:
        """Start an attempt in `tasks`; only while `renewal` is None."""
        renewal = self.renewal = Renewal(need, lasting=lasting, asks_a_person=asks_a_person)

        async def run() -> None:
            try:
                await renewal.run(obtain)
            finally:
                self.renewal = None

        try:
            tasks.start_soon(run, name="anyio_mcp oauth")
        except BaseException:
            self.renewal = None
            raise
        return renewal

    def paused(self, status: int) -> bool:
        """Whether nobody is to be asked because of this status now."""
        now = anyio.current_time()
        return max(self._paused_until.get(status, now), self._paused_until.get(401, now)) > now

    def failed(self, error: Exception | None) -> None:
        """A sign-in has failed, or nobody has finished it."""
        self.last_failure = error
        self._failures += 1
        if self._failures >= MAX_FAILURES:
            self.pause(401)

    def helped(self) -> None:
        """A token that a sign-in has brought was accepted."""
        self.last_failure = None
        self._failures = 0
        self._paused_until.clear()

    def pause(self, status: int) -> None:
        """Ask nobody because of this status for PAUSE_SECONDS."""
        self._failures = 0
        self._paused_until[status] = anyio.current_time() + PAUSE_SECONDS
        _registry().remember(self)


@final
class _Registry:
    """The authorizations of one event loop that are in use, and those of late that were of no use."""

    def __init__(self) -> None:
        self._living: WeakValueDictionary[Hashable, Authorization[Any]] = WeakValueDictionary()
        # So that a pause outlives the session. Full, it forgets the oldest, whose user may be asked early.
        self._paused: OrderedDict[int, Authorization[Any]] = OrderedDict()

    def get(self, owner: object, key: str, state: Callable[[], StateT]) -> Authorization[StateT]:
        # Two stores of one directory are one store.
        identity = (
            ("files", str(owner.directory)) if isinstance(owner, FileTokenStore) else ("object", id(owner))
        )
        found = self._living.get((identity, key))
        if found is None:
            found = self._living[identity, key] = Authorization(owner, state())
        return found

    def remember(self, authorization: Authorization[Any]) -> None:
        self._paused[id(authorization)] = authorization
        self._paused.move_to_end(id(authorization))
        while len(self._paused) > _MAX_PAUSED:
            self._paused.popitem(last=False)


_REGISTRY: RunVar[_Registry] = RunVar("anyio_mcp_authorizations")


def _registry() -> _Registry:
    found = _REGISTRY.get(None)
    if found is None:
        found = _Registry()
        _REGISTRY.set(found)
    return found


def authorization_for(owner: object, key: str, state: Callable[[], StateT]) -> Authorization[StateT]:
    """The authorization that is kept in `owner` as `key`, the same for all who ask; `state()` is its state
    at first."""
    return _registry().get(owner, key, state)

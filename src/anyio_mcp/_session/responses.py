"""Results kept for as long as the server says they are good (`ttlMs`, `cacheScope`; 2026-07-28).

It decides what is served, kept and forgotten; it sends nothing itself. A change the server announces is
noted at once, in the order of the wire, so that nothing older than it is served behind it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, final

import anyio
import anyio.lowlevel
from mcp import MCPError
from mcp.client import CacheConfig, CacheEntry, CacheKey, CacheMode
from mcp.types import INVALID_PARAMS, CacheableResult
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from anyio_mcp._session.errands import Errands
from anyio_mcp._session.kept import MemoryStore
from anyio_mcp._session.watchdog import current_deadline
from anyio_mcp._text import get_logger

logger = get_logger(__name__)

MAX_TTL_SECONDS: Final = 24 * 60 * 60.0
"""What a server may at most ask for: a `ttlMs` of years is a mistake, or ill will."""

STORE_SECONDS: Final = 5.0
"""What a user's store may take for one question; then the call does without it."""

MAX_FORGOTTEN: Final = 1000
"""Results forgotten but not yet deleted from a slow store. One more, and nothing is served any more."""

_Result = TypeVar("_Result")
_Topic = tuple[str, str]


@final
@dataclass(slots=True, eq=False)
class _Fetch:
    """A result on its way. What changes meanwhile makes it too old to keep."""

    outdated: bool = False
    superseded: bool = False
    """One that was asked for later has brought its result already, which must not be replaced."""


@final
class ResponseCache:
    """The kept results of one session, in the store of its client."""

    def __init__(
        self,
        config: CacheConfig,
        *,
        server: str,
        version: Callable[[], str | None],
        errands: Errands,
    ) -> None:
        self._config = config
        # A store of ours holds bytes: made into a new object for everybody who is served, in a tenth of
        # the time that a deep copy takes. A user's store is promised the results themselves.
        self._own = config.store is None
        self._store = config.store or MemoryStore()
        self._server = server
        self._version = version
        self._errands = errands
        # As many as there are calls in flight.
        self._fetches: dict[_Topic, list[_Fetch]] = {}
        self._forgotten: set[_Topic] = set()
        self._off = False
        self.hits = 0

    @property
    def is_shared(self) -> bool:
        """Other sessions may have stored what is served to this one."""
        return not self._own

    async def fetch(
        self, method: str, params: str, mode: CacheMode, send: Callable[[], Awaitable[_Result]]
    ) -> _Result:
        """The kept result if it is fresh and `mode` is `"use"`; else what `send` brings, kept if it may be.

        `params` tells results of one method apart. A store that fails costs nothing but its use.
        """
        topic = (method, params)
        if mode == "bypass":
            result = await send()
            kept = await self._read(topic)
            if kept is not None and kept != result:
                # The caller knows better by now; nobody is served what is older than that.
                self.forget(*topic)
            return result
        if mode == "use":
            kept: _Result | None = await self._read(topic)
            if kept is not None:
                self.hits += 1
                return kept
        fetch = _Fetch()
        self._fetches.setdefault(topic, []).append(fetch)
        try:
            result = await send()
            if not isinstance(result, CacheableResult):
                # Input is asked for. What comes of that is not kept, and newer than what is.
                self.forget(*topic)
            elif not fetch.outdated and not fetch.superseded:
                fetches = self._fetches[topic]
                for earlier in fetches[: fetches.index(fetch)]:
                    earlier.superseded = True
                await self._write(topic, result, fetch)
        finally:
            self._fetches[topic].remove(fetch)
            if not self._fetches[topic]:
                del self._fetches[topic]
            if fetch.outdated:
                # The store may have taken it while the change was announced.
                self.forget(*topic)
        return result

    async def continued(self, method: str, send: Callable[[], Awaitable[_Result]]) -> _Result:
        """A page behind the first. Not kept; a cursor that is refused means that the listing has changed."""
        try:
            return await send()
        except MCPError as error:
            if error.code == INVALID_PARAMS:
                self.forget(method)
            raise

    def forget(self, method: str, params: str = "") -> None:
        """Serve this no more, from now on. Does not wait: the store is told by the session, later."""
        topic = (method, params)
        for fetch in self._fetches.get(topic, ()):
            fetch.outdated = True
        if len(self._forgotten) >= MAX_FORGOTTEN:
            self._off = True
            return
        self._forgotten.add(topic)

        async def delete() -> None:
            # Written anew meanwhile: that one is deleted as well, which costs a fetch and no truth.
            # Bounded, because the session's errands are few: a store that hangs must not use them up.
            with anyio.move_on_after(STORE_SECONDS):
                await self._delete(topic)
                self._forgotten.discard(topic)

        self._errands.begin(delete, name="forget a kept result")

    async def _read(self, topic: _Topic) -> Any:
        # A hit waits for nothing else: a loop over hits must not keep other tasks from running.
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(_patience()):
            try:
                for scope in ("private", "public"):
                    entry = await self._store.get(self._key(topic, scope))
                    # Looked at behind the wait: the server may have announced a change during it.
                    if self._off or topic in self._forgotten:
                        return None
                    # What was said to be private is not served to others, wherever the store found it.
                    if entry is not None and entry.scope == scope and self._is_fresh(entry):
                        return self._thaw(entry.value)
            except Exception:  # a user's store, and what it may have made of our values
                logger.warning("the store of kept results could not be read", exc_info=True)
        return None

    async def _write(self, topic: _Topic, result: CacheableResult, fetch: _Fetch) -> None:
        seconds, scope = self._verdict(result)
        with anyio.move_on_after(_patience()):
            try:
                # Both, before anything is set: never two results for one question.
                await self._delete(topic)
                if seconds > 0 and not fetch.outdated:
                    expires = self._config.clock() + seconds
                    entry = CacheEntry(value=self._freeze(result), scope=scope, expires_at=expires)
                    await self._store.set(self._key(topic, scope), entry)
                if not fetch.outdated:
                    self._forgotten.discard(topic)
            except Exception:  # a user's store
                logger.warning("the store of kept results could not be written", exc_info=True)

    async def _delete(self, topic: _Topic) -> None:
        await self._store.delete(self._key(topic, "private"))
        await self._store.delete(self._key(topic, "public"))

    def _is_fresh(self, entry: CacheEntry) -> bool:
        return entry.expires_at is not None and entry.expires_at > self._config.clock()

    def _verdict(self, result: CacheableResult) -> tuple[float, Literal["public", "private"]]:
        """For how many seconds, and for whom, a result is good. Only the modern era's servers know."""
        modern = self._version() in MODERN_PROTOCOL_VERSIONS
        told = modern and "ttl_ms" in result.model_fields_set
        milliseconds = result.ttl_ms if told else self._config.default_ttl_ms
        shared = modern and result.cache_scope == "public"
        return min(milliseconds / 1000, MAX_TTL_SECONDS), "public" if shared else "private"

    def _key(self, topic: _Topic, scope: str) -> CacheKey:
        # As JSON, so that no choice of names makes two keys one. The version is in it because a result
        # has other fields in another.
        parts = [scope, self._version(), self._server]
        if scope == "private" or not self._config.share_public:
            parts.append(self._config.partition)
        return CacheKey(topic[0], topic[1], json.dumps(parts))

    def _freeze(self, result: CacheableResult) -> Any:
        frozen = pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        return frozen if self._own else pickle.loads(frozen)

    def _thaw(self, value: Any) -> Any:
        if self._own:
            return pickle.loads(value)
        if not isinstance(value, CacheableResult):
            raise TypeError(f"the store holds no result of this library but {type(value).__name__}")
        return pickle.loads(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


def _patience() -> float:
    """Seconds a store may take: never more than the call it is to speed up has left."""
    deadline = current_deadline.get()
    return STORE_SECONDS if deadline is None else min(STORE_SECONDS, deadline.remaining())

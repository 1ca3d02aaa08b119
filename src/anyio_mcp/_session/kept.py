"""Kept results in the memory of this process, bounded in bytes: for each session, and for all together.

It knows bytes and keys, not what they mean or how long they are good.
"""

from __future__ import annotations

import threading
import weakref
from typing import Final, final

from mcp.client import CacheEntry, CacheKey, ResponseCacheStore

SESSION_BYTES: Final = 16 * 1024 * 1024
"""What one session keeps at most. When full, what was used longest ago goes."""

PROCESS_BYTES: Final = 64 * 1024 * 1024
"""What all sessions of the process keep at most. When full, a session keeps more only in place of what it
keeps already."""

ENTRY_BYTES: Final = SESSION_BYTES // 4
"""The largest result that is kept: one must not drive out all the others."""

_OVERHEAD: Final = 1024
"""What an entry counts beside its bytes, so that empty results are not kept without end."""


@final
class _Total:
    """Bytes kept in this process. Locked, because there may be an event loop in each of several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Count `size` more, or return False if that is too many."""
        with self._lock:
            if self._bytes + size > PROCESS_BYTES:
                return False
            self._bytes += size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self._bytes -= size


_total: Final = _Total()


@final
class MemoryStore(ResponseCacheStore):
    """The results of one session, as bytes."""

    def __init__(self) -> None:
        self._entries: dict[CacheKey, CacheEntry] = {}
        # A list, so that the finalizer, which must not know this object, sees the bytes there are in the end.
        self._bytes = [0]
        weakref.finalize(self, _give_back_all, self._bytes)

    async def get(self, key: CacheKey) -> CacheEntry | None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._entries[key] = entry
        return entry

    async def set(self, key: CacheKey, entry: CacheEntry) -> None:
        self._drop(key)
        size = _size(key, entry)
        if size > ENTRY_BYTES:
            return
        while self._bytes[0] + size > SESSION_BYTES or not _total.take(size):
            if not self._entries:
                return
            self._drop(next(iter(self._entries)))
        self._bytes[0] += size
        self._entries[key] = entry

    async def delete(self, key: CacheKey) -> None:
        self._drop(key)

    async def clear(self) -> None:
        for key in tuple(self._entries):
            self._drop(key)

    def _drop(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            size = _size(key, entry)
            self._bytes[0] -= size
            _total.give_back(size)


def _size(key: CacheKey, entry: CacheEntry) -> int:
    value: object = entry.value
    return _OVERHEAD + len(key.params_key) + (len(value) if isinstance(value, bytes) else 0)


def _give_back_all(kept: list[int]) -> None:
    _total.give_back(kept[0])

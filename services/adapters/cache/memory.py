"""A cache in memory, for tests (it can be emptied or made to fail) and where no Redis is configured."""

from __future__ import annotations

from collections.abc import Sequence

from services.adapters.cache.protocol import CacheWrite, SetFields
from services.domain.errors import CacheUnavailable


class MemoryCache:
    """See `Cache`; `is_gone` makes every call fail."""

    def __init__(self) -> None:
        """Begin empty."""
        self.is_gone = False
        self._hashes: dict[str, dict[str, str]] = {}
        self._lists: dict[str, list[str]] = {}

    def write(self, writes: Sequence[CacheWrite]) -> None:
        """See `Cache.write`."""
        self._check()
        for one in writes:
            if isinstance(one, SetFields):
                self._hashes.setdefault(one.key, {}).update(one.fields)
            else:
                kept = [*reversed(one.items), *self._lists.get(one.key, [])]
                self._lists[one.key] = kept[: one.keep]

    def fields(self, key: str) -> dict[str, str]:
        """See `Cache.fields`."""
        self._check()
        return dict(self._hashes.get(key, {}))

    def recent(self, key: str, limit: int) -> list[str]:
        """See `Cache.recent`."""
        self._check()
        return self._lists.get(key, [])[: max(0, limit)]

    def clear(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self._hashes.clear()
        self._lists.clear()

    def close(self) -> None:
        """See `Cache.close`."""

    def _check(self) -> None:
        if self.is_gone:
            raise CacheUnavailable("The cache is gone.")

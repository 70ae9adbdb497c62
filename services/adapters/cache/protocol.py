"""What a cache has to do; `tests/contract/test_cache.py` holds both implementations to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SetFields:
    """Set fields of a hash, leaving its others alone."""

    key: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PushRecent:
    """Put items (oldest first) before a list and keep the newest `keep` of all."""

    key: str
    items: Sequence[str]
    keep: int


CacheWrite = SetFields | PushRecent


class Cache(Protocol):
    """Hashes and bounded lists of text. Short time-outs; anything may be gone at any time."""

    def write(self, writes: Sequence[CacheWrite]) -> None:
        """Do all in one trip, all or nothing.

        Raises:
            CacheUnavailable: no answer in time.
        """
        ...

    def fields(self, key: str) -> dict[str, str]:
        """Return a hash, empty when there is none.

        Raises:
            CacheUnavailable: no answer in time.
        """
        ...

    def recent(self, key: str, limit: int) -> list[str]:
        """Return at most `limit` items of a list, newest first.

        Raises:
            CacheUnavailable: no answer in time.
        """
        ...

    def close(self) -> None:
        """Let go of connections; harmless twice."""
        ...

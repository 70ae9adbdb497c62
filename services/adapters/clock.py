"""Time as a dependency, so that tests can turn it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall clock for records, monotonic clock for durations; neither blocks."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds that never jump."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """See `Clock.now`."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()


class FakeClock:
    """A clock that stands until a test turns it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Begin at `start`."""
        self._now = start
        self._monotonic_s = 0.0

    def now(self) -> datetime:
        """See `Clock.now`."""
        return self._now

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._now += timedelta(seconds=seconds)
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock only, as a time server does."""
        self._now += timedelta(seconds=seconds)

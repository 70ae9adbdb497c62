"""The live view heals by itself and slows nothing down."""

from __future__ import annotations

from collections.abc import Sequence

from services.adapters.cache import CacheWrite
from services.adapters.cache.live import KEPT_RECENT, LiveView
from services.adapters.cache.memory import MemoryCache
from services.adapters.clock import FakeClock


def test_the_view_is_bounded_and_newest_first() -> None:
    view = LiveView(MemoryCache(), FakeClock())
    for start in (0, 150, 300):
        view.show([{"camera": f"cam-{n % 2}", "n": n} for n in range(start, start + 150)], {})
    recent = view.recent()
    assert [one["n"] for one in recent] == list(range(449, 449 - KEPT_RECENT, -1))
    assert {camera: one["n"] for camera, one in view.last().items()} == {"cam-0": 448, "cam-1": 449}


def test_a_cache_that_is_away_is_not_asked_for_every_batch() -> None:
    class Counting(MemoryCache):
        asked = 0

        def write(self, writes: Sequence[CacheWrite]) -> None:
            self.asked += 1
            super().write(writes)

    cache, clock = Counting(), FakeClock()
    cache.is_gone = True
    view = LiveView(cache, clock)
    for _ in range(100):
        clock.advance(0.1)
        view.show([{"camera": "cam-1"}], {})
    # Ten seconds, one try in five.
    assert cache.asked == 2

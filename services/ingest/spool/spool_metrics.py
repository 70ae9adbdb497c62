"""Sizes and counts of a spool as metrics, per camera."""

from __future__ import annotations

from collections import Counter

from services.adapters.metrics import Metrics
from services.domain.ledger import ShedReason
from services.domain.metrics import (
    SENT_TOTAL,
    SPOOL_BYTES,
    SPOOL_FILL_RATIO,
    SPOOL_FRAMES,
    SPOOL_OLDEST_SECONDS,
    SPOOL_SHED_TOTAL,
)
from services.ingest.spool.feed import Feed


class SpoolMetrics:
    """Shows a spool's states; counters grow by what is new since the last time."""

    def __init__(self, feed: Feed, metrics: Metrics) -> None:
        """Begin at zero."""
        self._feed, self._metrics = feed, metrics
        self._sent: Counter[str] = Counter()
        self._shed: Counter[tuple[str, ShedReason]] = Counter()

    def show(self) -> None:
        """Set gauges and counters to what is true now."""
        for state, sent_total, shed_total in self._feed.states():
            camera = state.camera
            self._metrics.set(SPOOL_FRAMES, state.frames, camera=camera)
            self._metrics.set(SPOOL_BYTES, state.size_bytes, camera=camera)
            self._metrics.set(SPOOL_FILL_RATIO, state.fill_ratio, camera=camera)
            self._metrics.set(SPOOL_OLDEST_SECONDS, state.oldest_s, camera=camera)
            self._metrics.add(SENT_TOTAL, sent_total - self._sent[camera], camera=camera)
            self._sent[camera] = sent_total
            for reason, count in shed_total.items():
                new = count - self._shed[camera, reason]
                self._metrics.add(SPOOL_SHED_TOTAL, new, camera=camera, reason=reason.value)
                self._shed[camera, reason] = count

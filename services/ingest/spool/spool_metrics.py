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
from services.ingest.spool.lanes import SpoolState


class SpoolMetrics:
    """Shows a spool's states; counters grow by what is new since the last time.

    A camera that does not run here any more has gauges as long as frames of it wait, and keeps its counters.
    """

    def __init__(self, feed: Feed, metrics: Metrics) -> None:
        """Begin at zero."""
        self._feed, self._metrics = feed, metrics
        self._sent: Counter[str] = Counter()
        self._shed: Counter[tuple[str, ShedReason]] = Counter()

    def show(self) -> None:
        """Set gauges and counters to what is true now."""
        for state, sent_total, shed_total in self._feed.states():
            camera = state.camera
            self._gauge(state)
            self._metrics.add(SENT_TOTAL, sent_total - self._sent[camera], camera=camera)
            self._sent[camera] = sent_total
            for reason, count in shed_total.items():
                new = count - self._shed[camera, reason]
                self._metrics.add(SPOOL_SHED_TOTAL, new, camera=camera, reason=reason.value)
                self._shed[camera, reason] = count

    def _gauge(self, state: SpoolState) -> None:
        gauges = (
            (SPOOL_FRAMES, state.frames), (SPOOL_BYTES, state.size_bytes),
            (SPOOL_FILL_RATIO, state.fill_ratio), (SPOOL_OLDEST_SECONDS, state.oldest_s),
        )  # fmt: skip
        for gauge, value in gauges:
            if state.is_running or state.frames:
                self._metrics.set(gauge, value, camera=state.camera)
            else:
                self._metrics.forget(gauge, camera=state.camera)

"""The ledger gap and the stream's lag as gauges, looked at every few seconds by a thread of its own.

The gap is what `loupe ledger` calls missing, found incrementally: only declared ranges that are still
open, and offsets that the stream has committed but that have no end. Judges nothing and loses nothing
when it fails; notes which declared ranges are ended, so that nobody looks at them again.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice

from sqlalchemy import Connection, Engine

from services.adapters.broker.lag import LagMeter
from services.adapters.broker.reader import TopicReader
from services.adapters.clock import Clock
from services.adapters.database import reading
from services.adapters.database.tables import ledger_captured
from services.adapters.metrics import Metrics
from services.domain.errors import RetryLater
from services.domain.frame import Frame
from services.domain.metrics import LAG_RECORDS, LAG_SECONDS, LEDGER_GAP, LEDGER_GAP_SECONDS
from services.domain.ranges import merged
from services.domain.topics import FRAMES
from services.results.ledger import bare, offsets_without_end
from services.results.sequences import Page, Stretch, ids_without_end, is_declared, pages_of, without_end
from services.results.store import Store
from services.results.tally import CameraLabels
from services.wire.frame import decode_frame

logger = logging.getLogger(__name__)

STREAM_GROUP = "loupe-stream"
# A look takes this share of the time at most, however much is on its way.
_BUSY_RATIO = 0.1
# Offsets without end that one look names, per partition: reading a record brings its image along.
_NAMED_PER_LOOK = 100
# Declared ranges that one look notes as ended; after an outage the next looks note the rest.
_CLOSED_PER_LOOK = 50_000


class GapFinder:
    """Finds frames without end; remembers what it need not look at again."""

    def __init__(self, engine: Engine, store: Store, frames: TopicReader) -> None:
        """Look into the database and into `loupe.frames`."""
        self._engine = engine
        self._store = store
        self._frames = frames
        self._ended_to: dict[int, int] = {}
        self._seen_to: dict[int, int] = {}
        self._names: dict[int, dict[int, Frame | None]] = {}
        self.oldest: dict[str, datetime] = {}

    def gaps(self) -> dict[str, int]:
        """Return per camera how many frames have no end; declared ones in flight count too.

        `oldest` says then when the first of them was declared, or recorded.

        Raises:
            DatabaseUnavailable: no answer.
            BrokerUnavailable: no answer.
        """
        committed = self._frames.committed(FRAMES.name, STREAM_GROUP)
        missing: Counter[str] = Counter()
        oldest: dict[str, datetime] = {}
        closed: list[tuple[str, int]] = []
        still_open = ~ledger_captured.c.is_ended
        with reading(self._engine) as connection:
            for page in pages_of(connection, ledger_captured, still_open):
                lacking = list(_lacking(connection, page))
                missing[page.camera] += sum(len(one) for one in lacking if one.start >= page.told_to)
                for one, is_ended in _ended_rows(page, lacking):
                    if is_ended and len(closed) < _CLOSED_PER_LOOK:
                        closed.append(one.key)
                    elif not is_ended:
                        since = oldest.setdefault(page.camera, one.declared_at)
                        oldest[page.camera] = min(since, one.declared_at)
            for partition, span in self._frames.spans(FRAMES.name).items():
                done = range(span.start, committed.get(partition, span.start))
                for frame in self._passed_over(connection, partition, done):
                    if not is_declared(connection, frame, [still_open]):
                        missing[frame.camera] += 1
                        since = oldest.setdefault(frame.camera, frame.captured_at)
                        oldest[frame.camera] = min(since, frame.captured_at)
        self.oldest = oldest
        self._store.close_ranges(closed)
        return dict(missing)

    def _passed_over(self, connection: Connection, partition: int, done: range) -> Iterator[Frame]:
        """Yield frames that the stream committed before the last look and that still have no end."""
        start = max(done.start, self._ended_to.get(partition, 0))
        gaps = offsets_without_end(connection, partition, range(start, done.stop))
        offsets = list(islice((n for gap in gaps for n in gap), _NAMED_PER_LOOK))
        old = [offset for offset in offsets if offset < self._seen_to.get(partition, 0)]
        self._name(partition, old)
        named = {n: frame for n in old if (frame := self._names[partition][n]) is not None}
        lacking = set(ids_without_end(connection, (frame.frame_id for frame in named.values())))
        # Two records of one frame are one frame.
        yield from {one.frame_id: one for one in named.values() if one.frame_id in lacking}.values()
        open_still = (n for n in offsets if n not in old or (n in named and named[n].frame_id in lacking))
        self._ended_to[partition] = next(open_still, offsets[-1] + 1 if offsets else done.stop)
        self._seen_to[partition] = done.stop

    def _name(self, partition: int, offsets: list[int]) -> None:
        """Read which frames stood at these offsets; None where there is no record (any more)."""
        known = self._names.get(partition, {})
        names = {offset: known.get(offset) for offset in offsets}
        unknown = [offset for offset in offsets if offset not in known]
        for record in self._frames.records_at(FRAMES.name, partition, unknown):
            # Its age counts from its record: a camera's own clock may say anything.
            names[record.offset] = replace(bare(decode_frame(record)), captured_at=record.recorded_at)
        # Those of this look only: what is not asked for again is forgotten.
        self._names[partition] = names


def _lacking(connection: Connection, page: Page) -> Iterator[range]:
    """Yield the sequences of a page without end, cut where the page begins to tell anything new."""
    declared = merged(one.sequences for one in page.stretches)
    for one in without_end(connection, page.camera, page.epoch, declared):
        parts = range(one.start, min(one.stop, page.told_to)), range(max(one.start, page.told_to), one.stop)
        yield from (part for part in parts if part)


def _ended_rows(page: Page, lacking: list[range]) -> Iterator[tuple[Stretch, bool]]:
    """Yield each row and whether none of its sequences is lacking."""
    starts = [one.start for one in lacking]
    for one in page.stretches:
        place = bisect_left(starts, one.sequences.stop)
        # The last range that begins before the row ends is the only one that can reach into it.
        yield one, place == 0 or lacking[place - 1].stop <= one.sequences.start


class Gauges(threading.Thread):
    """Sets the gauges until `stop`."""

    def __init__(
        self, finder: GapFinder, meter: LagMeter, metrics: Metrics, clock: Clock, *, every_s: float
    ) -> None:
        """Look every `every_s` seconds; finder and meter are used by this thread only."""
        super().__init__(name="gauges", daemon=True)
        self._finder = finder
        self._meter = meter
        self._metrics = metrics
        self._clock = clock
        self._every_s = every_s
        self._is_stopping = threading.Event()
        self._cameras = CameraLabels()
        self._shown: set[str] = set()

    def run(self) -> None:
        """Look, set, wait; a neighbour that is away leaves the gauges as they were."""
        took_s = 0.0
        while not self._is_stopping.wait(max(self._every_s, took_s / _BUSY_RATIO)):
            started_s = time.monotonic()
            try:
                self.look()
            except RetryLater as error:
                logger.warning("gauges stand still: %s", error.message)
            took_s = time.monotonic() - started_s

    def look(self) -> None:
        """Set all gauges once.

        Raises:
            RetryLater: database or broker are away.
        """
        lag = self._meter.measure(self._clock.now())
        self._metrics.set(LAG_RECORDS, lag.records, topic=FRAMES.name)
        self._metrics.set(LAG_SECONDS, lag.seconds, topic=FRAMES.name)
        gaps: Counter[str] = Counter()
        ages_s: dict[str, float] = {}
        now = self._clock.now()
        for camera, count in self._finder.gaps().items():
            label = self._cameras.of(camera)
            gaps[label] += count
            age_s = (now - self._finder.oldest.get(camera, now)).total_seconds()
            ages_s[label] = max(age_s, ages_s.get(label, 0.0))
        self._shown |= gaps.keys()
        for label in self._shown:
            self._metrics.set(LEDGER_GAP, gaps[label], camera=label)
            self._metrics.set(LEDGER_GAP_SECONDS, ages_s.get(label, 0.0), camera=label)

    def stop(self) -> None:
        """End the thread; a look that has begun is not waited for."""
        self._is_stopping.set()

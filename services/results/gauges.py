"""The ledger gap and the stream's lag as gauges, looked at every few seconds by a thread of its own.

The gap is what `loupe ledger` calls missing, found incrementally: only declared ranges that are still
open, and offsets that the stream has committed but that have no end. Judges nothing and loses nothing
when it fails; notes which declared ranges are ended, so that nobody looks at them again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from uuid import UUID

from sqlalchemy import Connection, Engine

from services.adapters.broker.lag import LagMeter
from services.adapters.broker.reader import TopicReader
from services.adapters.clock import Clock
from services.adapters.database import reading
from services.adapters.metrics import Metrics
from services.domain.errors import RetryLater
from services.domain.frame import Frame
from services.domain.metrics import LAG_RECORDS, LAG_SECONDS, LEDGER_GAP
from services.domain.topics import FRAMES
from services.results.ledger import holes, open_ranges, without_end
from services.results.store import Store
from services.wire.frame import decode_frame

logger = logging.getLogger(__name__)

STREAM_GROUP = "loupe-stream"
# A look takes this share of the time at most, however much is on its way.
_BUSY_RATIO = 0.1
# Offsets without end that one look names, per partition: reading a record brings its image along.
_NAMED_PER_LOOK = 100


class GapFinder:
    """Finds frames without end; remembers what it need not look at again."""

    def __init__(self, engine: Engine, store: Store, frames: TopicReader) -> None:
        """Look into the database and into `loupe.frames`."""
        self._engine = engine
        self._store = store
        self._frames = frames
        self._ended_to: dict[int, int] = {}
        self._seen_to: dict[int, int] = {}
        self._names: dict[tuple[int, int], Frame | None] = {}

    def gaps(self) -> dict[str, int]:
        """Return per camera how many frames have no end; declared ones in flight count too.

        Raises:
            DatabaseUnavailable: no answer.
            BrokerUnavailable: no answer.
        """
        committed = self._frames.committed(FRAMES.name, STREAM_GROUP)
        missing: dict[str, set[UUID]] = defaultdict(set)
        closed: list[tuple[str, int]] = []
        with reading(self._engine) as connection:
            for one in open_ranges(connection):
                lacking = set(without_end(connection, one.frame_ids()))
                missing[one.camera] |= lacking
                if not lacking:
                    closed.append(one.key)
            for partition, span in self._frames.spans(FRAMES.name).items():
                done = range(span.start, committed.get(partition, span.start))
                for frame in self._passed_over(connection, partition, done):
                    missing[frame.camera].add(frame.frame_id)
        self._store.close_ranges(closed)
        return {camera: len(frame_ids) for camera, frame_ids in missing.items()}

    def _passed_over(self, connection: Connection, partition: int, done: range) -> Iterator[Frame]:
        """Yield frames that the stream committed before the last look and that still have no end."""
        start = max(done.start, self._ended_to.get(partition, 0))
        every = (n for hole in holes(connection, partition, range(start, done.stop)) for n in hole)
        offsets = list(islice(every, _NAMED_PER_LOOK))
        old = [offset for offset in offsets if offset < self._seen_to.get(partition, 0)]
        self._name(partition, old)
        named = {n: frame for n in old if (frame := self._names[partition, n]) is not None}
        lacking = set(without_end(connection, (frame.frame_id for frame in named.values())))
        yield from (frame for frame in named.values() if frame.frame_id in lacking)
        open_still = (n for n in offsets if n not in old or (n in named and named[n].frame_id in lacking))
        self._ended_to[partition] = next(open_still, offsets[-1] + 1 if offsets else done.stop)
        self._seen_to[partition] = done.stop

    def _name(self, partition: int, offsets: list[int]) -> None:
        """Read which frames stood at these offsets; None where there is no record (any more)."""
        unknown = [offset for offset in offsets if (partition, offset) not in self._names]
        self._names.update(dict.fromkeys((partition, offset) for offset in unknown))
        for record in self._frames.records_at(FRAMES.name, partition, unknown):
            frame = decode_frame(record)
            bare = Frame(frame.frame_id, frame.camera, frame.captured_at, b"")
            self._names[partition, record.offset] = bare


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
        self._cameras: set[str] = set()

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
        gaps = self._finder.gaps()
        self._cameras |= gaps.keys()
        for camera in self._cameras:
            self._metrics.set(LEDGER_GAP, gaps.get(camera, 0), camera=camera)

    def stop(self) -> None:
        """End the thread; a look that has begun is not waited for."""
        self._is_stopping.set()

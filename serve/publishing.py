"""Ends of frames to records, acknowledged: inspections, dead letters, ledger entries (arrows 3, 8, x).

Repeats a batch whole when the broker gives up on part of it; readers know equal ids. Commits nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import uuid5

from serve.judging import LONGEST_PAUSE_S, End, Item, Refused
from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.domain.errors import ImageTooLarge, PoisonShareExceeded, RetryLater
from services.domain.frame import FRAME_NAMESPACE, RecordPosition
from services.domain.inspection import Inspection
from services.domain.ledger import EntryKind, LedgerEntry, ShedReason
from services.wire.dead_letter import encode_dead_letter, fitting_letter
from services.wire.inspection import encode_inspection
from services.wire.ledger import encode_ledger_entry
from services.wire.record import OutRecord

logger = logging.getLogger(__name__)

# Longer than the producer's own patience of 30 s, so that it is the one that gives up.
FLUSH_TIMEOUT_S = 40.0
_SEPARATOR = "\x1f"


class Publisher:
    """Writes what came of a batch; thread-safe as its producer is."""

    def __init__(self, producer: Producer, clock: Clock, pause: Callable[[float], bool]) -> None:
        """Write with `producer`; `pause` waits so many seconds and says whether to try again."""
        self._producer, self._clock, self._pause = producer, clock, pause

    def publish(self, items: Sequence[Item], ends: Sequence[End], waited_ms: float) -> None:
        """Return when every record is acknowledged. Blocks while the broker is away.

        Args:
            items: frames of one batch.
            ends: what became of each.
            waited_ms: how long the batch waited for its turn; told in the verdicts as `produce`.

        Raises:
            RetryLater: not all were acknowledged, and there is to be no next try.
            ImageTooLarge: the broker refuses what every broker has to take.
        """
        records = self._records(items, ends, waited_ms)
        while True:
            try:
                deliveries = [self._producer.send(record) for record in records]
                self._producer.flush(FLUSH_TIMEOUT_S)
                for delivery in deliveries:
                    delivery.result(0)
                return
            except RetryLater as error:
                logger.warning("%d records are published again: %s", len(records), error.message)
                if not self._pause(LONGEST_PAUSE_S):
                    raise
            except ImageTooLarge:
                fitting = [fitting_letter(record) for record in records]
                if fitting == records:  # the broker takes less than was checked at the start
                    raise
                records = fitting

    def _records(self, items: Sequence[Item], ends: Sequence[End], waited_ms: float) -> list[OutRecord]:
        records = []
        shed: dict[tuple[str, int, ShedReason], list[Item]] = defaultdict(list)
        for item, end in zip(items, ends, strict=True):
            if isinstance(end, Inspection):
                timed = replace(end, stage_ms={**end.stage_ms, "produce": waited_ms})
                records.append(encode_inspection(timed))
            elif isinstance(end, Refused):
                records.append(self._dead_letter(item, end))
            else:
                shed[item.frame.camera, item.record.partition, end].append(item)
        return records + [self._shed(*about, together) for about, together in shed.items()]

    def _dead_letter(self, item: Item, end: Refused) -> OutRecord:
        frame = item.frame
        return encode_dead_letter(
            item.record,
            end.error,
            tries=end.tries,
            at=self._clock.now(),
            frame_id=str(frame.frame_id),
            camera=frame.camera,
        )

    def _shed(self, camera: str, partition: int, reason: ShedReason, items: list[Item]) -> OutRecord:
        """Return one ledger entry for all frames of a camera; its id follows from theirs."""
        frame_ids = tuple(item.frame.frame_id for item in items)
        name = _SEPARATOR.join(("shed", reason, *map(str, frame_ids)))
        entry = LedgerEntry(
            entry_id=uuid5(FRAME_NAMESPACE, name),
            camera=camera,
            kind=EntryKind.SHED,
            declared_at=self._clock.now(),
            reason=reason,
            frame_ids=frame_ids,
            partition=partition,
            offsets=tuple(item.record.offset for item in items),
        )
        return encode_ledger_entry(entry)


class PoisonWatch:
    """Stops the stream when too many of the latest frames could not be handled; thread-safe.

    A few bad images are nothing, and neither is a burst of them: it takes `least` of the last
    `window` frames and a share above `share_ratio`. Then something upstream is wrong for good.
    """

    def __init__(self, *, window: int, least: int, share_ratio: float) -> None:
        """Begin with a clean record."""
        # The cause of each refusal; empty for the other ends.
        self._latest: deque[str] = deque(maxlen=window)
        self._examples: dict[str, RecordPosition] = {}
        self._least, self._share_ratio = least, share_ratio
        self._lock = threading.Lock()

    def note(self, items: Sequence[Item], ends: Sequence[End]) -> None:
        """Count the ends of a batch.

        Raises:
            PoisonShareExceeded: too many of them are refusals; names the most frequent cause.
        """
        with self._lock:
            for item, end in zip(items, ends, strict=True):
                cause = end.error.cause if isinstance(end, Refused) else ""
                self._latest.append(cause)
                if cause:
                    self._examples[cause] = item.record.position
            causes, seen = Counter(filter(None, self._latest)), len(self._latest)
            refused = causes.total()
            if refused < self._least or refused <= seen * self._share_ratio:
                return
            ((cause, times),) = causes.most_common(1)
            at = self._examples[cause]
        raise PoisonShareExceeded(
            f"{refused} of the last {seen} frames could not be handled. Most often: {cause} ({times}), for "
            f"example {at.topic}:{at.partition}:{at.offset}; see `loupe dlq list --cause {cause}`.",
            refused=refused,
            seen=seen,
            cause=cause,
        )

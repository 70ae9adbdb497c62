"""Frames in flight: one lane per project, batches out of each in order, bounded as a whole.

A batch is as large as what waits, up to 16, and is taken as soon as a call is free: alone when there is
little to do, full when there is much. Thread-safe bookkeeping; calls nobody.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from serve.judging import Item
from serve.units import MAX_BATCH_FRAMES
from services.wire.record import Record

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight.

    Attributes:
        frames: polled and not yet done. Twice what the calls below can hold, so that the next
            batches are complete when these are done.
        size_bytes: the same in bytes of record values; and, by itself, of claim checks that are redeemed.
        calls_per_project: batches out at once. Two per unit keep it busy: one decodes, one infers.
    """

    frames: int = 128
    size_bytes: int = 64 * _MIB
    calls_per_project: int = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive frames of one lane.

    Attributes:
        project: who judges them; empty for frames that have their end already.
        before: set when the lane's previous batch is published; wait for it, then publish.
        published: set when this one is, or never will be.
    """

    project: str
    items: tuple[Item, ...]
    before: threading.Event
    published: threading.Event


@dataclass(slots=True)
class _Lane:
    waiting: deque[Item] = field(default_factory=deque)
    calls: int = 0
    last: threading.Event | None = None

    def take(self, room_bytes: int, *, is_alone: bool) -> tuple[Item, ...]:
        """Take a batch whose claim checks fit into `room_bytes`; if it is alone, one fits always."""
        taken: list[Item] = []
        while self.waiting and len(taken) < MAX_BATCH_FRAMES:
            room_bytes -= self.waiting[0].claimed_bytes
            if room_bytes < 0 and self.waiting[0].claimed_bytes and (taken or not is_alone):
                break
            taken.append(self.waiting.popleft())
        return tuple(taken)


class Lanes:
    """What is in flight."""

    def __init__(self, bounds: Bounds) -> None:
        """Begin empty."""
        self._bounds = bounds
        self._lanes: dict[str, _Lane] = {}
        self._frames = 0
        self._size_bytes = 0
        self._claimed_bytes = 0  # of the batches that are out
        self._largest_bytes = _MIB
        self._changed = threading.Condition()

    def admit(self, records: Iterable[Record]) -> None:
        """Count records that were polled."""
        with self._changed:
            for record in records:
                self._frames += 1
                self._size_bytes += len(record.value)
                # Follows the stream up at once and down slowly.
                self._largest_bytes = max(len(record.value), self._largest_bytes * 15 // 16, 1)

    def room(self) -> int:
        """Return how many more records fit, were they as large as the largest of late; 0 when full."""
        with self._changed:
            room_frames = self._bounds.frames - self._frames
            room_bytes = self._bounds.size_bytes - self._size_bytes
            # Below 0, too: a partition that comes while all is full brings a record along.
            if room_frames <= 0 or room_bytes <= 0:
                return 0
            return min(room_frames, max(1, room_bytes // self._largest_bytes))

    def wait_for_change(self, timeout_s: float) -> None:
        """Block until a batch has ended, `timeout_s` at most."""
        with self._changed:
            self._changed.wait(timeout_s)

    def add(self, item: Item) -> None:
        """Put a frame at the end of its project's lane."""
        with self._changed:
            self._lanes.setdefault(item.route.project, _Lane()).waiting.append(item)

    def next_batch(self) -> Batch | None:
        """Take the next batch of the lane with the fewest calls out; None when none may go."""
        with self._changed:
            limit = self._bounds.calls_per_project
            ready = [name for name, lane in self._lanes.items() if lane.waiting and lane.calls < limit]
            room_bytes = self._bounds.size_bytes - self._claimed_bytes
            for name in sorted(ready, key=lambda name: self._lanes[name].calls):
                lane = self._lanes[name]
                items = lane.take(room_bytes, is_alone=self._claimed_bytes == 0)
                if items:
                    self._claimed_bytes += sum(item.claimed_bytes for item in items)
                    before, published = lane.last or _set(), threading.Event()
                    lane.calls, lane.last = lane.calls + 1, published
                    return Batch(name, items, before, published)
            return None

    def finish(self, batch: Batch, *, is_done: bool) -> None:
        """Let the lane go on; frames that are not done stay counted, for they will be added again."""
        batch.published.set()
        with self._changed:
            self._lanes[batch.project].calls -= 1
            self._claimed_bytes -= sum(item.claimed_bytes for item in batch.items)
            if is_done:
                self._frames -= len(batch.items)
                self._size_bytes -= sum(len(item.record.value) for item in batch.items)
            self._changed.notify_all()

    @property
    def calls(self) -> int:
        """How many batches are out."""
        with self._changed:
            return sum(lane.calls for lane in self._lanes.values())


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event

"""Models that look on: shadow routes judge a frame after its verdict is out (arrows 2, 3).

What they say is recorded with role shadow and raises no event. They get what is left: a frame that a
shadow cannot judge soon, because it is not hosted, refuses or is too slow, is skipped and counted, and no
verdict and no commit waits for it longer than `PATIENCE_S`. No dead letters, no ledger entries.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from serve.archive import Archive
from serve.judging import Item, Judge, Refused
from serve.lanes import Bounds
from serve.publishing import Publisher
from serve.units import MAX_BATCH_FRAMES
from services.adapters.clock import Clock
from services.domain.errors import LoupeError
from services.domain.inspection import Inspection

logger = logging.getLogger(__name__)

# An offset waits so long for its shadows. A unit takes a batch in well under a second; a shadow that is
# behind by more than this will not catch up by waiting.
PATIENCE_S = 5.0
# How often it is told that frames were skipped.
_TELL_EVERY_S = 30.0
# One call per project at a time; projects beyond these wait for each other.
_CALLS_AT_ONCE = 4


@dataclass(slots=True, eq=False)
class _Ticket:
    """A frame whose offset waits for `left` shadows, until `until_monotonic_s` at most."""

    item: Item
    until_monotonic_s: float
    left: int


@dataclass(slots=True)
class _Lane:
    """What waits for one project: copies of frames with its route."""

    waiting: deque[tuple[_Ticket, Item]] = field(default_factory=deque)
    is_busy: bool = False


class Shadows:
    """Frames on their way through shadow routes; thread-safe."""

    def __init__(
        self, judge: Judge, archive: Archive, clock: Clock, bounds: Bounds, done: Callable[[Item], None]
    ) -> None:
        """Begin empty.

        Args:
            judge: one that tries once.
            archive: keeps pixels by the shadow's own policy.
            clock: tells when patience ends.
            bounds: half of these may wait.
            done: called once per frame, when all of its shadows have judged or were given up.
        """
        self._judge, self._archive, self._clock, self._done = judge, archive, clock, done
        self._room_frames, self._room_bytes = bounds.frames // 2, bounds.size_bytes // 2
        self._lanes: dict[str, _Lane] = {}
        self._tickets: deque[_Ticket] = deque()
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._tell_after_monotonic_s = 0.0
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(_CALLS_AT_ONCE, "shadow")
        self._is_closed = False

    def add(self, item: Item, publisher: Publisher) -> None:
        """Have a frame judged by its shadows; returns at once."""
        ticket = _Ticket(item, self._clock.monotonic_s() + PATIENCE_S, 0)
        with self._lock:
            size_bytes = _size_bytes(item)
            is_full = self._room_frames < 1 or (bool(self._tickets) and self._room_bytes < size_bytes)
            if is_full or self._is_closed:
                self._skipped.update((route.project, "too far behind") for route in item.shadows)
            else:
                self._room_frames -= 1
                self._room_bytes -= size_bytes
                ticket.left = len(item.shadows)
                self._tickets.append(ticket)
                for route in item.shadows:
                    self._enqueue(ticket, replace(item, route=route, shadows=()), publisher)
        if not ticket.left:
            self._done(item)

    def give_up_late(self) -> None:
        """Let go of frames that waited long enough, and tell now and then how many; called every round."""
        if not self._tickets and not self._skipped:
            return
        now_monotonic_s = self._clock.monotonic_s()
        self._give_up(lambda ticket: ticket.until_monotonic_s <= now_monotonic_s)
        if self._skipped and now_monotonic_s >= self._tell_after_monotonic_s:
            self._tell_after_monotonic_s = now_monotonic_s + _TELL_EVERY_S
            with self._lock:
                skipped, self._skipped = self._skipped, Counter()
            for (project, why), count in sorted(skipped.items()):
                logger.warning("%d frames were not judged by the shadow %s: %s", count, project, why)

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._is_closed = True
        self._give_up(lambda _: True)
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _enqueue(self, ticket: _Ticket, copy: Item, publisher: Publisher) -> None:
        lane = self._lanes.setdefault(copy.route.project, _Lane())
        lane.waiting.append((ticket, copy))
        if not lane.is_busy:
            lane.is_busy = True
            self._workers.submit(self._work, lane, publisher)

    def _work(self, lane: _Lane, publisher: Publisher) -> None:
        """Judge what waits for a project until nothing does, on a worker thread."""
        while True:
            with self._lock:
                batch = _taken(lane)
                lane.is_busy = bool(batch)
            if not batch:
                return
            copies = [copy for _, copy in batch]
            try:
                self._see_through(copies, publisher)
            except Exception as error:
                if not isinstance(error, LoupeError):
                    logger.exception("a shadow failed for a reason that nobody foresaw")
                self._skip(copies, getattr(error, "message", type(error).__name__))
            self._release([ticket for ticket, _ in batch])

    def _see_through(self, copies: Sequence[Item], publisher: Publisher) -> None:
        ends = self._judge.judge(copies)
        for item, end in zip(copies, ends, strict=True):
            if not isinstance(end, Inspection):
                self._skip([item], end.error.cause if isinstance(end, Refused) else end.value)
        told = [(item, end) for item, end in zip(copies, ends, strict=True) if isinstance(end, Inspection)]
        items = [item for item, _ in told]
        referenced, keeping = self._archive.begin(items, [end for _, end in told])
        publisher.publish(items, referenced, 0.0)
        keeping.wait()

    def _skip(self, items: Sequence[Item], why: str) -> None:
        with self._lock:
            self._skipped.update((item.route.project, why) for item in items)

    def _release(self, tickets: Sequence[_Ticket]) -> None:
        """Note that one shadow of each frame has ended; where it was the last, the frame is done."""
        done: list[Item] = []
        with self._lock:
            for ticket in tickets:
                if ticket.left:  # else it was given up meanwhile
                    ticket.left -= 1
                    if not ticket.left:
                        done.append(self._let_go(ticket))
            while self._tickets and not self._tickets[0].left:
                self._tickets.popleft()
        for item in done:
            self._done(item)

    def _give_up(self, is_over: Callable[[_Ticket], bool]) -> None:
        """Let go of the oldest frames that are over; a call that is out may still publish its verdicts."""
        done: list[Item] = []
        with self._lock:
            while self._tickets and (not self._tickets[0].left or is_over(self._tickets[0])):
                ticket = self._tickets.popleft()
                if ticket.left:
                    self._skipped[", ".join(r.project for r in ticket.item.shadows), "too slow"] += 1
                    ticket.left = 0
                    done.append(self._let_go(ticket))
        for item in done:
            self._done(item)

    def _let_go(self, ticket: _Ticket) -> Item:
        self._room_frames += 1
        self._room_bytes += _size_bytes(ticket.item)
        return ticket.item


def _taken(lane: _Lane) -> list[tuple[_Ticket, Item]]:
    """Take a batch of what still waits; a claim check goes alone, for it may be large."""
    batch: list[tuple[_Ticket, Item]] = []
    while lane.waiting and len(batch) < MAX_BATCH_FRAMES:
        ticket, copy = lane.waiting[0]
        if batch and copy.claimed_bytes:
            break
        lane.waiting.popleft()
        if ticket.left:
            batch.append((ticket, copy))
            if copy.claimed_bytes:
                break
    return batch


def _size_bytes(item: Item) -> int:
    return len(item.record.value) + item.claimed_bytes

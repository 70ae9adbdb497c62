"""What of one camera's frames is to be sent, is on its way, or is only on disk; in memory, without locks.

Frames are numbered per camera (`position`). `handed` is the last one that went to the producer or was
dropped; above it nothing has been sent. Those in `ready` follow it without a gap; the rest is on disk.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from services.domain.ledger import ShedReason
from services.wire.record import OutRecord


@dataclass(frozen=True, slots=True)
class Spooled:
    """A frame of the spool, ready to be sent.

    Attributes:
        camera: number of its camera in the spool.
        position: its number among the camera's frames.
        size_bytes: what it counts against the bounds.
        accepted_s: monotonic time at which it came.
        is_replayed: it was read back from disk.
    """

    camera: int
    position: int
    record: OutRecord
    size_bytes: int
    accepted_s: float
    is_replayed: bool = False


@dataclass(slots=True)
class Lane:
    """One camera's frames; `frames` and `size_bytes` count all that Kafka has not acknowledged."""

    number: int
    name: str
    frames: int = 0
    size_bytes: int = 0
    next_position: int = 1
    handed: int = 0
    # The last one that may have gone to the producer, ever: what was given up, or sent by a process that
    # was killed, may have arrived all the same.
    reached: int = 0
    ready: deque[Spooled] = field(default_factory=deque)
    ready_bytes: int = 0
    in_flight: dict[int, Spooled] = field(default_factory=dict)
    # Frames from this one on are sent again once nothing is on its way any more.
    rewind_to: int | None = None
    # Grows when frames are dropped or sent again: what was being read from disk is stale then.
    generation: int = 0
    is_dropping: bool = False
    is_running: bool = False
    # Ledger: how often something was noted, of which entries were made; entries that Kafka does not have.
    noted: int = 0
    declared: int = 0
    open_entries: int = 0
    # Of the present run only: it began with this position.
    run_from: int = 1
    acknowledged: int = 0
    shed: Counter[ShedReason] = field(default_factory=Counter)
    shed_at_s: float | None = None
    # Since the process began, for metrics.
    sent_total: int = 0
    shed_total: Counter[ShedReason] = field(default_factory=Counter)

    @property
    def unsent(self) -> int:
        """Frames that are to be sent, in memory or on disk."""
        return self.frames - len(self.in_flight)

    @property
    def unsent_from(self) -> int:
        """The first position that may be dropped: nothing from it on was ever sent."""
        return max(self.handed, self.reached) + 1

    @property
    def is_behind(self) -> bool:
        """Tell whether frames to be sent are only on disk."""
        return len(self.ready) < self.unsent

    @property
    def has_undeclared(self) -> bool:
        """Tell whether sequences wait for a ledger entry."""
        return self.noted > self.declared

    @property
    def is_settled(self) -> bool:
        """Tell whether Kafka has all frames and all ledger entries."""
        return not (self.frames or self.has_undeclared or self.open_entries)

    def begin_run(self) -> None:
        """Count anew."""
        self.is_running = True
        self.run_from, self.acknowledged = self.next_position, 0
        self.shed, self.shed_at_s = Counter(), None

    def add(self, spooled: Spooled, *, room_bytes: int) -> None:
        """Count a frame that is now on disk; it may be sent from memory if that stays below `room_bytes`."""
        is_next = not self.is_behind and self.rewind_to is None
        self.frames += 1
        self.size_bytes += spooled.size_bytes
        self.next_position = spooled.position + 1
        if is_next and self.ready_bytes + spooled.size_bytes <= room_bytes:
            self.ready.append(spooled)
            self.ready_bytes += spooled.size_bytes

    def take(self) -> Spooled | None:
        """Hand out the next frame, if it is in memory."""
        if self.rewind_to is not None or not self.ready:
            return None
        spooled = self._pop()
        self.handed = spooled.position
        self.reached = max(self.reached, self.handed)
        self.in_flight[spooled.position] = spooled
        return spooled

    def acknowledge(self, spooled: Spooled) -> bool:
        """Note that Kafka has a frame; False if it must be sent again to keep the order."""
        self.in_flight.pop(spooled.position)
        is_final = self.rewind_to is None or spooled.position < self.rewind_to
        if is_final:
            self.frames -= 1
            self.size_bytes -= spooled.size_bytes
            self.sent_total += 1
            self.acknowledged += spooled.position >= self.run_from
        self._end_rewind()
        return is_final

    def refuse(self, spooled: Spooled, reason: ShedReason) -> None:
        """Note that Kafka will never take a frame."""
        self.in_flight.pop(spooled.position)
        self.frames -= 1
        self.size_bytes -= spooled.size_bytes
        self.shed[reason] += spooled.position >= self.run_from
        self.shed_total[reason] += 1
        self.noted += 1
        self._end_rewind()

    def give_up(self, spooled: Spooled) -> None:
        """Note that a frame did not arrive: it and all after it are sent again, in order."""
        self.in_flight.pop(spooled.position)
        self.rewind(spooled.position)

    def rewind(self, position: int) -> None:
        """Send again from `position` on, once nothing is on its way."""
        first = min(position, self.handed + 1)
        self.rewind_to = first if self.rewind_to is None else min(self.rewind_to, first)
        self._forget_ready()
        self._end_rewind()

    def _end_rewind(self) -> None:
        if not self.in_flight and self.rewind_to is not None:
            self.handed, self.rewind_to = self.rewind_to - 1, None

    def begin_drop(self, first: int, last: int, frames: int, size_bytes: int) -> None:
        """Pass over `frames` frames that were never sent, `first` to `last`: they are about to be deleted."""
        self.is_dropping = True
        self.generation += 1
        self.frames -= frames
        self.size_bytes -= size_bytes
        if self.handed + 1 >= first:
            self.handed = max(self.handed, last)
            while self.ready and self.ready[0].position <= last:
                self._pop()
        else:
            # Frames before them are to be sent again; what is in memory behind those is read anew.
            self._forget_ready()

    def end_drop(self) -> None:
        """They are deleted."""
        self.is_dropping = False
        self.generation += 1

    def undo_drop(self, first: int, frames: int, size_bytes: int) -> None:
        """They could not be deleted: they are to be sent after all."""
        self.frames += frames
        self.size_bytes += size_bytes
        self.rewind(first)
        self.end_drop()

    @property
    def can_send(self) -> bool:
        """Tell whether the next frame is in memory and may go."""
        return bool(self.ready) and self.rewind_to is None

    @property
    def needs_reading(self) -> bool:
        """Tell whether the next frame is only on disk and may be read now."""
        return self.unsent > 0 and not self.ready and self.rewind_to is None and not self.is_dropping

    def refill(self, read: list[Spooled], generation: int) -> None:
        """Put frames that were read from disk into memory, unless they are stale by now."""
        if generation == self.generation and self.needs_reading:
            self.ready.extend(read)
            self.ready_bytes = sum(spooled.size_bytes for spooled in read)

    def _pop(self) -> Spooled:
        spooled = self.ready.popleft()
        self.ready_bytes -= spooled.size_bytes
        return spooled

    def _forget_ready(self) -> None:
        self.ready.clear()
        self.ready_bytes = 0
        self.generation += 1

"""One camera's side of the spool: every sequence is, in one transaction, a frame on disk or shed.

The transaction also holds the counter and the receipt, so a process that dies at any moment leaves a
story without holes. Used by the camera's thread; sends nothing.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

from services.domain.camera import ShedPolicy
from services.domain.errors import Overloaded, StorageFull
from services.domain.frame import ingester_frame_id
from services.domain.ledger import ShedReason
from services.ingest.sources import Settled
from services.ingest.spool.lane import Lane, Spooled
from services.ingest.spool.lanes import Lanes, SpoolState, key_of, position_of, size_of, text_of, wall_us
from services.ingest.spool.outbox import note_shed
from services.ingest.spool.policy import Step, step_of
from services.wire.record import OutRecord

# Receipts a camera keeps; the oldest go first. A source that moves its files needs those of one file, one
# that leaves them needs as many as its folder holds: this many are about 25 MB on disk.
MAX_RECEIPTS = 250_000


@dataclass(frozen=True, slots=True)
class _Victims:
    """Frames that make room for a new one: a run of positions, and what is declared about them."""

    first: int
    last: int
    size_bytes: int
    sequences: tuple[tuple[str, int], ...]


class CameraSpool:
    """One camera's run; for one thread.

    Attributes:
        epoch: of this run; later than any before it.
        next_sequence: what the next frame will get.
    """

    def __init__(self, lanes: Lanes, lane: Lane, epoch: str, policy: ShedPolicy, reserve_bytes: int) -> None:
        """Go on where `Lanes.begin_run` began."""
        self._lanes, self._lane, self._policy, self._reserve_bytes = lanes, lane, policy, reserve_bytes
        self.epoch = epoch
        self.next_sequence = 0

    @property
    def policy(self) -> ShedPolicy:
        """What happens while the spool is full."""
        return self._policy

    def captured_before(self, receipt: str) -> Settled | None:
        """See `Spool.captured_before`."""
        return captured_before(self._lanes, self._lane.number, receipt)

    def accept(self, record: OutRecord, *, receipt: str | None = None) -> ShedReason | None:
        """Take `record` as frame `next_sequence`, and return when it is on disk; or let it go by policy.

        Returns:
            Why it was let go; None: it will be sent.

        Raises:
            Overloaded: the camera's part of the spool is full and its policy is to wait; nothing changed.
            StorageFull: the disk is full; nothing changed.
        """
        self._check_disk()
        size_bytes = size_of(record)
        step, victims = self._choose(size_bytes)
        if step is Step.WAIT:
            raise Overloaded(f"The spool of {self._lane.name} is full; it waits for Kafka.")
        if isinstance(step, ShedReason):
            self.shed(1, step, receipt=receipt)
            return step
        self._keep(record, size_bytes, receipt, victims)
        return None

    def shed(self, count: int, reason: ShedReason, *, receipt: str | None = None) -> None:
        """Give the next `count` sequences to pictures that are let go.

        Raises:
            StorageFull: the disk is full; nothing changed.
        """
        first, end, lane = self.next_sequence, self.next_sequence + count, self._lane

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE cameras SET next_sequence = ? WHERE number = ?", (end, lane.number))
            note_shed(db, lane.number, self.epoch, reason, first, end - 1)
            self._keep_receipt(db, receipt, first, reason)

        self._lanes.database.write(work)
        self.next_sequence = end
        with self._lanes.changed:
            self._count_shed(reason, count, of_this_run=count)
            lane.noted += 1
            self._lanes.changed.notify_all()

    def wait_for_room(self, timeout_s: float) -> None:
        """Block until something has left the camera's part of the spool, `timeout_s` at most."""
        with self._lanes.changed:
            used_bytes = self._lane.size_bytes
            self._lanes.changed.wait_for(lambda: self._lane.size_bytes < used_bytes, timeout_s)

    def state(self) -> SpoolState:
        """Return how the camera's frames do."""
        return self._lanes.state_of(self._lane)

    def close(self) -> None:
        """End the run; what it left is still sent."""
        self._lanes.end_run(self._lane)

    def _check_disk(self) -> None:
        folder = self._lanes.database.folder
        disk = os.statvfs(folder)
        if (free_bytes := disk.f_bavail * disk.f_frsize) < self._reserve_bytes:
            # Room is kept so that what Kafka takes can still be crossed out.
            raise StorageFull(
                f"The disk of {folder} has {free_bytes / 1e6:.0f} MB left, less than the "
                f"{self._reserve_bytes / 1e6:.0f} MB that stay free."
            )

    def _choose(self, size_bytes: int) -> tuple[Step | ShedReason, _Victims | None]:
        with self._lanes.changed:
            step = step_of(
                self._policy,
                used_bytes=self._lane.size_bytes,
                size_bytes=size_bytes,
                share_bytes=self._lanes.share_bytes,
                sequence=self.next_sequence,
            )
            if step is not Step.DROP_OLDEST:
                return step, None
            victims = self._oldest(self._lane.size_bytes + size_bytes - self._lanes.share_bytes)
            if victims is None:
                # All that it has is on its way to Kafka, and that is never dropped.
                return ShedReason.DROPPED_NEWEST, None
            self._lane.begin_drop(victims.first, victims.last, len(victims.sequences), victims.size_bytes)
            return step, victims

    def _oldest(self, needed_bytes: int) -> _Victims | None:
        """Choose the oldest frames that were never sent, at least `needed_bytes` of them if there are."""
        lane, found, freed_bytes, last = self._lane, list[tuple[str, int]](), 0, self._lane.unsent_from - 1
        first = last
        while freed_bytes < needed_bytes:
            rows = self._lanes.database.read(
                "SELECT position, epoch, sequence, size_bytes FROM frames"
                " WHERE position > ? AND position < ? ORDER BY position LIMIT 16",
                (key_of(lane.number, last), key_of(lane.number, lane.next_position)),
            )
            if not rows:
                break
            for at, epoch, sequence, size_bytes in rows:
                if freed_bytes >= needed_bytes:
                    break
                found.append((epoch, sequence))
                freed_bytes += size_bytes
                last = position_of(at)
        return _Victims(first + 1, last, freed_bytes, tuple(found)) if found else None

    def _keep(
        self, record: OutRecord, size_bytes: int, receipt: str | None, victims: _Victims | None
    ) -> None:
        lanes, lane, sequence = self._lanes, self._lane, self.next_sequence
        position, now_us = lane.next_position, wall_us(lanes.clock.now())
        row = (
            key_of(lane.number, position), self.epoch, sequence, now_us, size_bytes,
            text_of(record), record.value,
        )  # fmt: skip
        delta = (1, size_bytes) if victims is None else (
            1 - len(victims.sequences), size_bytes - victims.size_bytes,
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> None:
            if victims is not None:
                self._drop(db, victims)
            db.execute("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.execute(
                "UPDATE cameras SET next_sequence = ?, frames = frames + ?, size_bytes = size_bytes + ?"
                " WHERE number = ?",
                (sequence + 1, *delta, lane.number),
            )
            self._keep_receipt(db, receipt, sequence, None)

        try:
            lanes.database.write(work)
        except BaseException:
            if victims is not None:
                with lanes.changed:
                    lane.undo_drop(victims.first, len(victims.sequences), victims.size_bytes)
            raise
        self.next_sequence = sequence + 1
        spooled = Spooled(lane.number, position, record, size_bytes, lanes.clock.monotonic_s())
        with lanes.changed:
            if victims is not None:
                lane.end_drop()
                of_this_run = sum(epoch == self.epoch for epoch, _ in victims.sequences)
                self._count_shed(ShedReason.DROPPED_OLDEST, len(victims.sequences), of_this_run=of_this_run)
            lane.add(spooled, room_bytes=lanes.room_for(size_bytes))
            if lane.is_behind:
                lanes.deferred_bytes += size_bytes
            lane.noted += 1
            lanes.changed.notify_all()

    def _drop(self, db: sqlite3.Connection, victims: _Victims) -> None:
        number = self._lane.number
        db.execute(
            "DELETE FROM frames WHERE position BETWEEN ? AND ?",
            (key_of(number, victims.first), key_of(number, victims.last)),
        )
        for epoch, sequence in victims.sequences:
            note_shed(db, number, epoch, ShedReason.DROPPED_OLDEST, sequence, sequence)

    def _keep_receipt(
        self, db: sqlite3.Connection, receipt: str | None, sequence: int, reason: ShedReason | None
    ) -> None:
        if receipt is None:
            return
        number = self._lane.number
        frame_id = ingester_frame_id(self._lane.name, self.epoch, sequence).bytes
        db.execute("UPDATE cameras SET receipts = receipts + 1 WHERE number = ?", (number,))
        db.execute(
            "INSERT OR REPLACE INTO receipts SELECT ?, receipts, ?, ?, ? FROM cameras WHERE number = ?",
            (number, _digest_of(receipt), frame_id, reason, number),
        )
        db.execute(
            "DELETE FROM receipts WHERE camera = ?"
            " AND number <= (SELECT receipts FROM cameras WHERE number = ?) - ?",
            (number, number, MAX_RECEIPTS),
        )

    def _count_shed(self, reason: ShedReason, count: int, *, of_this_run: int) -> None:
        lane = self._lane
        lane.shed[reason] += of_this_run
        lane.shed_total[reason] += count
        if reason in _BY_POLICY:
            lane.shed_at_s = self._lanes.clock.monotonic_s()


_BY_POLICY = frozenset({ShedReason.DROPPED_OLDEST, ShedReason.DROPPED_NEWEST, ShedReason.SAMPLED})


def captured_before(lanes: Lanes, camera: int, receipt: str) -> Settled | None:
    """Return what became of a shot that a camera captured before, by this run or an earlier one.

    Raises:
        StorageFull: the disk cannot be read.
    """
    rows = lanes.database.read(
        "SELECT frame_id, reason FROM receipts WHERE camera = ? AND digest = ?", (camera, _digest_of(receipt))
    )
    if not rows:
        return None
    ((frame_id, reason),) = rows
    return Settled(UUID(bytes=frame_id), ShedReason(reason) if reason else None)


def _digest_of(receipt: str) -> bytes:
    return blake2b(receipt.encode("utf-8", "surrogatepass"), digest_size=16).digest()

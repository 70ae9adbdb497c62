"""The sender's side of the spool: what is next, what Kafka has, what is to be sent again. Sends nothing."""

from __future__ import annotations

import sqlite3

from services.domain.ledger import ShedReason
from services.domain.topics import MIB
from services.ingest.spool.lane import Spooled
from services.ingest.spool.lanes import Lanes, SpoolState, key_of
from services.ingest.spool.outbox import OpenEntry, delete_entry, make_entries, note_shed

# What is read from disk at once of one camera's backlog.
_READ_BYTES = 4 * MIB
# Free pages that the file keeps, so that steady traffic neither grows nor shrinks it.
_KEEP_FREE_BYTES = 256 * MIB


class Feed:
    """Frames and ledger entries in the order in which they are to be sent; for one sender."""

    def __init__(self, lanes: Lanes) -> None:
        """Begin with what earlier runs left."""
        self._lanes = lanes
        self._first = 0

    def waiting(self) -> list[tuple[int, bool]]:
        """Return cameras that have a frame to send, and whether that is of a backlog, in fair turns."""
        with self._lanes.changed:
            found = [
                (lane.number, not lane.ready or lane.ready[0].is_replayed)
                for lane in self._lanes.all()
                if lane.can_send or lane.needs_reading
            ]
        self._first = (self._first + 1) % len(found) if found else 0
        return found[self._first :] + found[: self._first]

    def backlog(self, camera: int) -> int:
        """Return how many of a camera's frames are to be sent."""
        with self._lanes.changed:
            return self._lanes[camera].unsent

    def take(self, camera: int) -> Spooled | None:
        """Return a camera's next frame, which is then on its way; None if there is none any more.

        Raises:
            StorageFull: the disk cannot be read.
        """
        lanes = self._lanes
        with lanes.changed:
            lane = lanes[camera]
            if not lane.needs_reading:
                return lane.take()
            generation, first, end = lane.generation, lane.handed + 1, lane.next_position
        read = lanes.read_frames(lane, first, end, min(_READ_BYTES, lanes.room_bytes))
        with lanes.changed:
            lane.refill(read, generation)
            return lane.take()

    def acknowledge(self, spooled: Spooled) -> None:
        """Let a frame that Kafka has leave the spool."""
        self._remove(spooled, None)

    def refuse(self, spooled: Spooled) -> None:
        """Let a frame that Kafka will never take leave the spool, declared shed."""
        self._remove(spooled, ShedReason.TOO_LARGE)

    def _remove(self, spooled: Spooled, reason: ShedReason | None) -> None:
        key = key_of(spooled.camera, spooled.position)

        def work(db: sqlite3.Connection) -> None:
            if reason is not None:
                row = db.execute("SELECT epoch, sequence FROM frames WHERE position = ?", (key,)).fetchone()
                note_shed(db, spooled.camera, row[0], reason, row[1], row[1])
            db.execute("DELETE FROM frames WHERE position = ?", (key,))
            db.execute(
                "UPDATE cameras SET frames = frames - 1, size_bytes = size_bytes - ? WHERE number = ?",
                (spooled.size_bytes, spooled.camera),
            )

        lanes = self._lanes
        with lanes.changed:
            lane = lanes[spooled.camera]
            if reason is not None:
                lane.refuse(spooled, reason)
            elif not lane.acknowledge(spooled):
                return
            lanes.database.write_later(work)
            lanes.changed.notify_all()

    def give_up(self, spooled: Spooled) -> None:
        """Let a frame that did not arrive be sent again, before those that came after it."""
        with self._lanes.changed:
            self._lanes[spooled.camera].give_up(spooled)
            self._lanes.changed.notify_all()

    def declare(self) -> None:
        """Make ledger entries of what is not declared, unless a camera's last entries are still open.

        Raises:
            StorageFull: the disk is full; nothing changed.
        """
        lanes, now = self._lanes, self._lanes.clock.now()
        with lanes.changed:
            due = [
                (lane, lane.noted) for lane in lanes.all() if lane.has_undeclared and not lane.open_entries
            ]
        if not due:
            return
        made: list[OpenEntry] = []
        left: set[int] = set()

        def work(db: sqlite3.Connection) -> None:
            for lane, _ in due:
                made.extend(make_entries(db, lane.number, now))
            left.update(number for (number,) in db.execute("SELECT DISTINCT camera FROM shed"))

        lanes.database.write(work)
        with lanes.changed:
            lanes.add_entries(made)
            for lane, noted in due:
                # What was noted meanwhile, or did not fit into these entries, is for the next ones.
                lane.declared = noted - (lane.number in left)
            lanes.changed.notify_all()

    def take_entry(self) -> OpenEntry | None:
        """Return the next ledger entry to be sent."""
        with self._lanes.changed:
            return self._lanes.entries.popleft() if self._lanes.entries else None

    def acknowledge_entry(self, entry: OpenEntry) -> None:
        """Forget an entry that Kafka has."""
        with self._lanes.changed:
            self._lanes[entry.camera].open_entries -= 1
            self._lanes.database.write_later(lambda db: delete_entry(db, entry.number))
            self._lanes.changed.notify_all()

    def give_up_entry(self, entry: OpenEntry) -> None:
        """Let an entry be sent again."""
        with self._lanes.changed:
            self._lanes.entries.append(entry)
            self._lanes.changed.notify_all()

    def take_deferred_bytes(self) -> int:
        """Return how much came into backlogs since the last call."""
        with self._lanes.changed:
            deferred_bytes, self._lanes.deferred_bytes = self._lanes.deferred_bytes, 0
            return deferred_bytes

    def wait_for_work(self, timeout_s: float) -> None:
        """Block until a camera has a frame in memory to send, or an entry waits; `timeout_s` at most."""
        lanes = self._lanes
        with lanes.changed:
            lanes.changed.wait_for(
                lambda: bool(lanes.entries) or any(lane.can_send for lane in lanes.all()), timeout_s
            )

    def flush(self) -> None:
        """Cross out on disk what Kafka has; shrink the file by a step if much of it is free.

        Raises:
            StorageFull: the disk is full; it goes on waiting.
        """
        self._lanes.database.flush()
        self._lanes.database.shrink(_KEEP_FREE_BYTES)

    def states(self) -> list[tuple[SpoolState, int, dict[ShedReason, int]]]:
        """Return how every camera does, with what was sent and shed since the process began."""
        return [
            (self._lanes.state_of(lane), lane.sent_total, dict(lane.shed_total)) for lane in self._lanes.all()
        ]

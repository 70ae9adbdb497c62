"""All cameras of a spool and what they share: the file, the lock of what is in memory, the bounds."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.adapters.clock import Clock
from services.domain.errors import BadRequest
from services.domain.ledger import ShedReason
from services.domain.topics import FRAMES, MIB
from services.ingest.spool.database import Database
from services.ingest.spool.lane import Lane, Spooled
from services.ingest.spool.outbox import OpenEntry, declare_captured, load_entries
from services.wire.frame import epoch_of
from services.wire.record import Headers, OutRecord

# Frames of all cameras that wait in memory as well as on disk, so that they are sent without being read back.
_READY_BYTES = 64 * MIB
_POSITION_BITS = 40
# Headers and keys, roughly; what a frame counts beyond its image.
_OVERHEAD_BYTES = 2048


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How one camera's frames do.

    Attributes:
        frames: accepted, and not yet acknowledged by Kafka.
        size_bytes: of these, on disk.
        fill_ratio: of the camera's share of the spool; a single frame may be more than all of it.
        oldest_s: age of the oldest of them; 0 if there is none.
        acknowledged: frames of the present run that Kafka has.
        shed: frames of the present run that were let go, by reason.
        shed_for_s: how long ago the policy last let a frame go; None: never.
        is_running: the camera runs.
        is_settled: Kafka has all frames and the ledger knows of them.
    """

    camera: str
    frames: int
    size_bytes: int
    fill_ratio: float
    oldest_s: float
    acknowledged: int
    shed: dict[ShedReason, int]
    shed_for_s: float | None
    is_running: bool
    is_settled: bool


class Lanes:
    """The cameras by number; whoever touches a lane holds `changed`."""

    def __init__(self, database: Database, clock: Clock, max_bytes: int) -> None:
        """Load what earlier runs left."""
        self.database, self.clock, self.max_bytes = database, clock, max_bytes
        self.changed = threading.Condition()
        self.entries: deque[OpenEntry] = deque(load_entries(database))
        # Bytes that were accepted into a backlog since the sender last asked.
        self.deferred_bytes = 0
        self._lanes: dict[int, Lane] = {}
        self._numbers: dict[str, int] = {}
        self._share_bytes = max_bytes
        self._load()

    def _load(self) -> None:
        with_shed = {number for (number,) in self.database.read("SELECT DISTINCT camera FROM shed")}
        rows = self.database.read(
            "SELECT number, name, frames, size_bytes, declared_to < next_sequence FROM cameras"
        )
        for number, name, frames, size_bytes, has_undeclared in rows:
            lane = self._add(number, name)
            lane.frames, lane.size_bytes = frames, size_bytes
            lane.noted = int(bool(has_undeclared) or number in with_shed)
            ((last,),) = self.database.read(
                "SELECT max(position) FROM frames WHERE position >= ? AND position < ?",
                (key_of(number, 0), key_of(number + 1, 0)),
            )
            # Who was killed may have sent any of them: what is dropped must not have reached Kafka.
            lane.reached = 0 if last is None else position_of(last)
            lane.next_position = lane.reached + 1
        for entry in self.entries:
            self._lanes[entry.camera].open_entries += 1

    def _add(self, number: int, name: str) -> Lane:
        lane = self._lanes[number] = Lane(number, name)
        self._numbers[name] = number
        return lane

    def all(self) -> list[Lane]:
        """Return the lanes of all cameras that the spool knows."""
        return list(self._lanes.values())

    def __getitem__(self, number: int) -> Lane:
        """Return a camera's lane."""
        return self._lanes[number]

    def number_of(self, name: str) -> int | None:
        """Return a camera's number; None: it never ran with this spool."""
        return self._numbers.get(name)

    @property
    def share_bytes(self) -> int:
        """What one camera may have in the spool: all that run or have frames left have equal parts."""
        return self._share_bytes

    @property
    def room_bytes(self) -> int:
        """What one camera may have in memory to be sent."""
        return _READY_BYTES // max(1, len(self._lanes))

    def room_for(self, size_bytes: int) -> int:
        """Return `room_bytes`, or room for one larger frame while there is that much for all cameras."""
        if size_bytes <= self.room_bytes:
            return self.room_bytes
        used_bytes = sum(lane.ready_bytes for lane in self._lanes.values())
        return size_bytes if used_bytes + size_bytes <= _READY_BYTES else 0

    def begin_run(self, name: str) -> tuple[Lane, str]:
        """Begin a new epoch of a camera; what the last one did not declare is declared.

        Raises:
            BadRequest: it runs already.
            StorageFull: the disk takes nothing.
        """
        known = self._numbers.get(name)
        if known is not None and self._lanes[known].is_running:
            raise BadRequest(f"The camera {name} runs already.")
        found: list[tuple[int, str]] = []
        made: list[OpenEntry] = []
        now = self.clock.now()

        def begin(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR IGNORE INTO cameras VALUES (NULL, ?, '', 0, 0, 0, 0, 0)", (name,))
            query = "SELECT number, epoch FROM cameras WHERE name = ?"
            number, last_epoch = db.execute(query, (name,)).fetchone()
            made.extend(declare_captured(db, number, now))
            epoch = _epoch_after(last_epoch, now)
            db.execute(
                "UPDATE cameras SET epoch = ?, next_sequence = 0, declared_to = 0 WHERE number = ?",
                (epoch, number),
            )
            found.append((number, epoch))

        self.database.write(begin)
        ((number, epoch),) = found
        with self.changed:
            lane = self._lanes.get(number) or self._add(number, name)
            lane.begin_run()
            self.add_entries(made)
            self._divide()
        return lane, epoch

    def end_run(self, lane: Lane) -> None:
        """Note that a camera has stopped; its frames are still sent."""
        with self.changed:
            lane.is_running = False
            self._divide()

    def add_entries(self, made: list[OpenEntry]) -> None:
        """Let entries be sent."""
        for entry in made:
            self.entries.append(entry)
            self._lanes[entry.camera].open_entries += 1
        self.changed.notify_all()

    def state_of(self, lane: Lane) -> SpoolState:
        """Return how a camera's frames do."""
        now_s = self.clock.monotonic_s()
        with self.changed:
            return SpoolState(
                camera=lane.name,
                frames=lane.frames,
                size_bytes=lane.size_bytes,
                fill_ratio=lane.size_bytes / max(1, self._share_bytes),
                oldest_s=now_s - oldest if (oldest := self._oldest_s(lane)) is not None else 0.0,
                acknowledged=lane.acknowledged,
                shed=dict(lane.shed),
                shed_for_s=None if lane.shed_at_s is None else now_s - lane.shed_at_s,
                is_running=lane.is_running,
                is_settled=lane.is_settled,
            )

    def _oldest_s(self, lane: Lane) -> float | None:
        """Return when the oldest frame was accepted, in monotonic seconds."""
        in_memory = next(iter(lane.in_flight.values()), None) or (lane.ready[0] if lane.ready else None)
        if in_memory is not None:
            return in_memory.accepted_s
        if not lane.frames:
            return None
        rows = self.database.read(
            "SELECT accepted_us FROM frames WHERE position > ? AND position < ? ORDER BY position LIMIT 1",
            (key_of(lane.number, lane.handed), key_of(lane.number, lane.next_position)),
        )
        return self.accepted_s(rows[0][0]) if rows else None

    def accepted_s(self, accepted_us: int) -> float:
        """Return in monotonic seconds what the disk knows by the wall clock, which may have jumped."""
        age_s = max(0.0, (wall_us(self.clock.now()) - accepted_us) / 1e6)
        return self.clock.monotonic_s() - age_s

    def _divide(self) -> None:
        users = sum(lane.is_running or lane.frames > 0 for lane in self._lanes.values())
        self._share_bytes = self.max_bytes // max(1, users)

    def read_frames(self, lane: Lane, first: int, end: int, max_bytes: int) -> list[Spooled]:
        """Read a camera's frames from disk, `first` included and `end` not: at least one, if there is one."""
        found: list[Spooled] = []
        # By the size of the last one, because all that is asked for is in memory at once.
        key, read_bytes, limit = lane.name.encode(), 0, 1
        while read_bytes < max_bytes:
            rows = self.database.read(
                "SELECT position, accepted_us, size_bytes, headers, value FROM frames"
                " WHERE position >= ? AND position < ? ORDER BY position LIMIT ?",
                (key_of(lane.number, first), key_of(lane.number, end), limit),
            )
            for at, accepted_us, size_bytes, headers, value in rows:
                record = OutRecord(FRAMES.name, key, value, headers_of(headers))
                position, accepted_s = position_of(at), self.accepted_s(accepted_us)
                found.append(Spooled(lane.number, position, record, size_bytes, accepted_s, is_replayed=True))
                read_bytes += size_bytes
            if not rows:
                break
            first = found[-1].position + 1
            limit = max(1, min(4, (max_bytes - read_bytes) // found[-1].size_bytes))
        return found


def key_of(camera: int, position: int) -> int:
    """Return under which key a camera's frame lies."""
    return (camera << _POSITION_BITS) + position


def position_of(key: int) -> int:
    """Return a frame's number among those of its camera."""
    return key & ((1 << _POSITION_BITS) - 1)


def size_of(record: OutRecord) -> int:
    """Return what a record counts against the bounds, bytes."""
    return len(record.value) + _OVERHEAD_BYTES


def text_of(record: OutRecord) -> str:
    """Return a record's headers as they lie on disk."""
    return json.dumps([(name, value.decode("latin-1")) for name, value in record.headers])


def headers_of(text: str) -> Headers:
    """Return headers as they were."""
    return tuple((name, value.encode("latin-1")) for name, value in json.loads(text))


def wall_us(time: datetime) -> int:
    """Return a time as microseconds since 1970."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _epoch_after(last: str, now: datetime) -> str:
    """Return the epoch of a run that begins now: after the last one, wherever the clock has jumped to."""
    if not last:
        return epoch_of(now)
    return epoch_of(max(now, datetime.fromisoformat(last) + timedelta(microseconds=1)))

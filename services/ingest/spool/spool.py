"""The spool as a whole: opened by one process, shared by its cameras and its sender."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from services.adapters.clock import Clock
from services.domain.camera import ShedPolicy
from services.domain.errors import BadSettings
from services.domain.topics import MIB
from services.ingest.sources import Settled
from services.ingest.spool.camera_spool import CameraSpool, captured_before
from services.ingest.spool.database import Database
from services.ingest.spool.feed import Feed
from services.ingest.spool.lanes import Lanes

logger = logging.getLogger(__name__)

# Two minutes of ten cameras that give ten frames of 200 KB a second each.
DEFAULT_MAX_BYTES = 4096 * MIB
# Stays free on the disk: the write-ahead log and a broker's or a database's last words need room.
RESERVE_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an earlier run of a camera left to be sent."""

    camera: str
    frames: int
    size_bytes: int


class Spool:
    """Frames, counters, receipts and ledger entries of one process's cameras, in one folder; thread-safe.

    Attributes:
        leftovers: what earlier runs left, by camera, as found at the opening.
        feed: what a `Sender` takes from it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        max_bytes: int = DEFAULT_MAX_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        """Open or make the spool.

        Args:
            folder: where; nobody else's.
            clock: for epochs and ages.
            max_bytes: of frames on disk; every camera that runs or has frames left may have an equal share.
                The file takes a tenth more, and its write-ahead log 64 MiB.
            reserve_bytes: what stays free on the disk.

        Raises:
            BadSettings: another process has it open, or it is damaged.
            StorageFull: the disk takes nothing.
        """
        if max_bytes < MIB:
            raise BadSettings(f"A spool has at least 1 MiB, not {max_bytes} bytes.")
        self._reserve_bytes = reserve_bytes
        self._database = Database(folder)
        self._lanes = Lanes(self._database, clock, max_bytes)
        self.feed = Feed(self._lanes)
        self.leftovers = tuple(
            Leftover(lane.name, lane.frames, lane.size_bytes) for lane in self._lanes.all() if lane.frames
        )

    def camera(self, name: str, policy: ShedPolicy) -> CameraSpool:
        """Begin a run of a camera: a new epoch, whose sequences begin at 0.

        Raises:
            BadRequest: this camera runs already.
            StorageFull: the disk takes nothing.
        """
        lane, epoch = self._lanes.begin_run(name)
        return CameraSpool(self._lanes, lane, epoch, policy, self._reserve_bytes)

    def captured_before(self, camera: str, receipt: str) -> Settled | None:
        """Return what became of a shot that a camera captured before, by this run or an earlier one.

        Raises:
            StorageFull: the disk cannot be read.
        """
        number = self._lanes.number_of(camera)
        return None if number is None else captured_before(self._lanes, number, receipt)

    @property
    def is_settled(self) -> bool:
        """Tell whether Kafka has all frames and all ledger entries."""
        with self._lanes.changed:
            return all(lane.is_settled for lane in self._lanes.all())

    def wait_until_settled(self, timeout_s: float) -> bool:
        """Block until `is_settled`; False if not within `timeout_s`."""
        with self._lanes.changed:
            return self._lanes.changed.wait_for(
                lambda: all(lane.is_settled for lane in self._lanes.all()), timeout_s
            )

    @property
    def file_bytes(self) -> int:
        """What the spool takes on disk."""
        return self._database.size_bytes

    def close(self) -> None:
        """Let go of the folder; harmless twice. No camera and no sender may use it any more."""
        self._database.close()

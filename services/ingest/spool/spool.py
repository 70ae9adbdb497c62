"""Signatures only, for those who build on them; the working version follows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from services.adapters.clock import Clock
from services.domain.camera import ShedPolicy
from services.domain.ledger import ShedReason
from services.ingest.sources import Settled
from services.wire.record import OutRecord

DEFAULT_MAX_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an earlier run of a camera left to be sent."""

    camera: str
    frames: int
    size_bytes: int


class Spool:
    """Frames, counters, receipts and ledger entries of one process's cameras, in one folder."""

    def __init__(self, folder: Path, *, clock: Clock, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        """Open or make the spool; BadSettings: another process has it open; StorageFull: no room."""
        raise NotImplementedError

    @property
    def leftovers(self) -> tuple[Leftover, ...]:
        """What earlier runs left, by camera, as found at the opening."""
        raise NotImplementedError

    def camera(self, name: str, policy: ShedPolicy) -> CameraSpool:
        """Begin a run (a new epoch) of a camera. The Ingester calls it."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the folder; harmless twice."""
        raise NotImplementedError


class CameraSpool:
    """One camera's run; used by one thread (the Ingester's)."""

    epoch: str
    next_sequence: int

    def captured_before(self, receipt: str) -> Settled | None:
        """Return what became of a shot that was captured before."""
        raise NotImplementedError

    def accept(self, record: OutRecord, *, receipt: str | None = None) -> ShedReason | None:
        """Take the frame `next_sequence`; Overloaded: full, and its policy is to wait; StorageFull: the disk."""
        raise NotImplementedError

    def shed(self, count: int, reason: ShedReason, *, receipt: str | None = None) -> None:
        """Give the next `count` sequences to pictures that were let go."""
        raise NotImplementedError

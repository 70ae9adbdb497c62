"""The ledger: captured = judged + quarantined + shed, per camera, in distinct frame ids (arrow 8).

Ingesters and the stream declare; the results service stores; `balance_of` proves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from services.domain.frame import ingester_frame_ids


class EntryKind(StrEnum):
    """What a ledger entry declares."""

    CAPTURED = "captured"
    SHED = "shed"


class ShedReason(StrEnum):
    """Why a frame was let go on purpose."""

    NO_ROUTE = "no-route"
    DEADLINE = "deadline"
    BROKER_UNAVAILABLE = "broker-unavailable"
    UNREADABLE_SOURCE = "unreadable-source"
    STORE_UNAVAILABLE = "store-unavailable"
    SKIPPED = "skipped"  # the source gave more pictures than were asked for
    TOO_LARGE = "too-large"  # above the limit of the claim check
    # The spool was full, and the camera's policy said so.
    DROPPED_OLDEST = "dropped-oldest"
    DROPPED_NEWEST = "dropped-newest"
    SAMPLED = "sampled"


@dataclass(frozen=True, slots=True)
class SequenceRange:
    """Sequences `first` to `last`, both included, of one camera's epoch."""

    first: int
    last: int

    def __len__(self) -> int:
        """Return how many sequences the range holds."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A declaration about frames: by ranges where sequences are known, else by frame id.

    Attributes:
        entry_id: deterministic, so that a redelivered entry counts once.
        frame_ids: shed frames by id (set by the stream, which knows ids of foreign frames too).
        partition: partition of `loupe.frames` that a frame shed by the stream stood in.
        offsets: their offsets there, parallel to `frame_ids`; empty for ingesters.
    """

    entry_id: UUID
    camera: str
    kind: EntryKind
    declared_at: datetime
    epoch: str = ""
    ranges: tuple[SequenceRange, ...] = ()
    reason: ShedReason | None = None
    frame_ids: tuple[UUID, ...] = ()
    partition: int | None = None
    offsets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraBalance:
    """One camera's side of the equation, in distinct frames.

    Attributes:
        missing: ids of frames without end; where there are very many, the first of them.
        unnamed: how many more are missing than `missing` names.
        shed_by_reason: `shed` by why (`ShedReason`); empty where nobody asked.
    """

    captured: int
    judged: int
    quarantined: int
    shed: int
    missing: tuple[UUID, ...] = field(default=())
    unnamed: int = 0
    shed_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing_count(self) -> int:
        """How many frames have no end."""
        return len(self.missing) + self.unnamed

    @property
    def is_balanced(self) -> bool:
        """Tell whether every captured frame has exactly one end."""
        return not self.missing_count and self.captured == self.judged + self.quarantined + self.shed


def ids_of_ranges(camera: str, epoch: str, ranges: Iterable[SequenceRange]) -> set[UUID]:
    """Return the frame ids that an ingester's ranges stand for."""
    return {
        frame_id
        for one in ranges
        for frame_id in ingester_frame_ids(camera, epoch, range(one.first, one.last + 1))
    }


def balance_of(
    *,
    declared: AbstractSet[UUID],
    observed: AbstractSet[UUID],
    judged: AbstractSet[UUID],
    quarantined: AbstractSet[UUID],
    shed: AbstractSet[UUID],
) -> CameraBalance:
    """Return one camera's balance from sets of frame ids.

    A frame is captured when its ingester declared it, when it was seen on the topic, or when it
    has an end. A frame with two ends (shed late, then judged after a redelivery) counts at its
    strongest one: judged before quarantined before shed.
    """
    ended = judged | quarantined | shed
    captured = declared | observed | ended
    return CameraBalance(
        captured=len(captured),
        judged=len(judged),
        quarantined=len(quarantined - judged),
        shed=len(shed - judged - quarantined),
        missing=tuple(sorted(captured - ended)),
    )


def all_balanced(cameras: Mapping[str, CameraBalance]) -> bool:
    """Tell whether the equation holds for every camera."""
    return all(balance.is_balanced for balance in cameras.values())

"""From the records of a batch to what is to be stored, and what cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Generic, TypeVar
from uuid import UUID

from services.domain.errors import MalformedRecord, Rejected
from services.domain.frame import ImageReference
from services.domain.inspection import Inspection
from services.domain.ledger import LedgerEntry
from services.wire.dead_letter import DeadLetter, decode_dead_letter, one_line
from services.wire.frame import decode_frame
from services.wire.inspection import decode_inspection
from services.wire.ledger import decode_ledger_entry
from services.wire.record import Record
from services.wire.times import to_uuid

logger = logging.getLogger(__name__)
T = TypeVar("T")

# A camera of 100 frames/s that is shed for a week and a half; more is a mistake, or meant to do harm.
MAX_FRAMES_PER_ENTRY = 100_000_000


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """What a record says, and the record itself."""

    what: T
    record: Record


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that cannot be read or stored."""

    record: Record
    error: Rejected


def place_of(record: Record) -> str:
    """Return where a record stands, as people name it: `topic:partition:offset`."""
    return f"{record.topic}:{record.partition}:{record.offset}"


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A frame that the stream gave up, from its dead letter.

    Attributes:
        image: where it referred to its pixels.
        original: where it was cropped or scaled down.
    """

    letter: DeadLetter
    frame_id: UUID
    camera: str
    image: ImageReference | None = None
    original: ImageReference | None = None


def sort_out(records: Sequence[Record], read: Callable[[Record], T]) -> tuple[list[Read[T]], list[Refused]]:
    """Return what could be read, in order, and what could not."""
    good: list[Read[T]] = []
    refused: list[Refused] = []
    for record in records:
        try:
            good.append(Read(read(record), record))
        except Rejected as error:
            refused.append(Refused(record, error))
        except Exception as error:
            # A fault of ours, but the partition has to move on: the record waits among the dead letters.
            logger.exception("record %s could not be read", record.position)
            refused.append(Refused(record, MalformedRecord(f"Unforeseen {type(error).__name__}: {error}")))
    return good, refused


def read_inspection(record: Record) -> Inspection:
    """Return the inspection of a record.

    Raises:
        MalformedRecord: it is none, or its numbers are none (no JSON can tell them).
    """
    found = decode_inspection(record.value)
    if not all(map(isfinite, (found.score, found.threshold, found.confidence))):
        raise MalformedRecord("Score, threshold and confidence have to be finite numbers.")
    return found


def read_ledger_entry(record: Record) -> LedgerEntry:
    """Return the ledger entry of a record.

    Raises:
        MalformedRecord: it is none, or tells of more frames than anyone can have meant.
    """
    entry = decode_ledger_entry(record.value)
    frames = sum(len(one) for one in entry.ranges) + len(entry.frame_ids)
    if frames > MAX_FRAMES_PER_ENTRY:
        raise MalformedRecord(
            f"One ledger entry tells of {frames} frames; {MAX_FRAMES_PER_ENTRY} is the limit."
        )
    return entry


def read_dead_letter(record: Record) -> Quarantined:
    """Return the frame of a dead letter; id and camera come from the original where the letter lacks them.

    Raises:
        MalformedRecord: it is no dead letter.
    """
    letter = decode_dead_letter(record)
    frame = decode_frame(letter.original)
    frame_id = to_uuid(letter.frame_id, "frame id") if letter.frame_id else frame.frame_id
    # A letter tells on one line, with single spaces; the original knows the camera's own.
    is_same = letter.camera in ("", one_line(frame.camera))
    camera = frame.camera if is_same else letter.camera
    return Quarantined(letter, frame_id, camera, frame.dataref, frame.original)

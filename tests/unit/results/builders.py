"""Frames, verdicts and the records that carry them, for tests of the results service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from services.adapters.broker.memory import MemoryBroker
from services.domain.errors import UnreadableImage
from services.domain.frame import FRAME_NAMESPACE, Frame, ingester_frame_id
from services.domain.inspection import Inspection, Region
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.domain.topics import FRAMES
from services.wire.dead_letter import encode_dead_letter
from services.wire.frame import decode_frame, encode_frame
from services.wire.inspection import encode_inspection
from services.wire.ledger import encode_ledger_entry
from services.wire.record import OutRecord, Record

START = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = "2026-01-01T00:00:00.000000+00:00"


def frame(sequence: int, camera: str = "cam-1") -> Frame:
    return Frame(
        frame_id=ingester_frame_id(camera, EPOCH, sequence),
        camera=camera,
        captured_at=START + timedelta(seconds=sequence),
        image=b"pixels",
        epoch=EPOCH,
        sequence=sequence,
    )


def publish(broker: MemoryBroker, *frames: Frame) -> list[Frame]:
    """Publish frames and return them as a reader sees them, with their positions."""
    seen = []
    for one in frames:
        place = broker.append(encode_frame(one))
        record = next(
            r
            for r in broker.records(FRAMES.name)
            if (r.partition, r.offset) == (place.partition, place.offset)
        )
        seen.append(decode_frame(record))
    return seen


def publish_bare(broker: MemoryBroker, camera: str, image: bytes = b"pixels") -> Frame:
    """Publish as a foreign producer does: no headers, only the key."""
    place = broker.append(OutRecord(FRAMES.name, camera.encode(), image))
    return decode_frame(
        Record(FRAMES.name, place.partition, place.offset, camera.encode(), image, (), 1_767_225_600_000)
    )


def verdict(of: Frame, **changes: Any) -> Inspection:
    made = Inspection(
        frame_id=of.frame_id,
        camera=of.camera,
        project="parts",
        model_version="v1",
        captured_at=of.captured_at,
        judged_at=of.captured_at + timedelta(milliseconds=40),
        is_anomalous=False,
        confidence=0.9,
        score=0.25,
        threshold=0.5,
        epoch=of.epoch,
        sequence=of.sequence,
        regions=(Region(0.1, 0.2, 0.3, 0.4, 0.05, 0.7),),
        width_px=64,
        height_px=64,
        stage_ms={"queue": 3.0, "infer": 12.0},
        unit="unit-1",
        position=of.position,
    )
    return replace(made, **changes)


def captured(first: int, last: int, camera: str = "cam-1", name: str = "") -> LedgerEntry:
    return LedgerEntry(
        entry_id=_entry_id("captured", camera, first, last, name),
        camera=camera,
        kind=EntryKind.CAPTURED,
        declared_at=START,
        epoch=EPOCH,
        ranges=(SequenceRange(first, last),),
    )


def shed_range(first: int, last: int, camera: str = "cam-1") -> LedgerEntry:
    """What an ingester says that could not publish."""
    return LedgerEntry(
        entry_id=_entry_id("shed", camera, first, last),
        camera=camera,
        kind=EntryKind.SHED,
        declared_at=START,
        epoch=EPOCH,
        ranges=(SequenceRange(first, last),),
        reason=ShedReason.BROKER_UNAVAILABLE,
    )


def shed_by_stream(of: Frame) -> LedgerEntry:
    assert of.position is not None
    return LedgerEntry(
        entry_id=_entry_id("shed", of.frame_id),
        camera=of.camera,
        kind=EntryKind.SHED,
        declared_at=START,
        reason=ShedReason.NO_ROUTE,
        frame_ids=(of.frame_id,),
        partition=of.position.partition,
        offsets=(of.position.offset,),
    )


def letter(of: Frame, reason: str = "Not an image.") -> OutRecord:
    assert of.position is not None
    place = of.position
    headers = () if of.sequence is None else encode_frame(of).headers
    original = Record(place.topic, place.partition, place.offset, of.camera.encode(), of.image, headers)
    return encode_dead_letter(
        original, UnreadableImage(reason), tries=1, at=START, frame_id=str(of.frame_id), camera=of.camera
    )


def records(*outs: OutRecord, start: int = 0, at: datetime = START) -> list[Record]:
    """Return records as a consumer of one partition sees them."""
    stamp_ms = int(at.timestamp() * 1000)
    return [
        Record(out.topic, 0, start + n, out.key, out.value, out.headers, stamp_ms)
        for n, out in enumerate(outs)
    ]


def verdict_records(*verdicts: Inspection, start: int = 0, at: datetime = START) -> list[Record]:
    return records(*(encode_inspection(one) for one in verdicts), start=start, at=at)


def ledger_records(*entries: LedgerEntry, start: int = 0) -> list[Record]:
    return records(*(encode_ledger_entry(one) for one in entries), start=start)


def _entry_id(*parts: object) -> UUID:
    return uuid5(FRAME_NAMESPACE, "/".join(map(str, parts)))

"""Every message version on every topic: what it means, and how it is read and written.

`python -m tests.contract.golden_records` writes the files that are missing, and never one that is there.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from services.domain.camera import CameraState
from services.domain.errors import UnreadableImage
from services.domain.frame import Frame, ImageReference, RecordPosition, frame_id_of, ingester_frame_id
from services.domain.inspection import Inspection, Region, Role
from services.domain.label import Box, Label, Mask, Verdict, entry_id_of
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.domain.model_version import FitOptions, ModelAnnouncement, TrainingRequest
from services.domain.trigger import Trigger
from services.wire.camera_event import CameraChange, encode_camera_event
from services.wire.dead_letter import DeadLetter, decode_dead_letter, encode_dead_letter
from services.wire.event import encode_event
from services.wire.frame import decode_frame, encode_frame
from services.wire.inspection import decode_inspection, encode_inspection
from services.wire.label import decode_label, encode_label
from services.wire.ledger import decode_ledger_entry, encode_ledger_entry
from services.wire.model import decode_announcement, encode_announcement
from services.wire.record import OutRecord, Record
from services.wire.training import decode_training_request, encode_training_request
from services.wire.trigger import decode_trigger, encode_trigger

FOLDER = Path(__file__).parent / "golden"
AT = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
PARTITION, OFFSET, TIMESTAMP_MS = 3, 42, 1778051289123
_RECORDED_AT = datetime.fromtimestamp(TIMESTAMP_MS / 1000, UTC)
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_KEPT = ImageReference(f"s3://loupe-frames/sha256/9f/{_SHA}", _SHA, 204800)
_MASK = ImageReference("s3://loupe-datasets/sha256/ab/abcd", "ab" * 32, 812)
_FRAME_ID = UUID("0b5d3c0e-0f0a-5b0e-9d6f-6c6f75706531")
_TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_EPOCH = "2026-05-06T07:00:00.000000+00:00"
_IMAGE = b"\xff\xd8\xff\xe0 not decoded here \xff\xd9"


@dataclass(frozen=True, slots=True)
class Golden:
    """One record, as some release wrote it.

    Attributes:
        name: of its two files; ends with the version.
        says: what every reader has to make of it.
        read: what reads it.
        written: what today's code writes for `says`; None for records of other producers, and for those of
            releases that knew fewer fields.
    """

    name: str
    says: object
    read: Callable[[Record], object]
    written: Callable[[], OutRecord] | None = None

    def record(self) -> Record:
        """Return the kept record, as a consumer gets it."""
        about = json.loads((FOLDER / f"{self.name}.headers.json").read_text())
        headers = tuple((name, value.encode()) for name, value in about["headers"])
        key = about["key"].encode() if about["key"] is not None else None
        value = (FOLDER / f"{self.name}.bin").read_bytes()
        return Record(about["topic"], PARTITION, OFFSET, key, value, headers, TIMESTAMP_MS)


def _frame(**changes: Any) -> Frame:
    full = Frame(
        frame_id=ingester_frame_id("line 3/cam 1", _EPOCH, 17),
        camera="line 3/cam 1",
        captured_at=AT,
        image=_IMAGE,
        content_type="image/jpeg",
        subject="caps/0107 ü.jpg",
        epoch=_EPOCH,
        sequence=17,
        project="caps",
        part_id="P-000123",
        lot_id="L-42",
        traceparent=_TRACE,
        original=_KEPT,
        area="0.1,0.2,0.5,0.5",
        position=RecordPosition("loupe.frames", PARTITION, OFFSET),
    )
    return replace(full, **changes)


def _bare_frame() -> Frame:
    position = RecordPosition("loupe.frames", PARTITION, OFFSET)
    frame_id = frame_id_of(
        source="cam-1", event_id=None, camera="cam-1", epoch=None, sequence=None, position=position
    )
    return Frame(frame_id, "cam-1", _RECORDED_AT, _IMAGE, "application/octet-stream", position=position)


_INSPECTION = Inspection(
    frame_id=_FRAME_ID, camera="cam-1", project="caps", model_version="v20260506-070809-a1b2",
    captured_at=AT, judged_at=AT, is_anomalous=True, confidence=0.97, score=3.5, threshold=2.5,
    is_uncertain=True, role=Role.LIVE, run="", subject="0107.jpg", epoch=_EPOCH, sequence=17,
    part_id="P-000123", lot_id="L-42", traceparent=_TRACE,
    regions=(Region(0.4, 0.2, 0.1, 0.05, 0.004, 5.1, "scratch"),), image=_KEPT, retention="standard",
    original=_KEPT, area="0.1,0.2,0.5,0.5", width_px=640, height_px=480, stage_ms={"decode": 1.5},
    unit="u-1", position=RecordPosition("loupe.frames", 1, 2),
)  # fmt: skip
_OLD_INSPECTION = replace(_INSPECTION, retention="", original=None, area=None)
_LABEL = Label(
    entry_id=entry_id_of("caps", frame_id=_FRAME_ID, sha256=None), project="caps", labelled_at=AT,
    image=_KEPT, frame_id=_FRAME_ID, verdict=Verdict.ANOMALY, classes=("scratch",),
    boxes=(Box(0.1, 0.2, 0.3, 0.4, "scratch"),), masks=(Mask("scratch", _MASK),), author="ann",
)  # fmt: skip
_JSON_LABEL = Label(
    entry_id=entry_id_of("caps", frame_id=None, sha256=_SHA), project="caps", labelled_at=_RECORDED_AT,
    image=_KEPT, verdict=Verdict.NORMAL, author="bo",
)  # fmt: skip
_TRAINING = TrainingRequest("monday", "caps", AT, "ann", FitOptions(max_false_reject_ratio=0.05, seed=7))
_JSON_TRAINING = TrainingRequest(f"loupe.training-{PARTITION}-{OFFSET}", "caps", _RECORDED_AT)
# Its time is the record's own.
_TRIGGER = Trigger("cam-1", "T-991", _RECORDED_AT, "P-000123", "L-42")
_JSON_TRIGGER = Trigger("cam-1", f"loupe.triggers-{PARTITION}-{OFFSET}", _RECORDED_AT, "P-000123", "L-42")
_MODEL = ModelAnnouncement(
    "caps", "v20260506-070809-a1b2", "s3://loupe-models/caps/v20260506-070809-a1b2", _SHA, AT, "monday"
)
_CAPTURED = LedgerEntry(
    UUID(int=1), "cam-1", EntryKind.CAPTURED, AT, _EPOCH, (SequenceRange(0, 99), SequenceRange(120, 120))
)
_SHED = LedgerEntry(
    UUID(int=2), "cam-1", EntryKind.SHED, AT, _EPOCH, (), ShedReason.DEADLINE, (_FRAME_ID,), 0, (9,)
)
_SHED_BY_INGESTER = LedgerEntry(
    UUID(int=3), "cam-1", EntryKind.SHED, AT, _EPOCH, (SequenceRange(100, 119),), ShedReason.SAMPLED
)
_CHANGE = CameraChange(
    "line 3/cam 1", CameraState.SILENT, "No picture for 30 s.", AT, CameraState.RUNNING, "line-3"
)
_CLAIM = _frame(image=b"", dataref=_KEPT, original=None, area=None)
_OLD_FRAME = _frame(original=None, area=None)
_LETTER_OF = Record(
    "loupe.frames", 1, 7, b"cam-1", b"no image", (("content-type", b"image/png"),), TIMESTAMP_MS
)
_LETTER = DeadLetter(
    position=RecordPosition("loupe.frames", 1, 7), cause="UnreadableImage",
    reason="The 8 bytes are not an image.", tries=2, failed_at=AT, frame_id=str(_FRAME_ID), camera="cam-1",
    original=_LETTER_OF,
)  # fmt: skip


def _letter() -> OutRecord:
    return encode_dead_letter(
        _LETTER_OF, UnreadableImage(_LETTER.reason), tries=2, at=AT, frame_id=str(_FRAME_ID), camera="cam-1"
    )


def _value(decode: Callable[[bytes], object]) -> Callable[[Record], object]:
    return lambda record: decode(record.value)


def _json(record: Record) -> object:
    return json.loads(record.value)


def _told(record: OutRecord) -> object:
    return json.loads(record.value)


GOLDEN: tuple[Golden, ...] = (
    Golden("trigger.v1", _TRIGGER, decode_trigger, lambda: encode_trigger(_TRIGGER)),
    Golden("trigger-json.v1", _JSON_TRIGGER, decode_trigger),
    Golden("frame-bare.v1", _bare_frame(), decode_frame),
    Golden("frame.v1", _OLD_FRAME, decode_frame, lambda: encode_frame(_OLD_FRAME)),
    Golden("frame-claim.v1", _CLAIM, decode_frame, lambda: encode_frame(_CLAIM)),
    Golden("frame-original.v1", _frame(), decode_frame, lambda: encode_frame(_frame())),
    Golden(
        "inspection-before-retention.v1", _OLD_INSPECTION, _value(decode_inspection),
        lambda: encode_inspection(_OLD_INSPECTION),
    ),
    Golden("inspection.v1", _INSPECTION, _value(decode_inspection), lambda: encode_inspection(_INSPECTION)),
    Golden("event-anomaly.v1", _told(encode_event(_INSPECTION)), _json, lambda: encode_event(_INSPECTION)),
    Golden("event-camera.v1", _told(encode_camera_event(_CHANGE)), _json,
           lambda: encode_camera_event(_CHANGE)),
    Golden("label.v1", _LABEL, decode_label, lambda: encode_label(_LABEL)),
    Golden("label-json.v1", _JSON_LABEL, decode_label),
    Golden("training.v1", _TRAINING, decode_training_request, lambda: encode_training_request(_TRAINING)),
    Golden("training-json.v1", _JSON_TRAINING, decode_training_request),
    Golden("model.v1", _MODEL, _value(decode_announcement), lambda: encode_announcement(_MODEL)),
    Golden("ledger-captured.v1", _CAPTURED, _value(decode_ledger_entry),
           lambda: encode_ledger_entry(_CAPTURED)),
    Golden("ledger-shed-frames.v1", _SHED, _value(decode_ledger_entry), lambda: encode_ledger_entry(_SHED)),
    Golden("ledger-shed-ranges.v1", _SHED_BY_INGESTER, _value(decode_ledger_entry),
           lambda: encode_ledger_entry(_SHED_BY_INGESTER)),
    Golden("dead-letter.v1", _LETTER, decode_dead_letter, _letter),
)  # fmt: skip

# Records of other producers: what they wrote is not ours to write.
_FOREIGN: dict[str, OutRecord] = {
    "trigger-json.v1": OutRecord("loupe.triggers", b"cam-1", b'{"part_id": "P-000123", "lot_id": "L-42"}'),
    "frame-bare.v1": OutRecord("loupe.frames", b"cam-1", _IMAGE),
    "label-json.v1": OutRecord(
        "loupe.labels", b"caps",
        json.dumps({
            "project": "caps", "verdict": "normal", "author": "bo",
            "image": {"uri": _KEPT.uri, "sha256": _SHA, "size_bytes": 204800},
        }).encode(),
    ),
    "training-json.v1": OutRecord("loupe.training", None, b'{"project": "caps"}'),
}  # fmt: skip


def write_missing() -> None:
    """Write what is not there yet."""
    for one in GOLDEN:
        if (FOLDER / f"{one.name}.bin").exists():
            continue
        sent = one.written() if one.written is not None else _FOREIGN[one.name]
        about = {
            "topic": sent.topic,
            "key": sent.key.decode() if sent.key is not None else None,
            "headers": [[name, value.decode()] for name, value in sent.headers],
        }
        (FOLDER / f"{one.name}.bin").write_bytes(sent.value)
        (FOLDER / f"{one.name}.headers.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    write_missing()

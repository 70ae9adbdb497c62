"""Frame <-> Kafka record (the encoded image with CloudEvents headers) and <-> protobuf (arrow 1).

A record that is published a second time (`wire.redrive`) keeps its frame's id in `ce_loupeframeid`: a valid
UUID there is the id, whatever the other headers and the record's new place would make of it. That gives a
producer nothing that `ce_source` and `ce_id` do not: whoever may write the topic may name any frame, the
first verdict of an id counts, and the ledger's proof names two pictures under one id.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import quote, unquote
from uuid import UUID

from services.domain.errors import MalformedRecord
from services.domain.frame import (
    Frame,
    ImageReference,
    RecordPosition,
    frame_id_of,
    ingester_event_id,
    ingester_frame_id,
)
from services.domain.topics import FRAMES
from services.wire.gen.loupe.v1 import frame_pb2
from services.wire.headers import read_headers, read_number, read_time, write_headers
from services.wire.record import OutRecord, Record
from services.wire.times import from_timestamp, to_timestamp, to_uuid

FRAME_TYPE = "io.loupe.frame.v1"
UNNAMED_CAMERA = "unnamed"
# Percent-encoding can bring what no header may: PostgreSQL takes no NUL, and a terminal obeys the others.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# An area is four shares; what is longer is none, and the database has no room for it.
_LONGEST_AREA = 64


def encode_frame(frame: Frame) -> OutRecord:
    """Return the record that carries a frame of Loupe's own ingesters.

    `frame.epoch` and `frame.sequence` must be set: they make the CloudEvents id, and so the
    frame id that the reader derives.
    """
    if frame.epoch is None or frame.sequence is None:
        raise MalformedRecord("A frame to be published needs an epoch and a sequence.")
    reference, original = frame.dataref, frame.original
    headers = write_headers(
        event_type=FRAME_TYPE,
        source=quote(frame.camera, safe="/:-_."),
        event_id=ingester_event_id(frame.epoch, frame.sequence),
        time=frame.captured_at,
        content_type=frame.content_type,
        subject=quote(frame.subject, safe="/:-_. ") or None,
        extensions={
            "sequence": str(frame.sequence),
            "loupeepoch": frame.epoch,
            "loupeproject": frame.project,
            "partid": frame.part_id,
            "lotid": frame.lot_id,
            "traceparent": frame.traceparent,
            "dataref": reference.uri if reference else None,
            "datarefsha256": reference.sha256 if reference else None,
            "datarefsize": str(reference.size_bytes) if reference else None,
            "originalref": original.uri if original else None,
            "originalsha256": original.sha256 if original else None,
            "originalsize": str(original.size_bytes) if original else None,
            "area": frame.area,
        },
    )
    return OutRecord(FRAMES.name, frame.camera.encode(), frame.image, headers)


def decode_frame(record: Record) -> Frame:
    """Return the frame of any producer's record; every header is optional and may be garbage.

    Camera: `ce_source`, else the key, else "unnamed". Id: `ce_loupeframeid`, else see `frame_id_of`.
    Time: `ce_time`, else the record's. Epoch and sequence: only of a frame that they name as an ingester's.
    """
    found = read_headers(record.headers)
    camera = _unquoted(found.get("source", "")) or _text_of(record.key) or UNNAMED_CAMERA
    epoch, sequence = found.get("loupeepoch"), read_number(found.get("sequence"))
    frame_id = _uuid_of(found.get("loupeframeid")) or frame_id_of(
        source=camera,
        event_id=found.get("id"),
        camera=camera,
        epoch=epoch,
        sequence=sequence,
        position=record.position,
    )
    if epoch is None or sequence is None or frame_id != ingester_frame_id(camera, epoch, sequence):
        # The ledger counts by numbers: those of another frame must not end, or hide, an ingester's.
        epoch = sequence = None
    return Frame(
        frame_id=frame_id,
        camera=camera,
        captured_at=read_time(found.get("time")) or record.recorded_at,
        image=record.value or b"",
        content_type=found.get("content-type", "application/octet-stream"),
        subject=_unquoted(found.get("subject", "")),
        epoch=epoch,
        sequence=sequence,
        project=found.get("loupeproject"),
        part_id=found.get("partid"),
        lot_id=found.get("lotid"),
        traceparent=found.get("traceparent"),
        dataref=_reference_of(found, "dataref"),
        original=_reference_of(found, "original", "originalref"),
        area=area if (area := found.get("area")) and len(area) <= _LONGEST_AREA else None,
        position=record.position,
    )


def _unquoted(text: str) -> str:
    """Return percent-decoded text, or the text as it came where that would bring control characters."""
    plain = unquote(text)
    return text if _CONTROL.search(plain) else plain


def _uuid_of(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _text_of(key: bytes | None) -> str:
    """Return a record key as text; a key that is no text is shown in hex, so it stays one camera."""
    if not key:
        return ""
    try:
        text = key.decode("utf-8")
    except UnicodeDecodeError:
        return key.hex()[:128]
    return text[:256] if text.isprintable() else key.hex()[:128]


def _reference_of(found: dict[str, str], name: str, uri_name: str | None = None) -> ImageReference | None:
    uri = found.get(uri_name or name)
    if uri is None:
        return None
    size_bytes = read_number(found.get(f"{name}size")) or 0
    sha256 = found.get(f"{name}sha256", "").lower()
    return ImageReference(uri, sha256 if _SHA256.fullmatch(sha256) else "", size_bytes)


def to_reference(reference: ImageReference) -> frame_pb2.ImageReference:
    """Return the protobuf form of a reference."""
    return frame_pb2.ImageReference(
        uri=reference.uri, sha256=reference.sha256, size_bytes=reference.size_bytes
    )


def from_reference(message: frame_pb2.ImageReference) -> ImageReference:
    """Return the domain form of a reference."""
    return ImageReference(message.uri, message.sha256.lower(), message.size_bytes)


def to_position(position: RecordPosition) -> frame_pb2.RecordPosition:
    """Return the protobuf form of a position."""
    return frame_pb2.RecordPosition(
        topic=position.topic, partition=position.partition, offset=position.offset
    )


def from_position(message: frame_pb2.RecordPosition) -> RecordPosition:
    """Return the domain form of a position."""
    return RecordPosition(message.topic, message.partition, message.offset)


def to_message(frame: Frame) -> frame_pb2.Frame:
    """Return the protobuf form, for the way from stream to unit."""
    message = frame_pb2.Frame(
        frame_id=str(frame.frame_id),
        camera=frame.camera,
        captured_at=to_timestamp(frame.captured_at),
        image=frame.image,
        content_type=frame.content_type,
        subject=frame.subject,
        epoch=frame.epoch or "",
        sequence=frame.sequence,
        project=frame.project or "",
        part_id=frame.part_id or "",
        lot_id=frame.lot_id or "",
        traceparent=frame.traceparent or "",
        area=frame.area or "",
    )
    if frame.dataref is not None:
        message.dataref.CopyFrom(to_reference(frame.dataref))
    if frame.original is not None:
        message.original.CopyFrom(to_reference(frame.original))
    if frame.position is not None:
        message.position.CopyFrom(to_position(frame.position))
    return message


def from_message(message: frame_pb2.Frame) -> Frame:
    """Return the domain form.

    Raises:
        MalformedRecord: the frame id is no UUID or the time is none.
    """
    return Frame(
        frame_id=to_uuid(message.frame_id, "frame id"),
        camera=message.camera,
        captured_at=from_timestamp(message.captured_at),
        image=message.image,
        content_type=message.content_type,
        subject=message.subject,
        epoch=message.epoch or None,
        sequence=message.sequence if message.HasField("sequence") else None,
        project=message.project or None,
        part_id=message.part_id or None,
        lot_id=message.lot_id or None,
        traceparent=message.traceparent or None,
        dataref=from_reference(message.dataref) if message.HasField("dataref") else None,
        original=from_reference(message.original) if message.HasField("original") else None,
        area=message.area or None,
        position=from_position(message.position) if message.HasField("position") else None,
    )


def epoch_of(started_at: datetime) -> str:
    """Return the epoch text of an ingester run that started then."""
    return started_at.astimezone(UTC).isoformat(timespec="microseconds")

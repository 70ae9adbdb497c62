"""LedgerEntry <-> protobuf and Kafka record (arrow 8)."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from services.domain.errors import MalformedRecord
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.domain.topics import LEDGER
from services.wire.gen.loupe.v1 import ledger_pb2
from services.wire.headers import write_headers
from services.wire.inspection import PROTOBUF
from services.wire.record import OutRecord
from services.wire.times import from_timestamp, to_timestamp, to_uuid

LEDGER_TYPE = "io.loupe.ledger.v1"


def encode_ledger_entry(entry: LedgerEntry) -> OutRecord:
    """Return the record for `loupe.ledger`."""
    message = ledger_pb2.LedgerEntry(
        entry_id=str(entry.entry_id),
        camera=entry.camera,
        kind=entry.kind.value,
        declared_at=to_timestamp(entry.declared_at),
        epoch=entry.epoch,
        ranges=[ledger_pb2.SequenceRange(first=r.first, last=r.last) for r in entry.ranges],
        reason=entry.reason.value if entry.reason else "",
        frame_ids=[str(frame_id) for frame_id in entry.frame_ids],
        partition=entry.partition,
        offsets=entry.offsets,
    )
    headers = write_headers(
        event_type=LEDGER_TYPE,
        source="/ledger",
        event_id=str(entry.entry_id),
        time=entry.declared_at,
        content_type=PROTOBUF,
    )
    return OutRecord(LEDGER.name, entry.camera.encode(), message.SerializeToString(), headers)


def decode_ledger_entry(value: bytes) -> LedgerEntry:
    """Return the entry of a record's value.

    Raises:
        MalformedRecord: not this message, or a range that ends before it begins.
    """
    try:
        message = ledger_pb2.LedgerEntry.FromString(value)
    except DecodeError as error:
        raise MalformedRecord("The value is not a protobuf LedgerEntry.") from error
    if not message.camera or message.kind not in set(EntryKind):
        raise MalformedRecord("A ledger entry needs a camera and a kind (captured or shed).")
    if message.reason and message.reason not in set(ShedReason):
        raise MalformedRecord(f"The reason {message.reason!r} is none of {', '.join(ShedReason)}.")
    ranges = tuple(SequenceRange(r.first, r.last) for r in message.ranges)
    if any(r.first < 0 or r.last < r.first for r in ranges):
        raise MalformedRecord("A ledger range ends before it begins.")
    return LedgerEntry(
        entry_id=to_uuid(message.entry_id, "entry id"),
        camera=message.camera,
        kind=EntryKind(message.kind),
        declared_at=from_timestamp(message.declared_at),
        epoch=message.epoch,
        ranges=ranges,
        reason=ShedReason(message.reason) if message.reason else None,
        frame_ids=tuple(to_uuid(text, "frame id") for text in message.frame_ids),
        partition=message.partition if message.HasField("partition") else None,
        offsets=tuple(message.offsets),
    )

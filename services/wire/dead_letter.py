"""Dead letters: the original record, untouched, with the cause in extra headers (arrow x)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from services.domain.errors import LoupeError, MalformedRecord
from services.domain.frame import RecordPosition
from services.domain.topics import INLINE_LIMIT_BYTES
from services.wire.headers import read_number, read_texts, read_time
from services.wire.record import Headers, OutRecord, Record

_PREFIX = "dlq_"
# Header of a record that is published again; see `wire.redrive`.
TRIES = "ce_loupetry"
# Anyone may write that header, and the database counts with 32 bits.
_MOST_TRIES = 1_000_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be handled.

    Attributes:
        position: where the original stands.
        cause: error name, for example `UnreadableImage`.
        reason: plain sentence.
        tries: how often it was tried, tries before it was published again included.
        frame_id: id of the frame, for letters of `loupe.frames`; else empty.
        original: the original as a record (its headers without ours).
        is_whole: bytes and headers are here; else they were too large, and stand at `position` only.
    """

    position: RecordPosition
    cause: str
    reason: str
    tries: int
    failed_at: datetime
    frame_id: str
    camera: str
    original: Record
    is_whole: bool = True


def encode_dead_letter(
    record: Record, error: LoupeError, *, tries: int, at: datetime, frame_id: str = "", camera: str = ""
) -> OutRecord:
    """Return the record for `<topic>.dlq`: original key, bytes and headers, plus the cause."""
    extra = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp_ms": str(record.timestamp_ms),
        "cause": error.cause,
        "reason": error.message,
        "tries": str(tries + tries_before(record.headers)),
        "failed_at": at.isoformat(),
        "frame_id": frame_id,
        "camera": camera,
    }
    # Readers drop header values that are not printable. Ours come first, because readers take the first of
    # a name, and anyone may have called a header as we do.
    ours = tuple((_PREFIX + name, one_line(text).encode()) for name, text in extra.items())
    return OutRecord(f"{record.topic}.dlq", record.key, record.value, ours + record.headers)


def one_line(text: str) -> str:
    """Return a text as a letter's headers tell it: on one line, with single spaces."""
    return " ".join(text.split())


def cause_headers(letter: OutRecord | Record) -> Headers:
    """Return the headers of a dead letter that are not the original's."""
    return tuple((name, value) for name, value in letter.headers if name.startswith(_PREFIX))


def fitting_letter(letter: OutRecord) -> OutRecord:
    """Return a letter that fits: without the original's bytes where it is too large, nor its headers."""
    headers_bytes = sum(len(name) + len(value) for name, value in letter.headers)
    if len(letter.value) + headers_bytes <= INLINE_LIMIT_BYTES:
        return letter
    kept = letter.headers if headers_bytes <= INLINE_LIMIT_BYTES else cause_headers(letter)
    note = b"left out, too large for a dead letter; they stay where the original stands"
    return replace(letter, value=b"", headers=(*kept, (_PREFIX + "bytes", note)))


def decode_dead_letter(record: Record) -> DeadLetter:
    """Return the letter of a record of a dead-letter topic.

    Raises:
        MalformedRecord: the record does not say where its original stood.
    """
    found = {name.removeprefix(_PREFIX): text for name, text in read_texts(cause_headers(record)).items()}
    partition, offset = read_number(found.get("partition")), read_number(found.get("offset"))
    if "topic" not in found or partition is None or offset is None:
        raise MalformedRecord("A dead letter has to say where its original stood.")
    headers: Headers = tuple((n, v) for n, v in record.headers if not n.startswith(_PREFIX))
    stamp_ms = read_number(found.get("timestamp_ms")) or record.timestamp_ms
    original = Record(found["topic"], partition, offset, record.key, record.value, headers, stamp_ms)
    return DeadLetter(
        position=RecordPosition(found["topic"], partition, offset),
        cause=found.get("cause", "unknown"),
        reason=found.get("reason", ""),
        tries=read_number(found.get("tries")) or 1,
        failed_at=read_time(found.get("failed_at")) or record.recorded_at,
        frame_id=found.get("frame_id", ""),
        camera=found.get("camera", ""),
        original=original,
        is_whole="bytes" not in found,
    )


def tries_before(headers: Headers) -> int:
    """Return how often a record was tried before it was published again; 0 for one that never was."""
    return min(read_number(read_texts(headers).get(TRIES)) or 0, _MOST_TRIES)

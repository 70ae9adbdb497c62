"""Finds the pixels of a frame, wherever they are, and says why where there are none. Reads only.

In this order: kept by a verdict's route, in or behind its dead letter, still in its record of
`loupe.frames` or behind that record's claim check.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select

from services.adapters.broker.reader import TopicReader
from services.adapters.database import reading
from services.adapters.database.tables import frame_ends, inspections, ledger_shed, quarantine
from services.adapters.object_store import ObjectStore
from services.domain.errors import BrokerUnavailable, MalformedRecord, Rejected
from services.domain.frame import Frame, ImageReference
from services.domain.topics import FRAMES, FRAMES_DLQ
from services.results.rows import reference_of
from services.wire.dead_letter import decode_dead_letter
from services.wire.frame import decode_frame
from services.wire.record import Record


@dataclass(frozen=True, slots=True)
class Pixels:
    """What was found of a frame's pixels.

    Attributes:
        camera: whose frame it is; empty for one that nobody knows.
        ends: what became of it, in words, the most important first.
        image: the encoded bytes, verified where their hash is known; None: there are none.
        where: address in the object store, or `topic:partition:offset`.
        notes: why there are none, or not where one would look first.
    """

    frame_id: UUID
    camera: str = ""
    ends: tuple[str, ...] = ()
    image: bytes | None = None
    where: str = ""
    notes: tuple[str, ...] = ()

    @property
    def sha256(self) -> str | None:
        """Hex digest of the bytes."""
        return None if self.image is None else hashlib.sha256(self.image).hexdigest()


class PixelFinder:
    """Looks into database, object store and Kafka."""

    def __init__(self, engine: Engine, store: ObjectStore, open_reader: Callable[[], TopicReader]) -> None:
        """Open Kafka only for frames that need it."""
        self._engine, self._store, self._open_reader = engine, store, open_reader

    def find(self, frame_id: UUID, *, is_original: bool = False) -> Pixels:
        """Return a frame's pixels, or the whole picture that it was cropped or scaled down from.

        Raises:
            RetryLater: database or object store do not answer.
        """
        with reading(self._engine) as connection:
            known = _known(connection, frame_id)
        look = _Look("original" if is_original else "image")
        for row in known.verdicts:
            if self._kept_by(row, look):
                break
        if look.image is None:
            self._in_kafka(known, look)
        if not known.ends:
            look.notes.append(
                "Nobody knows this frame: no verdict, no dead letter, no declared drop, or not yet. What a "
                "camera let go before Kafka is declared by ranges: `loupe ledger --camera ID`."
            )
        notes = tuple(dict.fromkeys(look.notes))
        return Pixels(frame_id, known.camera, known.ends, look.image, look.where, notes)

    def _kept_by(self, row: Row[Any], look: _Look) -> bool:
        """Take what a verdict's route kept; note why there is nothing."""
        reference = reference_of(row._asdict(), look.kind)
        if reference is None:
            if look.kind == "original" and row.area is None:
                look.notes.append("The camera published the whole picture, so there is no other original.")
            else:
                look.notes.append(f"None kept: the route to {row.project} keeps no pixels of such a frame.")
            return False
        if row.image_deleted_at is not None:
            retention = row.retention or "standard"
            look.notes.append(
                f"Kept for {row.project}, and deleted {row.image_deleted_at:%Y-%m-%d %H:%M} UTC by retention "
                f"class {retention}."
            )
            return False
        return self._fetch(reference, look)

    def _in_kafka(self, known: _Known, look: _Look) -> None:
        """Take what the dead letter or the frame's own record holds or refers to."""
        if known.letter is None and known.record is None:
            return
        reader = self._open_reader()
        try:
            record = self._letter(reader, known, look) or self._frame(reader, known, look)
        except BrokerUnavailable as error:
            look.notes.append(f"Kafka could not be asked: {error.message}")
            return
        finally:
            reader.close()
        if record is None:
            return
        frame, where = record
        if look.kind == "original":
            if frame.original is not None:
                self._fetch(frame.original, look)
        elif frame.image:
            look.image, look.where = frame.image, where
        elif frame.dataref is not None:
            self._fetch(frame.dataref, look)
        else:
            look.notes.append("Its record is empty.")

    def _letter(self, reader: TopicReader, known: _Known, look: _Look) -> tuple[Frame, str] | None:
        if known.letter is None:
            return None
        partition, offset = known.letter
        record = _record_at(reader, FRAMES_DLQ.name, partition, offset)
        if record is None:
            look.notes.append("Its dead letter is no longer in Kafka.")
            return None
        try:
            frame = decode_frame(decode_dead_letter(record).original)
        except MalformedRecord as error:
            look.notes.append(f"Its dead letter cannot be read: {error.message}")
            return None
        # One too large for a dead letter left its bytes where the original stands.
        is_here = bool(frame.image or frame.dataref)
        return (frame, f"{FRAMES_DLQ.name}:{partition}:{offset}") if is_here else None

    def _frame(self, reader: TopicReader, known: _Known, look: _Look) -> tuple[Frame, str] | None:
        if known.record is None:
            return None
        partition, offset = known.record
        record = _record_at(reader, FRAMES.name, partition, offset)
        if record is None:
            days = FRAMES.retention_s / 86400
            look.notes.append(f"Its record is no longer in Kafka, which keeps frames for {days:g} days.")
            return None
        return decode_frame(record), f"{FRAMES.name}:{partition}:{offset}"

    def _fetch(self, reference: ImageReference, look: _Look) -> bool:
        try:
            look.image, look.where = self._store.get_image(reference), reference.uri
        except Rejected as error:
            look.notes.append(error.message)
            return False
        return True


@dataclass(slots=True)
class _Look:
    """One search: what for, and what came of it."""

    kind: str
    image: bytes | None = None
    where: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says of a frame; places are (partition, offset)."""

    camera: str
    verdicts: Sequence[Row[Any]]
    ends: tuple[str, ...]
    letter: tuple[int, int] | None
    record: tuple[int, int] | None


def _known(connection: Connection, frame_id: UUID) -> _Known:
    wanted = str(frame_id)
    # Those that count come before shadows.
    verdicts = connection.execute(
        select(inspections)
        .where(inspections.c.frame_id == wanted)
        .order_by(inspections.c.run != "", inspections.c.stored_at)
    ).all()
    letter = connection.execute(select(quarantine).where(quarantine.c.frame_id == wanted)).first()
    shed = connection.execute(select(ledger_shed).where(ledger_shed.c.frame_id == wanted)).first()
    # The key leads to topic and partition only, so this walks along all; a person waits for it, and an
    # index of random ids would cost every frame.
    place = connection.execute(select(frame_ends).where(frame_ends.c.frame_id == wanted)).first()
    ends = [_verdict(row) for row in verdicts]
    ends += [f"quarantined: {letter.cause}: {letter.reason}"] if letter else []
    ends += [f"let go: {shed.reason}"] if shed else []
    source = next((row for row in (*verdicts, letter, shed) if row), None)
    record = (place.partition, place.offset) if place else None
    if letter and record is None:
        record = (letter.partition, letter.offset)
    return _Known(
        camera=source.camera if source else "",
        verdicts=verdicts,
        ends=tuple(ends),
        letter=(letter.letter_partition, letter.letter_offset) if letter else None,
        record=record,
    )


def _verdict(row: Row[Any]) -> str:
    said = "anomalous" if row.is_anomalous else "normal"
    return f"{said} by {row.project} {row.model_version} ({row.role}), {row.judged_at:%Y-%m-%d %H:%M:%S} UTC"


def _record_at(reader: TopicReader, topic: str, partition: int, offset: int) -> Record | None:
    span = reader.spans(topic).get(partition, range(0))
    return next(iter(reader.records_at(topic, partition, [offset])), None) if offset in span else None

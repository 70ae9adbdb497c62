"""The ledger read: captured = judged + quarantined + shed per camera, and the name of each missing frame.

Counts come from the database by SQL. Only what has no end yet is looked at frame by frame: declared
ranges that are not known to be ended, and records of `loupe.frames` whose offset has no end. So memory
grows with what is missing, not with history. Writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Column, Connection, Engine, Table, and_, distinct, exists, func, select, union_all
from sqlalchemy.sql import ColumnElement

from services.adapters.broker.reader import TopicReader
from services.adapters.database import reading
from services.adapters.database.tables import (
    frame_ends,
    inspections,
    ledger_captured,
    ledger_shed,
    quarantine,
)
from services.domain.frame import ingester_frame_id
from services.domain.ledger import CameraBalance
from services.domain.topics import FRAMES
from services.wire.frame import decode_frame

T = TypeVar("T")

# Ids per query; below the number of parameters that any SQLite takes (three tables are asked at once).
_IDS_PER_QUERY = 500
# A re-judging run looks at a frame again; it is not how the frame ended.
_IS_END = inspections.c.run == ""


@dataclass(frozen=True, slots=True)
class OpenRange:
    """A declared range of frames, some of which may have no end yet."""

    entry_id: str
    number: int
    camera: str
    epoch: str
    first: int
    last: int

    @property
    def key(self) -> tuple[str, int]:
        """Primary key of its row."""
        return self.entry_id, self.number

    def frame_ids(self) -> Iterator[UUID]:
        """Yield the ids of its frames."""
        return (ingester_frame_id(self.camera, self.epoch, n) for n in range(self.first, self.last + 1))


def prove(engine: Engine, frames: TopicReader | None, camera: str | None = None) -> dict[str, CameraBalance]:
    """Return the balance of every camera, or of one, in distinct frames.

    Args:
        engine: the database.
        frames: Kafka; without it frames of foreign producers count only once they have an end.
        camera: only this one.

    A frame that was declared, or that stands in the topic, and has no end is missing; frames still on
    their way are missing too. A record that retention has deleted is known by declarations only.

    Raises:
        DatabaseUnavailable: no answer.
        BrokerUnavailable: no answer.
    """
    # Kafka's ends first: a frame that ends between the two looks is then seen as ended, not as missing.
    spans = frames.spans(FRAMES.name) if frames else {}
    missing: dict[str, set[UUID]] = defaultdict(set)
    with reading(engine) as connection:
        ended = _ended(connection, camera)
        for one in open_ranges(connection, camera):
            missing[one.camera].update(without_end(connection, one.frame_ids()))
        if frames:
            seen = _seen_without_end(connection, frames, spans)
            for frame_id, its_camera in seen:
                if camera in (None, its_camera):
                    missing[its_camera].add(frame_id)
    cameras = sorted({*ended, *(name for name, ids in missing.items() if ids), *([camera] if camera else [])})
    return {name: _balance(ended.get(name, {}), missing.get(name, set())) for name in cameras}


def _balance(ended: Mapping[str, int], missing: set[UUID]) -> CameraBalance:
    judged, quarantined, shed = (ended.get(end, 0) for end in ("judged", "quarantined", "shed"))
    captured = judged + quarantined + shed + len(missing)
    return CameraBalance(captured, judged, quarantined, shed, tuple(sorted(missing)))


def _ended(connection: Connection, camera: str | None) -> dict[str, dict[str, int]]:
    """Return per camera how many frames ended how; a frame with two ends counts at its strongest."""
    queries = {
        "judged": _count(inspections, distinct(inspections.c.frame_id), _IS_END),
        "quarantined": _count(quarantine, quarantine.c.frame_id, ~_is_judged(quarantine.c.frame_id)),
        "shed": _count(
            ledger_shed,
            ledger_shed.c.frame_id,
            ~_is_judged(ledger_shed.c.frame_id)
            & ~exists().where(quarantine.c.frame_id == ledger_shed.c.frame_id),
        ),
    }
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for end, (table, query) in queries.items():
        for name, count in connection.execute(_of_camera(query, table, camera)):
            found[name][end] = count
    return found


def _count(table: Table, what: Any, where: ColumnElement[bool]) -> tuple[Table, Any]:
    return table, select(table.c.camera, func.count(what)).where(where).group_by(table.c.camera)


def _is_judged(frame_id: Column[Any]) -> ColumnElement[bool]:
    return exists().where(and_(inspections.c.frame_id == frame_id, _IS_END))


def _of_camera(query: Any, table: Table, camera: str | None) -> Any:
    return query if camera is None else query.where(table.c.camera == camera)


def open_ranges(connection: Connection, camera: str | None = None) -> list[OpenRange]:
    """Return the declared ranges that are not known to be ended, oldest first."""
    table = ledger_captured.c
    columns = (table.entry_id, table.number, table.camera, table.epoch, table.first, table.last)
    query = select(*columns).where(~table.is_ended).order_by(table.declared_at)
    return [OpenRange(*row) for row in connection.execute(_of_camera(query, ledger_captured, camera))]


def without_end(connection: Connection, frame_ids: Iterable[UUID]) -> Iterator[UUID]:
    """Yield those that have neither verdict nor quarantine entry nor declared drop."""
    for chunk in in_chunks(frame_ids, _IDS_PER_QUERY):
        texts = [str(frame_id) for frame_id in chunk]
        query = union_all(
            select(inspections.c.frame_id).where(inspections.c.frame_id.in_(texts), _IS_END),
            select(quarantine.c.frame_id).where(quarantine.c.frame_id.in_(texts)),
            select(ledger_shed.c.frame_id).where(ledger_shed.c.frame_id.in_(texts)),
        )
        ended = {text for (text,) in connection.execute(query)}
        yield from (frame_id for frame_id, text in zip(chunk, texts, strict=True) if text not in ended)


def holes(connection: Connection, partition: int, span: range) -> list[range]:
    """Return the offsets of a partition of `loupe.frames` within `span` that have no end, as ranges."""
    if not span:
        return []
    offset = frame_ends.c.offset
    inside = select(offset, func.lag(offset, 1, span.start - 1).over(order_by=offset).label("before")).where(
        frame_ends.c.topic == FRAMES.name,
        frame_ends.c.partition == partition,
        offset >= span.start,
        offset < span.stop,
    )
    steps = inside.subquery()
    gaps = select(steps.c.before, steps.c.offset).where(steps.c.offset > steps.c.before + 1)
    found = [range(before + 1, after) for before, after in connection.execute(gaps.order_by(steps.c.offset))]
    last = connection.execute(select(func.max(steps.c.offset))).scalar()
    tail = range(span.start if last is None else last + 1, span.stop)
    return [*found, tail] if tail else found


def _seen_without_end(
    connection: Connection, frames: TopicReader, spans: Mapping[int, range]
) -> Iterator[tuple[UUID, str]]:
    """Yield id and camera of the frames in the topic that have no end.

    A second record of a frame needs no end of its own, so ids are asked for as well.
    """
    for partition, span in spans.items():
        offsets = (n for hole in holes(connection, partition, span) for n in hole)
        found = (decode_frame(record) for record in frames.records_at(FRAMES.name, partition, offsets))
        for chunk in in_chunks(((frame.frame_id, frame.camera) for frame in found), _IDS_PER_QUERY):
            cameras = dict(chunk)
            yield from ((frame_id, cameras[frame_id]) for frame_id in without_end(connection, cameras))


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk

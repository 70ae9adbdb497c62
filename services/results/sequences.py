"""Which of an ingester's frames have no end, as ranges of sequences per camera and epoch. Reads only.

All work is set arithmetic on ordered streams: declared ranges, the sequences that have a verdict, ranges
declared shed. Ids are computed only where a frame may have ended by its id alone (quarantined, or shed by
the stream), so a million judged frames cost one walk along an index and no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby, islice
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Column, Connection, Table, exists, func, or_, select, union_all
from sqlalchemy.sql import ColumnElement

from services.adapters.database.tables import (
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.frame import Frame, ingester_frame_id, ingester_frame_ids, sequences_among
from services.domain.inspection import Role
from services.domain.ranges import clusters, in_runs, merged, shared, without
from services.results.store import FRAMES_PER_ROW

T = TypeVar("T")

# What a live or canary model says of a frame is its end. Shadows and re-judging runs look at it again.
IS_END = (inspections.c.run == "") & inspections.c.role.in_((Role.LIVE.value, Role.CANARY.value))
# Rows that are held at once; a page is looked at with one query.
_ROWS_PER_PAGE = 10_000
# Declared ranges so far apart are looked at apart: what lies between them is not read.
_FAR_FRAMES = 10_000
# Ids per query; below the number of parameters that any SQLite takes (three tables are asked at once).
_IDS_PER_QUERY = 500
# So many ids are fetched instead: asking for every frame of a long stretch takes several times longer.
_FEW_IDS = 10_000
_BY_ID: tuple[tuple[Table, ColumnElement[bool] | None], ...] = (
    (quarantine, None), (ledger_shed, None), (inspections, IS_END),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stretch:
    """One row of declared sequences; `why` is the reason of a shed one."""

    entry_id: str
    number: int
    sequences: range
    why: str
    declared_at: datetime

    @property
    def key(self) -> tuple[str, int]:
        """Primary key of its row."""
        return self.entry_id, self.number


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of one camera and epoch, in order of their first sequence.

    Attributes:
        told_to: rows of earlier pages reach to here; below it nothing of this page is new.
    """

    camera: str
    epoch: str
    stretches: list[Stretch]
    told_to: int

    def new(self) -> Iterator[tuple[Stretch, range]]:
        """Yield each row with those of its sequences that no row before it told of."""
        told_to = self.told_to
        for one in self.stretches:
            if found := range(max(one.sequences.start, told_to), one.sequences.stop):
                yield one, found
            told_to = max(told_to, one.sequences.stop)

    def again(self) -> Iterator[tuple[Stretch, range]]:
        """Yield each row with those of its sequences that a row before it told of."""
        told_to = self.told_to
        for one in self.stretches:
            if found := range(one.sequences.start, min(told_to, one.sequences.stop)):
                yield one, found
            told_to = max(told_to, one.sequences.stop)


def pages_of(connection: Connection, table: Table, *where: ColumnElement[bool]) -> Iterator[Page]:
    """Yield the rows of `ledger_captured` or `ledger_shed_ranges`, camera by camera, epoch by epoch."""
    of = table.c
    why = of.reason if table is ledger_shed_ranges else of.entry_id
    columns = (of.camera, of.epoch, of.entry_id, of.number, of.first, of.last, of.declared_at)
    query = select(*columns, why.label("why"))
    ordered = query.where(*where).order_by(of.camera, of.epoch, of.first)
    told: tuple[str, str, int] = ("", "", 0)
    for rows in connection.execute(ordered, execution_options={"yield_per": _ROWS_PER_PAGE}).partitions():
        for (camera, epoch), group in groupby(rows, key=lambda row: (row.camera, row.epoch)):
            told_to = told[2] if told[:2] == (camera, epoch) else 0
            stretches = [
                Stretch(r.entry_id, r.number, range(r.first, r.last + 1), r.why, r.declared_at) for r in group
            ]
            yield Page(camera, epoch, stretches, told_to)
            told = camera, epoch, max(told_to, *(one.sequences.stop for one in stretches))


def without_end(
    connection: Connection, camera: str, epoch: str, sequences: Iterable[range]
) -> Iterator[range]:
    """Yield those that have neither a verdict nor a quarantine entry and were not declared shed.

    Args:
        connection: a snapshot.
        camera: whose frames.
        epoch: of which run.
        sequences: rising, not overlapping.
    """
    for together in clusters(sequences, gap=_FAR_FRAMES, most=_ROWS_PER_PAGE):
        unjudged = without_verdict(connection, camera, epoch, together)
        first = next(unjudged, None)
        if first is not None:
            span = range(first.start, together[-1].stop)
            left = without(chain([first], unjudged), shed_ranges(connection, camera, epoch, span))
            yield from merged(_without_end_by_id(connection, camera, epoch, left))


def without_verdict(
    connection: Connection, camera: str, epoch: str, sequences: Iterable[range]
) -> Iterator[range]:
    """Yield those that no model judged."""
    ours = (inspections.c.camera == camera, inspections.c.epoch == epoch, IS_END)
    for together in clusters(sequences, gap=_FAR_FRAMES, most=_ROWS_PER_PAGE):
        span = range(together[0].start, together[-1].stop)
        yield from shared(together, holes(connection, inspections.c.sequence, span, *ours))


def shed_ranges(connection: Connection, camera: str, epoch: str, span: range) -> Iterator[range]:
    """Yield what an ingester declared shed of these sequences, merged."""
    of = ledger_shed_ranges.c
    near = of.first.between(span.start - FRAMES_PER_ROW, span.stop - 1)
    query = select(of.first, of.last).where(of.camera == camera, of.epoch == epoch, near)
    rows = connection.execute(
        query.where(of.last >= span.start).order_by(of.first),
        execution_options={"yield_per": _ROWS_PER_PAGE},
    )
    return merged(range(first, last + 1) for first, last in rows)


def shed_by_reason(connection: Connection, page: Page) -> Iterator[tuple[str, int]]:
    """Yield reason and number of a page's shed frames that came to no other end.

    Frames that the stream shed as well are left out, too: it counts them by their ids.
    """
    by_reason: dict[str, list[range]] = {}
    for one, new in page.new():
        by_reason.setdefault(one.why, []).append(new)
    for why, ranges in by_reason.items():
        unjudged = without_verdict(connection, page.camera, page.epoch, ranges)
        yield why, sum(map(len, _without_end_by_id(connection, page.camera, page.epoch, unjudged)))


def _without_end_by_id(
    connection: Connection, camera: str, epoch: str, sequences: Iterable[range]
) -> Iterator[range]:
    """Yield those whose ids no table knows that may know them."""
    known: set[UUID] | None = None
    for one in sequences:
        if known is None:
            tables = _ended_by_id(connection, camera, epoch)
            known = _few_ids(connection, camera, tables)
        if not tables:
            yield one
        elif len(known) <= _FEW_IDS:
            yield from without([one], in_runs(sequences_among(known, camera, epoch, one)))
        else:
            yield from _asked_by_id(connection, camera, epoch, one, tables)


def _asked_by_id(
    connection: Connection, camera: str, epoch: str, sequences: range, tables: list[Table]
) -> Iterator[range]:
    for numbers in in_chunks(sequences, _IDS_PER_QUERY):
        by_id = dict(zip(ingester_frame_ids(camera, epoch, numbers), numbers, strict=True))
        yield from in_runs(by_id[frame_id] for frame_id in ids_without_end(connection, by_id, tables))


def _few_ids(connection: Connection, camera: str, tables: list[Table]) -> set[UUID]:
    """Return the ids of a camera's frames in these tables, or some more than `_FEW_IDS` of them."""
    found: set[UUID] = set()
    for table, where in _BY_ID:
        if table in tables:
            query = select(table.c.frame_id).where(table.c.camera == camera)
            limited = (query if where is None else query.where(where)).limit(_FEW_IDS + 1)
            found.update(UUID(text) for text in connection.execute(limited).scalars())
    return found


def _ended_by_id(connection: Connection, camera: str, epoch: str) -> list[Table]:
    """Return the tables with ends of this camera that tell no sequence."""
    # Two questions, each a place in the index: as one with OR it reads every verdict of the camera.
    judged = inspections.c
    unnumbered = or_(
        exists().where(judged.camera == camera, judged.epoch.is_(None)),
        exists().where(judged.camera == camera, judged.epoch == epoch, judged.sequence.is_(None)),
    )
    asked = (
        exists().where(quarantine.c.camera == camera),
        exists().where(ledger_shed.c.camera == camera),
        unnumbered,
    )
    found = connection.execute(select(*asked)).one()
    return [table for (table, _), is_there in zip(_BY_ID, found, strict=True) if is_there]


def ids_without_end(
    connection: Connection, frame_ids: Iterable[UUID], tables: Iterable[Table] | None = None
) -> Iterator[UUID]:
    """Yield those that have neither verdict nor quarantine entry nor were shed by the stream.

    Args:
        connection: a snapshot.
        frame_ids: any number of them.
        tables: which tables to ask; None: all three.
    """
    asked = [(table, where) for table, where in _BY_ID if tables is None or table in tables]
    for chunk in in_chunks(frame_ids, _IDS_PER_QUERY):
        texts = [str(frame_id) for frame_id in chunk]
        queries = []
        for table, where in asked:
            query = select(table.c.frame_id).where(table.c.frame_id.in_(texts))
            queries.append(query if where is None else query.where(where))
        ended = {text for (text,) in connection.execute(union_all(*queries))}
        yield from (frame_id for frame_id, text in zip(chunk, texts, strict=True) if text not in ended)


def is_declared(connection: Connection, frame: Frame, where: Iterable[ColumnElement[bool]] = ()) -> bool:
    """Tell whether an ingester declared this frame: captured, in a row that meets the conditions, or shed."""
    camera, epoch, sequence = frame.camera, frame.epoch, frame.sequence
    if epoch is None or sequence is None or ingester_frame_id(camera, epoch, sequence) != frame.frame_id:
        return False
    asked = []
    for table, conditions in ((ledger_captured, where), (ledger_shed_ranges, ())):
        of = table.c
        near = of.first.between(sequence - FRAMES_PER_ROW, sequence)
        rows = exists().where(of.camera == camera, of.epoch == epoch, near, of.last >= sequence, *conditions)
        asked.append(rows)
    return bool(connection.execute(select(or_(*asked))).scalar())


def holes(
    connection: Connection, number: Column[Any], span: range, *where: ColumnElement[bool]
) -> Iterator[range]:
    """Yield which numbers of `span` a column lacks, in order. Only the edges leave the database."""
    if not span:
        return
    inside = (*where, number >= span.start, number < span.stop)
    before = func.lag(number, 1, span.start - 1).over(order_by=number)
    steps = select(number.label("at"), before.label("before")).where(*inside).subquery()
    edges = select(steps.c.before, steps.c.at).where(steps.c.at > steps.c.before + 1).order_by(steps.c.at)
    for low, high in connection.execute(edges, execution_options={"yield_per": _ROWS_PER_PAGE}):
        yield range(low + 1, high)
    last = connection.execute(select(func.max(number)).where(*inside)).scalar()
    if tail := range(span.start if last is None else last + 1, span.stop):
        yield tail


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items."""
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk

"""The ledger read: captured = judged + quarantined + shed per camera, and the name of each missing frame.

Counts come from the database by SQL. Only what has no end yet is looked at: declared ranges that are not
known to be ended, and records of `loupe.frames` whose offset has no end. Memory grows with neither history
nor what is missing: names are kept of the first, the rest is counted. Writes nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Engine, Table, and_, exists, func, select
from sqlalchemy.sql import ColumnElement

from services.adapters.broker.reader import TopicReader
from services.adapters.database import reading
from services.adapters.database.tables import (
    frame_ends,
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.frame import Frame, frame_id_of, ingester_frame_ids
from services.domain.inspection import Role
from services.domain.ledger import CameraBalance
from services.domain.ranges import merged
from services.domain.topics import FRAMES, Topic
from services.results.sequences import (
    IS_END,
    holes,
    ids_without_end,
    in_chunks,
    is_declared,
    pages_of,
    shed_by_reason,
    without_end,
)
from services.wire.frame import decode_frame

# Missing frames that a balance names, per camera; above it they are counted.
MOST_NAMED = 10_000
_FRAMES_AT_ONCE = 500


class Scope:
    """Which frames are asked for: those of one camera, those since a moment, or all.

    "Since" is the moment of capture for judged frames, of the declaration for declared and shed ones, of
    the failure for quarantined ones, and the record's own time in `loupe.frames` for all others. Whether
    a frame that is asked for has an end is looked up whenever that end came.
    """

    def __init__(self, camera: str | None = None, since: datetime | None = None) -> None:
        """Ask for all frames, or fewer."""
        self.camera, self.since = camera, since

    def of(self, table: Table, time: Column[Any]) -> list[ColumnElement[bool]]:
        """Return the conditions that a table's rows have to meet."""
        conditions = [] if self.camera is None else [table.c.camera == self.camera]
        return conditions if self.since is None else [*conditions, time >= self.since]

    def of_captured(self) -> list[ColumnElement[bool]]:
        """Return those of declared ranges."""
        return self.of(ledger_captured, ledger_captured.c.declared_at)

    def spans(self, reader: TopicReader, topic: Topic = FRAMES) -> dict[int, range]:
        """Return the offsets of a topic that are asked for, by the records' own time."""
        spans = reader.spans(topic.name)
        starts = reader.offsets_at(topic.name, self.since) if self.since else {}
        return {one: range(max(starts.get(one, 0), span.start), span.stop) for one, span in spans.items()}


class Missing:
    """Frames without end of one camera: the first by name, all by number."""

    def __init__(self) -> None:
        """Miss nothing."""
        self.named: list[UUID] = []
        self.count = 0

    def add(self, frame_ids: Iterator[UUID], count: int) -> None:
        """Note so many frames."""
        self.count += count
        self.named.extend(islice(frame_ids, MOST_NAMED - len(self.named)))


def prove(
    engine: Engine, frames: TopicReader | None, camera: str | None = None, since: datetime | None = None
) -> dict[str, CameraBalance]:
    """Return the balance of every camera, or of one, in distinct frames.

    Args:
        engine: the database.
        frames: Kafka; without it frames of foreign producers count only once they have an end.
        camera: only this one.
        since: only frames since then; see `Scope`.

    A frame that was declared, or that stands in the topic, and has no end is missing; frames still on
    their way are missing too. A record that retention has deleted is known by declarations only.

    Raises:
        DatabaseUnavailable: no answer.
        BrokerUnavailable: no answer.
    """
    scope = Scope(camera, since)
    # Kafka's ends first: a frame that ends between the two looks is then seen as ended, not as missing.
    spans = scope.spans(frames) if frames else {}
    with reading(engine) as connection:
        return balances(connection, frames, spans, scope, [~ledger_captured.c.is_ended])


def balances(
    connection: Connection,
    frames: TopicReader | None,
    spans: Mapping[int, range],
    scope: Scope,
    where: Sequence[ColumnElement[bool]] = (),
    tell: Callable[[str, str, range], None] | None = None,
    tell_undeclared: Callable[[Frame], None] | None = None,
) -> dict[str, CameraBalance]:
    """Return the balance of every camera from one snapshot.

    Args:
        connection: a snapshot, taken after `spans`.
        frames: Kafka, or none.
        spans: offsets of `loupe.frames` to look at, per partition.
        scope: which frames.
        where: which declared ranges to look at; none: all.
        tell: hears of sequences without end: camera, epoch, which.
        tell_undeclared: hears of frames in the topic without end that no declaration tells of.
    """
    declared = [*where, *scope.of_captured()]
    missing: dict[str, Missing] = defaultdict(Missing)
    judged, quarantined, shed = ended(connection, scope)
    for page in pages_of(connection, ledger_captured, *declared):
        new = merged(one for _, one in page.new())
        for one in without_end(connection, page.camera, page.epoch, new):
            missing[page.camera].add(ingester_frame_ids(page.camera, page.epoch, one), len(one))
            if tell:
                tell(page.camera, page.epoch, one)
    if frames:
        for frame in undeclared_without_end(connection, frames, spans, scope.camera, declared):
            missing[frame.camera].add(iter([frame.frame_id]), 1)
            if tell_undeclared:
                tell_undeclared(frame)
    lacking = {name for name, one in missing.items() if one.count}
    cameras = sorted({*judged, *quarantined, *shed, *lacking, *([scope.camera] if scope.camera else [])})
    return {
        name: balance(judged[name], quarantined[name], shed.get(name, {}), missing[name]) for name in cameras
    }


def balance(judged: int, quarantined: int, shed: Mapping[str, int], missing: Missing) -> CameraBalance:
    """Return one camera's balance."""
    shed_count = sum(shed.values())
    return CameraBalance(
        captured=judged + quarantined + shed_count + missing.count,
        judged=judged,
        quarantined=quarantined,
        shed=shed_count,
        missing=tuple(sorted(missing.named)),
        unnamed=missing.count - len(missing.named),
        shed_by_reason=dict(sorted(shed.items())),
    )


def ended(connection: Connection, scope: Scope) -> tuple[Counter[str], Counter[str], dict[str, Counter[str]]]:
    """Return per camera how many frames were judged, quarantined, and shed by reason.

    A frame with two ends counts at its strongest: judged before quarantined before shed.
    """
    put_off, let_go = quarantine.c, ledger_shed.c
    query = select(put_off.camera, func.count()).where(
        ~_is_judged(put_off.frame_id), *scope.of(quarantine, put_off.failed_at)
    )
    quarantined: Counter[str] = Counter()
    for camera, count in connection.execute(query.group_by(put_off.camera)):
        quarantined[camera] += count
    shed: dict[str, Counter[str]] = defaultdict(Counter)
    by_stream = select(let_go.camera, let_go.reason, func.count()).where(
        ~_is_judged(let_go.frame_id),
        ~exists().where(put_off.frame_id == let_go.frame_id),
        *scope.of(ledger_shed, let_go.declared_at),
    )
    for camera, why, count in connection.execute(by_stream.group_by(let_go.camera, let_go.reason)):
        shed[camera][why] += count
    since = scope.of(ledger_shed_ranges, ledger_shed_ranges.c.declared_at)
    for page in pages_of(connection, ledger_shed_ranges, *since):
        for why, count in shed_by_reason(connection, page):
            if count:
                shed[page.camera][why] += count
    return _judged(connection, scope), quarantined, shed


def _judged(connection: Connection, scope: Scope) -> Counter[str]:
    """Return how many frames a live or a canary model judged; one that both judged counts once."""
    of, live = inspections.c, inspections.alias("live")
    since = scope.of(inspections, of.captured_at)
    counts: Counter[str] = Counter()
    has_canary = False
    query = select(of.camera, of.role, func.count()).where(IS_END, *since).group_by(of.camera, of.role)
    for camera, role, count in connection.execute(query):
        counts[camera] += count
        has_canary |= role == Role.CANARY
    if has_canary:
        both = exists().where(live.c.frame_id == of.frame_id, live.c.role == Role.LIVE, live.c.run == "")
        twice = select(of.camera, func.count()).where(of.role == Role.CANARY, of.run == "", both, *since)
        for camera, count in connection.execute(twice.group_by(of.camera)):
            counts[camera] -= count
    return counts


def _is_judged(frame_id: Column[Any]) -> ColumnElement[bool]:
    return exists().where(and_(inspections.c.frame_id == frame_id, IS_END))


def offsets_without_end(connection: Connection, partition: int, span: range) -> Iterator[range]:
    """Yield the offsets of a partition of `loupe.frames` within `span` that have no end, as ranges."""
    of = frame_ends.c
    return holes(connection, of.offset, span, of.topic == FRAMES.name, of.partition == partition)


def undeclared_without_end(
    connection: Connection,
    frames: TopicReader,
    spans: Mapping[int, range],
    camera: str | None,
    declared: Sequence[ColumnElement[bool]],
) -> Iterator[Frame]:
    """Yield the frames in the topic that have no end, without their images.

    A second record of a frame needs no end of its own, so ids are asked for as well.

    Args:
        connection: a snapshot, taken after `spans`.
        frames: Kafka.
        spans: offsets per partition.
        camera: only this one.
        declared: which declared ranges are looked at anyhow; frames in them are left out here.
    """
    seen: set[UUID] = set()
    for partition, span in spans.items():
        offsets = (n for hole in offsets_without_end(connection, partition, span) for n in hole)
        found = (bare(decode_frame(one)) for one in frames.records_at(FRAMES.name, partition, offsets))
        for chunk in in_chunks((one for one in found if camera in (None, one.camera)), _FRAMES_AT_ONCE):
            by_id = {one.frame_id: one for one in chunk}
            for frame_id in ids_without_end(connection, by_id):
                one = by_id[frame_id]
                if frame_id not in seen and not is_declared(connection, one, declared):
                    # An id that comes from the record's place cannot come again.
                    if not has_id_of_its_place(one):
                        seen.add(frame_id)
                    yield one


def bare(frame: Frame) -> Frame:
    """Return what names a frame, without its image."""
    return Frame(
        frame.frame_id,
        frame.camera,
        frame.captured_at,
        b"",
        epoch=frame.epoch,
        sequence=frame.sequence,
        position=frame.position,
    )


def has_id_of_its_place(frame: Frame) -> bool:
    """Tell whether a frame is named by where its record stands, because its producer named it by nothing."""
    at_place = frame_id_of(
        source=None, event_id=None, camera="", epoch=None, sequence=None, position=frame.position
    )
    return frame.frame_id == at_place

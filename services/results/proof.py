"""The ledger's proof: everything recomputed from the sources, nothing taken from a counter. Reads only.

Which check compares what stands in `CHECKS`. A check that finds a frame without end, a record without its
row or a row without its picture is wrong, and names each; what is odd and explained (a frame recorded
twice, a frame that ended twice) is noted and named, and does no harm: frames are counted once each.

Findings go to a file as they come, so memory holds neither history nor what is wrong with it.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import IO, Protocol

from sqlalchemy import Connection, Engine, func, select

from services.adapters.broker.reader import TopicReader
from services.adapters.database import reading
from services.adapters.database.tables import frame_ends, ledger_captured, ledger_shed_ranges
from services.domain.frame import Frame, ingester_frame_ids
from services.domain.ledger import CameraBalance, all_balanced
from services.domain.ranges import merged, without
from services.domain.topics import FRAMES
from services.results.ledger import Scope, balances
from services.results.sequences import pages_of, without_verdict
from services.wire.frame import decode_frame

# Sequences that follow each other are named frame by frame up to here, and beyond by the first and the last.
_NAMED_ONE_BY_ONE = 1000
# Frames recorded more than once whose records are read and compared; reading brings the pictures along.
_COMPARED_REPEATS = 1000
_REPEATS_AT_ONCE = 500

CHECKS: Mapping[str, str] = {
    "equation": "every declared frame has an end: captured = judged + quarantined + shed",
    "frames": "every record kept in loupe.frames has an end, foreign producers' too",
    "declared once": "no sequence is declared captured by two entries",
    "one end": "no frame that an ingester declared shed was judged after all",
    "one picture": "records with one frame id hold the same bytes",
    "ledger": "every entry kept in loupe.ledger has its rows",
    "verdicts": "every record kept in loupe.inspections has its row",
    "quarantine": "every letter kept in loupe.frames.dlq has its row",
    "pictures": "every picture that a row refers to is in the object store",
}


# What names a frame, a record or a picture.
Facts = Mapping[str, object]


class Progress(Protocol):
    """Hears how far the proof has come."""

    def __call__(self, check: str, done: int, total: int) -> None:
        """Take note; called often."""


@dataclass
class Check:
    """What one check looked at and found.

    Attributes:
        looked_at: how many frames, records or pictures.
        wrong: how many of them are not as they must be.
        noted: how many are odd, with an explanation.
        told: what else a reader should know.
    """

    name: str
    looked_at: int = 0
    wrong: int = 0
    noted: int = 0
    told: str = ""


def _open_file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


@dataclass
class Proof:
    """What the proof found. `findings` reads them back; `close` lets go of their file."""

    balances: dict[str, CameraBalance] = field(default_factory=dict)
    checks: dict[str, Check] = field(default_factory=dict)
    _file: IO[str] = field(default_factory=_open_file)

    @property
    def is_proved(self) -> bool:
        """Tell whether the equation holds and nothing is wrong."""
        return all_balanced(self.balances) and not any(one.wrong for one in self.checks.values())

    def check(self, name: str) -> Check:
        """Return a check, begun."""
        return self.checks.setdefault(name, Check(name))

    def wrong(self, check: str, finding: str, facts: Facts, *, frames: int = 1) -> None:
        """Name something that must not be."""
        self.check(check).wrong += frames
        self._write(check, finding, facts, is_wrong=True)

    def note(self, check: str, finding: str, facts: Facts, *, frames: int = 1) -> None:
        """Name something odd that is explained."""
        self.check(check).noted += frames
        self._write(check, finding, facts, is_wrong=False)

    def _write(self, check: str, finding: str, facts: Facts, *, is_wrong: bool) -> None:
        line = {"check": check, "finding": finding, "is_wrong": is_wrong, **facts}
        self._file.write(json.dumps(line) + "\n")

    def findings(self) -> Iterator[dict[str, object]]:
        """Yield everything named, in order of discovery."""
        self._file.seek(0)
        for line in self._file:
            found: dict[str, object] = json.loads(line)
            yield found

    def close(self) -> None:
        """Forget the findings."""
        self._file.close()


def silent(check: str, done: int, total: int) -> None:
    """Hear nothing of the progress."""


def prove_sequences(
    engine: Engine, frames: TopicReader | None, scope: Scope, proof: Proof, progress: Progress = silent
) -> None:
    """Hold declarations and `loupe.frames` against verdicts, quarantine and sheds.

    Raises:
        DatabaseUnavailable: no answer.
        BrokerUnavailable: no answer.
    """
    spans = scope.spans(frames) if frames else {}
    with reading(engine) as connection:
        progress("equation", 0, 1)
        _equation(connection, frames, spans, scope, proof)
        progress("equation", 1, 1)
        _declared_once(connection, scope, proof)
        _one_end(connection, scope, proof)
        if frames:
            _beyond_the_topic(connection, frames, proof)
            progress("one picture", 0, 1)
            _one_picture(connection, frames, spans, scope, proof)
            progress("one picture", 1, 1)


def _equation(
    connection: Connection,
    frames: TopicReader | None,
    spans: Mapping[int, range],
    scope: Scope,
    proof: Proof,
) -> None:
    def missing(camera: str, epoch: str, sequences: range) -> None:
        for count, facts in _named(camera, epoch, sequences):
            proof.wrong("equation", "missing", facts, frames=count)

    def undeclared(frame: Frame) -> None:
        proof.wrong("frames", "missing", _facts_of(frame))

    found = balances(connection, frames, spans, scope, (), missing, undeclared)
    proof.balances = found
    proof.check("equation").looked_at = sum(one.captured for one in found.values())
    if frames:
        proof.check("frames").looked_at = sum(map(len, spans.values()))


def _named(camera: str, epoch: str, sequences: range) -> Iterator[tuple[int, Facts]]:
    """Yield number and facts that name these frames: one by one, or a long stretch by its ends."""
    where: dict[str, object] = {"camera": camera, "epoch": epoch}
    if len(sequences) > _NAMED_ONE_BY_ONE:
        ends = {"first": sequences.start, "last": sequences.stop - 1}
        ids = [str(one) for one in ingester_frame_ids(camera, epoch, (sequences.start, sequences.stop - 1))]
        yield len(sequences), {**where, **ends, "first_id": ids[0], "last_id": ids[1]}
        return
    ids_of_each = ingester_frame_ids(camera, epoch, sequences)
    for sequence, frame_id in zip(sequences, ids_of_each, strict=True):
        yield 1, {**where, "sequence": sequence, "frame_id": str(frame_id)}


def _facts_of(frame: Frame) -> Facts:
    at = frame.position
    facts = {"camera": frame.camera, "frame_id": str(frame.frame_id)}
    if at:
        facts["record"] = f"{at.topic}:{at.partition}:{at.offset}"
    if frame.epoch is None or frame.sequence is None:
        return facts
    return {**facts, "epoch": frame.epoch, "sequence": frame.sequence}


def _declared_once(connection: Connection, scope: Scope, proof: Proof) -> None:
    """Note what two entries declared. One of them may repeat the other after a crash: it counts once."""
    check = proof.check("declared once")
    for page in pages_of(connection, ledger_captured, *scope.of_captured()):
        check.looked_at += sum(len(one.sequences) for one in page.stretches)
        for one, again in page.again():
            for count, facts in _named(page.camera, page.epoch, again):
                proof.note("declared once", "doubled", {**facts, "entry_id": one.entry_id}, frames=count)


def _one_end(connection: Connection, scope: Scope, proof: Proof) -> None:
    """Note frames declared shed that were judged: the broker had them, its acknowledgement was lost."""
    check = proof.check("one end")
    since = scope.of(ledger_shed_ranges, ledger_shed_ranges.c.declared_at)
    for page in pages_of(connection, ledger_shed_ranges, *since):
        shed = list(merged(one for _, one in page.new()))
        check.looked_at += sum(map(len, shed))
        if not shed:
            continue
        unjudged = without_verdict(connection, page.camera, page.epoch, shed)
        for both in without(shed, unjudged):
            for count, facts in _named(page.camera, page.epoch, both):
                proof.note("one end", "shed and judged", facts, frames=count)


def _beyond_the_topic(connection: Connection, frames: TopicReader, proof: Proof) -> None:
    """Find ends of other records than the topic has: it was made anew, and offsets began again.

    Then either the last end is of a record to come, or the first one is of a frame that stands elsewhere.
    """
    # Asked after the snapshot was taken, so that every end that it knows of is within.
    spans = frames.spans(FRAMES.name)
    of = frame_ends.c
    query = select(of.partition, func.max(of.offset)).where(of.topic == FRAMES.name).group_by(of.partition)
    for partition, last in connection.execute(query):
        span = spans.get(partition, range(0))
        at = last if last >= span.stop else _first_of_another(connection, frames, partition, span)
        if at is not None:
            facts = {"record": f"{FRAMES.name}:{partition}:{at}"}
            proof.wrong("frames", "the topic is younger than its ledger", facts)


def _first_of_another(connection: Connection, frames: TopicReader, partition: int, span: range) -> int | None:
    """Return the first offset with an end if its record is another frame's; None if all is well."""
    of = frame_ends.c
    ours = (of.topic == FRAMES.name, of.partition == partition, of.offset.between(span.start, span.stop - 1))
    query = select(of.offset, of.frame_id).where(*ours).order_by(of.offset).limit(1)
    for offset, frame_id in connection.execute(query):
        for record in frames.records_at(FRAMES.name, partition, [offset]):
            if str(decode_frame(record).frame_id) != frame_id:
                return int(offset)
    return None


def _one_picture(
    connection: Connection, frames: TopicReader, spans: Mapping[int, range], scope: Scope, proof: Proof
) -> None:
    """Note frames recorded more than once; two pictures under one id are wrong: only one was judged."""
    check = proof.check("one picture")
    of = frame_ends.c
    kept = [of.topic == FRAMES.name, *([] if scope.camera is None else [of.camera == scope.camera])]
    check.looked_at = connection.execute(select(func.count()).where(*kept)).scalar_one()
    again = select(of.frame_id).where(*kept).group_by(of.frame_id).having(func.count() > 1)
    rows = connection.execute(again, execution_options={"yield_per": _REPEATS_AT_ONCE})
    for chunk in rows.scalars().partitions():
        is_compared = check.noted + check.wrong < _COMPARED_REPEATS
        pictures = _pictures_of(connection, frames, spans, list(chunk)) if is_compared else {}
        for frame_id in chunk:
            if len(pictures.get(frame_id, ())) > 1:
                proof.wrong("one picture", "two pictures under one id", {"frame_id": frame_id})
            else:
                proof.note("one picture", "recorded again", {"frame_id": frame_id})
    if check.noted + check.wrong > _COMPARED_REPEATS:
        check.told = f"the bytes of the first {_COMPARED_REPEATS} were compared"


def _pictures_of(
    connection: Connection, frames: TopicReader, spans: Mapping[int, range], frame_ids: list[str]
) -> dict[str, set[str]]:
    """Return the hashes of the pictures that stand in the topic under each of these ids."""
    of = frame_ends.c
    query = select(of.partition, of.offset).where(of.topic == FRAMES.name, of.frame_id.in_(frame_ids))
    offsets: dict[int, list[int]] = defaultdict(list)
    for partition, offset in connection.execute(query.order_by(of.partition, of.offset)):
        if offset in spans.get(partition, ()):
            offsets[partition].append(offset)
    found: dict[str, set[str]] = defaultdict(set)
    for partition, places in offsets.items():
        for record in frames.records_at(FRAMES.name, partition, places):
            frame = decode_frame(record)
            told = frame.dataref.sha256 if frame.dataref else sha256(frame.image).hexdigest()
            found[str(frame.frame_id)].add(told)
    return found

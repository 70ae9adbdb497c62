"""The ledger's proof finds exactly what is planted, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, delete, func, select, update

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import FakeClock
from services.adapters.database import reading, writing
from services.adapters.database.tables import inspections, ledger_captured, ledger_shed_ranges, quarantine
from services.adapters.object_store import ObjectStore
from services.adapters.object_store.store import FRAMES_BUCKET, memory_store
from services.domain.errors import HashMismatch
from services.domain.frame import Frame
from services.domain.inspection import Inspection, Role
from services.domain.ledger import LedgerEntry
from services.domain.topics import FRAMES
from services.results.batch import read_dead_letter, read_inspection, read_ledger_entry, sort_out
from services.results.ledger import Scope, prove
from services.results.proof import Proof, prove_sequences
from services.results.proof_objects import prove_pictures
from services.results.proof_topics import prove_topics
from services.results.store import FRAMES_PER_ROW, Store
from services.wire.dead_letter import encode_dead_letter
from services.wire.frame import decode_frame
from services.wire.inspection import encode_inspection
from services.wire.ledger import encode_ledger_entry
from services.wire.record import OutRecord, Record
from tests.unit.results.builders import (
    EPOCH,
    START,
    captured,
    frame,
    letter,
    publish,
    publish_bare,
    shed_by_stream,
    shed_range,
    verdict,
)


class Line:
    """A line whose records stand in Kafka and whose rows in the database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.broker = MemoryBroker(partitions=1)
        self.objects: ObjectStore = memory_store()
        self.store = Store(engine, FakeClock(START + timedelta(seconds=100)))

    def declare(self, *entries: LedgerEntry) -> None:
        self.store.add_declared(
            sort_out(self._send(*map(encode_ledger_entry, entries)), read_ledger_entry)[0]
        )

    def judge(self, *verdicts: Inspection) -> None:
        self.store.add_inspections(
            sort_out(self._send(*map(encode_inspection, verdicts)), read_inspection)[0]
        )

    def put_off(self, *frames: Frame) -> None:
        self.store.add_quarantined(sort_out(self._send(*map(letter, frames)), read_dead_letter)[0])

    def _send(self, *outs: OutRecord) -> Sequence[Record]:
        before = len(self.broker.records(outs[0].topic))
        for out in outs:
            self.broker.append(out)
        return self.broker.records(outs[0].topic)[before:]

    def proof(self, scope: Scope | None = None, *, every_hash: bool = False) -> Proof:
        proof, reader = Proof(), MemoryTopicReader(self.broker)
        asked = scope or Scope()
        prove_sequences(self.engine, reader, asked, proof)
        prove_topics(self.engine, reader, asked, proof)
        prove_pictures(self.engine, self.objects, asked, proof, every_hash=every_hash)
        return proof


@pytest.fixture
def line(engine: Engine) -> Line:
    return Line(engine)


def named(proof: Proof, check: str) -> list[tuple[object, ...]]:
    """Return finding, frame id (or first and last), of a check."""
    return [
        (one["finding"], one.get("frame_id") or (one.get("first"), one.get("last")))
        for one in proof.findings()
        if one["check"] == check
    ]


def test_a_line_in_order_is_proved(line: Line) -> None:
    seen = publish(line.broker, *(frame(n) for n in range(6)))
    foreign = publish_bare(line.broker, "foreign")
    image = line.objects.put_image(FRAMES_BUCKET, b"pixels")
    line.declare(captured(0, 9), shed_range(6, 9), shed_by_stream(seen[5]))
    line.judge(*(verdict(one, image=image) for one in seen[:4]), verdict(foreign))
    line.put_off(seen[4])
    proof = line.proof(every_hash=True)
    assert list(proof.findings()) == []
    assert proof.is_proved
    found = proof.balances["cam-1"]
    assert (found.captured, found.judged, found.quarantined, found.shed) == (10, 4, 1, 5)
    assert found.shed_by_reason == {"broker-unavailable": 4, "no-route": 1}
    looked_at = {name: one.looked_at for name, one in proof.checks.items()}
    assert looked_at == {
        "equation": 11, "frames": 7, "declared once": 10, "one end": 4, "one picture": 7,
        "ledger": 3, "verdicts": 5, "quarantine": 1, "pictures": 1,
    }  # fmt: skip


def test_missing_frames_are_named_by_sequence_and_by_offset(line: Line) -> None:
    seen = publish(line.broker, *(frame(n) for n in range(4)))
    lost = publish_bare(line.broker, "foreign")
    line.declare(captured(0, 3))
    line.judge(*(verdict(one) for one in (seen[0], seen[3])))
    proof = line.proof()
    assert not proof.is_proved
    assert named(proof, "equation") == [("missing", str(frame(n).frame_id)) for n in (1, 2)]
    assert named(proof, "frames") == [("missing", str(lost.frame_id))]
    (of_foreign,) = [one for one in proof.findings() if one["check"] == "frames"]
    assert of_foreign["record"] == f"loupe.frames:0:{lost.position.offset if lost.position else None}"


def test_a_flag_that_says_all_ended_is_not_believed(line: Line) -> None:
    line.declare(captured(0, 1))
    line.judge(verdict(frame(0)))
    with writing(line.engine) as connection:
        connection.execute(update(ledger_captured).values(is_ended=True))
    assert prove(line.engine, None)["cam-1"].is_balanced
    assert named(line.proof(), "equation") == [("missing", str(frame(1).frame_id))]


def test_a_long_stretch_is_named_by_its_ends(line: Line) -> None:
    line.declare(captured(0, 4999))
    proof = line.proof()
    assert named(proof, "equation") == [("missing", (0, 4999))]
    assert proof.checks["equation"].wrong == 5000
    assert proof.balances["cam-1"].missing_count == 5000


def test_what_is_odd_and_explained_is_noted(line: Line) -> None:
    first, again = publish(line.broker, frame(1), frame(1))
    line.declare(captured(0, 4), captured(3, 6, name="other"), shed_range(2, 6))
    line.judge(*(verdict(of) for of in (frame(0), first, again, frame(2))))
    proof = line.proof()
    assert proof.is_proved
    assert named(proof, "declared once") == [("doubled", str(frame(n).frame_id)) for n in (3, 4)]
    assert named(proof, "one end") == [("shed and judged", str(frame(2).frame_id))]
    assert named(proof, "one picture") == [("recorded again", str(frame(1).frame_id))]
    assert proof.balances["cam-1"].captured == 7


def test_two_pictures_under_one_id_are_wrong(line: Line) -> None:
    first, again = publish(line.broker, frame(1), replace(frame(1), image=b"another picture"))
    line.judge(verdict(first), verdict(again))
    proof = line.proof()
    assert named(proof, "one picture") == [("two pictures under one id", str(frame(1).frame_id))]
    assert not proof.is_proved


def test_rows_that_records_lack_are_named(line: Line) -> None:
    seen = publish(line.broker, *(frame(n) for n in range(3)))
    line.declare(captured(0, 2), shed_range(7, 9))
    line.judge(verdict(seen[0]), verdict(seen[1]))
    line.put_off(seen[2])
    with writing(line.engine) as connection:
        connection.execute(delete(inspections).where(inspections.c.sequence == 1))
        connection.execute(delete(quarantine))
        connection.execute(delete(ledger_shed_ranges))
    proof = line.proof()
    assert named(proof, "verdicts") == [("judged but not stored", str(frame(1).frame_id))]
    assert named(proof, "quarantine") == [("quarantined but not stored", str(frame(2).frame_id))]
    assert named(proof, "ledger") == [("declared but not stored", (7, 9))]
    assert [one for _, one in named(proof, "equation")] == [str(frame(n).frame_id) for n in (1, 2)]


def test_a_verdict_that_came_again_is_noted(line: Line) -> None:
    (of,) = publish(line.broker, frame(0))
    line.judge(verdict(of))
    line.judge(verdict(of, judged_at=START + timedelta(hours=1), model_version="v2"))
    proof = line.proof()
    assert named(proof, "verdicts") == [("judged again", str(of.frame_id))]
    assert proof.is_proved


def test_pictures_are_looked_for_and_read(line: Line) -> None:
    kept, gone, other, deleted = (line.objects.put_image(FRAMES_BUCKET, b"%d" % n) for n in range(4))
    line.judge(*(verdict(frame(n), image=image) for n, image in enumerate((kept, gone, other, deleted))))
    line.objects.delete(gone.uri)
    line.objects.delete(deleted.uri)
    line.objects.put(other.uri, b"!")
    with writing(line.engine) as connection:
        mine = inspections.c.image_sha256 == deleted.sha256
        connection.execute(update(inspections).where(mine).values(image_deleted_at=START))
    proof = line.proof(every_hash=True)
    assert sorted(named(proof, "pictures")) == [
        ("other bytes than its hash tells", str(frame(2).frame_id)),
        ("picture missing", str(frame(1).frame_id)),
    ]
    assert proof.checks["pictures"].told == "2 read and hashed; 1 deleted by policy"


def test_a_picture_that_somebody_laid_elsewhere_is_asked_for(line: Line) -> None:
    line.objects.put("s3://loupe-frames/mine/a.jpg", b"a")
    image = replace(line.objects.put_image(FRAMES_BUCKET, b"a"), uri="s3://loupe-frames/mine/a.jpg")
    lost = replace(image, uri="s3://loupe-frames/mine/b.jpg")
    line.judge(verdict(frame(0), image=image), verdict(frame(1), image=lost))
    assert named(line.proof(), "pictures") == [("picture missing", str(frame(1).frame_id))]


def test_a_topic_made_anew_is_noticed(line: Line) -> None:
    (of,) = publish(line.broker, frame(0))
    line.judge(verdict(of))
    line.broker = MemoryBroker(partitions=1)
    assert [one for one, _ in named(line.proof(), "frames")] == ["the topic is younger than its ledger"]


def test_a_topic_made_anew_is_noticed_when_it_has_outgrown_the_old_one(line: Line) -> None:
    (of,) = publish(line.broker, frame(0))
    line.judge(verdict(of))
    line.broker = MemoryBroker(partitions=1)
    publish(line.broker, *(frame(n) for n in range(5, 9)))
    found = [one for one in line.proof().findings() if one["finding"] != "missing"]
    assert [(one["finding"], one["record"]) for one in found] == [
        ("the topic is younger than its ledger", "loupe.frames:0:0")
    ]


def test_only_one_camera_and_only_since(line: Line) -> None:
    later = START + timedelta(hours=1)
    line.declare(captured(0, 1), captured(0, 1, camera="cam-2"), replace(captured(2, 3), declared_at=later))
    line.judge(verdict(frame(0)), verdict(frame(2)))
    assert named(line.proof(Scope("cam-1")), "equation") == [
        ("missing", str(frame(n).frame_id)) for n in (1, 3)
    ]
    found = prove(line.engine, None, "cam-1", since=later)["cam-1"]
    # Frame 2 was captured before, and declared since: it has an end, so nothing but frame 3 is missing.
    assert found.missing == (frame(3).frame_id,)


def test_a_shadow_is_no_end_and_a_canary_is(line: Line) -> None:
    line.declare(captured(0, 2))
    line.judge(
        verdict(frame(0), role=Role.SHADOW, run="shadow:other"),
        verdict(frame(1), role=Role.CANARY),
        verdict(frame(2)),
        verdict(frame(2), role=Role.CANARY),
    )
    found = prove(line.engine, None)["cam-1"]
    assert (found.judged, found.missing) == (2, (frame(0).frame_id,))


def test_millions_shed_at_once_are_some_rows(line: Line) -> None:
    line.declare(shed_range(0, 999_999), captured(0, 999_999))
    line.judge(verdict(frame(7)))
    line.put_off(publish(line.broker, frame(9))[0])
    found = line.proof().balances["cam-1"]
    assert (found.captured, found.judged, found.quarantined, found.shed) == (1_000_000, 1, 1, 999_998)
    with reading(line.engine) as connection:
        rows = connection.execute(select(func.count()).select_from(ledger_shed_ranges)).scalar_one()
    assert rows == 1_000_000 // FRAMES_PER_ROW


def test_ranges_shed_for_two_reasons_count_once(line: Line) -> None:
    line.declare(shed_range(0, 9), replace(shed_range(5, 14), reason=None))
    found = prove(line.engine, None)["cam-1"]
    assert found.shed_by_reason == {"broker-unavailable": 10, "unknown": 5}
    assert (found.captured, found.shed) == (15, 15)


def publish_with(line: Line, headers: dict[str, str], image: bytes = b"theirs", key: str = "cam-1") -> Frame:
    """Publish as a producer that writes some headers."""
    named = tuple((name, text.encode()) for name, text in headers.items())
    line.broker.append(OutRecord(FRAMES.name, key.encode(), image, named))
    return decode_frame(line.broker.records(FRAMES.name)[-1])


@pytest.mark.parametrize("named_by", [{}, {"ce_id": "7"}, {"ce_loupeframeid": str(UUID(int=7))}])
def test_a_frame_with_the_numbers_of_another_ends_nobody_elses(line: Line, named_by: dict[str, str]) -> None:
    numbers = {"ce_source": "cam-1", "ce_sequence": "1", "ce_loupeepoch": EPOCH}
    theirs = publish_with(line, {**numbers, **named_by})
    assert theirs.frame_id != frame(1).frame_id
    seen = publish(line.broker, frame(0))
    line.declare(captured(0, 1))
    line.judge(verdict(theirs), verdict(seen[0]))
    proof = line.proof()
    assert named(proof, "equation") == [("missing", str(frame(1).frame_id))]
    found = proof.balances["cam-1"]
    assert (found.captured, found.judged, found.missing) == (3, 2, (frame(1).frame_id,))


@pytest.mark.parametrize("end", ["judged", "quarantined", "shed", "none"])
def test_a_producer_that_counts_but_declares_nothing_is_accounted_for(line: Line, end: str) -> None:
    of = publish_with(line, {"ce_source": "cam-1", "ce_sequence": "1", "ce_loupeepoch": EPOCH})
    if end == "judged":
        line.judge(verdict(of))
    elif end == "quarantined":
        line.put_off(of)
    elif end == "shed":
        line.declare(shed_by_stream(of))
    proof = line.proof()
    assert proof.balances["cam-1"].captured == 1
    assert proof.is_proved == (end != "none")
    assert named(proof, "frames") == ([("missing", str(of.frame_id))] if end == "none" else [])


@pytest.mark.parametrize("header", ["ce_source", "ce_subject", "ce_area", "ce_originalsha256", "ce_partid"])
@pytest.mark.parametrize("text", ["x" * 1024, "a%00b%1f%0a", "ü" * 511])
def test_every_end_of_a_frame_with_odd_headers_can_be_stored(line: Line, header: str, text: str) -> None:
    claim = {"ce_originalref": "s3://theirs/a.jpg", "ce_dataref": "s3://theirs/b.jpg"}
    judged = publish_with(line, {**claim, "ce_datarefsha256": text, header: text}, b"")
    refused = publish_with(line, {**claim, "ce_datarefsha256": text, header: text}, b"")
    told = {"subject": judged.subject, "part_id": judged.part_id, "area": judged.area}
    line.judge(verdict(judged, **told, original=judged.original))
    record = line.broker.records(FRAMES.name)[-1]
    error = HashMismatch("no")
    about = {"frame_id": str(refused.frame_id), "camera": refused.camera}
    (at,) = line._send(encode_dead_letter(record, error, tries=1, at=START, **about))
    line.store.add_quarantined(sort_out([at], read_dead_letter)[0])
    proof = line.proof()
    assert [one for one in proof.findings() if one["check"] != "pictures"] == []
    (found,) = proof.balances.values()
    assert (found.captured, found.judged, found.quarantined) == (2, 1, 1)


def test_a_producer_that_invents_tries_is_quarantined_all_the_same(line: Line) -> None:
    of = publish_with(line, {"ce_loupetry": str(1 << 40)})
    record = line.broker.records(FRAMES.name)[-1]
    about = {"frame_id": str(of.frame_id), "camera": of.camera}
    (at,) = line._send(encode_dead_letter(record, HashMismatch("no"), tries=1, at=START, **about))
    line.store.add_quarantined(sort_out([at], read_dead_letter)[0])
    assert line.proof().balances["cam-1"].quarantined == 1


def test_the_first_of_two_frames_under_one_id_is_judged_and_the_other_is_named(line: Line) -> None:
    line.declare(captured(0, 0))
    theirs = publish_with(line, {"ce_source": "spoof", "ce_loupeframeid": str(frame(0).frame_id)})
    (ours,) = publish(line.broker, frame(0))
    line.judge(verdict(theirs), verdict(ours))
    proof = line.proof()
    assert named(proof, "one picture") == [("two pictures under one id", str(ours.frame_id))]
    assert not proof.is_proved
    assert sum(one.judged for one in proof.balances.values()) == 1


@pytest.mark.parametrize("camera", ["a  b", " a", "a/ü%20+", "'; --", "%", "a_b", "hall\u00a0 2", "10%0Ab"])
def test_cameras_with_odd_names_balance(line: Line, camera: str) -> None:
    seen = publish(line.broker, *(frame(n, camera) for n in range(3)))
    line.declare(captured(0, 4, camera), shed_range(3, 3, camera))
    line.judge(verdict(seen[0]))
    line.put_off(seen[1])
    proof = line.proof(Scope(camera))
    found = proof.balances[camera]
    assert set(proof.balances) == {camera}
    assert (found.captured, found.judged, found.quarantined, found.shed) == (5, 1, 1, 1)
    assert found.missing == tuple(sorted(frame(n, camera).frame_id for n in (2, 4)))


def test_ends_that_come_while_the_proof_begins_are_no_sign_of_another_topic(line: Line) -> None:
    class Reader(MemoryTopicReader):
        def spans(self, topic: str) -> dict[int, range]:
            found = super().spans(topic)
            if topic == FRAMES.name and not line.broker.records(FRAMES.name):
                (of,) = publish(line.broker, frame(0))
                line.judge(verdict(of))
            return found

    proof = Proof()
    prove_sequences(line.engine, Reader(line.broker), Scope(), proof)
    assert list(proof.findings()) == []


def test_a_frame_that_was_declared_shed_and_stands_in_the_topic_counts_once(line: Line) -> None:
    publish(line.broker, frame(1))
    line.declare(captured(0, 1), shed_range(1, 1))
    line.judge(verdict(frame(0)))
    with writing(line.engine) as connection:
        connection.execute(update(ledger_captured).values(is_ended=True))
    quick = prove(line.engine, MemoryTopicReader(line.broker))
    for found in (quick["cam-1"], line.proof().balances["cam-1"]):
        assert (found.captured, found.judged, found.shed, found.missing) == (2, 1, 1, ())


def test_epochs_are_counted_apart(line: Line) -> None:
    other = replace(captured(0, 2, name="other"), epoch="2026-01-02T00:00:00.000000+00:00")
    line.declare(captured(0, 2), other, shed_range(1, 2))
    line.judge(verdict(frame(0)))
    proof = line.proof()
    found = proof.balances["cam-1"]
    assert (found.captured, found.judged, found.shed, found.missing_count) == (6, 1, 2, 3)
    assert {one["epoch"] for one in proof.findings()} == {other.epoch}

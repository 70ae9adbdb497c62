"""Inspections, ledger entries, labels, requests and announcements to bytes and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.domain.errors import MalformedRecord, UnreadableImage
from services.domain.frame import ImageReference, RecordPosition
from services.domain.inspection import Inspection, Region
from services.domain.label import Box, Label, Mask, Verdict, entry_id_of
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.domain.model_version import FitOptions, ModelAnnouncement, TrainingRequest
from services.wire.batch import Rejection, decode_outcomes, encode_outcomes
from services.wire.dead_letter import decode_dead_letter, encode_dead_letter
from services.wire.event import ANOMALY_TYPE, VERDICT_TYPE, encode_event
from services.wire.inspection import decode_inspection, encode_inspection
from services.wire.label import decode_label, encode_label
from services.wire.ledger import decode_ledger_entry, encode_ledger_entry
from services.wire.model import decode_announcement, encode_announcement
from services.wire.record import OutRecord, Record
from services.wire.training import decode_training_request, encode_training_request

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
FRAME_ID = UUID(int=77)
IMAGE = ImageReference("s3://loupe-frames/sha256/ab/abcd", "abcd", 321)


def arrived(sent: OutRecord) -> Record:
    return Record(sent.topic, 0, 5, sent.key, sent.value, sent.headers, int(NOW.timestamp() * 1000))


def bare(text: str) -> Record:
    return Record("loupe.labels", 0, 5, None, text.encode(), (), int(NOW.timestamp() * 1000))


def inspection(*, is_anomalous: bool = True) -> Inspection:
    return Inspection(
        frame_id=FRAME_ID,
        camera="c",
        project="p",
        model_version="v1",
        captured_at=NOW,
        judged_at=NOW,
        is_anomalous=is_anomalous,
        confidence=0.75,
        score=3.5,
        threshold=2.5,
        epoch="e",
        sequence=0,
        regions=(Region(0.1, 0.2, 0.3, 0.4, 0.05, 7.5),),
        image=IMAGE,
        width_px=640,
        height_px=480,
        stage_ms={"decode": 1.5},
        unit="u",
        position=RecordPosition("loupe.frames", 1, 2),
    )


def test_an_inspection_survives_protobuf() -> None:
    assert decode_inspection(encode_inspection(inspection()).value) == inspection()


@pytest.mark.parametrize("value", [b"\xff\xff", b"", b"\x0a\x03abc"])
def test_a_record_that_is_no_inspection_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode_inspection(value)


def test_outcomes_keep_their_order() -> None:
    outcomes = (inspection(), Rejection("UnreadableImage", "0 bytes."), inspection(is_anomalous=False))
    assert decode_outcomes(encode_outcomes(outcomes)) == outcomes


def test_an_event_is_readable_json_with_an_id_that_does_not_change() -> None:
    first, second = (json.loads(encode_event(inspection()).value) for _ in range(2))
    assert first == second
    assert first["specversion"] == "1.0"
    assert first["type"] == ANOMALY_TYPE
    assert first["data"]["score"] == 3.5
    assert first["data"]["frame_id"] == str(FRAME_ID)
    normal = json.loads(encode_event(inspection(is_anomalous=False)).value)
    assert normal["type"] == VERDICT_TYPE


def test_a_ledger_entry_survives_protobuf() -> None:
    entry = LedgerEntry(
        entry_id=UUID(int=1),
        camera="c",
        kind=EntryKind.SHED,
        declared_at=NOW,
        epoch="e",
        ranges=(SequenceRange(0, 4),),
        reason=ShedReason.NO_ROUTE,
        frame_ids=(FRAME_ID,),
        partition=0,
        offsets=(9,),
    )
    assert decode_ledger_entry(encode_ledger_entry(entry).value) == entry


def test_a_ledger_range_that_ends_before_it_begins_is_refused() -> None:
    entry = LedgerEntry(UUID(int=1), "c", EntryKind.CAPTURED, NOW, "e", (SequenceRange(4, 3),))
    with pytest.raises(MalformedRecord, match="before it begins"):
        decode_ledger_entry(encode_ledger_entry(entry).value)


def test_a_label_survives_protobuf() -> None:
    label = Label(
        entry_id=entry_id_of("p", frame_id=FRAME_ID, sha256=None),
        project="p",
        labelled_at=NOW,
        image=IMAGE,
        frame_id=FRAME_ID,
        verdict=Verdict.ANOMALY,
        classes=("scratch",),
        boxes=(Box(0.1, 0.2, 0.3, 0.4, "scratch"),),
        masks=(Mask("scratch", IMAGE),),
        author="ann",
    )
    assert decode_label(arrived(encode_label(label))) == label


def test_a_label_may_be_json_without_any_header() -> None:
    text = json.dumps({"project": "p", "frame_id": str(FRAME_ID), "verdict": "normal", "author": "bo"})
    label = decode_label(bare(text))
    assert (label.verdict, label.author, label.labelled_at) == (Verdict.NORMAL, "bo", NOW)
    assert label.entry_id == entry_id_of("p", frame_id=FRAME_ID, sha256=None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "not a JSON Label"),
        ('{"verdict": "normal"}', "needs a project"),
        ('{"project": "p"}', "needs a frame_id"),
        ('{"project": "p", "frame_id": "7"}', "not a UUID"),
        (f'{{"project": "p", "frame_id": "{FRAME_ID}", "verdict": "good"}}', "neither normal nor anomaly"),
        (f'{{"project": "p", "frame_id": "{FRAME_ID}", "image": {{"uri": "s3://b/k"}}}}', "uri and sha256"),
        (f'{{"project": "p", "frame_id": "{FRAME_ID}", "author": "{"a" * 257}"}}', "at most 256 printable"),
        (f'{{"project": "p", "frame_id": "{FRAME_ID}", "author": "a\\u0000"}}', "at most 256 printable"),
    ],
)
def test_a_label_that_makes_no_sense_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(MalformedRecord, match=sentence):
        decode_label(bare(text))


def test_a_training_request_survives_protobuf_and_may_be_json() -> None:
    request = TrainingRequest(
        "t1",
        "p",
        NOW,
        author="ann",
        options=FitOptions(
            0.05, 10.0, ("memory", "aligned"), is_thorough=True, tiles=2, seed=3, holds_out=True
        ),
        trigger="nightly",
        is_update=True,
    )
    assert decode_training_request(arrived(encode_training_request(request))) == request
    assert decode_training_request(bare('{"project": "p"}')).training_id == "loupe.labels-0-5"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ('"max_false_reject_ratio": 2', "between 0 and 1"),
        ('"max_false_reject_ratio": "NaN"', "between 0 and 1"),
        ('"budget_ms": "NaN"', "budget is nan ms"),
        ('"budget_ms": -1', "budget is -1.0 ms"),
        ('"tiles": 2000000000', "give 1 to 4"),
        ('"tiles": -1', "give 1 to 4"),
        ('"seed": -1', "has to be 0 or more"),
        ('"training_id": "a\\u0000"', "printable characters"),
        ('"families": ["memory\\u0000"]', "printable characters"),
    ],
)
def test_a_training_request_that_makes_no_sense_is_refused(field: str, sentence: str) -> None:
    with pytest.raises(MalformedRecord, match=sentence):
        decode_training_request(bare(f'{{"project": "p", {field}}}'))


def test_an_announcement_survives_protobuf() -> None:
    said = ModelAnnouncement("p", "v1", "s3://loupe-models/p/v1", "ab", NOW, "t1")
    assert decode_announcement(encode_announcement(said).value) == said


def test_a_dead_letter_keeps_the_original_and_says_why() -> None:
    original = Record("loupe.frames", 2, 8, b"cam", b"\x00not an image", (("ce_id", b"x"),), 1234)
    error = UnreadableImage("The bytes are not an image.\nFirst byte: 0.")
    letter = decode_dead_letter(
        arrived(encode_dead_letter(original, error, tries=1, at=NOW, frame_id=str(FRAME_ID), camera="cam"))
    )
    assert letter.original == original
    assert (letter.cause, letter.tries, letter.camera) == ("UnreadableImage", 1, "cam")
    assert letter.reason == "The bytes are not an image. First byte: 0."

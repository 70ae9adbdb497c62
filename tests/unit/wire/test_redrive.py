"""A record that is published again is the same frame, wherever it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from services.domain.errors import UnknownProject, UnreadableImage
from services.domain.frame import Frame, ingester_frame_id
from services.wire.dead_letter import DeadLetter, decode_dead_letter, encode_dead_letter
from services.wire.frame import decode_frame, encode_frame
from services.wire.headers import read_texts
from services.wire.record import Headers, OutRecord, Record
from services.wire.redrive import encode_redrive

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = "2026-01-01T00:00:00.000000+00:00"


def at(out: OutRecord, offset: int, partition: int = 0) -> Record:
    return Record(out.topic, partition, offset, out.key, out.value, out.headers, 1_767_225_600_000 + offset)


def letter_of(record: Record, tries: int = 3) -> DeadLetter:
    frame = decode_frame(record)
    letter = encode_dead_letter(
        record,
        UnknownProject("None."),
        tries=tries,
        at=NOW,
        frame_id=str(frame.frame_id),
        camera=frame.camera,
    )
    return decode_dead_letter(at(letter, 0))


def bare(headers: Headers = ()) -> Record:
    return Record("loupe.frames", 2, 77, b"cam", b"pixels", headers, 1_767_225_600_000)


def test_a_bare_record_keeps_id_and_time_that_came_from_its_place() -> None:
    again = encode_redrive(letter_of(bare()))
    assert (again.topic, again.key, again.value) == ("loupe.frames", b"cam", b"pixels")
    before, after = decode_frame(bare()), decode_frame(at(again, 1000))
    assert after.frame_id == before.frame_id
    assert after.captured_at == before.captured_at
    assert after.camera == before.camera


def test_an_ingesters_record_stays_what_it_is_but_for_the_model() -> None:
    frame = Frame(
        ingester_frame_id("cam", EPOCH, 5), "cam", NOW, b"pixels", epoch=EPOCH, sequence=5, project="a"
    )
    record = at(encode_frame(frame), 3)
    same, other = (
        decode_frame(at(encode_redrive(letter_of(record)), 9)),
        encode_redrive(letter_of(record), "b"),
    )
    assert same == replace(decode_frame(record), position=same.position)
    assert decode_frame(at(other, 9)).project == "b"
    assert decode_frame(at(other, 9)).frame_id == frame.frame_id
    assert [name for name, _ in other.headers].count("ce_loupeproject") == 1


def test_tries_add_up_from_letter_to_letter() -> None:
    once = letter_of(bare(), tries=2)
    twice = letter_of(at(encode_redrive(once), 100), tries=2)
    thrice = letter_of(at(encode_redrive(twice), 200), tries=1)
    assert [one.tries for one in (once, twice, thrice)] == [2, 4, 5]
    assert {one.frame_id for one in (once, twice, thrice)} == {str(decode_frame(bare()).frame_id)}
    names = [name for name, _ in encode_redrive(thrice).headers]
    assert len(names) == len(set(names))


def test_a_frame_id_that_is_none_is_no_id() -> None:
    told = bare((("ce_loupeframeid", b"not a uuid"),))
    assert decode_frame(told).frame_id == decode_frame(bare()).frame_id


def test_a_label_needs_no_frame_id() -> None:
    record = Record("loupe.labels", 0, 3, b"parts", b"{}", (("content-type", b"application/json"),))
    letter = encode_dead_letter(record, UnreadableImage("No."), tries=1, at=NOW)
    again = encode_redrive(decode_dead_letter(at(letter, 0)), "other")
    assert read_texts(again.headers) == {"ce_loupetry": "1", "content-type": "application/json"}
    assert again.value == b"{}"

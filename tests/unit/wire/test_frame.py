"""Frames to records and back, and what anyone may publish."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.errors import MalformedRecord
from services.domain.frame import Frame, ImageReference, RecordPosition, ingester_frame_id
from services.wire.frame import decode_frame, encode_frame, epoch_of, from_message, to_message
from services.wire.record import Headers, Record

TAKEN = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
EPOCH = epoch_of(datetime(2026, 3, 4, tzinfo=UTC))
# 2026-03-04T05:06:08Z in milliseconds.
STAMP_MS = 1_772_600_768_000


def record(headers: Headers = (), key: bytes | None = b"cam-1", value: bytes = b"jpeg") -> Record:
    return Record("loupe.frames", 3, 42, key, value, headers, STAMP_MS)


def frame() -> Frame:
    return Frame(
        frame_id=ingester_frame_id("Halle 2/Kamera 1", EPOCH, 7),
        camera="Halle 2/Kamera 1",
        captured_at=TAKEN,
        image=b"jpeg",
        subject="gut/Schraube Ä.jpg",
        epoch=EPOCH,
        sequence=7,
        project="screws",
        part_id="p-1",
        lot_id="l-2",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        dataref=ImageReference("s3://loupe-frames/x", "ab" * 32, 12),
    )


def test_a_frame_survives_the_way_through_kafka() -> None:
    sent = encode_frame(frame())
    got = decode_frame(Record(sent.topic, 3, 42, sent.key, sent.value, sent.headers, STAMP_MS))
    assert got == replace(frame(), position=RecordPosition("loupe.frames", 3, 42))


def test_a_frame_survives_protobuf() -> None:
    full = replace(frame(), position=RecordPosition("loupe.frames", 3, 42))
    assert from_message(to_message(full)) == full


def test_a_bare_image_is_a_frame() -> None:
    got = decode_frame(record())
    assert (got.camera, got.image, got.sequence) == ("cam-1", b"jpeg", None)
    assert got.captured_at == datetime(2026, 3, 4, 5, 6, 8, tzinfo=UTC)


def test_equal_images_at_two_places_are_two_frames_but_equal_ids_are_one() -> None:
    first, second = decode_frame(record()), decode_frame(replace(record(), offset=43))
    assert first.frame_id != second.frame_id
    named = (("ce_id", b"one"), ("ce_source", b"cam-1"))
    assert decode_frame(record(named)).frame_id == decode_frame(replace(record(named), offset=43)).frame_id


@pytest.mark.parametrize(
    ("key", "camera"), [(None, "unnamed"), (b"", "unnamed"), (b"\xff\xfe", "fffe"), (b"a\nb", "610a62")]
)
def test_a_strange_key_still_names_one_camera(key: bytes | None, camera: str) -> None:
    assert decode_frame(record(key=key)).camera == camera


@pytest.mark.parametrize("time", [b"yesterday", b"\xff", b"9999999-01-01", b""])
def test_a_time_that_is_none_gives_way_to_the_records(time: bytes) -> None:
    assert decode_frame(record((("ce_time", time),))).captured_at == record().recorded_at


@pytest.mark.parametrize("stamp_ms", [-(1 << 63), -1, 0, (1 << 63) - 1])
def test_a_record_of_any_time_is_a_frame(stamp_ms: int) -> None:
    got = decode_frame(replace(record(), timestamp_ms=stamp_ms))
    assert from_message(to_message(got)).captured_at == got.captured_at


def test_headers_of_other_makers_are_no_attributes() -> None:
    own = (("id", b"device-7"), ("source", b"plc"), ("time", b"2020-01-01T00:00:00Z"), ("sequence", b"1"))
    assert decode_frame(record(own)) == decode_frame(record())


@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=40)), max_size=8))
def test_no_header_can_stop_a_frame(headers: list[tuple[str, bytes]]) -> None:
    names = ("ce_id", "ce_source", "ce_time", "ce_sequence", "ce_loupeepoch", "ce_dataref", "content-type")
    garbage = tuple((names[n % len(names)], value) for n, (_, value) in enumerate(headers))
    got = decode_frame(record(garbage + tuple(headers)))
    assert got.camera
    assert to_message(got).frame_id == str(got.frame_id)


def test_a_frame_without_sequence_cannot_be_published() -> None:
    with pytest.raises(MalformedRecord, match="epoch and a sequence"):
        encode_frame(replace(frame(), sequence=None))

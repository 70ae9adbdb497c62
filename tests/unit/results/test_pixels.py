"""The pixels of a frame are found wherever they are, or it is said why they are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine, writing
from services.adapters.database.tables import inspections
from services.adapters.object_store import memory_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.errors import BrokerUnavailable, UnreadableImage
from services.domain.frame import Frame
from services.domain.inspection import Role
from services.results.batch import Read, read_dead_letter
from services.results.pixels import PixelFinder, Pixels
from services.results.store import Store
from services.wire.dead_letter import encode_dead_letter
from tests.unit.results.builders import (
    START,
    frame,
    ledger_records,
    publish,
    shed_by_stream,
    verdict,
    verdict_records,
)


class Place:
    """A broker, a store and a database with one frame or another."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.engine = open_engine(url)
        self.store, self.broker = memory_store(), MemoryBroker(partitions=2)
        self.rows = Store(self.engine, FakeClock(START))

    def publish(self, made: Frame) -> Frame:
        (seen,) = publish(self.broker, made)
        return seen

    def judge(self, of: Frame, **changes: Any) -> None:
        told = verdict(of, **changes)
        self.rows.add_inspections([Read(told, verdict_records(told)[0])])

    def quarantine(self, of: Frame, *, is_stripped: bool = False) -> None:
        assert of.position is not None
        original = next(r for r in self.broker.records("loupe.frames") if r.position == of.position)
        out = encode_dead_letter(original, UnreadableImage("Not an image."), tries=1, at=START)
        place = self.broker.append(replace(out, value=b"") if is_stripped else out)
        record = next(r for r in self.broker.records(place.topic) if r.position == place)
        self.rows.add_quarantined([Read(read_dead_letter(record), record)])

    def find(self, of: Frame, *, is_original: bool = False) -> Pixels:
        finder = PixelFinder(self.engine, self.store, lambda: MemoryTopicReader(self.broker))
        return finder.find(of.frame_id, is_original=is_original)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(f"sqlite:///{tmp_path / 'loupe.db'}")
    yield made
    made.engine.dispose()


def test_kept_pixels_come_from_the_archive(place: Place) -> None:
    seen = place.publish(frame(1))
    place.judge(seen, image=place.store.put_image(FRAMES_BUCKET, b"kept"), retention="short")
    found = place.find(seen)
    assert (found.image, found.camera, found.notes) == (b"kept", "cam-1", ())
    assert found.where.startswith("s3://loupe-frames/sha256/")
    assert "normal by parts v1 (live)" in found.ends[0]


def test_pixels_that_a_route_did_not_keep_are_still_in_kafka(place: Place) -> None:
    place.publish(frame(1))
    seen = place.publish(frame(2))
    place.judge(seen)
    found = place.find(seen)
    assert seen.position is not None
    assert (found.image, found.where) == (b"pixels", f"loupe.frames:{seen.position.partition}:1")
    assert "keeps no pixels" in found.notes[0]


def test_pixels_that_only_a_shadow_kept_are_found(place: Place) -> None:
    seen = place.publish(frame(1))
    place.judge(seen)
    kept = place.store.put_image(FRAMES_BUCKET, b"kept")
    place.judge(seen, role=Role.SHADOW, run="new", project="new", position=None, image=kept)
    assert place.find(seen).image == b"kept"


def test_deleted_pixels_name_class_and_day(place: Place) -> None:
    seen = frame(1)  # its record is gone, too: nothing says where it stood
    place.judge(seen, image=place.store.put_image(FRAMES_BUCKET, b"kept"), retention="short")
    with writing(place.engine) as connection:
        connection.execute(
            update(inspections).values(image_deleted_at=datetime(2026, 2, 3, 4, 5, tzinfo=UTC))
        )
    found = place.find(seen)
    assert found.image is None
    assert found.notes == ("Kept for parts, and deleted 2026-02-03 04:05 UTC by retention class short.",)


def test_an_object_that_is_gone_or_changed_is_said_and_kafka_is_asked(place: Place) -> None:
    seen = place.publish(frame(1))
    kept = place.store.put_image(FRAMES_BUCKET, b"kept")
    place.judge(seen, image=kept)
    place.store.put(kept.uri, b"changed")
    found = place.find(seen)
    assert found.image == b"pixels"
    assert "has the SHA-256" in found.notes[0]
    place.store.delete(kept.uri)
    assert "does not exist" in place.find(seen).notes[0]


def test_quarantined_pixels_come_from_the_dead_letter_or_else_the_record(place: Place) -> None:
    one, two = place.publish(frame(1)), place.publish(frame(2, "cam-2"))
    place.quarantine(one)
    place.quarantine(two, is_stripped=True)
    found = place.find(one)
    assert found.image == b"pixels"
    assert found.where.startswith("loupe.frames.dlq:")
    assert found.ends == ("quarantined: UnreadableImage: Not an image.",)
    assert place.find(two).where.startswith("loupe.frames:")


def test_a_claim_check_is_redeemed(place: Place) -> None:
    claim = place.store.put_image(FRAMES_BUCKET, b"large")
    seen = place.publish(replace(frame(1), image=b"", dataref=claim))
    place.quarantine(seen)
    assert (place.find(seen).image, place.find(seen).where) == (b"large", claim.uri)


def test_a_frame_that_was_let_go_says_why(place: Place) -> None:
    seen = place.publish(frame(1))
    entry = shed_by_stream(seen)
    place.rows.add_declared([Read(entry, ledger_records(entry)[0])])
    found = place.find(seen)
    assert (found.image, found.ends) == (b"pixels", ("let go: no-route",))


def test_the_original_is_found_and_its_absence_explained(place: Place) -> None:
    original = place.store.put_image(FRAMES_BUCKET, b"whole")
    cropped = place.publish(replace(frame(1), original=original, area="0,0,0.5,0.5"))
    place.judge(
        cropped, image=place.store.put_image(FRAMES_BUCKET, b"crop"), original=original, area="0,0,1,1"
    )
    assert place.find(cropped, is_original=True).image == b"whole"
    assert place.find(cropped).image == b"crop"
    unkept = place.publish(replace(frame(2), original=original, area="0,0,0.5,0.5"))
    place.judge(unkept, area="0,0,1,1")
    assert place.find(unkept, is_original=True).image == b"whole"  # by its record
    whole = place.publish(frame(3))
    place.judge(whole)
    missing = place.find(whole, is_original=True)
    assert missing.image is None
    assert "whole picture" in missing.notes[0]


def test_a_frame_that_nobody_knows_and_a_broker_that_is_away_are_said(place: Place) -> None:
    unknown = place.find(frame(77))
    assert (unknown.image, unknown.camera) == (None, "")
    assert "Nobody knows this frame" in unknown.notes[0]
    seen = place.publish(frame(1))
    place.judge(seen)

    class Away(MemoryTopicReader):
        def spans(self, topic: str) -> dict[int, range]:
            raise BrokerUnavailable(f"{topic}: away")

    finder = PixelFinder(place.engine, place.store, lambda: Away(place.broker))
    assert "Kafka could not be asked" in finder.find(seen.frame_id).notes[-1]

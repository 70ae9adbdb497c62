"""Pixels go when their time has run out and nobody else needs them; rows stay and say so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine, reading, writing
from services.adapters.database.tables import camera_states, dataset_entries, inspections
from services.adapters.metrics import Metrics
from services.adapters.object_store import ObjectEntry, memory_store
from services.adapters.object_store.store import FRAMES_BUCKET, ObjectStore
from services.domain.camera import CameraState
from services.domain.errors import StoreUnavailable, UnreadableImage
from services.domain.frame import Frame, ImageReference
from services.domain.hosting import RetentionClass
from services.results.batch import Read, read_dead_letter
from services.results.retention import FRESH_S, ORPHAN_GRACE_S, PREFIXES, Amount, Retention, RetentionThread
from services.results.store import Store
from services.wire.dead_letter import encode_dead_letter
from services.wire.frame import encode_frame
from tests.unit.results.builders import frame, records, verdict, verdict_records

SHORT, STANDARD, FOREVER = RetentionClass.SHORT, RetentionClass.STANDARD, RetentionClass.FOREVER
NONE = Amount()


class Cellar:
    """An archive, its database, and a clock that is turned by hand from the real now on."""

    def __init__(self, url: str) -> None:
        migrate(url)
        self.engine = open_engine(url)
        self.store = memory_store()
        self.clock = FakeClock(datetime.now(UTC))
        self.retention = Retention(self.engine, self.store, self.clock)
        self._rows = Store(self.engine, self.clock)
        self._count = 0

    def keep(self, image: bytes, retention: str, original: ImageReference | None = None) -> str:
        """Store an image and a verdict that keeps it; return the frame's id."""
        self._count += 1
        reference = self.store.put_image(FRAMES_BUCKET, image)
        told = verdict(frame(self._count), image=reference, retention=retention, original=original)
        (record,) = verdict_records(told)
        self._rows.add_inspections([Read(told, record)])
        return str(told.frame_id)

    def quarantine(self, claim: Frame) -> None:
        """Store the dead letter of a frame."""
        (original,) = records(encode_frame(claim))
        (record,) = records(encode_dead_letter(original, UnreadableImage("no"), tries=1, at=self.clock.now()))
        self._rows.add_quarantined([Read(read_dead_letter(record), record)])

    def label(self, reference: ImageReference) -> None:
        """Have a dataset refer to an image."""
        row = {
            "entry_id": reference.sha256[:36], "project": "p", "image_uri": reference.uri,
            "image_sha256": reference.sha256, "image_bytes": 1, "classes": [], "boxes": [], "masks": [],
            "author": "ann", "labelled_at": self.clock.now(),
        }  # fmt: skip
        with writing(self.engine) as connection:
            connection.execute(insert(dataset_entries), [row])

    def hear_of_camera(self, state: CameraState, spooled: int, told_days_ago: float = 0) -> None:
        """Have an ingester tell of a camera."""
        told_at = self.clock.now() - timedelta(days=told_days_ago)
        row = {
            "camera": "cam-1", "ingester": "a", "lease_until": told_at, "state": state.value, "message": "",
            "since": told_at, "captured": 9, "acknowledged": 2, "shed": 0, "spooled": spooled, "fps": 1.0,
            "told_at": told_at,
        }  # fmt: skip
        with writing(self.engine) as connection:
            connection.execute(insert(camera_states), [row])

    def images(self) -> set[bytes]:
        uris = self.store.list(f"s3://{FRAMES_BUCKET}")
        return {self.store.get(uri) for uri in uris}

    def deleted_at(self, frame_id: str) -> datetime | None:
        query = select(inspections.c.image_deleted_at).where(inspections.c.frame_id == frame_id)
        with reading(self.engine) as connection:
            found: datetime | None = connection.execute(query).scalar()
        return found

    def days_pass(self, days: float) -> None:
        self.clock.advance(days * 86400)


@pytest.fixture
def cellar(tmp_path: Path) -> Iterator[Cellar]:
    made = Cellar(f"sqlite:///{tmp_path / 'loupe.db'}")
    yield made
    made.engine.dispose()


@pytest.mark.parametrize(
    ("retention", "days"), [("short", 7), ("standard", 90), ("", 90), ("long", 730), ("forever", 99_999)]
)
def test_pixels_stay_as_long_as_their_class_says_and_the_row_longer(
    cellar: Cellar, retention: str, days: int
) -> None:
    kept = cellar.keep(b"image", retention)
    cellar.days_pass(days - 0.1)
    assert cellar.retention.expire() == NONE
    assert cellar.retention.sweep_orphans() == NONE
    assert cellar.images() == {b"image"}
    assert cellar.deleted_at(kept) is None
    if retention != "forever":
        cellar.days_pass(0.2)
        assert cellar.retention.expire() == Amount(1, 1, 5)
        assert cellar.images() == set()
        assert cellar.deleted_at(kept) == cellar.clock.now()
        assert cellar.retention.expire() == NONE


def test_an_image_that_another_verdict_keeps_longer_stays(cellar: Cellar) -> None:
    short, standard = cellar.keep(b"image", SHORT), cellar.keep(b"image", STANDARD)
    cellar.days_pass(8)
    assert cellar.retention.expire() == Amount(1, 0, 0)
    assert cellar.images() == {b"image"}
    assert cellar.deleted_at(short) is not None
    assert cellar.deleted_at(standard) is None
    cellar.days_pass(90)
    assert cellar.retention.expire() == Amount(1, 1, 5)


def test_thousands_of_verdicts_that_share_an_image_end_together(cellar: Cellar) -> None:
    for _ in range(1100):
        cellar.keep(b"image", SHORT)
    cellar.days_pass(8)
    assert cellar.retention.expire() == Amount(1100, 1, 5)


def test_an_image_that_was_put_anew_waits_for_its_verdict(cellar: Cellar) -> None:
    cellar.keep(b"image", SHORT)
    # The stream put it a moment ago: the store's clock is the real one, so time has not passed for it.
    cellar.clock.advance(7.1 * 86400)
    cellar.store.put_image(FRAMES_BUCKET, b"image")
    fresh = Retention(cellar.engine, FreshStore(cellar.store, cellar.clock), cellar.clock)
    assert fresh.expire() == Amount(1, 0, 0)
    assert cellar.images() == {b"image"}


class FreshStore(ObjectStore):
    """Whose objects were all put just now."""

    def __init__(self, inner: ObjectStore, clock: FakeClock) -> None:
        super().__init__(inner._files, inner._root)
        self._clock = clock

    def entry(self, uri: str) -> ObjectEntry:
        return replace(super().entry(uri), modified_at=self._clock.now())


def test_an_original_goes_with_its_image_unless_somebody_else_has_it(cellar: Cellar) -> None:
    one, two = (cellar.store.put_image(FRAMES_BUCKET, data) for data in (b"original-1", b"original-2"))
    cellar.keep(b"crop-1", SHORT, one)
    cellar.keep(b"crop-2", SHORT, two)
    cellar.keep(b"crop-3", FOREVER, two)
    cellar.days_pass(8)
    assert cellar.retention.expire() == Amount(2, 3, 22)
    assert cellar.images() == {b"original-2", b"crop-3"}
    cellar.days_pass(365)
    assert cellar.retention.sweep_orphans() == NONE


def test_what_nothing_refers_to_is_deleted_after_a_grace(cellar: Cellar) -> None:
    cellar.store.put_image(FRAMES_BUCKET, b"claim check of a frame that was not kept")
    cellar.keep(b"kept", FOREVER)
    cellar.clock.advance(ORPHAN_GRACE_S - 60)
    assert cellar.retention.sweep_orphans() == NONE
    cellar.clock.advance(120)
    assert cellar.retention.sweep_orphans() == Amount(0, 1, 40)
    assert cellar.images() == {b"kept"}


@pytest.mark.parametrize(
    ("state", "told_days_ago", "spooled", "is_kept"),
    [
        (CameraState.SPOOLING, 0, 7, True),
        (CameraState.SILENT, 0, 1, True),
        (CameraState.RUNNING, 1, 1, True),  # its ingester is gone
        (CameraState.RUNNING, 0, 2, False),  # on their way, as always
        (CameraState.SPOOLING, 0, 0, False),
        (CameraState.PAUSED, 9, 0, False),
    ],
)
def test_a_claim_whose_frame_may_wait_on_an_ingesters_disk_is_kept(
    cellar: Cellar, state: CameraState, told_days_ago: float, spooled: int, *, is_kept: bool
) -> None:
    cellar.store.put_image(FRAMES_BUCKET, b"claim")
    cellar.days_pass(30)
    cellar.hear_of_camera(state, spooled, told_days_ago)
    cellar.retention.sweep_orphans()
    assert (cellar.images() == {b"claim"}) == is_kept
    cellar.days_pass(61)
    cellar.retention.sweep_orphans()
    assert cellar.images() == set()


def test_a_claim_that_waits_on_a_disk_outlives_an_older_verdict_on_equal_bytes(cellar: Cellar) -> None:
    cellar.keep(b"same", SHORT)
    cellar.days_pass(8)
    cellar.hear_of_camera(CameraState.SPOOLING, 1)
    cellar.retention.expire()
    assert cellar.images() == {b"same"}


def test_objects_that_others_named_are_theirs(cellar: Cellar) -> None:
    for uri in (f"s3://{FRAMES_BUCKET}/mine/photo.png", f"s3://{FRAMES_BUCKET}/sha256/ab/notes.txt"):
        cellar.store.put(uri, b"theirs")
    theirs = ImageReference(f"s3://{FRAMES_BUCKET}/mine/photo.png", hashlib.sha256(b"theirs").hexdigest(), 6)
    told = verdict(frame(1), image=theirs, retention="short")
    Store(cellar.engine, cellar.clock).add_inspections([Read(told, verdict_records(told)[0])])
    cellar.days_pass(1000)
    assert cellar.retention.expire() == NONE
    assert cellar.retention.sweep_orphans() == NONE


def test_what_a_dead_letter_or_a_dataset_refers_to_stays(cellar: Cellar) -> None:
    claim, original, labelled = (
        cellar.store.put_image(FRAMES_BUCKET, data) for data in (b"claim", b"original", b"labelled")
    )
    cellar.quarantine(replace(frame(5), image=b"", dataref=claim, original=original))
    cellar.keep(b"labelled", SHORT)
    cellar.label(labelled)
    cellar.days_pass(30)
    assert cellar.retention.expire() == Amount(1, 0, 0)
    assert cellar.retention.sweep_orphans() == NONE
    cellar.days_pass(2)  # the dead letter is gone, and whatever was redriven from it is judged
    assert cellar.retention.sweep_orphans() == Amount(0, 2, 13)
    assert cellar.images() == {b"labelled"}


def test_a_dry_run_says_the_same_and_changes_nothing(cellar: Cellar) -> None:
    for number in range(3):
        kept = cellar.keep(b"image %d" % number, SHORT)
    cellar.store.put_image(FRAMES_BUCKET, b"orphan")
    cellar.days_pass(9)
    dry = Retention(cellar.engine, cellar.store, cellar.clock, is_dry=True)
    would = (dry.expire(), dry.sweep_orphans())
    assert would == (Amount(3, 3, 21), Amount(0, 1, 6))
    assert cellar.deleted_at(kept) is None
    assert len(cellar.images()) == 4
    assert (cellar.retention.expire(), cellar.retention.sweep_orphans()) == would


class FailingStore(ObjectStore):
    """Away after some deletions."""

    def __init__(self, inner: ObjectStore, deletions: int) -> None:
        super().__init__(inner._files, inner._root)
        self.left = deletions

    def delete(self, uri: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailable("away")
        super().delete(uri)


def test_a_store_that_goes_away_in_the_middle_loses_nothing_and_the_next_turn_ends_it(cellar: Cellar) -> None:
    kept = [cellar.keep(b"image %d" % number, SHORT) for number in range(5)]
    cellar.days_pass(8)
    with pytest.raises(StoreUnavailable):
        Retention(cellar.engine, FailingStore(cellar.store, 2), cellar.clock).expire()
    # No row says that its pixels are gone while they may be there.
    assert {cellar.deleted_at(one) for one in kept} == {None}
    assert cellar.retention.expire() == Amount(5, 3, 21)


def test_two_at_once_do_no_harm(cellar: Cellar) -> None:
    cellar.keep(b"image", SHORT)
    cellar.days_pass(8)
    one = Retention(cellar.engine, cellar.store, cellar.clock)
    rows = next(one._expired(SHORT, cellar.clock.now() - timedelta(days=7)))
    assert cellar.retention.expire() == Amount(1, 1, 5)
    assert one._expire(rows, FRESH_S) == Amount(1, 0, 0)


def test_turns_walk_through_all_prefixes_within_a_day(cellar: Cellar) -> None:
    for number in range(40):
        cellar.store.put_image(FRAMES_BUCKET, b"orphan %d" % number)
    cellar.days_pass(9)
    metrics = Metrics()
    thread = RetentionThread(cellar.retention, metrics, every_s=3600)
    for _ in range(12):
        thread.turn()
    assert 0 < len(cellar.images()) < 40  # half of the prefixes
    for _ in range(12):
        thread.turn()
    assert cellar.images() == set()
    assert b'loupe_images_deleted_total{why="orphan"} 40.0' in metrics.page()
    assert len(PREFIXES) == 256


def test_the_thread_goes_on_when_a_neighbour_is_away_and_stops_when_told(cellar: Cellar) -> None:
    retention = Retention(cellar.engine, FailingStore(cellar.store, 0), cellar.clock)
    cellar.keep(b"image", SHORT)
    cellar.days_pass(8)
    thread = RetentionThread(retention, Metrics(), every_s=0.01)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    thread.stop()
    thread.join(5)
    assert not thread.is_alive()

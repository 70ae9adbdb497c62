"""Labels: resolved, verified, copied, and the latest one counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Engine, insert

from services.adapters.clock import FakeClock
from services.adapters.database import reading, writing
from services.adapters.database.tables import dataset_entries, inspections, quarantine
from services.adapters.object_store import ObjectEntry
from services.adapters.object_store.store import (
    DATASETS_BUCKET,
    FRAMES_BUCKET,
    ObjectStore,
    folder_store,
)
from services.domain.errors import BadRequest, HashMismatch, ImageTooLarge, Rejected, UnknownObject
from services.domain.frame import ImageReference
from services.domain.label import Box, Label, Mask, Origin, Split, Verdict, entry_id_of
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.trainer.datasets import Changes, Datasets, LabelCounts, count_labels
from services.vision.masks import marked_pixels
from tests.unit.trainer.pictures import picture

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRAME = UUID(int=7)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "s3")


@pytest.fixture
def datasets(engine: Engine, store: ObjectStore) -> Datasets:
    return Datasets(engine, store)


def drawn(size_px: tuple[int, int]) -> bytes:
    image = Image.new("L", size_px)
    image.paste(255, (2, 2, 8, 8))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def label(image: ImageReference | None, verdict: Verdict = Verdict.NORMAL, *, age_s: float = 0) -> Label:
    frame_id = None if image else FRAME
    entry_id = entry_id_of("plates", frame_id=frame_id, sha256=image.sha256 if image else None)
    return Label(entry_id, "plates", AT - timedelta(seconds=age_s), image, frame_id, verdict)


def judged(
    engine: Engine,
    kept: ImageReference | None,
    *,
    run: str = "",
    deleted_at: datetime | None = None,
    role: str = "live",
) -> None:
    """Store an inspection of `FRAME` as the results service does."""
    row = {
        "inspection_id": str(UUID(int=len(run))), "frame_id": str(FRAME), "role": role, "run": run,
        "camera": "c", "project": "plates", "model_version": "v1", "subject": "", "is_anomalous": False,
        "is_uncertain": False, "confidence": 1.0, "score": 1.0, "threshold": 2.0, "regions": [],
        "image_uri": kept.uri if kept else None, "image_sha256": kept.sha256 if kept else None,
        "image_bytes": kept.size_bytes if kept else None, "image_deleted_at": deleted_at,
        "width_px": 1, "height_px": 1, "stage_ms": {},
        "unit": "u", "captured_at": AT, "judged_at": AT, "stored_at": AT, "latency_ms": 1.0,
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(inspections).values(row))


def test_pixels_are_copied_out_of_the_reach_of_retention(datasets: Datasets, store: ObjectStore) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    assert datasets.store(label(kept, Verdict.ANOMALY))
    (entry,) = datasets.entries("plates")
    assert entry.image.uri.startswith(f"s3://{DATASETS_BUCKET}/sha256/")
    assert (entry.verdict, entry.labelled_at) == (Verdict.ANOMALY, AT)
    assert datasets.image(entry) == b"pixels"


def test_the_same_label_twice_is_one_entry(datasets: Datasets, store: ObjectStore) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    assert datasets.store(label(kept))
    assert not datasets.store(label(kept))
    assert len(datasets.entries("plates")) == 1


@pytest.mark.parametrize("ages_s", [(10, 0), (0, 10)], ids=["in order", "late arrival"])
def test_the_later_label_wins_in_any_order_of_arrival(
    datasets: Datasets, store: ObjectStore, ages_s: tuple[int, int]
) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    for age_s in ages_s:
        datasets.store(label(kept, Verdict.NORMAL if age_s else Verdict.ANOMALY, age_s=age_s))
    (entry,) = datasets.entries("plates")
    assert (entry.verdict, entry.labelled_at) == (Verdict.ANOMALY, AT)


@pytest.mark.parametrize("age_s", [10, -10], ids=["the frame later", "the frame earlier"])
def test_of_labels_of_equal_pixels_the_later_counts_however_they_were_named(
    datasets: Datasets, engine: Engine, store: ObjectStore, age_s: float
) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    judged(engine, kept)
    datasets.store(label(None, Verdict.ANOMALY))
    datasets.store(label(kept, Verdict.NORMAL, age_s=age_s))
    (entry,) = datasets.entries("plates")
    assert entry.verdict is (Verdict.ANOMALY if age_s > 0 else Verdict.NORMAL)


def test_a_frame_id_is_resolved_to_the_kept_pixels(
    datasets: Datasets, engine: Engine, store: ObjectStore
) -> None:
    judged(engine, store.put_image(FRAMES_BUCKET, b"pixels"))
    assert datasets.store(label(None))
    assert datasets.image(datasets.entries("plates")[0]) == b"pixels"


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_a_frame_that_another_than_the_live_model_kept_is_resolved_as_well(
    datasets: Datasets, engine: Engine, store: ObjectStore, role: str
) -> None:
    if role == "shadow":
        judged(engine, None)
    judged(engine, store.put_image(FRAMES_BUCKET, b"pixels"), role=role, run="x" if role == "shadow" else "")
    assert datasets.store(label(None))


def test_an_object_too_large_to_be_a_picture_is_not_read(datasets: Datasets) -> None:
    class Huge(ObjectStore):
        def __init__(self) -> None:
            """Hold one object that nobody may read."""

        def entry(self, uri: str) -> ObjectEntry:
            return ObjectEntry(uri, CLAIM_LIMIT_BYTES + 1, AT, "")

    with pytest.raises(ImageTooLarge, match="at most"):
        Datasets(datasets._engine, Huge()).store(label(ImageReference("s3://b/a", "0" * 64, 9)))


def test_a_frame_that_nobody_judged_is_refused(datasets: Datasets) -> None:
    with pytest.raises(Rejected, match="No verdict on frame 00000000-0000-0000-0000-000000000007"):
        datasets.store(label(None))


def test_a_frame_whose_pixels_were_not_kept_is_refused(datasets: Datasets, engine: Engine) -> None:
    judged(engine, None)
    with pytest.raises(Rejected, match=r"were not kept .* send the image with the label"):
        datasets.store(label(None))


def test_other_pixels_than_the_reference_says_are_refused(datasets: Datasets, store: ObjectStore) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    with pytest.raises(HashMismatch):
        datasets.store(label(replace(kept, sha256="0" * 64)))
    with pytest.raises(UnknownObject):
        datasets.store(label(replace(kept, uri="s3://loupe-frames/nothing")))
    assert datasets.entries("plates") == ()


def test_everything_that_a_label_says_is_kept(datasets: Datasets, engine: Engine, store: ObjectStore) -> None:
    mask = Mask("scratch", store.put_image(FRAMES_BUCKET, drawn((160, 160))))
    said = replace(
        label(store.put_image(FRAMES_BUCKET, picture(1))),
        verdict=None, classes=("dent",), boxes=(Box(0.1, 0.2, 0.3, 0.4, "dent"),), masks=(mask,),
        author="ada",
    )  # fmt: skip
    assert datasets.store(said)
    with reading(engine) as connection:
        row = connection.execute(dataset_entries.select()).one()
    assert (row.verdict, row.classes, row.author) == (None, ["dent"], "ada")
    assert row.boxes[0]["left_ratio"] == 0.1
    assert row.masks[0]["image"]["uri"].startswith(f"s3://{DATASETS_BUCKET}/")


def test_two_masks_of_one_type_become_one(datasets: Datasets, store: ObjectStore) -> None:
    """Nearly the whole picture: still what is marked, not what is left."""
    size_px = (160, 160)
    drawings = [Image.new("L", size_px), Image.new("L", size_px)]
    drawings[0].paste(255, (2, 2, 158, 80))
    drawings[1].paste(255, (2, 80, 158, 158))
    masks = []
    for drawing in drawings:
        file = BytesIO()
        drawing.save(file, "PNG")
        masks.append(Mask("dent", store.put_image(FRAMES_BUCKET, file.getvalue())))
    said = label(store.put_image(FRAMES_BUCKET, picture(1)), Verdict.ANOMALY)
    datasets.store(replace(said, masks=tuple(masks)))
    (entry,) = datasets.entries("plates")
    (mask,) = entry.masks
    marked = marked_pixels(datasets.mask(mask), size_px)
    assert (entry.types, int(marked.sum())) == (("dent",), 156 * 156)


def test_split_and_origin_are_kept_and_a_type_alone_says_anomaly(
    datasets: Datasets, store: ObjectStore
) -> None:
    said = replace(
        label(store.put_image(FRAMES_BUCKET, picture(1))),
        verdict=None, classes=("dent",), split=Split.TEST, origin=Origin.REVIEW,
    )  # fmt: skip
    datasets.store(said)
    (entry,) = datasets.entries("plates")
    assert (entry.split, entry.origin, entry.verdict) == (Split.TEST, Origin.REVIEW, None)
    assert entry.truth is Verdict.ANOMALY


def test_changes_are_counted_by_when_they_were_stored_not_by_when_they_were_said(
    engine: Engine, store: ObjectStore
) -> None:
    clock = FakeClock(AT)
    datasets = Datasets(engine, store, clock)
    first = label(store.put_image(FRAMES_BUCKET, picture(1)), age_s=3600)
    datasets.store(first)
    assert datasets.changes("plates", None) == Changes(1, AT, AT)
    assert datasets.changes("plates", AT) == Changes(0, None)
    clock.advance(5)
    datasets.store(first)  # the same again is no change
    assert datasets.changes("plates", AT) == Changes(0, None)
    datasets.store(replace(first, verdict=Verdict.ANOMALY, labelled_at=AT - timedelta(seconds=60)))
    assert datasets.changes("plates", AT) == Changes(1, *[AT + timedelta(seconds=5)] * 2)
    assert datasets.changes("caps", None) == Changes(0, None)


def test_a_frame_whose_pixels_were_deleted_is_refused_with_the_day(
    datasets: Datasets, engine: Engine, store: ObjectStore
) -> None:
    judged(engine, store.put_image(FRAMES_BUCKET, b"pixels"), deleted_at=AT)
    with pytest.raises(Rejected, match=r"deleted on 2026-03-01 .* send the image with the label"):
        datasets.store(label(None))


def test_a_frame_in_quarantine_is_refused_with_the_way_to_its_bytes(
    datasets: Datasets, engine: Engine
) -> None:
    row = {
        "frame_id": str(FRAME), "camera": "c", "topic": "loupe.frames", "partition": 0, "offset": 1,
        "cause": "UnreadableImage", "reason": "0 bytes.", "tries": 1, "failed_at": AT,
        "letter_partition": 0, "letter_offset": 1,
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(quarantine).values(row))
    with pytest.raises(Rejected, match=rf"\(UnreadableImage\).*loupe dlq show {FRAME} --save FILE"):
        datasets.store(label(None))


def test_a_mask_that_does_not_fit_its_picture_is_refused(datasets: Datasets, store: ObjectStore) -> None:
    said = label(store.put_image(FRAMES_BUCKET, picture(1)), Verdict.ANOMALY)
    small = Mask("dent", store.put_image(FRAMES_BUCKET, drawn((16, 16))))
    with pytest.raises(BadRequest, match="16 x 16 pixels, the picture 160 x 160"):
        datasets.store(replace(said, masks=(small,)))
    assert datasets.entries("plates") == ()


def test_a_label_does_not_take_an_entry_of_another_project(datasets: Datasets, store: ObjectStore) -> None:
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    first = label(kept)
    assert datasets.store(first)
    thief = replace(first, project="caps", labelled_at=AT + timedelta(seconds=1))
    with pytest.raises(BadRequest, match="belongs to another project than caps"):
        datasets.store(thief)
    assert len(datasets.entries("plates")) == 1


def test_labels_are_counted_by_verdict_and_type(
    datasets: Datasets, engine: Engine, store: ObjectStore
) -> None:
    assert count_labels(engine) == ()
    for seed, types in enumerate([(), ("dent",), ("dent", "scratch")]):
        kept = store.put_image(FRAMES_BUCKET, picture(seed))
        verdict = Verdict.ANOMALY if types else Verdict.NORMAL
        masks = tuple(
            Mask(name, store.put_image(FRAMES_BUCKET, drawn((160, 160)))) for name in types if name == "dent"
        )
        datasets.store(replace(label(kept, verdict), classes=types, masks=masks))
    (counts,) = count_labels(engine)
    assert counts == LabelCounts("plates", Counter(normal=1, anomaly=2), Counter(dent=2, scratch=1), masks=2)
    assert count_labels(engine, "caps") == ()


def test_a_project_needs_a_name_that_can_be_one(datasets: Datasets, store: ObjectStore) -> None:
    with pytest.raises(BadRequest):
        datasets.store(replace(label(store.put_image(FRAMES_BUCKET, b"pixels")), project="../x"))

"""Datasets on SQLite and PostgreSQL: frames' pixels, one entry per picture, and counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.object_store.store import FRAMES_BUCKET, folder_store
from services.domain.errors import Rejected
from services.domain.label import Verdict
from services.trainer.datasets import Datasets, count_labels, image_of_frame
from tests.unit.trainer.test_datasets import AT, FRAME, judged, label


def test_the_kept_pixels_of_a_frame_win_over_deleted_and_unkept_ones(engine: Engine, tmp_path: Path) -> None:
    kept = folder_store(tmp_path / "s3").put_image(FRAMES_BUCKET, b"pixels")
    with pytest.raises(Rejected, match="No verdict on frame"):
        image_of_frame(engine, FRAME)
    judged(engine, None, run="a")
    with pytest.raises(Rejected, match="were not kept"):
        image_of_frame(engine, FRAME)
    judged(engine, kept, run="bb", deleted_at=AT)
    with pytest.raises(Rejected, match="deleted on 2026-03-01"):
        image_of_frame(engine, FRAME)
    judged(engine, kept, run="ccc")
    assert image_of_frame(engine, FRAME) == kept


def test_the_latest_label_of_a_picture_counts_and_is_counted(engine: Engine, tmp_path: Path) -> None:
    store = folder_store(tmp_path / "s3")
    datasets = Datasets(engine, store)
    kept = store.put_image(FRAMES_BUCKET, b"pixels")
    judged(engine, kept)
    first = replace(label(None), classes=("dent",))
    assert datasets.store(first)
    assert not datasets.store(first)
    assert datasets.store(replace(first, verdict=Verdict.ANOMALY, labelled_at=AT + timedelta(seconds=1)))
    assert datasets.store(label(kept))
    (entry,) = datasets.entries("plates")
    assert entry.verdict is Verdict.ANOMALY
    (counts,) = count_labels(engine)
    assert (dict(counts.verdicts), dict(counts.types)) == ({"anomaly": 1, "normal": 1}, {"dent": 1})

"""Datasets, their versions, jobs and policies on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.adapters.object_store.store import FRAMES_BUCKET, folder_store
from services.domain.errors import BadRequest, Rejected
from services.domain.label import Box, Mask, Origin, Split, Verdict
from services.domain.model_version import FitOptions, JobState, TrainingRequest
from services.trainer.dataset_versions import DatasetVersions, Finding, snapshot_of
from services.trainer.datasets import Changes, Datasets, count_labels, image_of_frame
from services.trainer.jobs import PROMOTING, Jobs
from services.trainer.policies import Policies, Policy
from services.trainer.reviews import ReviewWatch
from tests.unit.trainer.judges import Project
from tests.unit.trainer.pictures import picture
from tests.unit.trainer.test_datasets import AT, FRAME, drawn, judged, label


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


def test_everything_that_a_label_says_comes_back(engine: Engine, tmp_path: Path) -> None:
    store = folder_store(tmp_path / "s3")
    clock = FakeClock(AT)
    datasets = Datasets(engine, store, clock)
    mask = Mask("dent", store.put_image(FRAMES_BUCKET, drawn((160, 160))))
    said = replace(
        label(store.put_image(FRAMES_BUCKET, picture(1)), Verdict.ANOMALY),
        classes=("scratch",), boxes=(Box(0.1, 0.2, 0.3, 0.4, "dent"),), masks=(mask,),
        split=Split.TEST, origin=Origin.REVIEW,
    )  # fmt: skip
    assert datasets.changes("plates", None) == Changes(0, None)
    assert datasets.store(said)
    (entry,) = datasets.all_entries("plates")
    assert (entry.types, entry.boxes, entry.split, entry.origin) == (
        ("dent", "scratch"), said.boxes, Split.TEST, Origin.REVIEW,
    )  # fmt: skip
    assert datasets.changes("plates", None) == Changes(1, AT, AT)
    assert datasets.changes("plates", AT) == Changes(0, None)


def test_a_dataset_version_is_one_row_however_often_it_is_read(engine: Engine, tmp_path: Path) -> None:
    store = folder_store(tmp_path / "s3")
    datasets, versions = Datasets(engine, store), DatasetVersions(engine, store)
    datasets.store(label(store.put_image(FRAMES_BUCKET, picture(1))))
    seen = snapshot_of(datasets.all_entries("plates"))
    policies = Policies(engine)
    assert policies.last_seen_at("plates") is None
    first = versions.write("plates", seen, AT)
    again = versions.write("plates", seen, AT + timedelta(hours=1))
    versions.add_findings(again, [Finding("near-duplicate", "Two photos show one object.")])
    (version,) = versions.of_project("plates")
    assert (version.digest, version.created_at, len(version.findings)) == (first.digest, AT, 1)
    assert policies.last_seen_at("plates") == AT + timedelta(hours=1)


def test_a_policy_is_one_row_per_project(engine: Engine) -> None:
    policies = Policies(engine)
    policy = Policy("plates", 20, None, FitOptions(families=("memory",)), "ada", AT)
    policies.put(policy)
    policies.put(replace(policy, nightly_at="02:30"))
    assert policies.all() == (replace(policy, nightly_at="02:30"),)
    assert policies.remove("plates")


@pytest.mark.parametrize("number", range(5))
def test_of_cancelling_and_promoting_at_once_one_wins(engine: Engine, number: int) -> None:
    jobs = Jobs(engine)
    jobs.queue(TrainingRequest("t1", "plates", AT))
    assert jobs.run("t1")
    told: list[bool] = []
    trainer = threading.Thread(target=lambda: told.append(jobs.tell("t1", PROMOTING, 0.9, None, AT)))
    trainer.start()
    is_cancelled = True
    try:
        jobs.cancel("t1", "ada", AT)
    except BadRequest:
        is_cancelled = False
    trainer.join(30)
    assert told == [not is_cancelled]
    assert jobs.get("t1").state is (JobState.CANCELLED if is_cancelled else JobState.RUNNING)


def test_reviews_that_no_fit_has_read_are_due(database_url: str, tmp_path: Path) -> None:
    project = Project(tmp_path, database_url)
    versions = DatasetVersions(project.engine, project.store)
    seen = versions.write("plates", snapshot_of(()), project.clock.now())
    project.clock.advance(10)
    project.label(picture(1), Verdict.NORMAL, origin=Origin.REVIEW)
    project.consider("v1", data_digest=seen.digest)  # made after that review, from what was read before it
    producer = MemoryProducer(MemoryBroker(partitions=1))
    (asked,) = ReviewWatch(project.engine, Jobs(project.engine), producer, project.clock).look()
    assert (asked.project, asked.is_update) == ("plates", True)
    project.engine.dispose()

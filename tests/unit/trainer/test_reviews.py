"""A review asks for one quick update, after a moment of quiet, and only where a model serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.domain.label import Origin, Split, Verdict
from services.domain.topics import TRAINING
from services.trainer.dataset_versions import DatasetVersions, snapshot_of
from services.trainer.jobs import Jobs
from services.trainer.reviews import ReviewWatch
from services.wire.training import decode_training_request
from tests.unit.serve.models import picture
from tests.unit.trainer.judges import Project


class Rig:
    """A project under watch."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.broker = MemoryBroker(partitions=1)
        self.jobs = Jobs(self.project.engine)
        self.watch = ReviewWatch(
            self.project.engine, self.jobs, MemoryProducer(self.broker), self.project.clock
        )

    def review(self, brightness: int) -> None:
        self.project.label(picture(brightness), Verdict.NORMAL, origin=Origin.REVIEW)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path)
    rig.project.consider("v1")
    rig.project.clock.advance(60)
    return rig


def test_reviews_ask_for_one_update_after_a_moment_of_quiet(rig: Rig) -> None:
    rig.review(130)
    rig.review(140)
    assert rig.watch.look() == ()  # one second after the latest
    rig.project.clock.advance(3)
    (asked,) = rig.watch.look()
    assert (asked.is_update, asked.trigger, asked.project) == (True, "review", "plates")
    assert rig.watch.look() == ()
    (record,) = rig.broker.records(TRAINING.name)
    assert decode_training_request(record) == asked
    assert rig.jobs.is_busy("plates")


def test_a_later_review_waits_for_the_update_that_runs(rig: Rig) -> None:
    rig.review(130)
    rig.project.clock.advance(3)
    (first,) = rig.watch.look()
    rig.review(140)
    rig.project.clock.advance(3)
    assert rig.watch.look() == ()
    rig.jobs.fail(first.training_id, "Nothing to update.", rig.project.clock.now())
    (second,) = rig.watch.look()
    assert second.training_id != first.training_id


def test_labels_that_are_no_reviews_ask_for_nothing(rig: Rig) -> None:
    rig.project.label(picture(130), Verdict.NORMAL)
    rig.project.clock.advance(3)
    assert rig.watch.look() == ()


def test_reviews_that_a_whole_fit_has_seen_ask_for_nothing(rig: Rig) -> None:
    rig.review(130)
    rig.project.consider("v2")
    assert rig.watch.look() == ()


def test_a_review_while_a_fit_runs_is_not_lost_to_it(rig: Rig) -> None:
    rig.review(130)
    project = rig.project
    versions = DatasetVersions(project.engine, project.store)
    seen = versions.write("plates", snapshot_of(project.datasets.all_entries("plates")), project.clock.now())
    rig.project.clock.advance(10)
    assert rig.watch.look() != ()  # asked for, and refused for some reason
    rig.jobs.fail(rig.jobs.all("plates")[0].training_id, "No memory.", project.clock.now())
    rig.project.consider("v2", data_digest=seen.digest)
    assert rig.watch.look() == ()
    rig.review(140)
    rig.project.consider("v3", data_digest=seen.digest)  # read before that review, made after it
    assert len(rig.watch.look()) == 1


def test_a_review_of_what_is_set_aside_for_testing_teaches_nothing(rig: Rig) -> None:
    rig.project.label(picture(130), Verdict.NORMAL, origin=Origin.REVIEW, split=Split.TEST)
    rig.project.clock.advance(3)
    assert rig.watch.look() == ()


def test_where_nothing_serves_there_is_nothing_to_update(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.review(130)
    rig.project.clock.advance(3)
    assert rig.watch.look() == ()

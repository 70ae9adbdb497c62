"""From a fitted folder to a decision: the evidence, its order, and what a kill leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.adapters.object_store.store import ObjectStore
from services.domain.errors import StoreUnavailable, UnknownProject
from services.domain.label import Origin, Verdict
from services.domain.model_version import Manifest, VersionState
from services.trainer.promotion import Promotion
from services.trainer.proving import InProcessProver, Proof, ScratchProver
from services.trainer.registry import Registry
from services.trainer.regression import MAX_IMAGES, regression_set
from services.trainer.scratch_triton import TritonParts
from tests.unit.serve.models import picture
from tests.unit.trainer.judges import Project, asked

# The model's threshold is 5.0, which is brightness 127.5.
DARK, BRIGHT = range(20, 60), range(200, 210)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_first_version_of_a_project_without_test_images_serves(project: Project) -> None:
    decision = project.consider("v1")
    assert decision.is_promoted
    assert project.registry.latest("plates").version == "v1"
    evidence = project.registry.record("plates", "v1").evidence
    assert evidence["candidate"]["is_proved"]
    assert "ONNX Runtime in the trainer's process; this is a test." in evidence["candidate"]["proof"]


def test_a_version_with_other_numbers_than_its_golden_ones_is_kept(project: Project) -> None:
    project.consider("v1")
    decision = project.consider("v2", lie=1.0)
    assert not decision.is_promoted
    assert "computes other numbers" in decision.reasons[0]
    assert project.registry.latest("plates").version == "v1"
    assert project.registry.record("plates", "v2").state is VersionState.KEPT


def test_an_equal_version_is_newer_and_serves(project: Project) -> None:
    project.test_with(DARK, BRIGHT)
    project.consider("v1")
    decision = project.consider("v2")
    assert decision.is_promoted
    assert decision.reasons == (
        "It is no worse on the regression set: 10 of 10 anomalies found, 0 of 40 normal images rejected, 10 "
        "and 0 by version v1.",
    )


def test_a_version_that_misses_what_is_found_now_is_kept(project: Project) -> None:
    project.test_with(DARK, BRIGHT)
    project.consider("v1")
    decision = project.consider("v2", threshold=9.0)  # above brightness 209
    assert not decision.is_promoted
    assert "It is worse on anomalous images than version v1: it gets 10 wrong" in decision.reasons[0]
    evidence = project.registry.record("plates", "v2").evidence
    assert evidence["disputed_images"] == len(evidence["disputed"]) == 10
    assert (evidence["candidate"]["found"], evidence["current"]["found"]) == (0, 10)


def test_a_version_that_breaks_its_promise_is_kept_even_as_the_first(project: Project) -> None:
    project.test_with(DARK, BRIGHT)
    decision = project.consider("v1", threshold=1.5)  # below brightness 38.25: 21 of 40 normal ones above it
    assert decision.reasons == (
        "It breaks its promise: it rejects 21 of 40 normal images, 2.0% were promised.",
    )
    with pytest.raises(UnknownProject, match="No version of plates was promoted yet"):
        project.registry.latest("plates")


def test_a_correction_by_a_reviewer_is_not_lost(project: Project) -> None:
    project.consider("v1", threshold=5.0)
    entry_id = project.label(picture(130), Verdict.ANOMALY, origin=Origin.REVIEW)  # score 5.1
    decision = project.consider("v2", threshold=6.0)
    assert decision.reasons == (
        f"It gets wrong what reviewers corrected and what is judged right now: {entry_id}.",
    )
    assert project.consider("v3", threshold=4.9).is_promoted


def test_reviewed_normal_images_do_not_speak_of_the_promise(project: Project) -> None:
    # Reviewed because a version failed on them, so far more of them are rejected than of any others.
    for brightness in range(130, 140):
        project.label(picture(brightness), Verdict.NORMAL, origin=Origin.REVIEW)
    decision = project.consider("v1")
    assert decision.is_promoted
    assert "It gets 10 images wrong that reviewers corrected" in decision.reasons[1]


def test_images_that_are_gone_are_left_out(project: Project) -> None:
    project.test_with(range(20, 22), BRIGHT)
    lost = regression_set(project.datasets, "plates")[0]
    entry = next(one for one in project.datasets.entries("plates") if str(one.entry_id) == lost.name)
    project.store.delete(entry.image.uri)
    assert project.consider("v1").is_promoted
    counted = project.registry.record("plates", "v1").evidence["candidate"]
    assert counted["normals"] + counted["anomalies"] == 11


def test_considering_again_changes_nothing(project: Project) -> None:
    folder, manifest = project.fitted("v1")
    first = project.promotion.consider(folder, manifest, asked("t1"))
    record = project.registry.record("plates", "v1")
    assert project.promotion.consider(folder, manifest, asked("t1")) == first
    assert project.registry.record("plates", "v1") == record
    settled = project.promotion.resume(asked("t1"))
    assert settled == (record.announcement, first)


class DyingProver(InProcessProver):
    """The trainer dies while it proves, `deaths` times."""

    def __init__(self, deaths: int) -> None:
        super().__init__("this is a test.")
        self.deaths = deaths

    def prove(self, folder: Path, manifest: Manifest) -> Proof:
        if self.deaths:
            self.deaths -= 1
            raise KeyboardInterrupt
        return super().prove(folder, manifest)


def test_a_candidate_of_a_killed_trainer_is_considered_again_without_its_folder(tmp_path: Path) -> None:
    project = Project(tmp_path, prover=DyingProver(1))
    folder, manifest = project.fitted("v1")
    with pytest.raises(KeyboardInterrupt):
        project.promotion.consider(folder, manifest, asked("t1"))
    assert project.registry.record("plates", "v1").state is VersionState.CANDIDATE
    with pytest.raises(UnknownProject):  # nobody serves it
        project.registry.latest("plates")
    settled = project.promotion.resume(asked("t1"))
    assert settled is not None
    assert settled[1].is_promoted
    assert project.registry.latest("plates") == settled[0]
    assert not list((tmp_path / "work").iterdir())


def test_nothing_is_resumed_where_nothing_was_registered(project: Project) -> None:
    assert project.promotion.resume(asked("t1")) is None


def test_a_candidate_whose_files_are_damaged_is_kept(tmp_path: Path) -> None:
    project = Project(tmp_path, prover=DyingProver(1))
    folder, manifest = project.fitted("v1")
    with pytest.raises(KeyboardInterrupt):
        project.promotion.consider(folder, manifest, asked("t1"))
    project.store.put("s3://loupe-models/plates/v1/model.onnx", b"another")
    settled = project.promotion.resume(asked("t1"))
    assert settled is not None
    assert not settled[1].is_promoted
    assert "It is not whole in the object store" in settled[1].reasons[0]


class OneWayStore(ObjectStore):
    """Takes everything and gives nothing."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner

    def put(self, uri: str, data: bytes) -> None:
        self._inner.put(uri, data)

    def download_folder(self, uri: str, folder: Path) -> None:
        raise StoreUnavailable(f"{uri} cannot be brought to {folder}")


def test_a_store_that_is_away_decides_nothing(project: Project) -> None:
    project.consider("v1")
    folder, manifest = project.fitted("v2")
    registry = Registry(project.engine, OneWayStore(project.store))
    prover, work = InProcessProver("this is a test."), project.folder / "work"
    with pytest.raises(StoreUnavailable):
        Promotion(registry, project.datasets, prover, project.clock, work).consider(
            folder, manifest, asked("t2")
        )
    assert project.registry.record("plates", "v2").state is VersionState.CANDIDATE
    assert project.promotion.consider(folder, manifest, asked("t2")).is_promoted


def test_a_serving_version_that_is_damaged_does_not_block_a_new_one(project: Project) -> None:
    project.consider("v1")
    project.store.put("s3://loupe-models/plates/v1/model.onnx", b"another")
    assert project.consider("v2").is_promoted


def test_without_an_installed_tritonserver_it_is_proved_in_process_and_says_so(tmp_path: Path) -> None:
    nowhere = TritonParts(tmp_path / "nowhere", tmp_path / "python")
    project = Project(tmp_path, prover=ScratchProver(nowhere))
    assert project.consider("v1").is_promoted
    proof = project.registry.record("plates", "v1").evidence["candidate"]["proof"]
    assert "ONNX Runtime in the trainer's process; no tritonserver is installed at" in proof


def test_the_regression_set_is_reviews_and_what_was_set_aside(project: Project) -> None:
    project.label(picture(10), Verdict.NORMAL)
    project.test_with(range(11, 12), range(12, 13))
    reviewed = project.label(picture(13), Verdict.NORMAL, origin=Origin.REVIEW)
    found = regression_set(project.datasets, "plates")
    assert [(one.name == reviewed, one.is_reviewed) for one in found] == [
        (True, True),
        (False, False),
        (False, False),
    ]
    assert sum(one.is_anomaly for one in found) == 1
    assert len(found) <= MAX_IMAGES

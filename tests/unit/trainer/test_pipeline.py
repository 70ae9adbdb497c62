"""Labels to entries; requests to announced versions, whatever is killed in between."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.broker.patience import Patience
from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.adapters.metrics import Metrics
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore, folder_store
from services.domain.errors import (
    BadRequest,
    MalformedRecord,
    NotEnoughImages,
    UnknownProject,
)
from services.domain.label import Label, Verdict, entry_id_of
from services.domain.model_version import FitOptions, JobState, ModelAnnouncement, TrainingRequest
from services.domain.topics import MODELS
from services.trainer.datasets import Datasets
from services.trainer.fit_process import FitJob
from services.trainer.jobs import Jobs
from services.trainer.pipeline import LabelStep, TrainingStep
from services.trainer.registry import Registry
from services.wire.label import encode_label
from services.wire.model import decode_announcement
from services.wire.record import OutRecord, Record
from services.wire.training import encode_training_request
from tests.unit.trainer.models import model_folder

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """SIGKILL: nothing below catches it."""


class ScriptedFit:
    """Writes a small model folder, or raises."""

    def __init__(self) -> None:
        self.jobs: list[tuple[FitJob, dict[str, bytes]]] = []
        self.error: BaseException | None = None

    def run(self, job: FitJob, folder: Path) -> Path:
        self.jobs.append((job, {one.file: (folder / one.file).read_bytes() for one in job.images}))
        if self.error is not None:
            raise self.error
        return model_folder(folder, project=job.project, version=job.version, created_at=AT)[0]


class Rig:
    """A trainer without Kafka, and what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        url = f"sqlite:///{folder / 'loupe.db'}"
        migrate(url)
        self.engine: Engine = open_engine(url)
        self.store: ObjectStore = folder_store(folder / "s3")
        self.broker = MemoryBroker(partitions=1)
        self.fit = ScriptedFit()
        self.metrics = Metrics()
        self.datasets = Datasets(self.engine, self.store)
        self.registry = Registry(self.engine, self.store)
        self.jobs = Jobs(self.engine)

    def training_step(self, **parts: object) -> TrainingStep:
        given: dict[str, object] = {
            "datasets": self.datasets, "registry": self.registry, "jobs": self.jobs, "fit": self.fit,
            "producer": MemoryProducer(self.broker), "patience": Patience(), "metrics": self.metrics,
            "clock": FakeClock(AT), "work_folder": self.folder / "work",
            "labels_before": lambda _: None, **parts,
        }  # fmt: skip
        return TrainingStep(**given)  # type: ignore[arg-type]  # parts are replaced by name

    def label(self, pixels: bytes, verdict: Verdict | None = Verdict.NORMAL) -> Label:
        image = self.store.put_image("loupe-frames", pixels)
        return Label(
            entry_id_of("plates", frame_id=None, sha256=image.sha256), "plates", AT, image, None, verdict
        )

    def announced(self) -> list[ModelAnnouncement]:
        return [decode_announcement(record.value) for record in self.broker.records(MODELS.name)]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def read(out: OutRecord) -> Record:
    return Record(out.topic, 0, 0, out.key, out.value, out.headers, int(AT.timestamp() * 1000))


OPTIONS = FitOptions(max_false_reject_ratio=0.05, seed=3)
REQUEST = read(encode_training_request(TrainingRequest("t1", "plates", AT, options=OPTIONS)))


def test_a_label_becomes_an_entry_once(rig: Rig) -> None:
    step = LabelStep(rig.datasets, rig.metrics)
    record = read(encode_label(rig.label(b"pixels", Verdict.ANOMALY)))
    step.handle(record)
    step.handle(record)
    assert len(rig.datasets.entries("plates")) == 1
    assert b'loupe_labels_total{project="plates",verdict="anomaly"} 1.0' in rig.metrics.page()


def test_a_label_may_be_json(rig: Rig) -> None:
    image = rig.store.put_image("loupe-frames", b"pixels")
    said = {"project": "plates", "verdict": "normal", "image": {"uri": image.uri, "sha256": image.sha256}}
    LabelStep(rig.datasets, rig.metrics).handle(Record("loupe.labels", 0, 0, None, json.dumps(said).encode()))
    (entry,) = rig.datasets.entries("plates")
    assert entry.image.uri.startswith(f"s3://{DATASETS_BUCKET}/")


def test_a_request_becomes_a_registered_announced_version(rig: Rig) -> None:
    for pixels, verdict in ((b"good", Verdict.NORMAL), (b"bad", Verdict.ANOMALY), (b"boxes", None)):
        rig.datasets.store(rig.label(pixels, verdict))
    rig.training_step().handle(REQUEST)
    ((job, files),) = rig.fit.jobs
    assert (job.project, job.options) == ("plates", OPTIONS)
    # A label without verdict cannot teach what is normal.
    assert {(one.verdict, files[one.file]) for one in job.images} == {
        (Verdict.NORMAL, b"good"), (Verdict.ANOMALY, b"bad"),
    }  # fmt: skip
    said = rig.registry.latest("plates")
    assert rig.announced() == [said]
    assert said.training_id == "t1"
    done = rig.jobs.get("t1")
    assert (done.state, done.version) == (JobState.DONE, said.version)
    assert list((rig.folder / "work").iterdir()) == []
    assert b'loupe_trainings_total{project="plates",state="done"} 1.0' in rig.metrics.page()


def test_the_same_request_twice_trains_once(rig: Rig) -> None:
    step = rig.training_step()
    step.handle(REQUEST)
    step.handle(REQUEST)
    assert len(rig.fit.jobs) == len(rig.registry.versions("plates")) == 1


def test_a_request_that_cannot_be_trained_fails_with_its_reason(rig: Rig) -> None:
    step = rig.training_step()
    rig.fit.error = NotEnoughImages("A detector needs at least 2 different photos; there are 0.")
    with pytest.raises(NotEnoughImages) as caught:
        step.handle(REQUEST)
    step.give_up(REQUEST, caught.value)
    failed = rig.jobs.get("t1")
    assert (failed.state, failed.message) == (JobState.FAILED, caught.value.message)
    assert rig.announced() == []
    rig.fit.error = None  # labels have come; `loupe dlq redrive` asks again under the same id
    step.handle(REQUEST)
    assert rig.jobs.get("t1").state is JobState.DONE


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"project": "../x"}, BadRequest),
        ({}, MalformedRecord),
        ({"project": "p", "seed": "x"}, MalformedRecord),
    ],
)
def test_nonsense_is_refused_without_a_job(rig: Rig, said: dict[str, str], error: type[Exception]) -> None:
    record = Record("loupe.training", 0, 0, None, json.dumps(said).encode())
    step = rig.training_step()
    with pytest.raises(error) as caught:
        step.handle(record)
    step.give_up(record, caught.value)  # type: ignore[arg-type]  # both are LoupeErrors
    assert rig.fit.jobs == []


class KillingStore(ObjectStore):
    """Dies before the n-th object is written."""

    def __init__(self, inner: ObjectStore, puts: int) -> None:
        self._inner, self._puts = inner, puts

    def put(self, uri: str, data: bytes) -> None:
        self._puts -= 1
        if self._puts < 0:
            raise Killed
        self._inner.put(uri, data)


class KillingProducer(MemoryProducer):
    """Dies when it is asked to send."""

    def send(self, record: OutRecord) -> object:  # type: ignore[override]
        raise Killed


class KillingJobs(Jobs):
    """Dies when it is to note the end."""

    def finish(self, training_id: str, version: str, message: str, at: datetime) -> None:
        raise Killed


def killed_in_the_fit(rig: Rig) -> TrainingStep:
    dying = ScriptedFit()
    dying.error = Killed()
    return rig.training_step(fit=dying)


def killed_in_the_upload(puts: int) -> Callable[[Rig], TrainingStep]:
    return lambda rig: rig.training_step(registry=Registry(rig.engine, KillingStore(rig.store, puts)))


STAGES: dict[str, tuple[Callable[[Rig], TrainingStep], bool]] = {
    "fit": (killed_in_the_fit, False),
    "first file": (killed_in_the_upload(0), False),
    "manifest": (killed_in_the_upload(5), False),
    "announcement": (lambda rig: rig.training_step(producer=KillingProducer(rig.broker)), True),
    "end of job": (lambda rig: rig.training_step(jobs=KillingJobs(rig.engine)), True),
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_it_restarts_and_never_publishes_half_a_model(
    rig: Rig, stage: str, tmp_path: Path
) -> None:
    """Promise P13; the integration test does the same with SIGKILL."""
    make, is_registered = STAGES[stage]
    with pytest.raises(Killed):
        make(rig).handle(REQUEST)
    if is_registered:
        rig.registry.fetch(rig.registry.latest("plates"), tmp_path / "early")
    else:
        with pytest.raises(UnknownProject):
            rig.registry.latest("plates")
        assert rig.announced() == []
    rig.training_step().handle(REQUEST)  # Kafka gives the record again
    said = rig.registry.latest("plates")
    assert len(rig.registry.versions("plates")) == 1
    assert set(rig.announced()) == {said}
    assert rig.jobs.get("t1").state is JobState.DONE
    shutil.rmtree(tmp_path / "late", ignore_errors=True)
    rig.registry.fetch(said, tmp_path / "late")


def test_what_a_killed_trainer_left_is_removed(rig: Rig) -> None:
    left = rig.folder / "work" / "abc"
    left.mkdir(parents=True)
    rig.training_step()
    assert not left.exists()

"""Labels to entries; requests to announced versions, whatever is killed in between."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
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
    BadSettings,
    CorruptModel,
    MalformedRecord,
    NotEnoughImages,
    Rejected,
    UnknownProject,
)
from services.domain.label import Label, Mask, Split, Verdict, entry_id_of
from services.domain.model_version import (
    FitOptions,
    JobState,
    Manifest,
    ModelAnnouncement,
    TrainingRequest,
    VersionState,
)
from services.domain.promotion import Decision
from services.domain.topics import MODELS
from services.trainer.dataset_versions import DatasetVersions
from services.trainer.datasets import Datasets
from services.trainer.fit_input import Bringer
from services.trainer.fit_process import FitJob, FitResult, Tell
from services.trainer.jobs import PROMOTING, Jobs
from services.trainer.pipeline import LabelStep, Makers, TrainingStep
from services.trainer.registry import Registry
from services.vision.masks import read_mask
from services.wire.label import encode_label
from services.wire.model import decode_announcement
from services.wire.record import OutRecord, Record
from services.wire.training import encode_training_request
from tests.unit.trainer.models import model_folder
from tests.unit.trainer.pictures import picture
from tests.unit.trainer.test_datasets import drawn

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Killed(BaseException):
    """SIGKILL: nothing below catches it."""


class ScriptedFit:
    """Writes a small model folder, or raises."""

    def __init__(self) -> None:
        self.jobs: list[tuple[FitJob, dict[str, bytes]]] = []
        self.error: BaseException | None = None
        self.stages: list[str] = []
        self.between: Callable[[], None] = lambda: None
        self.offered = 1 << 40

    def offered_bytes(self) -> int:
        return self.offered

    def run(self, job: FitJob, folder: Path, tell: Tell) -> FitResult:
        files = [name for one in job.images for name in (one.file, *one.masks.values())]
        self.jobs.append((job, {name: (folder / name).read_bytes() for name in files}))
        for stage in self.stages:
            self.between()
            tell(stage, 0.5)
        if self.error is not None:
            raise self.error
        model = model_folder(folder, project=job.project, version=job.version, created_at=AT)[0]
        return FitResult(model, ("Entry 1 is left out: no image.",), ("2 photos show one object.",))


class ScriptedPromotion:
    """Registers and decides as it is told to; dies where it is told to."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.state = VersionState.PROMOTED
        self.dies_at = ""

    def consider(self, folder: Path, manifest: Manifest, request: TrainingRequest) -> Decision:
        self.registry.register(folder, manifest, request.training_id)
        return self._decide(manifest.project, manifest.version)

    def resume(self, request: TrainingRequest) -> tuple[ModelAnnouncement, Decision] | None:
        said = self.registry.of_training(request.training_id)
        return None if said is None else (said, self._decide(said.project, said.version))

    def _decide(self, project: str, version: str) -> Decision:
        if self.dies_at == "decision":
            raise Killed
        evidence = {"reasons": ["It is no worse."]}
        record = self.registry.decide(project, version, self.state, evidence, AT)
        return Decision(record.state is VersionState.PROMOTED, record.reasons)


class ScriptedUpdate:
    """Makes a version without a fit."""

    def __init__(self) -> None:
        self.requests: list[TrainingRequest] = []

    def run(self, request: TrainingRequest, folder: Path) -> Path:
        self.requests.append(request)
        return model_folder(folder, project=request.project, version="v-updated", created_at=AT)[0]


class Rig:
    """A trainer without Kafka, and what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        url = f"sqlite:///{folder / 'loupe.db'}"
        migrate(url)
        self.engine: Engine = open_engine(url)
        self.store: ObjectStore = folder_store(folder / "s3")
        self.broker = MemoryBroker(partitions=1)
        self.clock = FakeClock(AT)
        self.fit = ScriptedFit()
        self.update = ScriptedUpdate()
        self.metrics = Metrics()
        self.datasets = Datasets(self.engine, self.store, self.clock)
        self.versions = DatasetVersions(self.engine, self.store)
        self.registry = Registry(self.engine, self.store)
        self.promotion = ScriptedPromotion(self.registry)
        self.jobs = Jobs(self.engine)

    def training_step(
        self,
        *,
        fit: ScriptedFit | None = None,
        promotion: ScriptedPromotion | None = None,
        store: ObjectStore | None = None,
        **parts: object,
    ) -> TrainingStep:
        patience = Patience()
        datasets = self.datasets if store is None else Datasets(self.engine, store, self.clock)
        given: dict[str, object] = {
            "bringer": Bringer(datasets, self.versions, patience, self.clock),
            "makers": Makers(fit or self.fit, self.update, promotion or self.promotion),
            "jobs": self.jobs, "producer": MemoryProducer(self.broker), "patience": patience,
            "metrics": self.metrics, "clock": self.clock, "work_folder": self.folder / "work",
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
    assert len(rig.fit.jobs) == len(rig.registry.records("plates")) == 1


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
    """Dies before the n-th object is written, or read."""

    def __init__(self, inner: ObjectStore, *, puts: int = 99, gets: int = 99) -> None:
        self._inner, self._puts, self._gets = inner, puts, gets

    def put(self, uri: str, data: bytes) -> None:
        self._puts -= 1
        if self._puts < 0:
            raise Killed
        self._inner.put(uri, data)

    def get(self, uri: str) -> bytes:
        self._gets -= 1
        if self._gets < 0:
            raise Killed
        return self._inner.get(uri)


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
    def step(rig: Rig) -> TrainingStep:
        store = KillingStore(rig.store, puts=puts)
        return rig.training_step(promotion=ScriptedPromotion(Registry(rig.engine, store)))

    return step


def killed_while_deciding(rig: Rig) -> TrainingStep:
    dying = ScriptedPromotion(rig.registry)
    dying.dies_at = "decision"
    return rig.training_step(promotion=dying)


STAGES: dict[str, tuple[Callable[[Rig], TrainingStep], bool]] = {
    "second photo": (lambda rig: rig.training_step(store=KillingStore(rig.store, gets=1)), False),
    "fit": (killed_in_the_fit, False),
    "first file": (killed_in_the_upload(0), False),
    "manifest": (killed_in_the_upload(5), False),
    "decision": (killed_while_deciding, False),
    "announcement": (lambda rig: rig.training_step(producer=KillingProducer(rig.broker)), True),
    "end of job": (lambda rig: rig.training_step(jobs=KillingJobs(rig.engine)), True),
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_it_restarts_and_never_publishes_half_a_model(
    rig: Rig, stage: str, tmp_path: Path
) -> None:
    """Promise P13; the integration test does the same with SIGKILL."""
    for seed in range(2):
        rig.datasets.store(rig.label(picture(seed)))
    make, is_promoted = STAGES[stage]
    with pytest.raises(Killed):
        make(rig).handle(REQUEST)
    if is_promoted:
        rig.registry.fetch(rig.registry.latest("plates"), tmp_path / "early")
    else:
        with pytest.raises(UnknownProject):
            rig.registry.latest("plates")
        assert rig.announced() == []
    rig.training_step().handle(REQUEST)  # Kafka gives the record again
    said = rig.registry.latest("plates")
    assert len(rig.registry.records("plates")) == 1
    assert set(rig.announced()) == {said}
    assert rig.jobs.get("t1").state is JobState.DONE
    shutil.rmtree(tmp_path / "late", ignore_errors=True)
    rig.registry.fetch(said, tmp_path / "late")


def test_a_version_that_is_kept_back_is_not_announced(rig: Rig) -> None:
    rig.promotion.state = VersionState.KEPT
    rig.training_step().handle(REQUEST)
    done = rig.jobs.get("t1")
    assert (done.state, rig.announced()) == (JobState.DONE, [])
    assert "is kept back; the version before it stays. It is no worse." in done.message


def test_a_fit_sees_masks_types_and_splits_and_names_its_data(rig: Rig) -> None:
    mask = Mask("scratch", rig.store.put_image("loupe-frames", drawn((160, 160))))
    said = replace(rig.label(picture(1), Verdict.ANOMALY), classes=("dent",), masks=(mask,), split=Split.TEST)
    rig.datasets.store(said)
    rig.training_step().handle(REQUEST)
    ((job, files),) = rig.fit.jobs
    (image,) = job.images
    assert (image.types, image.split) == (("dent", "scratch"), Split.TEST)
    assert files[image.masks["scratch"]] == read_mask(drawn((160, 160)), (160, 160))
    (seen,) = rig.versions.of_project("plates")
    assert (job.data_digest, seen.images) == (seen.digest, 1)
    # What the fit found out about its data is kept with the data.
    assert [one.kind for one in seen.findings] == ["left-out", "near-duplicate"]
    assert rig.jobs.get("t1").message.endswith("to be said of its data: loupe dataset plates")


def test_an_image_that_is_gone_is_left_out_and_named(rig: Rig) -> None:
    for seed in range(2):
        rig.datasets.store(rig.label(picture(seed)))
    gone = rig.datasets.entries("plates")[0]
    rig.store.delete(gone.image.uri)
    rig.training_step().handle(REQUEST)
    ((job, _),) = rig.fit.jobs
    assert len(job.images) == 1
    assert any(str(gone.entry_id) in note for note in job.notes)


def test_a_fit_that_does_not_fit_into_memory_is_refused_with_both_numbers(rig: Rig) -> None:
    rig.fit.offered = 100 << 20
    with pytest.raises(Rejected, match=r"would take about [\d,]+ MiB of memory; it may take 100 MiB"):
        rig.training_step().handle(REQUEST)
    assert rig.fit.jobs == []
    assert (rig.jobs.get("t1").memory_bytes or 0) > rig.fit.offered


def test_what_only_one_training_cannot_survive_does_not_stop_the_trainer(rig: Rig) -> None:
    """It did: the trainer ended, came back, read the same record, and ended again, for ever."""
    rig.fit.error = CorruptModel("The graph is damaged.")
    with pytest.raises(Rejected, match="damaged"):
        rig.training_step().handle(REQUEST)
    rig.fit.error = BadSettings("Another database.")
    with pytest.raises(BadSettings):
        rig.training_step().handle(REQUEST)


def test_a_cancelled_training_never_starts(rig: Rig) -> None:
    step = rig.training_step()
    rig.jobs.queue(TrainingRequest("t1", "plates", AT))
    rig.jobs.cancel("t1", "ada", AT)
    step.handle(REQUEST)
    assert (rig.fit.jobs, rig.announced()) == ([], [])
    assert rig.jobs.get("t1").state is JobState.CANCELLED


def test_a_running_training_is_cancelled_within_a_second_and_publishes_nothing(rig: Rig) -> None:
    def turn_and_cancel() -> None:
        if len(rig.fit.jobs) == 1 and rig.jobs.get("t1").state is JobState.RUNNING:
            rig.jobs.cancel("t1", "ada", AT)
        rig.clock.advance(1.0)

    rig.fit.stages = ["read", "learn", "write"]
    rig.fit.between = turn_and_cancel
    rig.training_step().handle(REQUEST)
    job = rig.jobs.get("t1")
    assert (job.state, job.cancelled_by, job.version) == (JobState.CANCELLED, "ada", None)
    with pytest.raises(UnknownProject):
        rig.registry.records("plates")
    assert b'loupe_trainings_total{project="plates",state="cancelled"} 1.0' in rig.metrics.page()
    rig.training_step().handle(REQUEST)  # nor when the record comes again
    assert len(rig.fit.jobs) == 1


def test_a_version_that_is_being_promoted_can_no_longer_be_cancelled(rig: Rig) -> None:
    with pytest.raises(Killed):
        killed_while_deciding(rig).handle(REQUEST)
    assert rig.jobs.get("t1").stage == PROMOTING
    with pytest.raises(BadRequest, match="too late"):
        rig.jobs.cancel("t1", "ada", AT)


def test_a_job_tells_how_far_it_is(rig: Rig) -> None:
    told: list[tuple[str, float, float | None]] = []

    def look() -> None:
        rig.clock.advance(2.0)
        job = rig.jobs.get("t1")
        told.append((job.stage, job.done_ratio, job.eta_s))

    rig.fit.stages = ["read", "learn", "write"]
    rig.fit.between = look
    rig.datasets.store(rig.label(picture(1)))
    rig.training_step().handle(REQUEST)
    assert [stage for stage, _, _ in told] == ["fetch", "read", "learn"]
    assert told[0][2] is None
    assert told[1][1] < told[2][1]
    assert all(eta_s is not None and eta_s > 0 for _, _, eta_s in told[1:])
    assert rig.jobs.get("t1").done_ratio == 1.0


def test_an_update_says_nothing_of_how_long_a_fit_takes(rig: Rig) -> None:
    rig.fit.stages, rig.fit.between = ["read"], lambda: rig.clock.advance(30)
    step, told = rig.training_step(), []
    for is_update in (False, True):
        wish = TrainingRequest(f"t{is_update:d}", "plates", AT, is_update=is_update)
        step.handle(read(encode_training_request(wish)))
        told.append(step._measured_s["plates"])
    assert told[0] == told[1]
    assert "read" in told[0]


def test_an_update_takes_no_fit(rig: Rig) -> None:
    wish = TrainingRequest("u1", "plates", AT, trigger="review", is_update=True)
    rig.training_step().handle(read(encode_training_request(wish)))
    assert (rig.fit.jobs, rig.update.requests) == ([], [wish])
    assert [one.version for one in rig.announced()] == ["v-updated"]
    assert rig.jobs.get("u1").trigger == "review"


def test_what_a_killed_trainer_left_is_removed(rig: Rig) -> None:
    left = rig.folder / "work" / "abc"
    left.mkdir(parents=True)
    rig.training_step()
    assert not left.exists()

"""The trainer process on a real broker and object store: labels, trainings, kills at any stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import psutil
import pytest

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.database import migrate, open_engine
from services.adapters.object_store.store import MODELS_BUCKET, ObjectStore, s3_store
from services.domain.errors import UnknownObject, UnknownProject
from services.domain.label import Label, Verdict, entry_id_of
from services.domain.model_version import (
    FitOptions,
    JobState,
    ModelAnnouncement,
    TrainingRequest,
    VersionState,
)
from services.domain.topics import LABELS, MODELS
from services.embedded.home import free_ports
from services.trainer.dataset_versions import DatasetVersions
from services.trainer.datasets import Datasets
from services.trainer.jobs import Jobs
from services.trainer.policies import QUIET_S, Policies, Policy
from services.trainer.registry import Registry
from services.wire.dead_letter import DeadLetter, decode_dead_letter
from services.wire.label import encode_label
from services.wire.model import decode_announcement
from services.wire.record import OutRecord, Record
from services.wire.training import encode_training_request
from tests.poll import poll_until
from tests.servers import S3Access
from tests.unit.trainer.pictures import picture

pytestmark = pytest.mark.real

# A killed member is given up by the broker after its session of 10 s; the next one joins then, and fits
# at a low priority beside whatever else keeps the cores busy. Only a failure takes so long.
TAKE_OVER_S = 400.0
# What is tried is the trainer, not what it makes.
QUICK = FitOptions(families=("memory",))


@dataclass
class Bench:
    """One trainer's neighbours, and a project of its own."""

    kafka_bootstrap: str
    s3: S3Access
    folder: Path
    project: str

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'loupe.db'}"
        migrate(self.url)
        self.engine = engine = open_engine(self.url)
        self.store: ObjectStore = s3_store(self.s3.endpoint, self.s3.key, self.s3.secret, self.s3.region)
        self.registry = Registry(engine, self.store)
        self.datasets = Datasets(engine, self.store)
        self.versions = DatasetVersions(engine, self.store)
        self.jobs = Jobs(engine)
        self.producer = KafkaBrokerProducer(self.kafka_bootstrap)
        self.reader = KafkaTopicReader(self.kafka_bootstrap)
        (self.port,) = free_ports(1, seed=str(self.folder))

    def environment(self) -> dict[str, str]:
        """Return what every process of ours finds."""
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},  # noqa: TID251
            "LOUPE_HOME": str(self.folder),
            "LOUPE_KAFKA_BOOTSTRAP": self.kafka_bootstrap,
            "LOUPE_DATABASE_URL": self.url,
            "LOUPE_TRAINER_PORT": str(self.port),
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint,
            "AWS_ACCESS_KEY_ID": self.s3.key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret,
            "AWS_DEFAULT_REGION": self.s3.region,
        }

    def loupe(self, *words: str, code: int = 0) -> str:
        """Run the command as a person does, and return what it printed."""
        command = [str(Path(sys.executable).with_name("loupe")), *words]
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, timeout=TAKE_OVER_S, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def trainer(self) -> Iterator[psutil.Popen]:
        """Run the process until the end of the block, or until it is killed."""
        process = psutil.Popen([sys.executable, "-m", "services.trainer"], env=self.environment())
        try:
            yield process
        finally:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
            process.wait(10)

    def is_healthy(self) -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=1) as page:
            return bool(page.status == 200)
        return False

    def send(self, *records: OutRecord) -> None:
        for record in records:
            self.producer.send(record)
        self.producer.flush(10)

    def labels(self, count: int, verdict: Verdict = Verdict.NORMAL) -> Iterator[OutRecord]:
        for seed in range(count):
            image = self.store.put_image("loupe-frames", picture(seed, is_bad=verdict is Verdict.ANOMALY))
            entry_id = entry_id_of(self.project, frame_id=None, sha256=image.sha256)
            yield encode_label(Label(entry_id, self.project, datetime.now(UTC), image, None, verdict))

    def request(self, training_id: str) -> OutRecord:
        wish = TrainingRequest(training_id, self.project, datetime.now(UTC), options=QUICK)
        return encode_training_request(wish)

    def records(self, topic: str) -> list[Record]:
        """Return this project's records of a topic."""
        key = self.project.encode()
        return [
            record
            for partition, span in self.reader.spans(topic).items()
            for record in self.reader.records_at(topic, partition, span)
            if record.key == key
        ]

    def announced(self) -> list[ModelAnnouncement]:
        return [decode_announcement(record.value) for record in self.records(MODELS.name)]

    def letters(self, topic: str) -> list[DeadLetter]:
        return [decode_dead_letter(record) for record in self.records(topic)]

    def wait_for_job(self, training_id: str, state: JobState, deadline_s: float = TAKE_OVER_S) -> None:
        poll_until(lambda: self.job_state(training_id) is state, deadline_s=deadline_s, what=f"job {state}")

    def fit_stage(self) -> str:
        """Return what the fit that runs says it does; empty while none does."""
        for file in (self.folder / "trainer").glob("*/progress.json"):
            with suppress(OSError, ValueError):  # gone, or just begun
                return str(json.loads(file.read_text())["stage"])
        return ""

    def version_states(self) -> list[VersionState]:
        with suppress(UnknownProject):
            return [one.state for one in self.registry.records(self.project)]
        return []

    def job_state(self, training_id: str) -> JobState | None:
        with suppress(UnknownObject):
            return self.jobs.get(training_id).state
        return None


@pytest.fixture
def bench(kafka_bootstrap: str, s3_access: S3Access, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(kafka_bootstrap, s3_access, tmp_path, f"plates-{uuid4().hex[:8]}")
    yield bench
    bench.producer.close()
    bench.reader.close()


@pytest.mark.timeout(900)
def test_labels_and_a_request_become_an_announced_version(bench: Bench, tmp_path: Path) -> None:
    training_id = uuid4().hex
    image = bench.store.put_image("loupe-frames", picture(99))
    json_label = {
        "project": bench.project, "verdict": "normal", "image": {"uri": image.uri, "sha256": image.sha256},
    }  # fmt: skip
    lost_label = {"project": bench.project, "verdict": "normal", "frame_id": str(uuid4())}
    key = bench.project.encode()
    bench.send(
        *bench.labels(8),
        *bench.labels(2, Verdict.ANOMALY),
        OutRecord(LABELS.name, key, json.dumps(json_label).encode()),
        # A header that is no text must not keep a record from being handled.
        OutRecord(LABELS.name, key, json.dumps(lost_label).encode(), (("x", b"\xff"),)),
    )
    with bench.trainer() as process:
        poll_until(bench.is_healthy, deadline_s=30, what="healthy")
        poll_until(lambda: len(bench.datasets.entries(bench.project)) == 11, deadline_s=30)
        (letter,) = poll_until(lambda: bench.letters("loupe.labels.dlq"), deadline_s=10)
        assert letter.reason.startswith("No verdict on frame ")
        assert letter.original.headers == (("x", b"\xff"),)
        bench.send(bench.request(training_id), bench.request(training_id))
        bench.wait_for_job(training_id, JobState.DONE)
        asked_again = uuid4().hex
        bench.send(bench.request(training_id), bench.request(asked_again))
        bench.wait_for_job(asked_again, JobState.DONE)
        # The fit had its own; what stays is the consumer, and the runtime that replays versions.
        assert process.memory_full_info().pss < 300e6
        process.terminate()
        assert process.wait(5) == 0
    first, second = known_versions(bench)
    assert [first.training_id, second.training_id] == [training_id, asked_again]
    assert bench.announced() == [first, second]
    manifest = bench.registry.fetch(second, tmp_path / "brought")
    assert (manifest.train_images, manifest.metrics["image_auroc"]) == (9, 1.0)


def test_a_training_that_cannot_be_done_says_why(bench: Bench) -> None:
    training_id = uuid4().hex
    bench.send(*bench.labels(1), bench.request(training_id))
    with bench.trainer():
        bench.wait_for_job(training_id, JobState.FAILED)
        (letter,) = poll_until(lambda: bench.letters("loupe.training.dlq"), deadline_s=10)
    assert letter.cause == "NotEnoughImages"
    assert letter.reason == bench.jobs.get(training_id).message
    assert "at least 2 different photos" in letter.reason
    assert bench.announced() == []


@pytest.mark.timeout(300)
def test_a_person_who_waits_is_told_what_came_of_it(bench: Bench) -> None:
    bench.send(*bench.labels(1))
    with bench.trainer():
        told = json.loads(bench.loupe("train", bench.project, "--tiles", "2", "--wait", "--json", code=1))
    assert (told["state"], told["options"]["tiles"]) == ("failed", 2)
    assert "at least 2 different photos" in told["message"]
    queued = json.loads(bench.loupe("train", bench.project, "--no-wait", "--json"))
    assert queued["state"] == "queued"
    bench.loupe("train", "--cancel", queued["training_id"])
    listed = json.loads(bench.loupe("train", "--list", bench.project, "--json"))["trainings"]
    assert [one["state"] for one in listed] == ["cancelled", "failed"]
    held = json.loads(bench.loupe("dataset", bench.project, "--json"))
    assert (held["images"], held["versions"][0]["images"]) == (1, 1)


def is_fetching(bench: Bench, process: psutil.Popen) -> bool:
    return any((bench.folder / "trainer").glob("*/*"))


def fits_of(process: psutil.Popen) -> list[psutil.Process]:
    """Return the fits that a trainer has running; libraries start other children for a moment."""
    found = []
    for child in process.children():
        with suppress(psutil.Error):  # ended meanwhile
            if "services.trainer.fit_process" in child.cmdline():
                found.append(child)
    return found


def is_fitting(bench: Bench, process: psutil.Popen) -> bool:
    return bool(fits_of(process))


def is_learning(bench: Bench, process: psutil.Popen) -> bool:
    return bench.fit_stage() not in ("", "read") or is_uploading(bench, process)


def is_writing(bench: Bench, process: psutil.Popen) -> bool:
    return bench.fit_stage() == "write" or is_uploading(bench, process)


def is_uploading(bench: Bench, process: psutil.Popen) -> bool:
    return bool(bench.store.list(f"s3://{MODELS_BUCKET}/{bench.project}"))


def is_registered(bench: Bench, process: psutil.Popen) -> bool:
    return bool(bench.version_states())


def is_promoted(bench: Bench, process: psutil.Popen) -> bool:
    return VersionState.PROMOTED in bench.version_states()


STAGES: list[Callable[[Bench, psutil.Popen], bool]] = [
    is_fetching, is_fitting, is_learning, is_writing, is_uploading, is_registered, is_promoted,
]  # fmt: skip


@pytest.mark.timeout(2400)
def test_killed_at_any_stage_it_starts_again_and_never_publishes_half_a_model(
    bench: Bench, tmp_path: Path
) -> None:
    """Promise P13: SIGKILL at every stage, in one life of one request."""
    training_id = uuid4().hex
    bench.send(*bench.labels(6), bench.request(training_id))
    for has_come in STAGES:
        with bench.trainer() as process:
            poll_until(partial(has_come, bench, process), deadline_s=TAKE_OVER_S, every_s=0.001)
            fits = fits_of(process)
            process.kill()
            process.wait(10)
            poll_until(partial(all_gone, fits), deadline_s=10, what="the fits are gone, too")
        for said in known_versions(bench):  # the kill may have come a moment after the upload
            bench.registry.fetch(said, tmp_path / said.version)
    with bench.trainer():
        bench.wait_for_job(training_id, JobState.DONE)
    (said,) = known_versions(bench)
    assert set(bench.announced()) == {said}
    manifest = bench.registry.fetch(said, tmp_path / "brought")
    # What was read again was the same, so it is one version of the dataset, and the model names it.
    (seen,) = bench.versions.of_project(bench.project)
    assert (manifest.data_digest, seen.images, seen.model_versions) == (seen.digest, 6, (said.version,))


@pytest.mark.timeout(900)
def test_a_cancelled_training_ends_within_two_seconds_and_the_next_one_runs(bench: Bench) -> None:
    cancelled, wanted = uuid4().hex, uuid4().hex
    bench.send(*bench.labels(6), bench.request(cancelled), bench.request(wanted))
    with bench.trainer() as process:
        fits = poll_until(lambda: fits_of(process), deadline_s=TAKE_OVER_S, every_s=0.01, what="it fits")
        bench.jobs.cancel(cancelled, "ada", datetime.now(UTC))
        poll_until(partial(all_gone, fits), deadline_s=2, what="the fit is gone")
        bench.wait_for_job(wanted, JobState.DONE)
    assert bench.job_state(cancelled) is JobState.CANCELLED
    assert [one.training_id for one in bench.announced()] == [wanted]
    assert len(bench.registry.records(bench.project)) == 1


@pytest.mark.timeout(900)
def test_a_project_with_a_policy_trains_by_itself(bench: Bench) -> None:
    Policies(bench.engine).put(Policy(bench.project, 4, None, QUICK, "ada", datetime.now(UTC)))
    with bench.trainer():
        bench.send(*bench.labels(5))
        (job,) = poll_until(lambda: bench.jobs.all(bench.project), deadline_s=QUIET_S + TAKE_OVER_S)
        bench.wait_for_job(job.training_id, JobState.DONE)
    assert (job.trigger, job.author) == ("labels", "ada")
    assert [one.training_id for one in bench.announced()] == [job.training_id]
    assert len(bench.jobs.all(bench.project)) == 1


def all_gone(processes: list[psutil.Process]) -> bool:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def known_versions(bench: Bench) -> tuple[ModelAnnouncement, ...]:
    with suppress(UnknownProject):
        return tuple(one.announcement for one in bench.registry.records(bench.project))
    return ()

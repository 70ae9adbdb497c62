"""Labels become dataset entries (arrow 5); wishes become registered, announced versions (arrow 6).

The order in `TrainingStep` is the promise: registered, decided on, announced if promoted, noted as done, and
only then acknowledged. Killed anywhere between, it begins again and finds what is done. Does not host.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from services.adapters.broker import Producer
from services.adapters.broker.patience import Patience
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.errors import (
    BadSettings,
    Cancelled,
    LoupeError,
    MalformedRecord,
    Rejected,
    StopProcess,
)
from services.domain.metrics import LABELS_TOTAL, TRAINING_TOTAL
from services.domain.model_version import JobState, Manifest, ModelAnnouncement, TrainingRequest
from services.domain.project import checked_project_name
from services.domain.promotion import Decision
from services.trainer.datasets import Datasets
from services.trainer.fit_input import Bringer
from services.trainer.fit_memory import check_memory, needed_bytes
from services.trainer.fit_process import FitJob, FitResult, Tell
from services.trainer.handling import publish
from services.trainer.jobs import PROMOTING, Jobs
from services.trainer.registry import new_version
from services.trainer.training_progress import USUAL_S, Estimate, ProgressReport
from services.vision.runtime import verify_folder
from services.wire.label import decode_label
from services.wire.model import encode_announcement
from services.wire.record import Record
from services.wire.training import decode_training_request

logger = logging.getLogger(__name__)

# A group per topic: in one group the coming of one member would make the other begin again.
GROUP, LABELS_GROUP = "loupe-trainer", "loupe-trainer-labels"


class Fit(Protocol):
    """What a training needs of `FitProcess` or `RayFit`."""

    def offered_bytes(self) -> int:
        """Return how much memory a fit may take."""

    def run(self, job: FitJob, folder: Path, tell: Tell) -> FitResult:
        """Fit; see `FitProcess.run`."""


class Update(Protocol):
    """What a training needs of `services.trainer.update.QuickUpdate`."""

    def run(self, request: TrainingRequest, folder: Path) -> Path:
        """Return the model folder, made below `folder`."""


class Promotion(Protocol):
    """What a training needs of `services.trainer.promotion.Promotion`."""

    def consider(self, folder: Path, manifest: Manifest, request: TrainingRequest) -> Decision:
        """Register a version as candidate, prove it, compare it, and note what comes of it."""

    def resume(self, request: TrainingRequest) -> tuple[ModelAnnouncement, Decision] | None:
        """Return what came of the version that a request led to, None where there is none yet."""


class LabelStep:
    """`loupe.labels` -> dataset entries."""

    def __init__(self, datasets: Datasets, metrics: Metrics) -> None:
        """Store labels in `datasets`."""
        self._datasets = datasets
        self._metrics = metrics

    def handle(self, record: Record) -> None:
        """Store one label; see `Datasets.store` for what it raises, and `decode_label`."""
        label = decode_label(record)
        if self._datasets.store(label):
            self._metrics.add(LABELS_TOTAL, project=label.project, verdict=label.verdict or "none")

    def give_up(self, record: Record, error: LoupeError) -> None:
        """Nothing to note: the dead letter says it all."""


@dataclass(frozen=True, slots=True)
class Makers:
    """Who makes versions, and decides on them."""

    fit: Fit
    update: Update
    promotion: Promotion


class TrainingStep:
    """`loupe.training` -> a version in the registry, announced on `loupe.models` if it may serve."""

    def __init__(
        self,
        *,
        bringer: Bringer,
        makers: Makers,
        jobs: Jobs,
        producer: Producer,
        patience: Patience,
        metrics: Metrics,
        clock: Clock,
        work_folder: Path,
        labels_before: Callable[[datetime], None],
    ) -> None:
        """Fit in folders below `work_folder`; what a killed trainer left there is removed.

        `labels_before` returns once the labels published until then are stored, as `LabelsFirst.wait`.
        """
        self._bringer = bringer
        self._makers = makers
        self._jobs = jobs
        self._producer = producer
        self._patience = patience
        self._metrics = metrics
        self._clock = clock
        self._work_folder = work_folder
        self._labels_before = labels_before
        # Per project, how long each stage of its latest training took.
        self._measured_s: dict[str, dict[str, float]] = {}
        shutil.rmtree(work_folder, ignore_errors=True)

    def handle(self, record: Record) -> None:
        """Train once per training id; a request that comes again is answered with what it led to.

        Raises:
            Rejected: it cannot be trained; the sentence says why.
            RetryLater: a neighbour is away, or the trainer is stopping.
            BadSettings: the database is another one's.
        """
        request = decode_training_request(record)
        checked_project_name(request.project)
        job = self._jobs.queue(request)
        # A version may be served from this stage on, and then the training cannot be cancelled any more.
        stage = PROMOTING if job.stage == PROMOTING else ""
        if not self._jobs.run(request.training_id, stage):
            logger.info("training %s is %s already", request.training_id, job.state)
            return
        try:
            self._train_and_settle(request, record.recorded_at)
        except Cancelled as error:
            logger.info("%s", error.message)
            self._metrics.add(TRAINING_TOTAL, project=request.project, state=JobState.CANCELLED)
        except BadSettings:
            raise
        except StopProcess as error:
            # It is this training that cannot go on: a trainer that stopped would begin it again for ever.
            raise Rejected(error.message, **error.details) from error

    def give_up(self, record: Record, error: LoupeError) -> None:
        """Note in the job why nothing came out."""
        try:
            request = decode_training_request(record)
        except MalformedRecord:
            return  # no job was made of it
        self._jobs.fail(request.training_id, error.message, self._clock.now())
        self._metrics.add(TRAINING_TOTAL, project=request.project, state=JobState.FAILED)

    def _train_and_settle(self, request: TrainingRequest, asked_at: datetime) -> None:
        """Make a version unless there is one, announce it if it is promoted, and note what came out."""
        promotion = self._makers.promotion
        settled = self._patience.call(partial(promotion.resume, request))
        remark = ""
        if settled is None:
            self._labels_before(asked_at)
            remark = self._make(request)
            settled = self._patience.call(partial(promotion.resume, request))
            assert settled is not None, "a version that was considered is registered"
        announcement, decision = settled
        if decision.is_promoted:
            publish(self._patience, self._producer, encode_announcement(announcement))
        message = " ".join(filter(None, [_outcome(announcement, decision), *decision.reasons, remark]))
        now = self._clock.now()
        self._patience.call(
            lambda: self._jobs.finish(request.training_id, announcement.version, message, now)
        )
        self._metrics.add(TRAINING_TOTAL, project=request.project, state=JobState.DONE)
        logger.info("training %s of %s: %s", request.training_id, request.project, message)

    def _make(self, request: TrainingRequest) -> str:
        """Make a version and have it considered, in a folder of its own; return what is to be added."""
        name = hashlib.sha256(request.training_id.encode()).hexdigest()[:16]
        folder = self._work_folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        usual_s = {**USUAL_S, **self._measured_s.get(request.project, {})}
        estimate = Estimate(usual_s, self._clock.monotonic_s())
        report = ProgressReport(self._jobs, self._clock, request.training_id, estimate)
        try:
            remark = ""
            if request.is_update:
                model = self._patience.call(lambda: self._makers.update.run(request, folder))
            else:
                model, remark = self._fit(request, folder, report)
            manifest = verify_folder(model)
            self._patience.call(report.close_door)
            self._patience.call(lambda: self._makers.promotion.consider(model, manifest, request))
            if not request.is_update:  # which has none of a fit's stages
                self._measured_s[request.project] = estimate.end(self._clock.monotonic_s())
            return remark
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fit(self, request: TrainingRequest, folder: Path, tell: Tell) -> tuple[Path, str]:
        """Fit a version of its own for every attempt, so that no upload meets another.

        Returns:
            The model folder, and what is to be said of the data.
        """
        fit = self._makers.fit
        needed = needed_bytes(*self._bringer.count(request.project), request.options)
        self._jobs.need(request.training_id, needed)
        check_memory(needed, fit.offered_bytes())
        given = self._bringer.bring(request.project, folder, tell)
        job = FitJob(
            project=request.project,
            version=new_version(self._clock.now(), secrets.token_hex(2)),
            options=request.options,
            images=given.images,
            data_digest=given.seen.digest,
            notes=given.notes,
            memory_bytes=needed,
        )
        fitted = fit.run(job, folder, tell)
        return fitted.model, self._bringer.note(given, fitted)


def _outcome(announcement: ModelAnnouncement, decision: Decision) -> str:
    """Return what became of a version, in a sentence."""
    if decision.is_promoted:
        return f"Version {announcement.version} is promoted and announced."
    return f"Version {announcement.version} is kept back; the version before it stays."

"""Labels become dataset entries (arrow 5); wishes become registered, announced versions (arrow 6).

The order in `TrainingStep` is the promise: uploaded, registered, announced, noted as done, and only
then acknowledged. Killed anywhere between, it begins again and finds what is done. Does not host.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from services.adapters.broker import Producer
from services.adapters.broker.patience import Patience
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.errors import LoupeError, MalformedRecord
from services.domain.label import Verdict
from services.domain.metrics import LABELS_TOTAL, TRAINING_TOTAL
from services.domain.model_version import JobState, ModelAnnouncement, TrainingRequest
from services.domain.project import checked_project_name
from services.trainer.datasets import Datasets
from services.trainer.fit_process import FitJob, TrainingImage
from services.trainer.handling import publish
from services.trainer.jobs import Jobs
from services.trainer.registry import Registry, new_version
from services.vision.runtime import verify_folder
from services.wire.label import decode_label
from services.wire.model import encode_announcement
from services.wire.record import Record
from services.wire.training import decode_training_request

logger = logging.getLogger(__name__)

# A group per topic: in one group the coming of one member would make the other begin again.
GROUP, LABELS_GROUP = "loupe-trainer", "loupe-trainer-labels"


class Fit(Protocol):
    """What a training needs of `FitProcess`."""

    def run(self, job: FitJob, folder: Path) -> Path:
        """Return the model folder; see `FitProcess.run`."""
        ...


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


class TrainingStep:
    """`loupe.training` -> a version in the registry, announced on `loupe.models`."""

    def __init__(
        self,
        *,
        datasets: Datasets,
        registry: Registry,
        jobs: Jobs,
        fit: Fit,
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
        self._datasets = datasets
        self._registry = registry
        self._jobs = jobs
        self._fit = fit
        self._producer = producer
        self._patience = patience
        self._metrics = metrics
        self._clock = clock
        self._work_folder = work_folder
        self._labels_before = labels_before
        shutil.rmtree(work_folder, ignore_errors=True)

    def handle(self, record: Record) -> None:
        """Train once per training id; a request that comes again is answered with what it led to.

        Raises:
            Rejected: it cannot be trained; the sentence says why.
            RetryLater: a neighbour is away, or the trainer is stopping.
        """
        request = decode_training_request(record)
        checked_project_name(request.project)
        if self._jobs.queue(request).state is JobState.DONE:
            logger.info("training %s is done already", request.training_id)
            return
        self._labels_before(record.recorded_at)
        self._jobs.run(request.training_id)
        announcement = self._registry.of_training(request.training_id) or self._train(request)
        publish(self._patience, self._producer, encode_announcement(announcement))
        message = f"Version {announcement.version} is registered and announced."
        now = self._clock.now()
        self._patience.call(
            lambda: self._jobs.finish(request.training_id, announcement.version, message, now)
        )
        self._metrics.add(TRAINING_TOTAL, project=request.project, state=JobState.DONE)
        logger.info("training %s of %s: %s", request.training_id, request.project, message)

    def give_up(self, record: Record, error: LoupeError) -> None:
        """Note in the job why nothing came out."""
        try:
            request = decode_training_request(record)
        except MalformedRecord:
            return  # no job was made of it
        self._jobs.fail(request.training_id, error.message, self._clock.now())
        self._metrics.add(TRAINING_TOTAL, project=request.project, state=JobState.FAILED)

    def _train(self, request: TrainingRequest) -> ModelAnnouncement:
        """Fit and register; a new version name for every attempt, so that no upload meets another."""
        name = hashlib.sha256(request.training_id.encode()).hexdigest()[:16]
        folder = self._work_folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            job = FitJob(
                project=request.project,
                version=new_version(self._clock.now(), secrets.token_hex(2)),
                options=request.options,
                images=self._bring_images(request.project, folder),
            )
            model = self._fit.run(job, folder)
            manifest = verify_folder(model)
            return self._patience.call(lambda: self._registry.register(model, manifest, request.training_id))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _bring_images(self, project: str, folder: Path) -> list[TrainingImage]:
        """Write the project's labelled images into `folder`, one by one."""
        images = []
        for entry in self._datasets.entries(project):
            if entry.verdict is None:
                continue
            file = str(entry.entry_id)
            (folder / file).write_bytes(self._patience.call(partial(self._datasets.image, entry)))
            images.append(TrainingImage(file, Verdict(entry.verdict)))
        return images

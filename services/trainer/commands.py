"""Fitting from photos on disk: what `loupe fit` does, without a terminal (arrow 6).

The same registry, object store and announcement as the trainer process uses; without a running stack
nobody hears the announcement, and hosting finds the version in the registry when it starts.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.domain.model_version import (
    DEFAULT_OPTIONS,
    FitOptions,
    Manifest,
    ModelAnnouncement,
    TrainingRequest,
)
from services.domain.project import checked_project_name
from services.domain.promotion import Decision
from services.trainer.dataset import SkippedImage
from services.trainer.fit import Progress, fit_model
from services.trainer.folders import read_folder
from services.trainer.model_folder import CARD_FILE
from services.trainer.promotion import Promotion
from services.trainer.registry import new_version
from services.wire.model import encode_announcement

_PRODUCE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class FitRequest:
    """What a person asks for.

    Attributes:
        source: folder of photos; see `services.trainer.folders`.
        options: how to fit.
    """

    source: Path
    project: str
    options: FitOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """A version that was fitted and registered.

    Attributes:
        decision: whether it serves, and why.
        folder: the model folder on this machine.
        skipped: photos that were left out, with reasons.
    """

    announcement: ModelAnnouncement
    decision: Decision
    manifest: Manifest
    folder: Path
    skipped: tuple[SkippedImage, ...]

    @property
    def card(self) -> Path:
        """The page that shows what the version can do."""
        return self.folder / CARD_FILE

    def report(self) -> dict[str, Any]:
        """Return the numbers as JSON values; `image_auroc` is None without anomalous photos."""
        metrics = self.manifest.metrics
        return {
            "project": self.manifest.project,
            "version": self.manifest.version,
            "train_images": self.manifest.train_images,
            "fit_s": metrics["fit_s"],
            "image_auroc": metrics.get("image_auroc"),
            "threshold": self.manifest.calibration.threshold,
            "file_bytes": int(metrics["file_bytes"]),
            "is_promoted": self.decision.is_promoted,
            "reasons": list(self.decision.reasons),
            "warnings": list(self.manifest.warnings),
            "model_dir": str(self.folder),
        }


def fit_folder(
    request: FitRequest,
    *,
    promotion: Promotion,
    models: Path,
    producer: Producer | None,
    clock: Clock,
    progress: Progress | None = None,
) -> FitOutcome:
    """Fit from a folder of photos, register the version and, where it is promoted, announce it.

    Anomalous photos only measure the result; nothing is learnt from them.

    Args:
        request: what to fit.
        promotion: registers the version and decides whether it serves.
        models: folder of versions on this machine; `<project>/<version>` is made in it.
        producer: announces; None while no stack runs.
        clock: names the version.
        progress: told how far the fit is.

    Raises:
        BadRequest: the folder, the project's name or the promise makes no sense.
        NotEnoughImages: too few normal photos.
        MissingPart: set-up has not been run.
        RetryLater: fitted, but not registered or not announced.
    """
    project = checked_project_name(request.project)
    fitted = fit_model(
        read_folder(request.source),
        project=project,
        version=new_version(clock.now(), secrets.token_hex(2)),
        out_dir=models / project,
        options=request.options,
        progress=progress,
    )
    asked = TrainingRequest("", project, clock.now(), options=request.options)
    decision = promotion.consider(fitted.folder, fitted.manifest, asked)
    announcement = promotion.registry.record(project, fitted.manifest.version).announcement
    if producer is not None and decision.is_promoted:
        producer.send(encode_announcement(announcement)).result(_PRODUCE_TIMEOUT_S)
    return FitOutcome(announcement, decision, fitted.manifest, fitted.folder, fitted.skipped)

"""Fitting from photos on disk: what `loupe fit` does, without a terminal (arrow 6).

The same registry, object store and announcement as the trainer process uses; without a running stack
nobody hears the announcement, and hosting finds the version in the registry when it starts.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass
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
from services.trainer.backbones.opening import open_backbone
from services.trainer.dataset import SkippedImage
from services.trainer.features import FeatureExtractor
from services.trainer.fit import Progress, Recipe, fit_model
from services.trainer.folders import read_photos
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
        backbone: an ONNX file, or `random`; None: the one that set-up prepared.
        backbone_licence: of its weights.
    """

    source: Path
    project: str
    options: FitOptions = DEFAULT_OPTIONS
    backbone: str | None = None
    backbone_licence: str = ""


@dataclass(frozen=True, slots=True)
class FitOutcome:
    """A version that was fitted and registered.

    Attributes:
        decision: whether it serves, and why.
        folder: the model folder on this machine.
        skipped: files that were left out, with reasons.
        measured_on: a sentence that says on which photos the metrics were measured.
    """

    announcement: ModelAnnouncement
    decision: Decision
    manifest: Manifest
    folder: Path
    skipped: tuple[SkippedImage, ...]
    measured_on: str

    @property
    def card(self) -> Path:
        """The page that shows what the version can do."""
        return self.folder / CARD_FILE

    def report(self) -> dict[str, Any]:
        """Return the numbers as JSON values.

        `image_auroc` is None without anomalous photos, `graph_ms` (milliseconds an image, fp32, batch 1)
        where nobody measured it; `promise` is the share of good parts that may be rejected (0-1).
        """
        manifest = self.manifest
        metrics = manifest.metrics
        return {
            "project": manifest.project,
            "version": manifest.version,
            "train_images": manifest.train_images,
            "fit_s": metrics["fit_s"],
            "image_auroc": metrics.get("image_auroc"),
            "threshold": manifest.calibration.threshold,
            "file_bytes": int(metrics["file_bytes"]),
            "is_promoted": self.decision.is_promoted,
            "reasons": list(self.decision.reasons),
            "warnings": list(manifest.warnings),
            "skipped": [asdict(one) for one in self.skipped],
            "model_dir": str(self.folder),
            "family": manifest.family,
            "candidates": [asdict(one) for one in manifest.candidates],
            "graph_ms": manifest.variants[0].ms if manifest.variants else metrics.get("graph_ms"),
            "variants": [asdict(one) for one in manifest.variants],
            "serving": manifest.serving,
            "types": [asdict(one) for one in manifest.types],
            "measured_on": self.measured_on,
            "metrics": dict(metrics),
            "intervals": {name: list(ends) for name, ends in manifest.intervals.items()},
            "promise": manifest.calibration.max_false_reject_ratio,
            "backbone": asdict(manifest.backbone),
            "tiles": manifest.tiles,
            "card": str(self.card),
        }


@dataclass(frozen=True, slots=True)
class Forecast:
    """What tiles cost, known before anything is learnt.

    Attributes:
        input_px: side of what the detector sees of a photo.
        backbone_ms: milliseconds an image on this machine, the heads not counted.
    """

    input_px: int
    backbone_ms: float


def forecast(request: FitRequest) -> Forecast:
    """Time the request's backbone on as many tiles as it asks for.

    Raises:
        BadRequest: the backbone or the tiles make no sense.
        CorruptModel: the backbone's features are not finite.
        MissingPart: the prepared backbone was changed on disk.
    """
    opened = open_backbone(request.backbone, licence=request.backbone_licence, seed=request.options.seed)
    extractor = FeatureExtractor(opened, tiles=request.options.tiles)
    return Forecast(extractor.input_px, extractor.measure_ms())


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

    What anomalous photos are for, see `fit_model`.

    Args:
        request: what to fit.
        promotion: registers the version and decides whether it serves.
        models: folder of versions on this machine; `<project>/<version>` is made in it.
        producer: announces; None while no stack runs.
        clock: names the version.
        progress: told how far the fit is.

    Raises:
        BadRequest: the folder, the project's name, an option or the backbone makes no sense.
        NotEnoughImages: too few normal photos.
        CorruptModel: the backbone's features are not finite, or the graph is not what was learnt.
        MissingPart: the prepared backbone was changed on disk.
        RetryLater: fitted, but not registered or not announced.
    """
    project = checked_project_name(request.project)
    fitted = fit_model(
        read_photos(request.source),
        project=project,
        version=new_version(clock.now(), secrets.token_hex(2)),
        out_dir=models / project,
        options=request.options,
        progress=progress,
        recipe=Recipe(backbone=request.backbone, backbone_licence=request.backbone_licence),
    )
    asked = TrainingRequest("", project, clock.now(), options=request.options)
    decision = promotion.consider(fitted.folder, fitted.manifest, asked)
    announcement = promotion.registry.record(project, fitted.manifest.version).announcement
    if producer is not None and decision.is_promoted:
        producer.send(encode_announcement(announcement)).result(_PRODUCE_TIMEOUT_S)
    return FitOutcome(
        announcement, decision, fitted.manifest, fitted.folder, fitted.skipped, fitted.measured_on
    )

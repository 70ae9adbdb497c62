"""Model folders that hold no model, for tests of what is done with folders."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from services.domain.model_version import (
    Backbone,
    Calibration,
    Manifest,
    ModelAnnouncement,
    TensorSpec,
    VersionState,
)
from services.trainer.model_folder import write_folder
from services.trainer.registry import Registry
from services.vision.golden import Golden
from services.vision.outputs import GraphOutputs

CREATED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def model_folder(
    parent: Path, *, project: str = "plates", version: str = "v1", created_at: datetime = CREATED_AT
) -> tuple[Path, Manifest]:
    """Write a small but complete model folder."""
    manifest = Manifest(
        project=project,
        version=version,
        created_at=created_at,
        family="memory",
        inputs=(TensorSpec("pixels", "uint8", (-1, 224, 224, 3)),),
        outputs=(TensorSpec("score", "float32", (-1,)), TensorSpec("map", "float32", (-1, 28, 28))),
        calibration=Calibration(3.0, 1.0, 0.5, 24, 0.02, 2.5, 3.5, 2.0, 4.0),
        backbone=Backbone("none", "0" * 64, "Apache-2.0"),
        data_digest="0" * 64,
        train_images=24,
        files={},
        metrics={"image_auroc": 0.99},
    )
    outputs = GraphOutputs(np.zeros(1, np.float32), np.zeros((1, 2, 2), np.float32))
    golden = Golden(np.zeros((1, 2, 2, 3), np.uint8), outputs)
    return write_folder(parent, manifest, model=f"{project} {version}".encode(), golden=golden, card="<p>")


def promoted(
    registry: Registry, folder: Path, manifest: Manifest, *, at: datetime | None = None
) -> ModelAnnouncement:
    """Register a version and promote it, when it was made if `at` does not say."""
    said = registry.register(folder, manifest)
    at = at or manifest.created_at
    registry.decide(manifest.project, manifest.version, VersionState.PROMOTED, {"reasons": ["Why not."]}, at)
    return said

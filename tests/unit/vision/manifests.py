"""Manifests of versions that have no folder."""

from __future__ import annotations

from datetime import UTC, datetime

from services.domain.model_version import AnomalyType, Backbone, Calibration, Manifest, TensorSpec


def manifest_of(calibration: Calibration, *types: AnomalyType, input_px: int = 224) -> Manifest:
    """Return the manifest of a version of such an input."""
    grid = input_px // 4
    return Manifest(
        project="plates",
        version="v1",
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        family="memory",
        inputs=(TensorSpec("pixels", "uint8", (-1, input_px, input_px, 3)),),
        outputs=(TensorSpec("score", "float32", (-1,)), TensorSpec("map", "float32", (-1, grid, grid))),
        calibration=calibration,
        backbone=Backbone("none", "0" * 64, "Apache-2.0"),
        data_digest="0" * 64,
        train_images=30,
        files={},
        types=types,
    )

"""Inspection <-> database row, and the two durations that only the results service can know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from services.domain.frame import ImageReference
from services.domain.inspection import Inspection, Region, Role, inspection_id_of


def latency_ms(captured_at: datetime, stored_at: datetime) -> float:
    """Return capture to stored verdict in milliseconds; 0 for a camera whose clock is ahead."""
    return max(0.0, (stored_at - captured_at).total_seconds() * 1000)


def inspection_row(inspection: Inspection, *, produced_at: datetime, stored_at: datetime) -> dict[str, Any]:
    """Return the row of an inspection.

    Args:
        inspection: the verdict.
        produced_at: time of its Kafka record, from which the stage `store` counts.
        stored_at: now; the commit follows, some milliseconds later.
    """
    image, original = inspection.image, inspection.original
    store_ms = max(0.0, (stored_at - produced_at).total_seconds() * 1000)
    return {
        "inspection_id": str(inspection_id_of(inspection.frame_id, inspection.role, inspection.run)),
        "frame_id": str(inspection.frame_id),
        "role": inspection.role.value,
        "run": inspection.run,
        "camera": inspection.camera,
        "epoch": inspection.epoch,
        "sequence": inspection.sequence,
        "project": inspection.project,
        "model_version": inspection.model_version,
        "subject": inspection.subject,
        "part_id": inspection.part_id,
        "lot_id": inspection.lot_id,
        "is_anomalous": inspection.is_anomalous,
        "is_uncertain": inspection.is_uncertain,
        "confidence": inspection.confidence,
        "score": inspection.score,
        "threshold": inspection.threshold,
        "regions": [asdict(region) for region in inspection.regions],
        "image_uri": image.uri if image else None,
        "image_sha256": image.sha256 if image else None,
        "image_bytes": image.size_bytes if image else None,
        "retention": inspection.retention,
        "original_uri": original.uri if original else None,
        "original_sha256": original.sha256 if original else None,
        "original_bytes": original.size_bytes if original else None,
        "area": inspection.area,
        "width_px": inspection.width_px,
        "height_px": inspection.height_px,
        "stage_ms": {**inspection.stage_ms, "store": store_ms},
        "unit": inspection.unit,
        "picture": dict(inspection.picture),
        "captured_at": inspection.captured_at,
        "judged_at": inspection.judged_at,
        "stored_at": stored_at,
        "latency_ms": latency_ms(inspection.captured_at, stored_at),
    }


def inspection_of(row: Mapping[str, Any]) -> Inspection:
    """Return the inspection of a row; trace context and record position are not kept there."""
    return Inspection(
        frame_id=UUID(row["frame_id"]),
        role=Role(row["role"]),
        run=row["run"],
        camera=row["camera"],
        epoch=row["epoch"],
        sequence=row["sequence"],
        project=row["project"],
        model_version=row["model_version"],
        subject=row["subject"],
        part_id=row["part_id"],
        lot_id=row["lot_id"],
        is_anomalous=row["is_anomalous"],
        is_uncertain=row["is_uncertain"],
        confidence=row["confidence"],
        score=row["score"],
        threshold=row["threshold"],
        regions=tuple(Region(**region) for region in row["regions"]),
        image=reference_of(row, "image"),
        retention=row["retention"],
        original=reference_of(row, "original"),
        area=row["area"],
        width_px=row["width_px"],
        height_px=row["height_px"],
        stage_ms=row["stage_ms"],
        unit=row["unit"],
        picture=row["picture"],
        captured_at=row["captured_at"],
        judged_at=row["judged_at"],
    )


def reference_of(row: Mapping[str, Any], kind: str) -> ImageReference | None:
    """Return the reference that a row's columns `<kind>_uri`, `…_sha256`, `…_bytes` stand for."""
    if not row[f"{kind}_uri"]:
        return None
    return ImageReference(row[f"{kind}_uri"], row[f"{kind}_sha256"], row[f"{kind}_bytes"])

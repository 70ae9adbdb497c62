"""The report of a demo, as JSON: the fields are a contract, see the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from services.domain.label import Verdict
from services.domain.ledger import CameraBalance
from services.domain.model_version import Manifest
from services.embedded.demo.watch import Latency
from services.trainer.evaluation.image import image_auroc


def report_of(
    *,
    balances: Mapping[str, CameraBalance],
    is_balanced: bool,
    latency: Latency,
    verdicts: Sequence[Row[Any]],
    labels: Mapping[str, Verdict],
    manifest: Manifest,
    fit_s: float,
    file_bytes: int,
    parts: Mapping[str, Mapping[str, object]],
    elapsed_s: Mapping[str, float],
) -> dict[str, Any]:
    """Return the report document, of this run alone. Higher `score` means more anomalous."""
    normal = [row.score for row in verdicts if labels.get(row.subject) is Verdict.NORMAL]
    anomalous = [row.score for row in verdicts if labels.get(row.subject) is Verdict.ANOMALY]
    return {
        "frames": {
            name: sum(getattr(balance, name) for balance in balances.values())
            for name in ("captured", "judged", "quarantined", "shed")
        },
        "balanced": is_balanced,
        "latency_ms": {"p50": latency.p50_ms, "p95": latency.p95_ms, "p99": latency.p99_ms},
        "model": {
            "project": manifest.project,
            "version": manifest.version,
            "train_images": manifest.train_images,
            "fit_s": fit_s,
            "image_auroc": image_auroc(normal, anomalous) if normal and anomalous else None,
            "threshold": manifest.calibration.threshold,
            "file_bytes": file_bytes,
            "warnings": list(manifest.warnings),
        },
        "inspections": [
            {
                "frame_id": row.frame_id,
                "source": row.subject,
                "camera": row.camera,
                "is_anomalous": row.is_anomalous,
                "is_uncertain": row.is_uncertain,
                "confidence": row.confidence,
                "score": row.score,
                "latency_ms": row.latency_ms,
                "model_version": row.model_version,
                "label": labels[row.subject].value if row.subject in labels else None,
            }
            for row in verdicts
        ],
        "parts": dict(parts),
        "elapsed_s": dict(elapsed_s),
    }

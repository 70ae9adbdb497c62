"""From a decoded frame and its scores to an inspection: one place for every door (arrow 2).

Used by the inference units and by `loupe inspect` without a stack. Runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from services.domain.frame import Frame
from services.domain.inspection import Inspection
from services.domain.model_version import Manifest
from services.vision.decode import Decoded
from services.vision.outputs import ImageOutputs
from services.vision.picture import picture_of
from services.vision.scoring import Judgement


def input_size_px(manifest: Manifest) -> tuple[int, int]:
    """Return (width, height) of the model's input (N, H, W, 3)."""
    _, height_px, width_px, _ = manifest.inputs[0].shape
    return width_px, height_px


def inspection_of(
    frame: Frame,
    decoded: Decoded,
    manifest: Manifest,
    outputs: ImageOutputs,
    judgement: Judgement,
    *,
    judged_at: datetime,
    stage_ms: Mapping[str, float] | None = None,
    unit: str = "",
) -> Inspection:
    """Return the verdict of a model version on a frame.

    Args:
        frame: what was judged.
        decoded: its upright pixels.
        manifest: of the version.
        outputs: what the graph says of it.
        judgement: what `scoring.judge` made of them.
        judged_at: aware UTC time.
        stage_ms: milliseconds per stage so far.
        unit: replica that judged; empty outside of a cluster.
    """
    return Inspection(
        frame_id=frame.frame_id,
        camera=frame.camera,
        project=manifest.project,
        model_version=manifest.version,
        captured_at=frame.captured_at,
        judged_at=judged_at,
        is_anomalous=judgement.is_anomalous,
        confidence=judgement.confidence,
        score=outputs.score,
        threshold=manifest.calibration.threshold,
        is_uncertain=judgement.is_uncertain,
        subject=frame.subject,
        epoch=frame.epoch,
        sequence=frame.sequence,
        part_id=frame.part_id,
        lot_id=frame.lot_id,
        traceparent=frame.traceparent,
        regions=judgement.regions,
        width_px=decoded.width_px,
        height_px=decoded.height_px,
        stage_ms=stage_ms or {},
        unit=unit,
        picture=picture_of(decoded.pixels, outputs.score, outputs.embedding, manifest.reference),
        position=frame.position,
    )

"""An inspection: the verdict of one model version on one frame (arrows 2-4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from services.domain.frame import FRAME_NAMESPACE, ImageReference, RecordPosition


class Role(StrEnum):
    """Why a model judged the frame. `LIVE` and `CANARY` count: they raise events and end the frame."""

    LIVE = "live"
    SHADOW = "shadow"
    CANARY = "canary"
    REJUDGE = "rejudge"


# Their verdicts are ends of frames, and raise events.
COUNTING_ROLES = frozenset({Role.LIVE, Role.CANARY})


@dataclass(frozen=True, slots=True)
class Region:
    """A connected part of the image above the threshold of its map.

    All lengths are shares of the image's own width or height (0-1), so that they hold for any
    size; origin top left.
    """

    left_ratio: float
    top_ratio: float
    width_ratio: float
    height_ratio: float
    area_ratio: float
    mean_score: float
    anomaly_type: str = "anomaly"


@dataclass(frozen=True, slots=True)
class Inspection:
    """One recorded verdict.

    Attributes:
        frame_id: the frame judged.
        score: higher is more anomalous; comparable to `threshold` of the same version only.
        threshold: the score from which on the version calls a frame anomalous.
        confidence: 0-1, calibrated probability-like trust in the verdict given.
        is_uncertain: the score lies in the version's uncertainty band.
        regions: largest first; empty for a normal frame.
        image: kept pixels, None when the archive policy kept none.
        retention: how long `image` is kept (`RetentionClass`); empty when nothing is.
        original: see `Frame.original`; kept as long as `image`.
        area: see `Frame.area`.
        width_px: width of the upright decoded image.
        height_px: height of the upright decoded image.
        stage_ms: milliseconds per stage, keys as in `STAGES`.
        unit: replica that judged (inference unit).
        picture: how the picture differs from those the model learnt from, apart from defects: `exposure`,
            `focus`, `embedding` and `score`, each as its place among the training photos: 0 at their
            median, -1 and 1 at their 5 and 95 %; empty where the model has no reference.
        run: tells verdicts of one role apart: empty where the verdict is the frame's end, the project of a
            shadow, else the re-judging run.
        position: the frame's record in Kafka; None for synchronous calls, and for shadows: they end no frame.
    """

    frame_id: UUID
    camera: str
    project: str
    model_version: str
    captured_at: datetime
    judged_at: datetime
    is_anomalous: bool
    confidence: float
    score: float
    threshold: float
    is_uncertain: bool = False
    role: Role = Role.LIVE
    run: str = ""
    subject: str = ""
    epoch: str | None = None
    sequence: int | None = None
    part_id: str | None = None
    lot_id: str | None = None
    traceparent: str | None = None
    regions: tuple[Region, ...] = ()
    image: ImageReference | None = None
    retention: str = ""
    original: ImageReference | None = None
    area: str | None = None
    width_px: int = 0
    height_px: int = 0
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""
    picture: Mapping[str, float] = field(default_factory=dict)
    position: RecordPosition | None = None


# Stages of the path from capture to stored verdict, in order. `queue` is the wait in Kafka,
# `stored` is filled in by the results service.
STAGES = ("publish", "queue", "handle", "decode", "infer", "score", "produce", "store")


def inspection_id_of(frame_id: UUID, role: Role, run: str) -> UUID:
    """Return the id under which the first write wins, whatever model version made the verdict."""
    return uuid5(FRAME_NAMESPACE, f"inspection\x1f{frame_id}\x1f{role}\x1f{run}")


def event_id_of(inspection_id: UUID, event_type: str) -> UUID:
    """Return the id of the event that tells of an inspection; equal for every redelivery."""
    return uuid5(FRAME_NAMESPACE, f"event\x1f{inspection_id}\x1f{event_type}")

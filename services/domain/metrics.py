"""The one list of metrics: name, kind, unit, labels, meaning. `services.adapters.metrics` registers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One Prometheus metric; `buckets` are in the metric's unit and used by histograms only."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


# The promise is p50 <= 0.1 s and p99 <= 0.4 s, so the buckets are finest around these.
_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0, 5.0, 15.0, 60.0)

INSPECTIONS_TOTAL = Metric(
    "loupe_inspections_total", "counter", "1", ("project", "camera", "model_version", "verdict"),
    "Inspections stored, first writes only.",
)  # fmt: skip
DUPLICATES_TOTAL = Metric(
    "loupe_duplicate_inspections_total", "counter", "1", ("project",),
    "Inspections that were stored before and recognised by their id.",
)  # fmt: skip
LATENCY_SECONDS = Metric(
    "loupe_latency_seconds", "histogram", "s", ("project",),
    "Capture to stored verdict.", _LATENCY_BUCKETS_S,
)  # fmt: skip
STAGE_SECONDS = Metric(
    "loupe_stage_seconds", "histogram", "s", ("stage",),
    "Time per stage of the path, from the inspections' stage_ms.", _LATENCY_BUCKETS_S,
)  # fmt: skip
EVENTS_TOTAL = Metric(
    "loupe_events_total", "counter", "1", ("project", "type"), "Events published on loupe.events.",
)  # fmt: skip
QUARANTINED_TOTAL = Metric(
    "loupe_quarantined_total", "counter", "1", ("camera", "cause"), "Frames in loupe.frames.dlq.",
)  # fmt: skip
SHED_TOTAL = Metric(
    "loupe_shed_total", "counter", "1", ("camera", "reason"), "Frames declared shed.",
)  # fmt: skip
CAPTURED_TOTAL = Metric(
    "loupe_captured_total", "counter", "1", ("camera",), "Frames that ingesters declared captured.",
)  # fmt: skip
SPOOL_FRAMES = Metric(
    "loupe_spool_frames", "gauge", "1", ("camera",), "Frames on an ingester's disk that Kafka does not have.",
)  # fmt: skip
SPOOL_BYTES = Metric(
    "loupe_spool_bytes", "gauge", "By", ("camera",), "Size of these frames.",
)  # fmt: skip
SPOOL_FILL_RATIO = Metric(
    "loupe_spool_fill_ratio", "gauge", "1", ("camera",),
    "Of a camera's part of the spool, how much is in use (0-1).",
)  # fmt: skip
SPOOL_OLDEST_SECONDS = Metric(
    "loupe_spool_oldest_seconds", "gauge", "s", ("camera",), "Age of the oldest of these frames.",
)  # fmt: skip
SENT_TOTAL = Metric(
    "loupe_sent_total", "counter", "1", ("camera",), "Frames of an ingester that Kafka has acknowledged.",
)  # fmt: skip
SPOOL_SHED_TOTAL = Metric(
    "loupe_spool_shed_total", "counter", "1", ("camera", "reason"), "Frames that an ingester let go.",
)  # fmt: skip
LEDGER_GAP = Metric(
    "loupe_ledger_gap_frames", "gauge", "1", ("camera",),
    "captured - (judged + quarantined + shed); frames in flight count too.",
)  # fmt: skip
LEDGER_GAP_SECONDS = Metric(
    "loupe_ledger_gap_seconds", "gauge", "s", ("camera",),
    "Time since the oldest declaration, or record, of a frame that has no end; 0 where all have one.",
)  # fmt: skip
LAG_SECONDS = Metric(
    "loupe_lag_seconds", "gauge", "s", ("topic",), "Age of the oldest record not yet committed.",
)  # fmt: skip
LAG_RECORDS = Metric(
    "loupe_lag_records", "gauge", "1", ("topic",), "Records not yet committed.",
)  # fmt: skip
DEAD_LETTERS_TOTAL = Metric(
    "loupe_dead_letters_total", "counter", "1", ("topic", "cause"),
    "Records that a pipeline moved to its dead-letter topic.",
)  # fmt: skip
UNITS = Metric(
    "loupe_inference_units", "gauge", "1", ("project", "state"),
    "Inference units wanted and running.",
)  # fmt: skip
TRAINING_TOTAL = Metric(
    "loupe_trainings_total", "counter", "1", ("project", "state"), "Training requests that ended.",
)  # fmt: skip
LABELS_TOTAL = Metric(
    "loupe_labels_total", "counter", "1", ("project", "verdict"), "Labels stored, first writes only.",
)  # fmt: skip
CAMERA_STATE = Metric(
    "loupe_camera_state", "gauge", "1", ("camera", "state"),
    "1 for the state that a camera is in; its ingester tells it.",
)  # fmt: skip
CAMERA_LAST_FRAME_SECONDS = Metric(
    "loupe_camera_last_frame_seconds", "gauge", "s", ("camera",), "Time since a camera's last frame.",
)  # fmt: skip
PICTURE_DRIFT = Metric(
    "loupe_picture_drift", "gauge", "1", ("camera", "project", "what"),
    "Median place of a camera's last 200 frames among the training photos, by exposure, focus, embedding and "
    "score: 0 at their median, -1 and 1 at their 5 and 95 %.",
)  # fmt: skip
IMAGES_DELETED_TOTAL = Metric(
    "loupe_images_deleted_total", "counter", "1", ("why",),
    "Kept images that were deleted: their class ran out (retention), or nothing refers to them (orphan).",
)  # fmt: skip
IMAGES_DELETED_BYTES = Metric(
    "loupe_images_deleted_bytes_total", "counter", "By", ("why",), "Size of these images.",
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    INSPECTIONS_TOTAL, DUPLICATES_TOTAL, LATENCY_SECONDS, STAGE_SECONDS, EVENTS_TOTAL, QUARANTINED_TOTAL,
    SHED_TOTAL, CAPTURED_TOTAL, SPOOL_FRAMES, SPOOL_BYTES, SPOOL_FILL_RATIO, SPOOL_OLDEST_SECONDS, SENT_TOTAL,
    SPOOL_SHED_TOTAL, LEDGER_GAP, LEDGER_GAP_SECONDS, LAG_SECONDS, LAG_RECORDS, DEAD_LETTERS_TOTAL, UNITS,
    TRAINING_TOTAL, LABELS_TOTAL, CAMERA_STATE, CAMERA_LAST_FRAME_SECONDS,
    PICTURE_DRIFT, IMAGES_DELETED_TOTAL, IMAGES_DELETED_BYTES,
)  # fmt: skip

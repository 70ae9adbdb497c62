"""A model version: what was trained, on what, and how its numbers become verdicts (arrow 6).

Pure data; `services.wire.manifest` reads and writes it, `services.vision.scoring` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Task(StrEnum):
    """What kind of question a project asks."""

    ANOMALY_DETECTION = "anomaly-detection"


class JobState(StrEnum):
    """Life of a training request."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of the graph; -1 is the free batch axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the graph's raw outputs to a verdict, all fixed at training time.

    The image score is computed inside the graph; this says how to read it.

    Attributes:
        threshold: score from which on a frame is anomalous.
        normal_mean: mean of cross-fitted normal scores.
        normal_sd: their standard deviation.
        normal_count: how many there were.
        max_false_reject_ratio: the promise the threshold was made for (0-1).
        uncertain_low: lower end of the uncertainty band (score).
        uncertain_high: upper end of the uncertainty band (score).
        map_threshold: map value from which on a pixel belongs to a region.
        map_sigma_px: Gaussian blur of the upsampled map, in model pixels.
    """

    threshold: float
    normal_mean: float
    normal_sd: float
    normal_count: int
    max_false_reject_ratio: float
    uncertain_low: float
    uncertain_high: float
    map_threshold: float
    map_sigma_px: float


@dataclass(frozen=True, slots=True)
class Backbone:
    """The feature extractor a version was built on, and the licence of its weights."""

    name: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a server needs to know of a model folder.

    Attributes:
        files: relative path -> hex SHA-256 of every file in the folder but the manifest.
        warnings: plain sentences about what the data could not support.
        metrics: numbers by name (`image_auroc`, `fit_s`, `file_bytes`, ...); only measured ones.
    """

    project: str
    version: str
    created_at: datetime
    family: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: Calibration
    backbone: Backbone
    data_digest: str
    train_images: int
    files: Mapping[str, str]
    task: Task = Task.ANOMALY_DETECTION
    metrics: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seed: int = 0
    format_version: int = 1


@dataclass(frozen=True, slots=True)
class ModelAnnouncement:
    """Said on `loupe.models` once a version is uploaded and registered.

    Attributes:
        uri: `s3://bucket/prefix` of the version folder.
        manifest_sha256: hex digest of `manifest.json`.
        training_id: the request that led to it, empty for a fit from the command line.
    """

    project: str
    version: str
    uri: str
    manifest_sha256: str
    created_at: datetime
    training_id: str = ""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A wish for a new version of a project's model.

    Attributes:
        training_id: chosen by who asks; asking twice with one id trains once.
        max_false_reject_ratio: the promise the threshold has to keep (0-1).
    """

    training_id: str
    project: str
    requested_at: datetime
    author: str = ""
    seed: int = 0
    max_false_reject_ratio: float = 0.02

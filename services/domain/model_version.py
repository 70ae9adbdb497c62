"""A model version: what was trained, on what, and how its numbers become verdicts (arrow 6).

Pure data; `services.wire.manifest` reads and writes it, `services.vision.scoring` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from services.domain.errors import BadRequest


class Task(StrEnum):
    """What kind of question a project asks."""

    ANOMALY_DETECTION = "anomaly-detection"


class JobState(StrEnum):
    """Life of a training request."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class VersionState(StrEnum):
    """Whether a version may serve; see `services.domain.promotion`."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    KEPT = "kept"  # not promoted: the version before it stays, and the reasons are kept with it


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
class AnomalyType:
    """A named anomaly type that the graph finds; its place in the manifest is its plane in `types`.

    Attributes:
        colour: `#rrggbb` of the type in masks.
        threshold: probability from which on a pixel is of the type (0-1).
    """

    name: str
    colour: str
    threshold: float


@dataclass(frozen=True, slots=True)
class Variant:
    """One precision of the graph.

    Attributes:
        name: `fp32`, `bf16`, `int8`, ...
        engine: `onnxruntime` or `openvino`.
        file: of the folder.
        precision: what the engine is told to compute in, empty for the file's own.
        ms: median milliseconds an image at batch 1 where it was trained, two threads.
        agreement_ratio: share of photos with the verdict of fp32 (0-1).
        auroc_loss: image AUROC of fp32 less this one's; 0 where no anomalies were there to compare.
        golden: golden scores and maps of this variant, a file of the folder; empty: those of fp32.
    """

    name: str
    engine: str
    file: str
    precision: str
    ms: float
    agreement_ratio: float = 1.0
    auroc_loss: float = 0.0
    golden: str = ""


@dataclass(frozen=True, slots=True)
class CandidateReport:
    """What one family, or several together, would have been worth; all measured without test images.

    Attributes:
        name: families joined by `+`, for example `memory+aligned`.
        quality: what was compared (0-1), higher is better.
        ms: milliseconds an image, fp32.
        is_chosen: exactly one is.
        reason: a plain sentence.
    """

    name: str
    quality: float
    ms: float
    is_chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How a number was distributed over the normal training photos: its 1, 5, 50, 95 and 99 %."""

    p1: float
    p5: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a server needs to know of a model folder.

    Attributes:
        family: families joined by `+`.
        files: relative path -> hex SHA-256 of every file in the folder but the manifest.
        warnings: plain sentences about what the data could not support.
        metrics: numbers by name (`image_auroc`, `fit_s`, `file_bytes`, ...); only measured ones.
        intervals: 95 % intervals of metrics, by the same names.
        types: named anomaly types, in the order of the planes of the output `types`.
        variants: precisions of the graph, fp32 first.
        serving: name of the variant that serves.
        candidates: what was compared when the families were chosen.
        tiles: tiles along each side of the input, 1 for none.
        reference: what cameras are compared with: quantiles of `exposure`, `focus`, `embedding` and
            `score` over the normal training photos.
        parent: the version that this one is a quick update of, empty for a whole fit.
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
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    types: tuple[AnomalyType, ...] = ()
    variants: tuple[Variant, ...] = ()
    serving: str = "fp32"
    candidates: tuple[CandidateReport, ...] = ()
    tiles: int = 1
    reference: Mapping[str, Quantiles] = field(default_factory=dict)
    parent: str = ""
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


# Their cost grows with the square.
MAX_TILES = 4
# Of false rejects: less could not be told from nothing, and at more a good part is as likely rejected as not.
_LEAST_PROMISE, _MOST_PROMISE = 0.001, 0.5


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit, apart from the photos; the same in `loupe fit`, in requests and in policies.

    Attributes:
        max_false_reject_ratio: the promise the threshold has to keep (0.001-0.5).
        budget_ms: most milliseconds an image on two threads, fp32; None: no limit.
        families: names of those to try; empty: all that need no long training.
        is_thorough: also families that train a network, for minutes.
        tiles: tiles along each side of the input, 1 to `MAX_TILES`; more see smaller defects.
        seed: the same photos and options give the same model.
        holds_out: set photos aside for a test, unless somebody did; else all train and are cross-fitted.
    """

    max_false_reject_ratio: float = 0.02
    budget_ms: float | None = None
    families: tuple[str, ...] = ()
    is_thorough: bool = False
    tiles: int = 1
    seed: int = 0
    holds_out: bool = False


DEFAULT_OPTIONS = FitOptions()


def check_promise(max_false_reject_ratio: float) -> None:
    """Refuse a share of false rejects that no threshold could be made for.

    Raises:
        BadRequest: it does not lie between 0.001 and 0.5.
    """
    if not _LEAST_PROMISE <= max_false_reject_ratio <= _MOST_PROMISE:
        message = (
            f"A promise of {max_false_reject_ratio:g} false rejects makes no sense; "
            f"give {_LEAST_PROMISE:g} to {_MOST_PROMISE:g}."
        )
        raise BadRequest(message, max_false_reject_ratio=max_false_reject_ratio)


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A wish for a new version of a project's model.

    Attributes:
        training_id: chosen by who asks; asking twice with one id trains once.
        trigger: who or what asked: `request`, `labels`, `nightly` or `review`.
        is_update: only append what reviewers said to the newest version's memory; seconds instead of a fit.
    """

    training_id: str
    project: str
    requested_at: datetime
    author: str = ""
    options: FitOptions = DEFAULT_OPTIONS
    trigger: str = "request"
    is_update: bool = False

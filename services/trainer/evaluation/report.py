"""Judged photos -> one report: counts, metrics with intervals, types, curves, each photo (arrow 6).

The only way in for `loupe evaluate`, the card and the bench. Runs no model and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.trainer.evaluation.bootstrap import RESAMPLES, intervals
from services.trainer.evaluation.by_type import TypeMasks, TypeRow, rows_by_type, type_ious
from services.trainer.evaluation.image import Confusion, Points, Ranked, curves
from services.trainer.evaluation.outcome import Outcome
from services.trainer.evaluation.pixel import PixelCounts, count_pixels


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How good a model was on test photos.

    Attributes:
        outcomes: of each photo, in the order given.
        counts: right and wrong verdicts.
        metrics: by name, 0-1: `image_auroc`, `average_precision`, `precision_ratio`, `recall_ratio`, `f1`,
            `false_reject_ratio`, `accuracy_ratio`, with maps `pixel_auroc` and `aupro`, and per type with
            drawn masks `mean_iou.<type>`; those that the photos do not define are absent.
        intervals: 95 % intervals by the same names.
        types: a row per anomaly type.
        roc: corners of (false alarms, recall).
        precision_recall: corners of (recall, precision).
    """

    outcomes: tuple[Outcome, ...]
    counts: Confusion
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    types: tuple[TypeRow, ...] = ()
    roc: Points = ()
    precision_recall: Points = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as what `json.dumps` takes."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Photos:
    """What is measured, as arrays; `pixels` and `ious` are of n photos, too."""

    is_anomalous: NDArray[np.bool_]
    is_found: NDArray[np.bool_]
    ranked: Ranked
    pixels: PixelCounts | None
    ious: Mapping[str, NDArray[np.float64]]


def evaluate(
    outcomes: Sequence[Outcome],
    *,
    maps: NDArray[np.float32] | None = None,
    masks: NDArray[np.bool_] | None = None,
    type_masks: TypeMasks | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Return the report of n >= 1 judged photos.

    Args:
        outcomes: of each photo.
        maps: (n, h, w) float32, higher is more anomalous.
        masks: (n, h, w) bool, of any type; an anomalous photo without a marked pixel has no mask and
            stays out of pixel figures.
        type_masks: of the same photos.
        seed: of the intervals.
        resamples: of the intervals.
    """
    is_anomalous = np.array([one.is_anomalous for one in outcomes])
    scores = np.array([one.score for one in outcomes], np.float64)
    photos = _Photos(
        is_anomalous=is_anomalous,
        is_found=np.array([one.is_found_anomalous for one in outcomes]),
        ranked=Ranked(scores, is_anomalous),
        pixels=None if maps is None or masks is None else _known_pixels(maps, masks, is_anomalous),
        ious={} if type_masks is None else {name: type_ious(type_masks, name) for name in type_masks.types},
    )
    measure = partial(_measure, photos)
    measured = measure(np.ones((1, len(outcomes))))
    metrics = {name: float(values[0]) for name, values in measured.items() if not np.isnan(values[0])}
    spread = intervals(measure, is_anomalous, seed=seed, resamples=resamples)
    roc, precision_recall = curves(scores, is_anomalous)
    return Evaluation(
        outcomes=tuple(outcomes),
        counts=_confusion(photos),
        metrics=metrics,
        intervals={name: spread[name] for name in metrics if name in spread},
        types=rows_by_type(outcomes, type_masks),
        roc=roc,
        precision_recall=precision_recall,
    )


def _known_pixels(
    maps: NDArray[np.float32], masks: NDArray[np.bool_], is_anomalous: NDArray[np.bool_]
) -> PixelCounts | None:
    """Return counts of n photos, empty where an anomalous photo has no mask; None without both kinds."""
    is_masked = masks.any(axis=(1, 2))
    if not is_masked.any() or masks.all():
        return None
    is_known = is_masked | ~is_anomalous
    counts = count_pixels(maps, masks)
    return PixelCounts(
        counts.normal * is_known[:, None], counts.anomalous, counts.regions, counts.region_count
    )


def _measure(photos: _Photos, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return (B,) metrics by name for (B, n) weights of photos."""
    anomalous, found = photos.is_anomalous, photos.is_found
    hits, misses = weights @ (anomalous & found), weights @ (anomalous & ~found)
    false_alarms, passed = weights @ (~anomalous & found), weights @ (~anomalous & ~found)
    measured = {
        "accuracy_ratio": _ratio(hits + passed, weights.sum(axis=1)),
        "precision_ratio": _ratio(hits, hits + false_alarms),
        "recall_ratio": _ratio(hits, hits + misses),
        "f1": _ratio(2 * hits, 2 * hits + false_alarms + misses),
        "false_reject_ratio": _ratio(false_alarms, false_alarms + passed),
    }
    if anomalous.any() and not anomalous.all():
        measured["image_auroc"] = photos.ranked.auroc(weights)
        measured["average_precision"] = photos.ranked.average_precision(weights)
    if photos.pixels is not None:
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no masked photo
            measured["pixel_auroc"] = photos.pixels.auroc(weights)
            measured["aupro"] = photos.pixels.aupro(weights)
    for name, ious in photos.ious.items():
        is_drawn = ~np.isnan(ious)
        measured[f"mean_iou.{name}"] = _ratio(weights @ np.nan_to_num(ious), weights @ is_drawn)
    return measured


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratios, NaN where `whole` is 0."""
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def _confusion(photos: _Photos) -> Confusion:
    anomalous, found = photos.is_anomalous, photos.is_found
    return Confusion(
        true_positives=int((anomalous & found).sum()),
        false_positives=int((~anomalous & found).sum()),
        true_negatives=int((~anomalous & ~found).sum()),
        false_negatives=int((anomalous & ~found).sum()),
    )

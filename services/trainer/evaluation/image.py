"""How well scores and verdicts tell anomalous photos from normal ones (arrow 6).

Everything is written for weighted photos, so that a bootstrap is the same formula with other weights
(`bootstrap`). "Anomaly" is the positive class. Nothing is chosen by these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Sequence[float] | NDArray[np.floating]
Points = tuple[tuple[float, float], ...]
# Corners of a curve that a plot is given; more cannot be seen.
_MAX_POINTS = 200


@dataclass(frozen=True, slots=True)
class Confusion:
    """How many photos were judged how."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def precision_of(hits: float, false_alarms: float) -> float | None:
    """Return the share of those found that are right; None where nothing was found.

    >>> precision_of(85, 15)
    0.85
    """
    return hits / (hits + false_alarms) if hits + false_alarms else None


def recall_of(hits: float, misses: float) -> float | None:
    """Return the share of those there that were found; None where nothing is there."""
    return precision_of(hits, misses)


def f1_of(hits: float, false_alarms: float, misses: float) -> float | None:
    """Return 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; None where all are 0."""
    return precision_of(2 * hits, false_alarms + misses)


def image_auroc(normal: Scores, anomalous: Scores) -> float:
    """Return the chance that an anomalous photo scores higher than a normal one; ties count half.

    Both must hold at least one score.

    >>> image_auroc([0.0, 1.0], [1.0, 2.0])
    0.875
    """
    below = np.sort(np.asarray(normal, np.float64))
    above = np.asarray(anomalous, np.float64)
    lower = np.searchsorted(below, above, side="left")
    not_higher = np.searchsorted(below, above, side="right")
    return float((lower + not_higher).sum() / (2 * len(below) * len(above)))


def average_precision(normal: Scores, anomalous: Scores) -> float:
    """Return the sum over thresholds of (gain in recall) x precision, without interpolation.

    Both must hold at least one score. Photos with equal scores pass a threshold together.
    """
    ranked = Ranked(
        np.concatenate([np.asarray(normal, np.float64), np.asarray(anomalous, np.float64)]),
        np.arange(len(normal) + len(anomalous)) >= len(normal),
    )
    return float(ranked.average_precision(np.ones((1, len(normal) + len(anomalous))))[0])


def share_from(scores: Scores, threshold: float) -> float:
    """Return the share of scores that reach the threshold (0-1)."""
    return float(np.mean(np.asarray(scores) >= threshold))


class Ranked:
    """Photos in order of their scores, highest first, those of equal scores together."""

    def __init__(self, scores: NDArray[np.floating], is_anomalous: NDArray[np.bool_]) -> None:
        """Sort (n,) scores of (n,) photos, n >= 1."""
        self._order = np.argsort(-scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        self._is_anomalous = is_anomalous

    def passed(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weight of (anomalous, normal) photos at or above each distinct score.

        Args:
            weights: (B, n), photos in the order given.

        Returns:
            Twice (B, u), u distinct scores, highest first.
        """
        anomalous = (weights * self._is_anomalous)[:, self._order]
        normal = (weights * ~self._is_anomalous)[:, self._order]
        return self._summed(anomalous), self._summed(normal)

    def _summed(self, ordered: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.cumsum(np.add.reduceat(ordered, self._starts, axis=1), axis=1)

    def auroc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,) areas under the ROC curve; see `image_auroc`."""
        hits, false_alarms = self.passed(weights)
        return area(false_alarms / false_alarms[:, -1:], hits / hits[:, -1:])

    def average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,); see the function `average_precision`."""
        hits, false_alarms = self.passed(weights)
        gains = np.diff(hits, axis=1, prepend=0) / hits[:, -1:]
        # A resample may hold no photo of the highest scores: 0 of 0, with nothing to gain.
        found = np.maximum(hits + false_alarms, np.finfo(np.float64).tiny)
        return np.asarray((gains * hits / found).sum(axis=1), np.float64)


def area(across: NDArray[np.float64], up: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (B,) areas under (B, k) curves from (0, 0), both rising, by trapezoids."""
    steps = np.diff(across, axis=1, prepend=0)
    before = np.pad(up[:, :-1], ((0, 0), (1, 0)))
    return np.asarray((steps * (up + before) / 2).sum(axis=1), np.float64)


def curves(scores: NDArray[np.floating], is_anomalous: NDArray[np.bool_]) -> tuple[Points, Points]:
    """Return the corners of (ROC: false alarms, recall) and (PR: recall, precision), all 0-1.

    At most 200 each, evenly thinned; both empty unless there are photos of both kinds.
    """
    if not is_anomalous.any() or is_anomalous.all():
        return (), ()
    hits, false_alarms = (one[0] for one in Ranked(scores, is_anomalous).passed(np.ones((1, len(scores)))))
    recall = hits / hits[-1]
    roc = [(0.0, 0.0), *zip((false_alarms / false_alarms[-1]).tolist(), recall.tolist(), strict=True)]
    precision = hits / (hits + false_alarms)
    return _thinned(roc), _thinned(list(zip(recall.tolist(), precision.tolist(), strict=True)))


def _thinned(points: list[tuple[float, float]]) -> Points:
    kept = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MAX_POINTS)).round().astype(int))
    return tuple(points[index] for index in kept.tolist())

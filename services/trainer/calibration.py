"""Cross-fitted normal photos -> scorer, threshold by promise, and what cannot be promised.

The promise is "at most x % of good parts are rejected". The threshold is the value that a fresh
normal photo passes with chance x, by Student's t around the cross-fitted scores, made wide enough for
the highest of them. No anomaly is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.domain.model_version import Calibration
from services.trainer.evidence import Evidence
from services.trainer.families.protocol import MAP_STRIDE_PX
from services.trainer.resizing import resized
from services.trainer.scorer import Scorer, Standard, places_of, scores_of, standard_of, statistics_of
from services.vision.regions import smooth_map
from services.vision.scoring import normal_spread, score_passed_by

# Below this many photos the standard moves with each of them, so each is read against the others.
LEAVE_ONE_OUT_BELOW = 20
FEW_PHOTOS = 10
# Blur of the map before regions are cut, in model pixels (of 224): a quarter of a cell.
MAP_SIGMA_PX = 2.0
# Which of the highest scores also sets the spread. With the third recall fell on real sets, with the seventh
# the promise was broken on the synthetic line.
_HIGHEST = 5
_COUNTED_PRODUCT = 150
# The tail is at most a third of the photos.
_TAIL_PHOTOS = 3
# The uncertainty band ends where a normal frame stands 3 times as often as promised, and 10 times
# as rarely.
_BAND_LOW, _BAND_HIGH = 3.0, 0.1


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A calibrated candidate.

    Attributes:
        scorer: to be drawn into the graph.
        calibration: for the manifest.
        normal_scores: (n,) float32, cross-fitted, one per group of photos.
        warnings: plain sentences about what the photos cannot support.
    """

    scorer: Scorer
    calibration: Calibration
    normal_scores: NDArray[np.float32]
    warnings: tuple[str, ...]


def calibrate(
    evidence: Evidence, input_px: int, max_false_reject_ratio: float, in_map: Sequence[bool] | None = None
) -> Calibrated:
    """Fix scorer and threshold for the heads of the evidence.

    Args:
        evidence: of the heads that will be drawn.
        input_px: side of the model's input.
        max_false_reject_ratio: the promise.
        in_map: heads that enter the map; None: all.
    """
    side = input_px // MAP_STRIDE_PX
    statistics = highest_by_group(statistics_of(evidence.normals, input_px), evidence.groups)
    scorer = Scorer(
        input_px=input_px,
        in_map=tuple(in_map or [True] * len(evidence.normals)),
        places=tuple(places_of(resized(one, side)) for one in evidence.normals),
        standard=standard_of(statistics),
    )
    scores = normal_scores_of(statistics, scorer.standard)
    peaks = [float(smooth_map(one, MAP_SIGMA_PX, input_px).max()) for one in scorer.maps(evidence.normals)]
    calibration = calibration_of(scores, max_false_reject_ratio, map_threshold=float(np.mean(peaks)))
    return Calibrated(scorer, calibration, scores, limits_of(len(scores), max_false_reject_ratio))


def calibration_of(
    scores: NDArray[np.float32], max_false_reject_ratio: float, *, map_threshold: float
) -> Calibration:
    """Return the calibration that (n,) cross-fitted normal scores support, n >= 2."""
    count = len(scores)
    mean = float(scores.mean(dtype=np.float64))
    sd = max(normal_spread(scores), _spread_of_highest(scores, mean))

    highest = np.sort(scores)[::-1]
    fewest = fewest_counted(count)

    def by_spread(ratio: float) -> float:
        return score_passed_by(min(ratio, 0.5), mean, sd, count)

    def passed_by(ratio: float) -> float:
        """Return the score that a good part passes with chance `ratio`; never lower for a smaller one."""
        rank = int(ratio * (count + 1))
        if max(rank, fewest) > count / _TAIL_PHOTOS:
            return by_spread(ratio)
        if rank < fewest:  # beyond what can be counted: the tail goes on as the spread has it
            return by_spread(ratio) + max(0.0, float(highest[fewest - 1]) - by_spread(fewest / (count + 1)))
        # Of n + 1 exchangeable scores the last is among the `rank` highest with chance rank / (n + 1),
        # whatever their distribution (split conformal prediction, Vovk et al. 2005).
        return max(by_spread(ratio), float(highest[rank - 1]))

    return Calibration(
        threshold=passed_by(max_false_reject_ratio),
        normal_mean=mean,
        normal_sd=sd,
        normal_count=count,
        max_false_reject_ratio=max_false_reject_ratio,
        uncertain_low=passed_by(max_false_reject_ratio * _BAND_LOW),
        uncertain_high=passed_by(max_false_reject_ratio * _BAND_HIGH),
        map_threshold=map_threshold,
        map_sigma_px=MAP_SIGMA_PX,
    )


def fewest_counted(count: int) -> int:
    """Return how many of `count` good photos lie above the threshold's bound by counting, at the least.

    The bound by one photo would hold for stricter promises, and one odd photo would blind the detector: on
    31 cookies recall fell from .95 to .79 with it. Of 30 photos the fifth highest counts, of 75 the second.
    """
    return max(2, min(_HIGHEST, _COUNTED_PRODUCT // count))


def _spread_of_highest(scores: NDArray[np.float32], mean: float) -> float:
    """Return the standard deviation with which Student's t puts as many scores up there as there are.

    Scores of good parts have heavier tails than their deviation tells: a part that lies crooked is far
    from all others. Reads the `_HIGHEST`-th highest score, which one odd photo does not move; 0 where there
    are too few photos to have a tail.
    """
    count = len(scores)
    if count < _HIGHEST * _TAIL_PHOTOS:
        return 0.0
    fifth = float(np.sort(scores)[-_HIGHEST])
    return (fifth - mean) / score_passed_by(_HIGHEST / (count + 1), 0.0, 1.0, count)


def limits_of(count: int, max_false_reject_ratio: float) -> tuple[str, ...]:
    """Return warnings about a promise that `count` normal photos of different objects carry."""
    warnings = []
    best_ratio = 1 / (count + 1)
    if max_false_reject_ratio < best_ratio:
        needed = math.ceil(1 / max_false_reject_ratio) - 1
        warnings.append(
            f"By counting, {count} normal photos support at best a promise of {best_ratio:.1%} false "
            f"rejects; the {max_false_reject_ratio:.1%} asked for is extrapolated. {needed} photos "
            "of different good parts would support it."
        )
    if count < FEW_PHOTOS:
        warnings.append(
            f"Only {count} normal photos: the threshold is a cautious guess that lets small defects "
            f"pass. Add photos of good parts, {LEAVE_ONE_OUT_BELOW} or more."
        )
    elif count < LEAVE_ONE_OUT_BELOW:
        warnings.append(
            f"With {count} normal photos (fewer than {LEAVE_ONE_OUT_BELOW}) each is judged by the "
            "others alone, so the threshold is higher and more small defects pass than need be."
        )
    return tuple(warnings)


def highest_by_group(statistics: NDArray[np.float32], groups: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return (g, S): photos of one object are one observation, and the worst of them counts."""
    return np.stack([statistics[groups == group].max(axis=0) for group in np.unique(groups)])


def normal_scores_of(statistics: NDArray[np.float32], standard: Standard) -> NDArray[np.float32]:
    """Return (n,) scores of (n, S) statistics, each against the others where there are few."""
    count = len(statistics)
    if count >= LEAVE_ONE_OUT_BELOW:
        return scores_of(statistics, standard)
    others = [standard_of(np.delete(statistics, index, axis=0)) for index in range(count)]
    single = [scores_of(statistics[index : index + 1], others[index]) for index in range(count)]
    return np.concatenate(single)

"""A graph's raw outputs + a version's calibration -> the verdict (arrow 2).

The threshold and the confidence read the same distribution: a fresh normal frame's score is
Student's t around the cross-fitted normal scores. Does not compute scores; the graph does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.domain.inspection import Region
from services.domain.model_version import Calibration, Manifest
from services.vision import student_t
from services.vision.outputs import ImageOutputs
from services.vision.regions import regions_of
from services.vision.type_masks import names_of, places_of

# A version's `normal_sd` holds a prior worth this many degrees of freedom, see `normal_spread`.
_PRIOR_DEGREES = 4
_PRIOR_SD = 0.6  # of cross-fitted normal scores, whose unit is the spread of normal photos


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one frame; see `Inspection` for the meaning of each field."""

    is_anomalous: bool
    is_uncertain: bool
    confidence: float
    regions: tuple[Region, ...]


def judge(one: ImageOutputs, manifest: Manifest) -> Judgement:
    """Judge one frame by what a version's graph says of it."""
    calibration, score = manifest.calibration, one.score
    is_anomalous = score >= calibration.threshold
    regions: tuple[Region, ...] = ()
    if is_anomalous:  # most frames are normal, and cost nothing here
        places = places_of(one, manifest)
        regions = regions_of(places.classes(), places.smooth, names_of(manifest))
    return Judgement(
        is_anomalous=is_anomalous,
        is_uncertain=calibration.uncertain_low <= score <= calibration.uncertain_high,
        confidence=confidence_of(score, calibration),
        regions=regions,
    )


def normal_spread(scores: NDArray[np.float32]) -> float:
    """Return the standard deviation of (n,) cross-fitted normal scores, n >= 2, with a prior.

    Two or three scores say little of their spread, but by construction it is about 0.6.
    """
    squares = float(np.square(scores - scores.mean(dtype=np.float64)).sum())
    degrees = len(scores) - 1
    return math.sqrt((squares + _PRIOR_DEGREES * _PRIOR_SD**2) / (degrees + _PRIOR_DEGREES))


def score_passed_by(ratio: float, mean: float, sd: float, count: int) -> float:
    """Return the score that a fresh normal frame reaches with chance `ratio` (0-1).

    Args:
        ratio: for example the promise.
        mean: of the cross-fitted normal scores.
        sd: their `normal_spread`.
        count: how many there were.
    """
    t = student_t.quantile(ratio, count - 1 + _PRIOR_DEGREES)
    return mean + t * sd * math.sqrt(1 + 1 / count)


def normal_tail(score: float, calibration: Calibration) -> float:
    """Return p, the chance that a fresh normal frame scores `score` or more (0-1)."""
    count = calibration.normal_count
    spread = calibration.normal_sd * math.sqrt(1 + 1 / count)
    t = (score - calibration.normal_mean) / spread
    return student_t.upper_tail(t, count - 1 + _PRIOR_DEGREES)


def confidence_of(score: float, calibration: Calibration) -> float:
    """Return the trust in the verdict on `score`: 0.5 at the threshold, towards 1 away from it.

    With p = `normal_tail(score)` and q = p at the threshold (the promise, where the threshold was
    set by it), the confidence is p / (p + q) below the threshold and q / (p + q) from there on:
    the posterior of the verdict given, were an anomaly as likely to stand at this score as a
    normal frame is to pass the threshold. Continuous and monotone on each side.
    """
    p = normal_tail(score, calibration)
    q = normal_tail(calibration.threshold, calibration)
    if p + q <= 0:
        return 1.0 if score != calibration.threshold else 0.5
    return (q if score >= calibration.threshold else p) / (p + q)

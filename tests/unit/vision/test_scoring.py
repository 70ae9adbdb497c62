"""Verdict, uncertainty band and confidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.model_version import Calibration
from services.vision.outputs import ImageOutputs
from services.vision.scoring import Judgement, confidence_of, normal_tail
from services.vision.scoring import judge as judge_one
from tests.unit.vision.manifests import manifest_of

# 31 normal scores with mean 0.4 and sd 0.6, promise 2 %, 4 prior degrees: t(0.02, 34) = 2.136,
# 0.4 + 2.136 * 0.6 * sqrt(1 + 1/31) = 1.702.
CALIBRATION = Calibration(
    threshold=1.702,
    normal_mean=0.4,
    normal_sd=0.6,
    normal_count=31,
    max_false_reject_ratio=0.02,
    uncertain_low=1.4,
    uncertain_high=2.2,
    map_threshold=2.0,
    map_sigma_px=2.0,
)
SPOT = np.zeros((28, 28), np.float32)
SPOT[5, 5] = 20


def judge(score: float) -> Judgement:
    return judge_one(ImageOutputs(score, SPOT), manifest_of(CALIBRATION))


def test_normal_frame_has_no_regions() -> None:
    judgement = judge(0.3)
    assert (judgement.is_anomalous, judgement.is_uncertain, judgement.regions) == (False, False, ())
    assert judgement.confidence > 0.9


def test_anomalous_frame_names_its_regions() -> None:
    judgement = judge(9.0)
    assert judgement.is_anomalous
    assert not judgement.is_uncertain
    assert len(judgement.regions) == 1
    assert judgement.confidence > 0.99


def test_the_threshold_itself_is_anomalous() -> None:
    assert judge(CALIBRATION.threshold).is_anomalous
    assert not judge(np.nextafter(CALIBRATION.threshold, 0)).is_anomalous


@pytest.mark.parametrize(("score", "expected"), [(1.39, False), (1.4, True), (2.2, True), (2.21, False)])
def test_uncertainty_is_a_closed_band(score: float, expected: bool) -> None:
    assert judge(score).is_uncertain is expected


def test_tail_at_the_threshold_is_the_promise() -> None:
    assert normal_tail(CALIBRATION.threshold, CALIBRATION) == pytest.approx(0.02, rel=0.01)


@given(st.floats(-5, 200))
def test_confidence_is_between_a_half_and_one(score: float) -> None:
    assert 0.5 <= confidence_of(score, CALIBRATION) <= 1


@given(st.floats(0, 50), st.floats(0, 50))
def test_confidence_grows_with_the_distance_from_the_threshold(first: float, second: float) -> None:
    near, far = sorted((first, second))
    threshold = CALIBRATION.threshold
    assert confidence_of(threshold + near, CALIBRATION) <= confidence_of(threshold + far, CALIBRATION)
    below = threshold - 1e-9
    assert confidence_of(below - near, CALIBRATION) <= confidence_of(below - far, CALIBRATION)

"""Scores, standards and thresholds, with numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.calibration import calibration_of, limits_of


def test_threshold_is_the_t_bound_of_a_fresh_observation() -> None:
    scores = np.array([-1.0, 0.0, 1.0], np.float32)  # mean 0, squares 2
    calibration = calibration_of(scores, 0.05, map_threshold=1.0)
    # With the prior: sd = sqrt((2 + 4 * 0.36) / (2 + 4)) = 0.7572; t(0.05, 6) = 1.943
    assert calibration.normal_sd == pytest.approx(0.7572, abs=1e-4)
    assert calibration.threshold == pytest.approx(1.943 * 0.7572 * np.sqrt(1 + 1 / 3), abs=1e-3)
    assert calibration.uncertain_low < calibration.threshold < calibration.uncertain_high
    assert calibration.normal_count == 3


@pytest.mark.parametrize("count", [2, 5, 20, 100])
def test_promise_holds_for_normal_scores(count: int) -> None:
    rng = np.random.default_rng(count)
    promise, trials = 0.05, 600
    drawn = rng.normal(1, 0.6, (trials, count)).astype(np.float32)
    fresh = rng.normal(1, 0.6, trials)
    rejected = np.mean(
        [
            score >= calibration_of(row, promise, map_threshold=1.0).threshold
            for row, score in zip(drawn, fresh, strict=True)
        ]
    )
    # 600 trials at 5 %: standard error 0.9 %, three of them above.
    assert rejected <= promise + 0.027


def test_equal_scores_do_not_reject_their_like() -> None:
    calibration = calibration_of(np.zeros(5, np.float32), 0.02, map_threshold=1.0)
    assert calibration.threshold > 0.5


def test_a_looser_promise_gives_a_lower_threshold() -> None:
    scores = np.random.default_rng(0).normal(0, 1, 30).astype(np.float32)
    thresholds = [calibration_of(scores, ratio, map_threshold=1.0).threshold for ratio in (0.001, 0.02, 0.3)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize(
    ("count", "promise", "said"),
    [
        (2, 0.02, ["33.3%", "Only 2"]),
        (12, 0.02, ["7.7%", "With 12"]),
        (30, 0.02, ["3.2%"]),
        (49, 0.02, []),
        (5, 0.5, ["Only 5"]),
    ],
)
def test_warnings_say_what_the_photos_cannot_support(count: int, promise: float, said: list[str]) -> None:
    warnings = limits_of(count, promise)
    assert len(warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, warnings, strict=True))

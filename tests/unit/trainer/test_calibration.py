"""Scores, standards and thresholds, with numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.calibration import calibration_of, limits_of
from services.trainer.scorer import scores_of, standard_of, statistics_of


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


def test_statistics_are_the_highest_cells() -> None:
    distances = np.zeros((2, 1, 28, 28), np.float32)
    distances[0, 0, 3, 4], distances[0, 0, 9, 9] = 6, 3
    # head 0: highest 6, (6 + 3 + 0) / 3 = 3, (6 + 3) / 10 = 0.9; head 1: all 0
    np.testing.assert_allclose(statistics_of(list(distances), 224), [[6, 3, 0.9, 0, 0, 0]], rtol=1e-6)


def test_scores_rise_with_any_statistic_and_never_tie_below() -> None:
    statistics = np.random.default_rng(0).normal(5, 0.5, (30, 6)).astype(np.float32)
    standard = standard_of(statistics)
    usual = standard.mean[None]
    assert scores_of(usual, standard)[0] == 0
    assert scores_of(usual * 1.2, standard)[0] > 1
    assert scores_of(usual * 0.8, standard)[0] > scores_of(usual * 0.7, standard)[0]
    scores = scores_of(statistics, standard)
    assert len(np.unique(scores)) == len(scores)


@pytest.mark.parametrize("count", [1, 2])
def test_standard_of_few_photos_has_a_spread(count: int) -> None:
    standard = standard_of(np.full((count, 6), 4, np.float32))
    np.testing.assert_allclose(standard.mean, 4)
    # 10 prior photos at 6 % of 4, over count + 9 degrees
    np.testing.assert_allclose(standard.sd, 0.24 * np.sqrt(10 / (count + 9)), rtol=1e-5)

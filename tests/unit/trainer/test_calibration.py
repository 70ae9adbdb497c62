"""Scores, standards and thresholds, with numbers derived by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.calibration import calibration_of, fewest_counted, limits_of
from services.vision.scoring import normal_tail


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


@pytest.mark.parametrize("count", [30, 100, 400])
@pytest.mark.parametrize("promise", [0.005, 0.02, 0.05])
def test_promise_holds_for_scores_with_a_heavy_tail(count: int, promise: float) -> None:
    rng = np.random.default_rng(count)
    trials = 400
    # Gamma of shape 2 has skewness 1.4 and, unlike a normal distribution, an exponential tail.
    drawn = 0.4 * rng.gamma(2, 1, (trials, count)).astype(np.float32)
    thresholds = np.array([calibration_of(row, promise, map_threshold=1.0).threshold for row in drawn])
    fresh = 0.4 * rng.gamma(2, 1, (trials, 50))
    rejected = np.mean(fresh >= thresholds[:, None])
    # Where enough photos lie above it, the promise; else it is extrapolated and may be off.
    is_counted = int(promise * (count + 1)) >= fewest_counted(count)
    assert rejected <= (1.1 * promise if is_counted else max(1.4 * promise, 1.4 / (count + 1)))


def test_one_odd_photo_moves_the_threshold_by_the_spread_alone() -> None:
    scores = np.random.default_rng(0).normal(0, 0.6, 30).astype(np.float32)
    odd = np.append(scores[:-1], np.float32(4))
    usual, moved = (calibration_of(row, 0.02, map_threshold=1.0) for row in (scores, odd))
    assert usual.threshold < moved.threshold < 2.5


@pytest.mark.parametrize("count", [20, 60, 200])
def test_the_tail_that_confidence_reads_is_reliable(count: int) -> None:
    rng = np.random.default_rng(7)
    shares: dict[float, list[float]] = {level: [] for level in (0.02, 0.05, 0.1, 0.2)}
    for _ in range(150):
        calibration = calibration_of(rng.normal(0.4, 0.6, count).astype(np.float32), 0.02, map_threshold=1.0)
        tails = np.array([normal_tail(score, calibration) for score in rng.normal(0.4, 0.6, 40)])
        for level, found in shares.items():
            found.append(float(np.mean(tails <= level)))
    for level, found in shares.items():
        # 6,000 frames: three standard errors are 0.5 to 1.5 %; and the spread is rather too wide.
        assert 0.4 * level <= np.mean(found) <= level + 0.016


@pytest.mark.parametrize("count", [2, 14, 15, 30, 41, 100, 300])
def test_a_stricter_promise_never_has_a_lower_threshold(count: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        # Most good parts lie alike, a few crooked ones far from them.
        scores = np.where(rng.random(count) < 0.07, rng.normal(3, 1, count), rng.normal(0, 0.5, count))
        thresholds = [
            calibration_of(scores.astype(np.float32), ratio, map_threshold=1.0).threshold
            for ratio in (0.5, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.001)
        ]
        assert thresholds == sorted(thresholds)

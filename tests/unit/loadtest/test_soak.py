"""The slope of memory: known lines come out, noise is told as error."""

from __future__ import annotations

import numpy as np

from loadtest.soak import slope_mb_per_h


def test_a_straight_line_has_its_slope_and_no_error() -> None:
    times_s = np.arange(0, 3600, 10.0)
    # 200 MB and 12 MB more after an hour.
    slope, error = slope_mb_per_h(times_s, 200 + 12 * times_s / 3600)
    assert abs(slope - 12) < 1e-9
    assert error < 1e-9


def test_noise_without_slope_stays_within_its_error() -> None:
    times_s = np.arange(0, 3600, 10.0)
    noise = np.random.default_rng(1).normal(200, 1, len(times_s))
    slope, error = slope_mb_per_h(times_s, noise)
    # 360 samples of sigma 1 over an hour: sigma / (sqrt(n) * spread), spread = 1 h / sqrt(12) -> 0.18.
    assert 0.1 < error < 0.3
    assert abs(slope) < 4 * error

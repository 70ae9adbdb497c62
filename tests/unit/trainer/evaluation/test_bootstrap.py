"""Intervals: seeded, stratified, and as wide as theory says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from services.trainer.evaluation.bootstrap import intervals

IS_ANOMALOUS = np.arange(100) >= 60


def _share_of(members: NDArray[np.bool_]) -> NDArray[np.float64]:
    return members.astype(np.float64)


def test_the_interval_of_a_share_is_as_wide_as_its_standard_error() -> None:
    rejected = np.zeros(100, np.bool_)
    rejected[:12] = True  # 12 of 60 normals

    def measure(weights: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        return {"share": (weights * ~IS_ANOMALOUS) @ _share_of(rejected) / 60}

    low, high = intervals(measure, IS_ANOMALOUS)["share"]
    # sqrt(.2 x .8 / 60) = .0516; 1.96 of it on both sides; 1,000 resamples of steps of 1/60
    assert low == pytest.approx(0.2 - 1.96 * 0.0516, abs=0.02)
    assert high == pytest.approx(0.2 + 1.96 * 0.0516, abs=0.02)


def test_each_resample_has_as_many_of_each_kind() -> None:
    seen: list[NDArray[np.float64]] = []

    def measure(weights: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        seen.append(weights)
        return {}

    assert intervals(measure, IS_ANOMALOUS, resamples=250) == {}
    weights = np.concatenate(seen)
    assert weights.shape == (250, 100)
    assert (weights[:, IS_ANOMALOUS].sum(axis=1) == 40).all()
    assert (weights[:, ~IS_ANOMALOUS].sum(axis=1) == 60).all()


def test_one_seed_gives_one_interval() -> None:
    values = np.random.default_rng(0).normal(size=100)

    def measure(weights: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        return {"mean": weights @ values / 100}

    first, again = (intervals(measure, IS_ANOMALOUS, seed=3) for _ in range(2))
    assert first == again
    assert first != intervals(measure, IS_ANOMALOUS, seed=4)


def test_undefined_resamples_are_left_out_and_an_undefined_metric_has_no_interval() -> None:
    def measure(weights: NDArray[np.float64]) -> Mapping[str, NDArray[np.float64]]:
        half = np.where(weights[:, 0] > 0, 1.0, np.nan)
        return {"half": half, "none": np.full(len(weights), np.nan)}

    assert intervals(measure, IS_ANOMALOUS) == {"half": (1.0, 1.0)}

"""Image metrics against counting, and against the figures of the replaced service's guide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.evaluation.image import (
    average_precision,
    curves,
    f1_of,
    image_auroc,
    precision_of,
    recall_of,
    share_from,
)

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_auroc_counts_pairs(normal: list[float], anomalous: list[float]) -> None:
    pairs = [1.0 if bad > good else 0.5 * (bad == good) for good in normal for bad in anomalous]
    assert image_auroc(normal, anomalous) == pytest.approx(np.mean(pairs))


def test_share_counts_the_threshold_itself() -> None:
    assert share_from([0.0, 1.0, 2.0, 3.0], 2.0) == 0.5


@given(SCORES, SCORES)
def test_average_precision_is_the_sum_over_thresholds(normal: list[float], anomalous: list[float]) -> None:
    total, recall_before = 0.0, 0.0
    for threshold in sorted({*normal, *anomalous}, reverse=True):
        hits = sum(one >= threshold for one in anomalous)
        false_alarms = sum(one >= threshold for one in normal)
        recall = hits / len(anomalous)
        total += (recall - recall_before) * hits / (hits + false_alarms)
        recall_before = recall
    assert average_precision(normal, anomalous) == pytest.approx(total)


def test_average_precision_of_equal_scores_is_the_share_of_anomalies() -> None:
    assert average_precision([1.0] * 3, [1.0]) == pytest.approx(0.25)


def test_average_precision_does_not_interpolate() -> None:
    # anomalous, normal, anomalous: 1/2 x 1/1 + 1/2 x 2/3
    assert average_precision([2.0], [3.0, 1.0]) == pytest.approx(5 / 6)


@pytest.mark.parametrize(("hits", "false_alarms", "precision"), [(85, 15, 0.85), (40, 60, 0.40)])
def test_precision_is_as_in_the_guide(hits: int, false_alarms: int, precision: float) -> None:
    assert precision_of(hits, false_alarms) == pytest.approx(precision)


@pytest.mark.parametrize(("hits", "misses", "recall"), [(90, 10, 0.90), (20, 80, 0.20)])
def test_recall_is_as_in_the_guide(hits: int, misses: int, recall: float) -> None:
    assert recall_of(hits, misses) == pytest.approx(recall)


@pytest.mark.parametrize(
    ("precision", "recall", "f1"), [(0.9, 1.0, 0.947), (0.30, 1.0, 0.46), (0.95, 0.20, 0.33)]
)
def test_f1_is_as_in_the_guide(precision: float, recall: float, f1: float) -> None:
    # Of 1,000 anomalies: hits = 1000 R, false alarms = hits (1 / P - 1), misses = 1000 - hits.
    hits = 1000 * recall
    assert f1_of(hits, hits * (1 / precision - 1), 1000 - hits) == pytest.approx(f1, abs=0.005)


def test_nothing_there_has_no_figures() -> None:
    assert precision_of(0, 0) is None
    assert recall_of(0, 0) is None
    assert f1_of(0, 0, 0) is None


@given(SCORES, SCORES)
def test_the_area_under_the_roc_corners_is_the_auroc(normal: list[float], anomalous: list[float]) -> None:
    scores = np.array([*normal, *anomalous])
    roc, precision_recall = curves(scores, np.arange(len(scores)) >= len(normal))
    across, up = np.array(roc).T
    assert np.trapezoid(up, across) == pytest.approx(image_auroc(normal, anomalous))
    assert list(roc[0]) == [0, 0]
    assert list(roc[-1]) == [1, 1]
    assert precision_recall[-1] == pytest.approx((1, len(anomalous) / len(scores)))


def test_curves_need_both_kinds_of_photos() -> None:
    for only in (True, False):
        assert not any(curves(np.array([1.0, 2.0]), np.array([only, only])))


def test_long_curves_are_thinned_with_both_ends() -> None:
    rng = np.random.default_rng(0)
    roc, _ = curves(rng.normal(size=5000), rng.random(5000) < 0.5)
    assert len(roc) == 200
    assert [*roc[0], *roc[-1]] == [0, 0, 1, 1]

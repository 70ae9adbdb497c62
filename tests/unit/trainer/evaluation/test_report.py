"""The whole report: what is in it, what it leaves out, and that it can be written down."""

from __future__ import annotations

import json

import numpy as np
import pytest

from services.domain.label import Verdict
from services.trainer.evaluation.by_type import TypeMasks
from services.trainer.evaluation.outcome import Outcome
from services.trainer.evaluation.pixel import aupro, pixel_auroc
from services.trainer.evaluation.report import evaluate

GOOD, BAD = Verdict.NORMAL, Verdict.ANOMALY
IMAGE_METRICS = {
    "accuracy_ratio",
    "precision_ratio",
    "recall_ratio",
    "f1",
    "false_reject_ratio",
    "image_auroc",
    "average_precision",
}


def _outcomes(normal: list[float], anomalous: list[float], threshold: float) -> list[Outcome]:
    both = [(score, GOOD) for score in normal] + [(score, BAD) for score in anomalous]
    return [
        Outcome(f"{index:03}.png", truth, score, BAD if score >= threshold else GOOD, 0.9)
        for index, (score, truth) in enumerate(both)
    ]


def test_verdicts_are_counted() -> None:
    report = evaluate(_outcomes([0, 1, 5], [4, 2, 6, 7], threshold=4))
    counts = report.counts
    assert (counts.true_positives, counts.false_negatives) == (3, 1)
    assert (counts.false_positives, counts.true_negatives) == (1, 2)
    assert report.metrics["precision_ratio"] == pytest.approx(3 / 4)
    assert report.metrics["recall_ratio"] == pytest.approx(3 / 4)
    assert report.metrics["f1"] == pytest.approx(3 / 4)
    assert report.metrics["false_reject_ratio"] == pytest.approx(1 / 3)
    assert report.metrics["accuracy_ratio"] == pytest.approx(5 / 7)
    assert set(report.metrics) == IMAGE_METRICS
    assert set(report.intervals) == IMAGE_METRICS


def test_every_interval_holds_its_metric() -> None:
    rng = np.random.default_rng(0)
    report = evaluate(_outcomes(rng.normal(size=30).tolist(), rng.normal(1.5, size=30).tolist(), 1.0))
    for name, (low, high) in report.intervals.items():
        assert low < report.metrics[name] < high, name


def test_one_kind_of_photos_leaves_out_what_is_not_defined() -> None:
    good = evaluate(_outcomes([0, 1, 5], [], threshold=4))
    assert set(good.metrics) == {"accuracy_ratio", "precision_ratio", "f1", "false_reject_ratio"}
    assert not good.roc
    bad = evaluate(_outcomes([], [0, 1, 5], threshold=4))
    assert "image_auroc" not in bad.metrics
    assert bad.metrics["recall_ratio"] == pytest.approx(1 / 3)


def test_equal_scores_tell_nothing() -> None:
    report = evaluate(_outcomes([1] * 5, [1] * 5, threshold=2))
    assert report.metrics["image_auroc"] == pytest.approx(0.5)
    assert report.metrics["average_precision"] == pytest.approx(0.5)
    assert report.metrics["recall_ratio"] == 0
    assert "precision_ratio" not in report.metrics  # nothing was rejected


def test_pixel_figures_leave_out_anomalies_without_a_mask() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(4, 8, 8)).astype(np.float32)
    masks = np.zeros((4, 8, 8), np.bool_)
    masks[2, :3, :3] = True
    maps[3] += 9  # anomalous all over, as nobody drew: would be 64 false alarms
    report = evaluate(_outcomes([0, 0], [1, 1], 0.5), maps=maps, masks=masks)
    assert report.metrics["pixel_auroc"] == pytest.approx(pixel_auroc(maps[:3], masks[:3]), abs=1e-6)
    assert report.metrics["aupro"] == pytest.approx(aupro(maps[:3], masks[:3]), abs=1e-6)


def test_without_any_mask_there_are_no_pixel_figures() -> None:
    maps, masks = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.bool_)
    assert "aupro" not in evaluate(_outcomes([0], [1], 0.5), maps=maps, masks=masks).metrics


def test_types_have_a_mean_iou_with_an_interval() -> None:
    outcomes = _outcomes([0, 0], [1, 1, 1], 0.5)
    drawn = np.zeros((5, 1, 4, 4), np.bool_)
    drawn[2:, 0, :2] = True
    found = drawn.copy()
    found[2, 0] = False  # IoUs 0, 1, 1
    report = evaluate(outcomes, type_masks=TypeMasks(("crack",), drawn, found))
    assert report.metrics["mean_iou.crack"] == pytest.approx(2 / 3)
    assert list(report.intervals["mean_iou.crack"]) == [0, 1]
    assert report.types[0].mean_iou == pytest.approx(2 / 3)


def test_a_report_becomes_json() -> None:
    report = evaluate(_outcomes([0, 1, 5], [4, 2, 6, 7], threshold=4), resamples=50)
    written = json.loads(json.dumps(report.to_json()))
    assert written["metrics"]["recall_ratio"] == pytest.approx(3 / 4)
    assert written["outcomes"][0] == {
        "name": "000.png",
        "truth": "normal",
        "score": 0,
        "verdict": "normal",
        "confidence": 0.9,
        "types": [],
        "found_types": [],
    }
    assert written["counts"]["false_positives"] == 1

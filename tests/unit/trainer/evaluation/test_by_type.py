"""Figures by anomaly type on photos small enough to count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.domain.label import Verdict
from services.trainer.evaluation.by_type import TypeMasks, rows_by_type
from services.trainer.evaluation.outcome import Outcome

GOOD, BAD = Verdict.NORMAL, Verdict.ANOMALY

OUTCOMES = (
    Outcome("a", BAD, 5, BAD, 0.9, ("crack",), ("crack",)),
    Outcome("b", BAD, 4, BAD, 0.9, ("crack", "hole"), ("hole",)),
    Outcome("c", BAD, 1, GOOD, 0.9, ("crack",), ()),
    Outcome("d", GOOD, 3, BAD, 0.6, (), ("crack",)),
    Outcome("e", GOOD, 0, GOOD, 0.9),
    Outcome("f", BAD, 6, BAD, 0.9, ("dent",), ()),
)


def test_images_are_counted_by_type() -> None:
    crack, dent, hole = rows_by_type(OUTCOMES)
    assert [one.name for one in (crack, dent, hole)] == ["crack", "dent", "hole"]
    # crack: found in a, not in b and c, wrongly in d
    assert (crack.images, crack.missed) == (3, 1)
    assert crack.precision_ratio == pytest.approx(1 / 2)
    assert crack.recall_ratio == pytest.approx(1 / 3)
    assert crack.f1 == pytest.approx(2 / 5)
    assert crack.named_as == {"crack": 1, "hole": 1, "normal": 1}
    assert (dent.f1, dent.precision_ratio, dent.named_as) == (0, None, {"unnamed": 1})
    assert (hole.f1, hole.mean_iou) == (1, None)


def test_an_anomaly_whose_type_nobody_said_counts_neither_way() -> None:
    unsaid = Outcome("g", BAD, 6, BAD, 0.9, (), ("crack",))
    assert rows_by_type([*OUTCOMES, unsaid])[0] == rows_by_type(OUTCOMES)[0]


def test_a_model_without_types_is_only_told_what_it_missed() -> None:
    unnamed = [
        Outcome(one.name, one.truth, one.score, one.verdict, one.confidence, one.types) for one in OUTCOMES
    ]
    crack = rows_by_type(unnamed)[0]
    assert (crack.images, crack.missed) == (3, 1)
    assert crack.named_as == {"unnamed": 2, "normal": 1}
    assert crack.f1 is None


def test_masks_are_compared_where_the_type_is_in_truth() -> None:
    drawn = np.zeros((6, 2, 4, 4), np.bool_)
    found = np.zeros((6, 2, 4, 4), np.bool_)
    drawn[0, 0, :2, :2] = True  # 4 pixels, 2 of them found, and 2 beside
    found[0, 0, :2, 1:3] = True
    drawn[1, 0, 0, :2] = True  # not found at all
    drawn[1, 1, 3, 3] = found[1, 1, 3, 3] = True
    found[3, 0, 0, 0] = True  # a false alarm on a normal photo: pixels, but no IoU
    found[5, 0] = True  # has no mask at all: its pixels are not known
    crack, _, hole = rows_by_type(OUTCOMES, TypeMasks(("crack", "hole"), drawn, found))
    assert crack.mean_iou == pytest.approx((2 / 6 + 0) / 2)  # c has the type, but nobody drew it
    assert crack.pixel_precision_ratio == pytest.approx(2 / 5)
    assert crack.pixel_recall_ratio == pytest.approx(2 / 6)
    assert crack.pixel_f1 == pytest.approx(4 / 11)
    assert hole.mean_iou == 1
    assert hole.pixel_f1 == 1

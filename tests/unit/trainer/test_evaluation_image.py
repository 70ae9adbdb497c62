"""AUROC against counting pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.evaluation.image import image_auroc, share_from

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)


@given(SCORES, SCORES)
def test_auroc_counts_pairs(normal: list[float], anomalous: list[float]) -> None:
    pairs = [1.0 if bad > good else 0.5 * (bad == good) for good in normal for bad in anomalous]
    assert image_auroc(normal, anomalous) == pytest.approx(np.mean(pairs))


def test_share_counts_the_threshold_itself() -> None:
    assert share_from([0.0, 1.0, 2.0, 3.0], 2.0) == 0.5

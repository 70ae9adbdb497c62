"""Exposure, focus and their places among the training photos."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from services.domain.model_version import Quantiles
from services.vision.picture import exposure_of, focus_of, picture_of, place, quantiles_of


def textured(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(60, 180, (224, 224, 3)).astype(np.uint8)


def blurred(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def test_exposure_is_the_mean_grey() -> None:
    assert exposure_of(np.full((8, 8, 3), 100, np.uint8)) == pytest.approx(100)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    assert exposure_of(red) == pytest.approx(0.299 * 200)


def test_a_blur_lowers_focus_and_a_plain_picture_has_none() -> None:
    assert focus_of(blurred(textured(0))) < focus_of(textured(0)) - 1
    assert focus_of(np.full((224, 224, 3), 9, np.uint8)) == 0
    assert focus_of(np.zeros((1, 1, 3), np.uint8)) == 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(-1e7, 1e7), st.floats(-1e7, 1e7))
def test_places_rise_with_the_value(values: list[float], one: float, other: float) -> None:
    among = quantiles_of(values)
    low, high = sorted((one, other))
    assert -100 <= place(low, among) <= place(high, among) <= 100
    assert place(among.p50, among) == 0


def test_equal_photos_have_a_place_too() -> None:
    assert place(101, quantiles_of([100.0] * 5)) == pytest.approx(1)  # 1 % of the median away


def test_a_picture_is_told_by_what_the_version_knows() -> None:
    spread = Quantiles(0, 50, 100, 150, 200)
    told = picture_of(np.full((8, 8, 3), 200, np.uint8), 3.0, 2.0, {"exposure": spread, "embedding": spread})
    assert told == {"exposure": pytest.approx(2), "embedding": pytest.approx(-1.96)}
    assert picture_of(textured(0), 3.0, None, {}) == {}

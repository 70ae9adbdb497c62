"""Pixel AUROC and AUPRO against definitions written out, pixel by pixel and threshold by threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import ndimage

from services.trainer.evaluation.image import image_auroc
from services.trainer.evaluation.pixel import aupro, count_pixels, pixel_auroc

SHAPE = (3, 5, 6)
MAPS = arrays.arrays(np.float32, SHAPE, elements=st.integers(0, 6).map(float))
MASKS = arrays.arrays(np.bool_, SHAPE).filter(lambda masks: bool(masks.any() and not masks.all()))


def _aupro_by_definition(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Every threshold, every region: Bergmann et al. (IJCV 2021), cut at 0.3 by a straight line."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [maps[index][labels == number] for number in range(1, count + 1)]
    normal = maps[~masks]
    across, up = [0.0], [0.0]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        across.append(float((normal >= threshold).mean()))
        up.append(float(np.mean([(values >= threshold).mean() for values in regions])))
    # Densely read off the piecewise linear curve; vertical steps keep their upper end.
    total = 0.0
    for left, right, low, high in zip(across, across[1:], up, up[1:], strict=False):
        if left >= 0.3:
            break
        end = min(right, 0.3)
        reached = low + (high - low) * (end - left) / (right - left) if right > left else high
        total += (end - left) * (low + reached) / 2
    return total / 0.3


@given(MAPS, MASKS)
def test_pixel_auroc_counts_pairs_of_pixels(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
    expected = image_auroc(maps[~masks], maps[masks])
    assert pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(MAPS, MASKS)
def test_aupro_is_as_defined(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
    assert aupro(maps, masks) == pytest.approx(_aupro_by_definition(maps, masks), abs=1e-6)


def test_a_perfect_map_has_1_and_a_flat_one_the_diagonal() -> None:
    masks = np.zeros((2, 8, 8), np.bool_)
    masks[0, 2:4, 2:4] = True
    assert aupro(masks.astype(np.float32), masks) == pytest.approx(1)
    assert pixel_auroc(masks.astype(np.float32), masks) == pytest.approx(1)
    # One threshold takes everything: the line from (0, 0) to (1, 1), whose mean up to 0.3 is 0.15.
    assert aupro(np.zeros((2, 8, 8), np.float32), masks) == pytest.approx(0.15)
    assert pixel_auroc(np.zeros((2, 8, 8), np.float32), masks) == pytest.approx(0.5)


def test_small_regions_count_as_much_as_large_ones() -> None:
    masks = np.zeros((1, 10, 10), np.bool_)
    masks[0, :5, :5] = True
    masks[0, 9, 9] = True
    found_large = np.zeros((1, 10, 10), np.float32)
    found_large[0, :5, :5] = 1
    # The speck is only found with everything else: recall .5 at once, then a line to 1 at rate 1.
    assert aupro(found_large, masks) == pytest.approx(0.5 + 0.15 / 2)


def test_binned_figures_are_close_to_exact_ones() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 56, 56), np.bool_)
    masks[:6, 10:20, 30:45] = True
    masks[:6, 40:43, 5:8] = True
    maps = (rng.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    counts = count_pixels(maps, masks)
    assert counts.normal.shape[1] <= 2048  # 37,632 distinct values
    assert pixel_auroc(maps, masks) == pytest.approx(image_auroc(maps[~masks], maps[masks]), abs=5e-4)
    assert aupro(maps, masks) == pytest.approx(_aupro_fast(maps, masks), abs=5e-4)


def _aupro_fast(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """By sorting all pixels; no two values are equal here."""
    labels = np.stack([ndimage.label(mask, structure=np.ones((3, 3)))[0] for mask in masks])
    worth = np.zeros(maps.shape)
    for index in range(len(maps)):
        for number in range(1, labels[index].max() + 1):
            inside = labels[index] == number
            worth[index][inside] = 1 / inside.sum()
    order = np.argsort(-maps.ravel())
    across = np.cumsum(~masks.ravel()[order]) / (~masks).sum()
    up = np.cumsum(worth.ravel()[order]) / worth.sum()
    return float(np.trapezoid(np.interp(np.linspace(0, 0.3, 100_001), across, up), dx=1 / 100_000))


def test_weights_repeat_photos() -> None:
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 9, (3, 6, 6)).astype(np.float32)
    masks = rng.random((3, 6, 6)) < 0.2
    repeated = [0, 0, 2]
    weights = np.array([[2.0, 0.0, 1.0]])
    counts = count_pixels(maps, masks)
    assert counts.aupro(weights)[0] == pytest.approx(aupro(maps[repeated], masks[repeated]), abs=1e-6)
    assert counts.auroc(weights)[0] == pytest.approx(pixel_auroc(maps[repeated], masks[repeated]), abs=1e-6)

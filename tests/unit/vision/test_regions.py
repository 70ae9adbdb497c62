"""Smoothing and connected regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from services.vision.regions import (
    MAX_REGIONS,
    interpolation_matrix,
    label_components,
    regions_of,
    smooth_map,
)

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def flooded(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """Return the 8-connected components by flood fill, the slow and obvious way."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    components = []
    while left:
        component, edge = set(), {min(left)}
        while edge:
            component |= edge
            left -= edge
            edge = {
                (row + down, column + right)
                for row, column in edge
                for down in (-1, 0, 1)
                for right in (-1, 0, 1)
            } & left
        components.append(component)
    return components


@settings(deadline=None)
@given(MASKS)
def test_components_agree_with_flood_fill(mask: NDArray[np.bool_]) -> None:
    labels, count = label_components(mask)
    found = [{(int(r), int(c)) for r, c in np.argwhere(labels == one + 1)} for one in range(count)]
    assert found == flooded(mask)  # in reading order, too


@settings(deadline=None)
@given(arrays(np.float32, (28, 28), elements=st.floats(-5, 50, width=32)), st.floats(0.5, 10))
def test_regions_are_inside_the_image_and_largest_first(
    anomaly_map: NDArray[np.float32], map_threshold: float
) -> None:
    regions = regions_of(smooth_map(anomaly_map, 2.0), map_threshold)
    assert 1 <= len(regions) <= MAX_REGIONS
    areas = [one.area_ratio for one in regions]
    assert areas == sorted(areas, reverse=True)
    assert sum(areas) <= 1 + 1e-9
    for one in regions:
        assert one.left_ratio >= 0
        assert one.top_ratio >= 0
        assert one.left_ratio + one.width_ratio <= 1 + 1e-9
        assert one.top_ratio + one.height_ratio <= 1 + 1e-9
        assert 0 < one.area_ratio <= one.width_ratio * one.height_ratio + 1e-9


def test_two_spots_become_two_regions_in_place() -> None:
    anomaly_map = np.zeros((28, 28), np.float32)
    anomaly_map[2:8, 4:10] = 9
    anomaly_map[20:23, 20:22] = 9
    large, small = regions_of(smooth_map(anomaly_map, 2.0), 4.0)
    # Cells 4-10 of 28 across and 2-8 down, within half a cell of blur on each side.
    assert large.left_ratio == pytest.approx(4 / 28, abs=0.5 / 28)
    assert large.top_ratio == pytest.approx(2 / 28, abs=0.5 / 28)
    assert large.width_ratio == pytest.approx(6 / 28, abs=1 / 28)
    assert small.area_ratio == pytest.approx(6 / 784, rel=0.3)
    assert large.mean_score > 4
    assert large.anomaly_type == "anomaly"


def test_a_weak_map_still_names_its_highest_place() -> None:
    anomaly_map = np.zeros((28, 28), np.float32)
    anomaly_map[10, 10] = 1
    (only,) = regions_of(smooth_map(anomaly_map, 2.0), map_threshold=5.0)
    assert only.left_ratio < 10.5 / 28 < only.left_ratio + only.width_ratio


def test_smoothing_keeps_a_constant_map_and_the_mean() -> None:
    constant = np.full((28, 28), 3.5, np.float32)
    np.testing.assert_allclose(smooth_map(constant, 2.0), 3.5, rtol=1e-5)
    noise = np.random.default_rng(0).random((28, 28), np.float32)
    assert smooth_map(noise, 4.0).mean() == pytest.approx(noise.mean(), rel=0.02)
    assert smooth_map(noise, 8.0).std() < smooth_map(noise, 2.0).std()


@given(st.integers(1, 40), st.integers(1, 120))
def test_interpolation_weights_sum_to_one(from_length: int, to_length: int) -> None:
    matrix = interpolation_matrix(from_length, to_length)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert matrix.min() >= 0

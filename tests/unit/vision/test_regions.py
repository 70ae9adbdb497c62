"""Smoothing and connected regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from services.domain.inspection import Region
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


def regions(
    anomaly_map: NDArray[np.float32], map_threshold: float, input_px: int = 224
) -> tuple[Region, ...]:
    smooth = smooth_map(anomaly_map, 2.0, input_px)
    return regions_of((smooth >= map_threshold).astype(np.uint8), smooth, ("anomaly",))


@settings(deadline=None)
@given(arrays(np.float32, (56, 56), elements=st.floats(-5, 50, width=32)), st.floats(0.5, 10))
def test_regions_are_inside_the_image_and_largest_first(
    anomaly_map: NDArray[np.float32], map_threshold: float
) -> None:
    found = regions(anomaly_map, map_threshold)
    assert len(found) <= MAX_REGIONS
    areas = [one.area_ratio for one in found]
    assert areas == sorted(areas, reverse=True)
    assert sum(areas) <= 1 + 1e-9
    for one in found:
        assert one.left_ratio >= 0
        assert one.top_ratio >= 0
        assert one.left_ratio + one.width_ratio <= 1 + 1e-9
        assert one.top_ratio + one.height_ratio <= 1 + 1e-9
        assert 0 < one.area_ratio <= one.width_ratio * one.height_ratio + 1e-9
        assert one.mean_score >= map_threshold - 1e-4


@pytest.mark.parametrize("cells", [28, 56, 168])
def test_two_spots_become_two_regions_in_place_on_any_grid(cells: int) -> None:
    side = cells // 28
    anomaly_map = np.zeros((cells, cells), np.float32)
    anomaly_map[2 * side : 8 * side, 4 * side : 10 * side] = 9
    anomaly_map[20 * side : 23 * side, 20 * side : 22 * side] = 9
    large, small = regions(anomaly_map, 4.0, input_px=cells * 4)
    # Cells 4-10 of 28 across and 2-8 down, within half a cell of blur on each side.
    assert large.left_ratio == pytest.approx(4 / 28, abs=0.5 / 28)
    assert large.top_ratio == pytest.approx(2 / 28, abs=0.5 / 28)
    assert large.width_ratio == pytest.approx(6 / 28, abs=1 / 28)
    assert small.area_ratio == pytest.approx(6 / 784, rel=0.3)
    assert large.mean_score > 4
    assert large.anomaly_type == "anomaly"


def test_regions_of_different_types_stand_together_largest_first() -> None:
    classes = np.zeros((8, 8), np.uint8)
    classes[0, :3], classes[4:6, 4:6], classes[7, 7] = 1, 2, 1
    smooth = classes.astype(np.float32)
    found = regions_of(classes, smooth, ("scratch", "anomaly"))
    assert [(one.anomaly_type, one.area_ratio * 64, one.mean_score) for one in found] == [
        ("anomaly", 4, 2),
        ("scratch", 3, 1),
        ("scratch", 1, 1),
    ]


def test_smoothing_keeps_a_constant_map_and_the_mean() -> None:
    constant = np.full((56, 56), 3.5, np.float32)
    np.testing.assert_allclose(smooth_map(constant, 2.0, 224), 3.5, rtol=1e-5)
    noise = np.random.default_rng(0).random((56, 56), np.float32)
    assert smooth_map(noise, 4.0, 224).mean() == pytest.approx(noise.mean(), rel=0.02)
    assert smooth_map(noise, 8.0, 224).std() < smooth_map(noise, 2.0, 224).std()


def test_blur_is_in_pixels_of_the_model_whatever_the_map() -> None:
    # A spot in the middle of a model of 224 px, on maps of 28 and 56 cells; and in one of 448 px.
    def width_ratio(cells: int, input_px: int) -> float:
        spot = np.zeros((cells, cells), np.float32)
        spot[cells // 2 - 1 : cells // 2 + 1, cells // 2 - 1 : cells // 2 + 1] = 1
        smooth = smooth_map(spot, 16.0, input_px)
        return float((smooth[len(smooth) // 2] >= smooth.max() / 2).mean())

    assert width_ratio(56, 224) == pytest.approx(width_ratio(28, 224), rel=0.15)
    assert width_ratio(112, 448) == pytest.approx(width_ratio(56, 224) / 2, rel=0.15)


@given(st.integers(1, 40), st.integers(1, 120))
def test_interpolation_weights_sum_to_one(from_length: int, to_length: int) -> None:
    matrix = interpolation_matrix(from_length, to_length)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert matrix.min() >= 0

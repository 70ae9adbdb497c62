"""An anomaly map -> smooth map -> connected regions (arrow 2, anomalous frames only).

Upsampling and Gaussian blur are linear and separable, so both are one small matrix per axis,
computed once. Pure numpy. Does not decide whether a frame is anomalous, nor which cells are of which
type (`services.vision.type_masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.domain.inspection import Region

# Regions are cut on a grid of half the model's input, finer than any map and a quarter of the work, but of
# 224 cells at most: a map of that size (896 px in tiles) is sharp enough as it is.
_GRID_STRIDE_PX = 2
_MAX_GRID = 224
MAX_REGIONS = 50


def smooth_map(anomaly_map: NDArray[np.float32], sigma_px: float, input_px: int) -> NDArray[np.float32]:
    """Return the map upsampled bilinearly to the region grid and blurred.

    Args:
        anomaly_map: (h, w) float32.
        sigma_px: Gaussian sigma in model pixels; 0 only upsamples.
        input_px: side of the model's input, in model pixels.

    Returns:
        (g, g) float32; g = 112 for an input of 224 px and a map of 56.
    """
    grid = max(*anomaly_map.shape, min(input_px // _GRID_STRIDE_PX, _MAX_GRID))
    sigma = sigma_px * grid / input_px
    down, across = (_smoothing_matrix(length, grid, sigma) for length in anomaly_map.shape)
    return np.asarray(down @ anomaly_map @ across.T, np.float32)


def regions_of(
    classes: NDArray[np.uint8], smooth: NDArray[np.float32], names: Sequence[str]
) -> tuple[Region, ...]:
    """Return the connected parts (8 neighbours) of each class, largest first.

    Args:
        classes: (g, g) uint8, 0 where nothing is, else n for `names[n - 1]`.
        smooth: (g, g) float32, from `smooth_map`.
        names: anomaly types.
    """
    found = [
        (area, labels, number, total, name)
        for value, name in enumerate(names, start=1)
        for labels, number, area, total in _parts_of(classes == value, smooth)
    ]
    largest_first = sorted(found, key=lambda part: -part[0])
    return tuple(
        _region(labels == number, area, total, name)
        for area, labels, number, total, name in largest_first[:MAX_REGIONS]
    )


def _parts_of(
    mask: NDArray[np.bool_], smooth: NDArray[np.float32]
) -> list[tuple[NDArray[np.int32], int, int, float]]:
    """Return (labels, number, cells, sum of the map) of each connected part, in reading order."""
    if not mask.any():
        return []
    labels, count = label_components(mask)
    flat = labels.ravel()
    areas = np.bincount(flat, minlength=count + 1).tolist()
    sums = np.bincount(flat, weights=smooth.ravel(), minlength=count + 1).tolist()
    return [(labels, number, areas[number], sums[number]) for number in range(1, count + 1)]


def label_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the 8-connected components of a boolean (H, W) mask.

    Returns:
        (H, W) int32 with 0 outside and 1..count inside, and count; numbered in reading order.
    """
    runs = _runs_of(mask)
    parents = list(range(len(runs)))
    _join_touching(runs, parents)
    numbers: dict[int, int] = {}
    labels = np.zeros(mask.shape, np.int32)
    for index, (row, start, end) in enumerate(runs):
        number = numbers.setdefault(_root(parents, index), len(numbers) + 1)
        labels[row, start:end] = number
    return labels, len(numbers)


def _runs_of(mask: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Return (row, start, end) of every horizontal run of True, in reading order."""
    height, width = mask.shape
    framed = np.zeros((height, width + 2), np.int8)
    framed[:, 1:-1] = mask
    edges = np.diff(framed, axis=1)  # (H, W + 1): +1 where a run starts, -1 where it ends
    rows, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)
    return list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))


def _join_touching(runs: list[tuple[int, int, int]], parents: list[int]) -> None:
    """Join runs of neighbouring rows that touch, corners included, by one sweep."""
    above = 0
    for index, (row, start, end) in enumerate(runs):
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] <= end:
            parents[_root(parents, index)] = _root(parents, other)
            other += 1


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _region(inside: NDArray[np.bool_], area: int, total: float, name: str) -> Region:
    height, width = inside.shape
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return Region(
        left_ratio=int(columns[0]) / width,
        top_ratio=int(rows[0]) / height,
        width_ratio=(int(columns[-1]) + 1 - int(columns[0])) / width,
        height_ratio=(int(rows[-1]) + 1 - int(rows[0])) / height,
        area_ratio=area / inside.size,
        mean_score=total / area,
        anomaly_type=name,
    )


@lru_cache(maxsize=32)
def _smoothing_matrix(length: int, grid: int, sigma: float) -> NDArray[np.float32]:
    """Return (grid, length): bilinear upsampling, then a Gaussian (sigma in cells), borders reflected."""
    matrix = interpolation_matrix(length, grid)
    if sigma > 0:
        reach = min(int(np.ceil(3 * sigma)), grid)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        padded = np.pad(matrix, ((reach, reach), (0, 0)), mode="symmetric")
        rows = (padded[k : k + grid] * w for k, w in enumerate(weights / weights.sum()))
        matrix = np.sum(list(rows), axis=0)
    frozen = matrix.astype(np.float32)
    frozen.flags.writeable = False  # shared by all callers
    return frozen


def interpolation_matrix(from_length: int, to_length: int) -> NDArray[np.float64]:
    """Return (to_length, from_length): bilinear interpolation with half-pixel centres.

    >>> interpolation_matrix(2, 4)[1].tolist()
    [0.75, 0.25]
    """
    centres = (np.arange(to_length) + 0.5) * from_length / to_length - 0.5
    centres = np.clip(centres, 0, from_length - 1)
    low = np.minimum(centres.astype(np.int64), max(from_length - 2, 0))
    share = centres - low
    matrix = np.zeros((to_length, from_length))
    rows = np.arange(to_length)
    matrix[rows, low] += 1 - share
    matrix[rows, np.minimum(low + 1, from_length - 1)] += share
    return matrix

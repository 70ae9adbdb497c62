"""An anomaly map -> smooth map -> connected regions (arrow 2, anomalous frames only).

Upsampling and Gaussian blur are linear and separable, so both are one small matrix per axis,
computed once. Pure numpy. Does not decide whether a frame is anomalous.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from services.domain.inspection import Region

# Regions are cut on a grid of half the model's input: finer than any map, a quarter of the work.
REGION_GRID_PX = 112
MODEL_PX = 224
MAX_REGIONS = 50
# An anomalous frame always names a place: its highest peak, even below the map's threshold.
_PEAK_RATIO = 0.8


def smooth_map(anomaly_map: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    """Return the map upsampled bilinearly to the region grid and blurred.

    Args:
        anomaly_map: (h, w) float32.
        sigma_px: Gaussian sigma in model pixels (of 224); 0 only upsamples.

    Returns:
        (112, 112) float32.
    """
    down, across = (_smoothing_matrix(length, sigma_px) for length in anomaly_map.shape)
    return np.asarray(down @ anomaly_map @ across.T, np.float32)


def regions_of(smooth: NDArray[np.float32], map_threshold: float) -> tuple[Region, ...]:
    """Return the connected parts (8 neighbours) of an anomalous frame's smooth map, largest first.

    The level is `map_threshold`, or 0.8 of the peak where nothing reaches it.
    """
    peak = float(smooth.max())
    level = map_threshold if peak >= map_threshold else peak - (1 - _PEAK_RATIO) * abs(peak)
    labels, count = label_components(smooth >= level)
    flat = labels.ravel()
    areas = np.bincount(flat, minlength=count + 1)
    sums = np.bincount(flat, weights=smooth.ravel(), minlength=count + 1)
    largest_first = sorted(range(1, count + 1), key=lambda label: -int(areas[label]))
    return tuple(
        _region(labels == label, int(areas[label]), float(sums[label]))
        for label in largest_first[:MAX_REGIONS]
    )


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


def _region(inside: NDArray[np.bool_], area: int, total: float) -> Region:
    height, width = inside.shape
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return Region(
        left_ratio=int(columns[0]) / width,
        top_ratio=int(rows[0]) / height,
        width_ratio=(int(columns[-1]) + 1 - int(columns[0])) / width,
        height_ratio=(int(rows[-1]) + 1 - int(rows[0])) / height,
        area_ratio=area / inside.size,
        mean_score=total / area,
    )


@lru_cache(maxsize=32)
def _smoothing_matrix(length: int, sigma_px: float) -> NDArray[np.float32]:
    """Return (112, length): bilinear upsampling, then a Gaussian with reflected borders."""
    matrix = interpolation_matrix(length, REGION_GRID_PX)
    sigma = sigma_px * REGION_GRID_PX / MODEL_PX
    if sigma > 0:
        reach = min(int(np.ceil(3 * sigma)), REGION_GRID_PX)
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        padded = np.pad(matrix, ((reach, reach), (0, 0)), mode="symmetric")
        rows = (padded[k : k + REGION_GRID_PX] * w for k, w in enumerate(weights / weights.sum()))
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

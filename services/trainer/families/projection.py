"""Taps of any strides -> descriptors on one grid, by a linear map; in numpy and drawn (arrow 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.features import FeatureExtractor, Features, Tap
from services.trainer.graph_builder import GraphBuilder
from services.trainer.resizing import draw_resized, resized

# Coarser taps see objects instead of surfaces: with stride 32 every real set came out worse.
_COARSEST_STRIDE_PX = 16


@dataclass(frozen=True, slots=True)
class TapProjection:
    """What a projection does to one tap: `matrix` is (D, C) float32."""

    tap: Tap
    matrix: NDArray[np.float32]


def usable_taps(extractor: FeatureExtractor) -> tuple[Tap, ...]:
    """Return the taps of a backbone, finest first, without those too coarse where there are others."""
    by_stride = sorted(extractor.taps.values(), key=lambda tap: -tap.grid)
    fine = [tap for tap in by_stride if tap.grid * _COARSEST_STRIDE_PX >= extractor.input_px]
    return tuple(fine or by_stride[:1])


def concatenated(features: Features, names: Sequence[str], grid: int) -> NDArray[np.float32]:
    """Return (N, cells, C): the taps averaged or interpolated to the grid and concatenated."""
    stacked = np.concatenate([resized(features[name], grid) for name in names], axis=1)  # (N, C, g, g)
    count, channels = stacked.shape[:2]
    return np.ascontiguousarray(stacked.reshape(count, channels, -1).transpose(0, 2, 1))


def split_by_tap(matrix: NDArray[np.float32], taps: Sequence[Tap]) -> tuple[TapProjection, ...]:
    """Return a (D, C) matrix on concatenated taps as one part per tap; their results are added."""
    ends = np.cumsum([tap.channels for tap in taps])
    parts = np.split(matrix, ends[:-1], axis=1)
    return tuple(TapProjection(tap, part) for tap, part in zip(taps, parts, strict=True))


def leading_directions(sample: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """Return (D, C), D <= dims: the directions of most variance of (P, C) centred patches, leading first."""
    _, vectors = np.linalg.eigh(sample.T @ sample)
    return np.ascontiguousarray(vectors[:, ::-1][:, :dims].T)


def draw_projected(
    draw: GraphBuilder,
    taps: Mapping[str, str],
    projections: Sequence[TapProjection],
    offset: NDArray[np.float32],
    grid: int,
) -> str:
    """Draw the sum of the projected taps plus (D,) `offset` on a grid; return its name, (N, D, g, g)."""
    total = ""
    for one in projections:
        bias = np.zeros_like(offset) if total else offset
        tensor, tap_grid = taps[one.tap.name], one.tap.grid
        if tap_grid > grid:  # fewer cells to project; small ones are projected, then resized
            tensor, tap_grid = draw_resized(draw, tensor, tap_grid, grid), grid
        kernel = draw.constant(one.matrix[:, :, None, None], "projection")
        part = draw.add("Conv", tensor, kernel, draw.constant(bias, "offset"))
        # 1 x 1 convolutions and interpolation commute.
        part = draw_resized(draw, part, tap_grid, grid)
        total = draw.add("Add", total, part) if total else part
    return total

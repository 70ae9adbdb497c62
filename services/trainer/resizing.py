"""Maps from one square grid to another: block means down, bilinear up; in numpy and drawn (arrow 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.trainer.graph_builder import GraphBuilder
from services.vision.regions import interpolation_matrix


def resized(maps: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Return (..., g, g) maps on another grid; one grid's side has to divide the other's."""
    side = maps.shape[-1] // grid
    if side > 1:
        blocks = maps.reshape(*maps.shape[:-2], grid, side, grid, side)
        return np.asarray(blocks.mean(axis=(-3, -1)), np.float32)
    if maps.shape[-1] == grid:
        return maps
    up = interpolation_matrix(maps.shape[-1], grid).astype(np.float32)
    return np.asarray(up @ maps @ up.T, np.float32)


def draw_resized(draw: GraphBuilder, tensor: str, from_grid: int, grid: int) -> str:
    """Draw `resized` of a (N, C, g, g) tensor; equal grids draw nothing."""
    if from_grid == grid:
        return tensor
    side = from_grid // grid
    if side > 1:
        return draw.add("AveragePool", tensor, kernel_shape=[side, side], strides=[side, side])
    factor = grid / from_grid
    scales = draw.constant(np.array([1, 1, factor, factor], np.float32), "scales")
    return draw.add("Resize", tensor, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")

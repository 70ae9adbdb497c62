"""Brushes: smooth noise, machining marks, light on a relief, the belt (arrow 1). No shapes, no state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]

# The lamp stands top left, 40 degrees above the belt; the camera looks straight down.
_LAMP = np.array([-0.56, -0.53, 0.64], np.float32)
# Half way between lamp and camera, where a mirror would blind.
_GLINT = (_LAMP + np.array([0, 0, 1], np.float32)) / np.linalg.norm(_LAMP + np.array([0, 0, 1], np.float32))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Return (H, W) noise of mean 0 and deviation about 1 whose waves fill `cells` (rows, columns)."""
    rows, columns = max(2, min(cells[0], shape[0])), max(2, min(cells[1], shape[1]))
    coarse = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    fine = coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32)


def light_relief(height: Floats, tint: Floats, gloss: Floats) -> Floats:
    """Light a surface: matt part by the angle to the lamp, gloss by the angle to the glint.

    Args:
        height: (H, W), in pixels.
        tint: (H, W, 3), 0-255.
        gloss: (H, W), 0-1.

    Returns:
        (H, W, 3) float32, 0-255; a level matt surface keeps its tint.
    """
    slope_y, slope_x = np.gradient(height)
    norm = 1 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    matt = np.clip((-slope_x * _LAMP[0] - slope_y * _LAMP[1] + _LAMP[2]) * norm, 0, None) / _LAMP[2]
    glint = np.clip((-slope_x * _GLINT[0] - slope_y * _GLINT[1] + _GLINT[2]) * norm, 0, None) ** 24
    # (H, W, 1) factors over (H, W, 3) colour
    shaded = tint * (0.35 + 0.65 * matt)[..., None] + (150 * gloss * glint)[..., None]
    return np.asarray(np.clip(shaded, 0, 255), np.float32)


def turned_marks(rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Return (H, W) factors around 1: the rings a lathe leaves, and the bow tie of light on them."""
    radius = np.hypot(x, y)
    rings = np.convolve(rng.standard_normal(512), [0.25, 0.5, 0.25], "same").astype(np.float32)
    marks = rings[np.minimum((radius * 360).astype(np.int32), 511)] * 0.035
    waves = smooth_noise(rng, x.shape, (5, 5)) * 0.012
    bow_tie = 0.10 * np.cos(2 * (np.arctan2(y, x) + np.float32(0.8 + rng.normal(0, 0.05))))
    return (1 + marks + waves + bow_tie).astype(np.float32)


def brushed_marks(rng: np.random.Generator, side_px: int) -> Floats:
    """Return (S, S) factors around 1: long strokes of a brush along x."""
    fine = smooth_noise(rng, (side_px, side_px), (side_px // 2, 6)) * 0.030
    coarse = smooth_noise(rng, (side_px, side_px), (40, 3)) * 0.022
    sheen = 0.05 * np.sin(np.linspace(0.4, 2.9, side_px, dtype=np.float32))
    return (1 + fine + coarse + sheen).astype(np.float32)


def moulded_marks(rng: np.random.Generator, side_px: int) -> Floats:
    """Return (S, S) factors around 1: the fine orange peel of moulded plastic."""
    peel = smooth_noise(rng, (side_px, side_px), (side_px // 3, side_px // 3)) * 0.018
    flow = smooth_noise(rng, (side_px, side_px), (4, 4)) * 0.012
    return (1 + peel + flow).astype(np.float32)


def belt(rng: np.random.Generator, width_px: int, height_px: int, tint: tuple[float, float, float]) -> Floats:
    """Return (H, W, 3) float32, 0-255: woven rubber, worn along the way, between two steel rails."""
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    pitch_px = max(3.0, height_px / 64)
    weave = np.sin(2 * np.pi * x / pitch_px) * np.sin(2 * np.pi * y / pitch_px)
    worn = smooth_noise(rng, (height_px, width_px), (height_px // 8, 6)) * 0.035
    cloud = smooth_noise(rng, (height_px, width_px), (6, width_px // 60 + 2)) * 0.02
    grain = smooth_noise(rng, (height_px, width_px), (height_px, width_px)) * 0.035
    level = 1 + 0.09 * weave + worn + cloud + grain
    colour = level[..., None] * np.asarray(tint, np.float32)
    across = np.abs(y[:, :1] / (height_px - 1) - 0.5) * 2
    rail = np.clip((across - 0.925) * 80, 0, 1)[..., None]
    round_bar = (95 + 80 * np.sin(np.clip((across - 0.925) / 0.075, 0, 1) * np.pi))[..., None]
    gap = 1 - 0.55 * np.exp(-(((across - 0.915) / 0.018) ** 2))[..., None]
    return np.asarray(colour * gap * (1 - rail) + round_bar * rail, np.float32)

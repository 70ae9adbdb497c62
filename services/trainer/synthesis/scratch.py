"""`scratch`: thin bright or dark strokes, straight or bent (arrow 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from services.trainer.synthesis.scene import Box, Generator, Patch, Scene

# A stroke is stamped as points so far apart, then widened.
_POINT_STEP_PX = 0.5
_LENGTH_RATIOS, _WIDTHS_PX = (0.03, 0.8), (0.8, 4.5)
_LEVELS = (14.0, 130.0)
_CLEAR_LEVELS = 96.0


def scratch(scene: Scene, rng: Generator) -> Patch:
    """Return a patch with one stroke, faint to clear."""
    path = _path(scene, rng)
    width_px = float(np.exp(rng.uniform(*np.log(_WIDTHS_PX))))
    room = 2 + int(3 * width_px)
    top, left = np.maximum(np.floor(path.min(axis=0)).astype(int) - room, 0)
    bottom, right = np.minimum(np.ceil(path.max(axis=0)).astype(int) + room + 1, scene.side)
    box = Box(int(top), int(left), int(bottom - top), int(right - left))
    cover = _stroke(path - (box.top, box.left), box, width_px)
    level = float(np.exp(rng.uniform(*np.log(_LEVELS)))) * (1 if rng.random() < 0.5 else -1)
    tint = level * rng.uniform(0.8, 1, 3)
    relief = np.zeros_like(cover)
    if rng.random() < 0.4:
        # A groove has a lit flank and a dark one.
        relief[1:, 1:] = cover[:-1, :-1]
    ground = scene.cut(box)
    return Patch(box, np.asarray(ground + (cover - 0.7 * relief)[..., None] * tint, np.float32))


def clear_mark(scene: Scene, rng: Generator) -> Patch:
    """Return a patch with a short bar that differs on any picture: dark on bright, bright on dark."""
    box = scene.boxed(scene.aim(rng), 2, max(2, scene.side // 10))
    ground = scene.cut(box)
    return Patch(box, np.asarray(ground + np.where(ground < 128, _CLEAR_LEVELS, -_CLEAR_LEVELS), np.float32))


def _path(scene: Scene, rng: Generator) -> NDArray[np.float64]:
    """Return (k, 2) rows and columns of points along an arc inside the picture."""
    length = scene.side * float(np.exp(rng.uniform(*np.log(_LENGTH_RATIOS))))
    count = max(2, int(length / _POINT_STEP_PX))
    # Half of the strokes are straight; the others turn by up to a third of a circle.
    turn = rng.uniform(-2.1, 2.1) if rng.random() < 0.5 else 0.0
    angles = rng.uniform(0, 2 * np.pi) + turn * np.linspace(0, 1, count)
    steps = np.stack([np.sin(angles), np.cos(angles)], axis=1) * _POINT_STEP_PX
    path = np.cumsum(steps, axis=0)
    path += np.array(scene.aim(rng)) - path[count // 2]
    kept = path[((path >= 0) & (path <= scene.side - 1)).all(axis=1)]
    return np.asarray(kept)


def _stroke(path: NDArray[np.float64], box: Box, width_px: float) -> NDArray[np.float32]:
    """Return an (h, w) cover (0-1) of the path, soft-edged and fading towards its ends."""
    cover = np.zeros((box.height, box.width), np.float32)
    fade = np.sin(np.linspace(0.15, np.pi - 0.15, len(path))) ** 0.5
    rows, columns = np.rint(path).astype(int).T
    np.maximum.at(cover, (rows, columns), fade.astype(np.float32))
    # A full width at half maximum of 2.35 sigma
    wide = gaussian_filter(cover, width_px / 2.35, truncate=2.5)
    return np.asarray(np.clip(wide / max(float(wide.max()), 1e-6) * 1.3, 0, 1), np.float32)

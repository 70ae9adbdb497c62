"""Outlines of defects: blots with uneven edges, tilted bars (arrow 6). Knows no picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.trainer.synthesis.scene import Generator

# Waves around a blot's edge; beyond five they look like a cog wheel.
_WAVES = np.arange(2, 6)


def blot(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return an (h, w) float32 cover (0-1) of an ellipse with an uneven edge, soft over about a pixel."""
    row, column = _from_centre(height, width)
    angle = np.arctan2(row, column)
    heights = rng.uniform(0, 0.35, len(_WAVES)) / _WAVES
    phases = rng.uniform(0, 2 * np.pi, len(_WAVES))
    # (h, w, waves) -> (h, w)
    edge = 1 + (heights * np.cos(angle[..., None] * _WAVES + phases)).sum(axis=-1)
    edge /= 1 + heights.sum()
    inside = (edge - np.hypot(row, column)) * min(height, width) / 2
    return np.asarray(np.clip(inside + 0.5, 0, 1), np.float32)


def bar(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return an (h, w) float32 cover (0-1) of a thin tilted bar as long as the box."""
    length = float(np.hypot(height, width))
    thick = float(rng.uniform(1.0, max(1.5, length / 8)))
    tilt = float(np.arctan2(height, width)) * (1 if rng.random() < 0.5 else -1)
    row, column = _from_centre(height, width)
    # pixels across and along the bar, (h, w)
    across = row * height / 2 * np.cos(tilt) - column * width / 2 * np.sin(tilt)
    along = row * height / 2 * np.sin(tilt) + column * width / 2 * np.cos(tilt)
    inside = np.minimum(thick / 2 - np.abs(across), length * 0.45 - np.abs(along))
    return np.asarray(np.clip(inside + 0.5, 0, 1), np.float32)


def _from_centre(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (h, w) rows and columns, -1 to 1 from edge to edge."""
    rows = ((np.arange(height) + 0.5) * 2 / height - 1).astype(np.float32)
    columns = ((np.arange(width) + 0.5) * 2 / width - 1).astype(np.float32)
    shape = (height, width)
    return np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns, shape)

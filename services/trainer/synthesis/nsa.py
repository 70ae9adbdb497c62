"""`nsa`: a piece of the other photo grown into this one without a seam (arrow 6).

After Natural Synthetic Anomalies (Schlüter et al., ECCV 2022): Poisson image editing (Pérez et al.,
2003) of a patch that was moved and resized. Inside the blot the gradients are the other photo's,
outside this one's; the box's rim stays as it is. The Poisson equation on a rectangle is solved
exactly by two sine transforms, in well under a millisecond for small boxes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dstn, idstn

from services.trainer.synthesis.scene import Generator, Patch, Scene
from services.trainer.synthesis.shapes import blot

_RESIZE_RATIOS = (0.7, 1.4)


def nsa(scene: Scene, rng: Generator) -> Patch:
    """Return a patch with a moved, resized piece of the other photo."""
    box = scene.box(rng, scene.aim(rng))
    piece = _moved(scene, rng, box.height, box.width)
    cover = blot(rng, box.height, box.width)
    ground = scene.cut(box)
    # Mixed now and then: the stronger of the two gradients keeps both textures.
    return Patch(box, blended(ground, piece, cover, is_mixed=bool(rng.random() < 0.3)))


def blended(
    ground: NDArray[np.float32],
    piece: NDArray[np.float32],
    cover: NDArray[np.float32],
    *,
    is_mixed: bool = False,
) -> NDArray[np.float32]:
    """Return (h, w, 3) with `piece`'s gradients where covered and `ground`'s elsewhere and at the rim.

    Args:
        ground: (h, w, 3) what is there.
        piece: (h, w, 3) what comes in.
        cover: (h, w) 0-1.
        is_mixed: take the ground's gradient where it is the stronger one.
    """
    if min(ground.shape[:2]) < 3:
        return ground + cover[..., None] * (piece - ground)
    change = piece - ground
    slopes = []
    for axis in (0, 1):
        # The unknown is the change to the ground, so that its rim is zero.
        slope = np.diff(change, axis=axis)
        if is_mixed:
            stays = np.abs(np.diff(ground, axis=axis)) > np.abs(np.diff(piece, axis=axis))
            slope = np.where(stays, 0, slope)
        ends = (cover[1:], cover[:-1]) if axis == 0 else (cover[:, 1:], cover[:, :-1])
        slopes.append(slope * np.minimum(*ends)[..., None])
    # divergence at the inner (h-2, w-2) points
    source = np.diff(slopes[0], axis=0)[:, 1:-1] + np.diff(slopes[1], axis=1)[1:-1]
    found = ground.copy()
    found[1:-1, 1:-1] += _poisson(source)
    return found


def _poisson(source: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (h, w, 3) u with laplace u = `source` and u = 0 just outside."""
    height, width = source.shape[:2]
    rows = 2 * np.cos(np.pi * np.arange(1, height + 1, dtype=np.float32) / (height + 1)) - 2
    columns = 2 * np.cos(np.pi * np.arange(1, width + 1, dtype=np.float32) / (width + 1)) - 2
    spectrum = dstn(source, type=1, axes=(0, 1)) / (rows[:, None] + columns[None])[..., None]
    return np.asarray(idstn(spectrum, type=1, axes=(0, 1)), np.float32)


def _moved(scene: Scene, rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return (h, w, 3) float32 of the other photo, from another place and at another size."""
    ratio = float(rng.uniform(*_RESIZE_RATIOS))
    tall, wide = min(max(1, round(height * ratio)), scene.side), min(max(1, round(width * ratio)), scene.side)
    top, left = int(rng.integers(scene.side - tall + 1)), int(rng.integers(scene.side - wide + 1))
    rows = top + (np.arange(height) * tall) // height
    columns = left + (np.arange(width) * wide) // width
    return scene.other[np.ix_(rows, columns)].astype(np.float32)

"""`missing-part`: a part of the object that is not there (arrow 6).

What lies beside it closes over it: the background of the picture, a clone of the next spot, or a
smooth membrane over the surroundings (Laplace's equation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.trainer.synthesis.nsa import blended
from services.trainer.synthesis.scene import Box, Generator, Patch, Scene
from services.trainer.synthesis.shapes import blot


def missing_part(scene: Scene, rng: Generator) -> Patch:
    """Return a patch in which a part is closed over."""
    box = scene.box(rng, scene.aim(rng))
    ground = scene.cut(box)
    cover = blot(rng, box.height, box.width)
    if scene.has_object and rng.random() < 0.5:
        filling = scene.cut(_background(scene, rng, box))
    elif rng.random() < 0.5:
        filling = scene.cut(_beside(scene, rng, box))
    else:
        level = ground.mean(axis=(0, 1))
        flat = blended(ground, np.broadcast_to(level, ground.shape).astype(np.float32), cover)
        return Patch(box, flat + _grain(rng, ground))
    return Patch(box, ground + cover[..., None] * (filling - ground))


def _background(scene: Scene, rng: Generator, box: Box) -> Box:
    """Return the box of equal size that shows the most background of some."""
    cells = scene.object_cells
    boxes = [scene.boxed(_anywhere(scene, rng), box.height, box.width) for _ in range(8)]
    scale = cells.shape[0] / scene.side

    def object_ratio(one: Box) -> float:
        rows = slice(int(one.top * scale), int((one.top + one.height) * scale) + 1)
        columns = slice(int(one.left * scale), int((one.left + one.width) * scale) + 1)
        return float(cells[rows, columns].mean())

    return min(boxes, key=object_ratio)


def _beside(scene: Scene, rng: Generator, box: Box) -> Box:
    """Return the box of equal size next to `box`, in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    row = box.top + box.height // 2 + round(np.sin(angle) * box.height)
    column = box.left + box.width // 2 + round(np.cos(angle) * box.width)
    return scene.boxed((row, column), box.height, box.width)


def _anywhere(scene: Scene, rng: Generator) -> tuple[int, int]:
    return int(rng.integers(scene.side)), int(rng.integers(scene.side))


def _grain(rng: Generator, ground: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (h, w, 3) noise as weak as the ground's weakest: a membrane alone looks like plastic."""
    steps = np.abs(np.diff(ground, axis=0))
    level = float(np.quantile(steps, 0.25)) if steps.size else 0.0
    return rng.normal(0, level, (*ground.shape[:2], 1)).astype(np.float32)

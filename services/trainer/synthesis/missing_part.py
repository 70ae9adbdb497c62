"""`missing-part`: a part of the object that is not there (arrow 6).

Either a whole piece that stands out from the background (a screw), over which the background next to
it closes without a seam; or a bite, filled with background, with a clone of the next spot, or with a
smooth membrane over the surroundings (Laplace's equation).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from services.trainer.synthesis.nsa import blended
from services.trainer.synthesis.scene import LARGEST_RATIO, Box, Generator, Patch, Scene
from services.trainer.synthesis.shapes import blot

_LOOKS = 8


def missing_part(scene: Scene, rng: Generator) -> Patch:
    """Return a patch in which a part is closed over."""
    pieces = _pieces(scene) if scene.has_object else []
    if pieces and rng.random() < 0.4:
        box = pieces[int(rng.integers(len(pieces)))]
        filling = scene.cut(_emptiest(scene, [_beside(scene, rng, box) for _ in range(_LOOKS)]))
        return Patch(box, blended(scene.cut(box), filling, np.ones((box.height, box.width), np.float32)))
    box = scene.box(rng, scene.aim(rng))
    ground = scene.cut(box)
    cover = blot(rng, box.height, box.width)
    if scene.has_object and rng.random() < 0.5:
        far = [scene.boxed(_anywhere(scene, rng), box.height, box.width) for _ in range(_LOOKS)]
        filling = scene.cut(_emptiest(scene, far))
    elif rng.random() < 0.5:
        filling = scene.cut(_beside(scene, rng, box))
    else:
        level = ground.mean(axis=(0, 1))
        flat = blended(ground, np.broadcast_to(level, ground.shape).astype(np.float32), cover)
        return Patch(box, flat + _grain(rng, ground))
    return Patch(box, ground + cover[..., None] * (filling - ground))


def _pieces(scene: Scene) -> list[Box]:
    """Return the boxes, with a margin, of the pieces that are small enough to go missing whole."""
    cell, side = scene.cell_px, scene.side
    boxes = []
    for rows, columns in find_objects(label(scene.object_cells)[0]):
        top, left = max(0, (rows.start - 1) * cell), max(0, (columns.start - 1) * cell)
        bottom, right = min(side, (rows.stop + 1) * cell), min(side, (columns.stop + 1) * cell)
        # One cell alone is noise.
        is_piece = (rows.stop - rows.start) * (columns.stop - columns.start) > 1
        if is_piece and (bottom - top) * (right - left) <= LARGEST_RATIO * side * side:
            boxes.append(Box(top, left, bottom - top, right - left))
    return boxes


def _emptiest(scene: Scene, boxes: list[Box]) -> Box:
    """Return the box that shows the least of the object."""

    def object_ratio(one: Box) -> float:
        cell = scene.cell_px
        rows = slice(one.top // cell, (one.top + one.height) // cell + 1)
        columns = slice(one.left // cell, (one.left + one.width) // cell + 1)
        cells = scene.object_cells[rows, columns]
        return float(cells.mean()) if cells.size else 1.0

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

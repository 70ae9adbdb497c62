"""`perlin`: stains, another texture through a thresholded Perlin mask (arrow 6).

After DRAEM (Zavrtanik et al., ICCV 2021); the texture is the other photo, recoloured, or Perlin noise
itself, since no texture set is at hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.trainer.synthesis.scene import Generator, Patch, Scene

# Share of a box that its stain covers is about half, so the box may be larger than the stain.
_ROOM = 1.4
_COARSEST_CELLS = 6


def perlin(scene: Scene, rng: Generator) -> Patch:
    """Return a patch with an uneven stain, faint to opaque."""
    core = scene.box(rng, scene.aim(rng))
    centre = core.top + core.height // 2, core.left + core.width // 2
    box = scene.boxed(centre, round(core.height * _ROOM), round(core.width * _ROOM))
    rows, columns = np.ogrid[-1 : 1 : box.height * 1j, -1 : 1 : box.width * 1j]
    # The middle is lifted and the rim lowered, so that no stain ends at the box's straight edge.
    height = noise(rng, box.height, box.width) + np.float32(0.35) - 0.9 * (rows**2 + columns**2)
    cover = np.clip(height * 8, 0, 1).astype(np.float32)[..., None] * np.float32(rng.uniform(0.15, 1))
    ground = scene.cut(box)
    return Patch(box, ground + cover * (_texture(scene, rng, box.height, box.width, ground) - ground))


def noise(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return (h, w) float32 Perlin noise, about -0.7 to 0.7, of a random coarseness."""
    cells = int(rng.integers(1, min(_COARSEST_CELLS, max(2, max(height, width) // 2)) + 1))
    angles = rng.uniform(0, 2 * np.pi, (cells + 1, cells + 1))
    rows, columns = (
        np.linspace(0, cells, height, endpoint=False),
        np.linspace(0, cells, width, endpoint=False),
    )
    row_at, column_at = rows.astype(int), columns.astype(int)
    down, right = (rows - row_at)[:, None], (columns - column_at)[None]

    def corner(row: int, column: int) -> NDArray[np.float64]:
        """Return (h, w) dot products of each point's offset with one corner's gradient."""
        angle = angles[np.ix_(row_at + row, column_at + column)]
        return np.asarray(np.cos(angle) * (right - column) + np.sin(angle) * (down - row))

    # Perlin's fade 6t^5 - 15t^4 + 10t^3: no creases at the borders of cells
    across = right**3 * (right * (6 * right - 15) + 10)
    along = down**3 * (down * (6 * down - 15) + 10)
    top = corner(0, 0) * (1 - across) + corner(0, 1) * across
    bottom = corner(1, 0) * (1 - across) + corner(1, 1) * across
    return np.asarray(top * (1 - along) + bottom * along, np.float32)


def _texture(
    scene: Scene, rng: Generator, height: int, width: int, ground: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return (h, w, 3) float32: a recoloured piece of the other photo, or a mottled colour."""
    if rng.random() < 0.5:
        top, left = rng.integers(scene.side - height + 1), rng.integers(scene.side - width + 1)
        piece = scene.other[top : top + height, left : left + width, rng.permutation(3)]
        return np.asarray(piece * np.float32(rng.uniform(0.5, 1.5)) + rng.normal(0, 20), np.float32)
    # Lighter or darker, and only a little of another hue: oil, rust, glue, flour.
    colour = ground.mean(axis=(0, 1)) + rng.normal(0, 50) + rng.normal(0, 25, 3)
    return np.asarray(colour + noise(rng, height, width)[..., None] * rng.uniform(0, 80), np.float32)

"""What a spoiler looks at, and what it gives back: a scene and a patch of it (arrow 6).

A defect lies on the object where one stands out from its background, else anywhere. The background
is what the border of the picture looks like; this is a guess, and nothing depends on its being right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator

# The object is looked for on a grid of about this many cells a side: sharp enough to aim a defect.
_GRID_CELLS = 28
# Grey levels (0-255) by which a cell has to differ from the border's median, at least.
_STANDS_OUT_LEVELS = 24.0
# An object that fills less than this is noise, and one that fills more has no background.
_OBJECT_RATIOS = (0.03, 0.9)
# Defects that are put beside the object, although there is one: dirt on the belt is a defect, too.
_ANYWHERE_RATIO = 0.1
# Defects cover from a few pixels to a tenth of the picture.
_SMALLEST_PX, LARGEST_RATIO = 12.0, 0.1


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle inside a picture."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Return row and column slices."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True, slots=True)
class Patch:
    """What a spoiler puts into a box.

    Attributes:
        box: where.
        pixels: (h, w, 3) float32, 0-255 and beyond, which is clipped.
    """

    box: Box
    pixels: NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A good photo that is to be spoilt.

    Attributes:
        pixels: (S, S, 3) uint8.
        other: (S, S, 3) uint8, another good photo.
    """

    pixels: NDArray[np.uint8]
    other: NDArray[np.uint8]

    @property
    def side(self) -> int:
        """Pixels along each side."""
        return int(self.pixels.shape[0])

    @cached_property
    def cell_px(self) -> int:
        """Pixels along each side of an object cell."""
        return max(1, self.side // _GRID_CELLS)

    @cached_property
    def object_cells(self) -> NDArray[np.bool_]:
        """(g, g) cells, each the look of one pixel in a square of `cell_px`, that stand out."""
        # (g, g, 3): one pixel of each cell is enough to aim, and costs microseconds
        cells = self.pixels[self.cell_px // 2 :: self.cell_px, self.cell_px // 2 :: self.cell_px].astype(
            np.float32
        )
        border = np.concatenate([cells[0], cells[-1], cells[:, 0], cells[:, -1]])
        middle = np.median(border, axis=0)
        spread = np.median(np.abs(border - middle).max(axis=1))
        apart = np.abs(cells - middle).max(axis=2)
        return np.asarray(apart > max(_STANDS_OUT_LEVELS, 4 * float(spread)))

    @cached_property
    def has_object(self) -> bool:
        """Tell whether something stands out from the background."""
        share = float(self.object_cells.mean())
        return _OBJECT_RATIOS[0] <= share <= _OBJECT_RATIOS[1]

    def aim(self, rng: Generator) -> tuple[int, int]:
        """Return row and column of a place for a defect, on the object if there is one."""
        if not self.has_object or rng.random() < _ANYWHERE_RATIO:
            return int(rng.integers(self.side)), int(rng.integers(self.side))
        rows, columns = np.nonzero(self.object_cells)
        one = int(rng.integers(len(rows)))
        jitter = rng.integers(self.cell_px, size=2)
        row, column = rows[one] * self.cell_px + jitter[0], columns[one] * self.cell_px + jitter[1]
        return min(int(row), self.side - 1), min(int(column), self.side - 1)

    def box(self, rng: Generator, centre: tuple[int, int], longest_ratio: float = 3.0) -> Box:
        """Return a box of a random size about `centre`, moved into the picture.

        Its area is log-uniform from a few pixels to a tenth of the picture.

        Args:
            rng: of the size.
            centre: row and column.
            longest_ratio: the box is at most so many times longer than wide, either way.
        """
        largest = max(_SMALLEST_PX, LARGEST_RATIO * self.side * self.side)
        area = float(np.exp(rng.uniform(np.log(_SMALLEST_PX), np.log(largest))))
        stretch = float(np.exp(rng.uniform(-1, 1) * np.log(longest_ratio) / 2))
        return self.boxed(centre, round(np.sqrt(area) * stretch), round(np.sqrt(area) / stretch))

    def boxed(self, centre: tuple[int, int], height: int, width: int) -> Box:
        """Return a box of at least 1 px and at most the picture about `centre`, moved into the picture."""
        height, width = min(max(height, 1), self.side), min(max(width, 1), self.side)
        top = min(max(centre[0] - height // 2, 0), self.side - height)
        left = min(max(centre[1] - width // 2, 0), self.side - width)
        return Box(top, left, height, width)

    def cut(self, box: Box) -> NDArray[np.float32]:
        """Return the (h, w, 3) float32 pixels in a box."""
        return self.pixels[box.slices].astype(np.float32)

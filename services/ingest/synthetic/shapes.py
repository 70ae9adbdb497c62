"""Signed distances of plane shapes, and a canvas that stacks them to a lit relief (arrow 1).

Coordinates are part units: the canvas spans -1 to 1 on both axes, y down. A distance is negative
inside of a shape. Does not know what a part is (`parts`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from services.ingest.synthetic.surface import light_relief

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """Part units of every pixel of a square canvas.

    Attributes:
        x: (S, S) float32, -1 (left) to 1 (right).
        y: (S, S) float32, -1 (top) to 1 (bottom).
    """

    x: Floats
    y: Floats

    @classmethod
    def of(cls, side_px: int) -> Grid:
        """Return the grid of a canvas of `side_px` by `side_px`."""
        axis = (np.arange(side_px, dtype=np.float32) + 0.5) * (2 / side_px) - 1
        x, y = np.meshgrid(axis, axis)
        return cls(x, y)

    @property
    def side_px(self) -> int:
        """Pixels per side."""
        return len(self.x)

    def circle(self, x: float, y: float, radius: float) -> Floats:
        """Return the distance to a disc."""
        return np.asarray(np.hypot(self.x - x, self.y - y) - radius, np.float32)

    def box(self, x: float, y: float, half_width: float, half_height: float, corner: float = 0.0) -> Floats:
        """Return the distance to a rectangle with rounded corners."""
        dx = np.abs(self.x - x) - (half_width - corner)
        dy = np.abs(self.y - y) - (half_height - corner)
        outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0))
        return np.asarray(outside + np.minimum(np.maximum(dx, dy), 0) - corner, np.float32)

    def turned(self, x: float, y: float, angle_rad: float) -> Grid:
        """Return the grid as seen from a point, turned: for shapes that do not lie straight."""
        cos, sin = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        return Grid(dx * cos + dy * sin, dy * cos - dx * sin)

    def text(self, words: str, x: float, y: float, height: float) -> Floats:
        """Return the share of ink (0-1) of words centred on a point, in the font that Pillow carries."""
        scale = self.side_px / 2
        page = Image.new("L", (self.side_px, self.side_px), 0)
        font = ImageFont.load_default(size=height * scale)
        place = ((x + 1) * scale, (y + 1) * scale)
        ImageDraw.Draw(page).text(place, words, fill=255, font=font, anchor="mm")
        return np.asarray(page, np.float32) / np.float32(255)


@dataclass
class Relief:
    """A part in the making: height, colour and outline, all (S, S).

    Attributes:
        height: part units above the belt.
        tint: (S, S, 3) float32, 0-255, the colour under even light.
        solid: 0-1, where there is material.
        gloss: 0-1, how mirror-like the surface is.
    """

    grid: Grid
    height: Floats = field(init=False)
    tint: Floats = field(init=False)
    solid: Floats = field(init=False)
    gloss: Floats = field(init=False)

    def __post_init__(self) -> None:
        side = self.grid.side_px
        self.height, self.gloss = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
        self.solid, self.tint = np.zeros((side, side), np.float32), np.zeros((side, side, 3), np.float32)

    def body(self, distance: Floats, tint: Colour, *, thickness: float, bevel: float, gloss: float) -> None:
        """Begin with a solid of this outline; its colour reaches past the edge, so that edges have no rim."""
        self.solid = self._inside(distance)
        self.height = self._rise(distance, thickness, bevel)
        self.tint[:] = tint
        self.gloss[:] = gloss

    def add(self, distance: Floats, height: float, *, bevel: float, tint: Colour | None = None) -> None:
        """Raise (or, with a negative height, lower) what lies inside of a shape; paint it too, if told."""
        self.height += self._rise(distance, height, bevel)
        if tint is not None:
            self.paint(self._inside(distance), tint)

    def cut(self, distance: Floats, *, bevel: float) -> None:
        """Drill through: no material inside, and a chamfer of width `bevel` around."""
        self.height -= self._rise(distance - np.float32(bevel), bevel, bevel)
        self.solid *= 1 - self._inside(distance)

    def paint(self, share: Floats, tint: Colour) -> None:
        """Mix a colour in, by share (0-1)."""
        self.tint += share[..., None] * (np.asarray(tint, np.float32) - self.tint)

    def lit(self) -> Floats:
        """Return (S, S, 3) float32, 0-255: the part under the line's lamp."""
        return light_relief(self.height * (self.grid.side_px / 2), self.tint, self.gloss)

    def _inside(self, distance: Floats) -> Floats:
        """Return 0-1 with one pixel of transition."""
        return np.asarray(np.clip(0.5 - distance * (self.grid.side_px / 2), 0, 1), np.float32)

    def _rise(self, distance: Floats, height: float, bevel: float) -> Floats:
        """Return the height of a rounded step that ends `bevel` inside of the outline."""
        share = np.clip(-distance / np.float32(bevel), 0, 1)
        return np.asarray(np.sin(share * (np.pi / 2)) * height, np.float32)

"""What the synthetic line makes: a turned flange, a brushed bracket with screws, a moulded gear (arrow 1).

A blank is one part seen from above, before it lies on the belt. Blanks of one kind differ in their
machining marks; one feature may be missing. Damage that is no missing feature is `defects`' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.ingest.synthetic.shapes import Colour, Grid, Relief
from services.ingest.synthetic.surface import brushed_marks, moulded_marks, turned_marks

# Drawn twice as large and averaged down: smooth edges for a quarter of the pixels' cost at run time.
_OVERSAMPLING = 2
STEEL: Colour = (168, 172, 176)
DARK_STEEL: Colour = (104, 108, 114)
INK: Colour = (38, 42, 52)
GEAR_BLUE: Colour = (52, 104, 158)
SHAFT: Colour = (176, 150, 92)


@dataclass(frozen=True)
class Blank:
    """One part without its surroundings.

    Attributes:
        rgb: (S, S, 3) uint8, RGB; colour reaches past the outline.
        alpha: (S, S) uint8, 255 where there is material.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """One product of the line.

    Attributes:
        name: also the first word of part ids.
        features: how many features may be missing.
        draw: draws the relief; its last argument is the missing feature or -1.
        belt_tint: colour of the belt it lies on.
    """

    name: str
    features: int
    draw: Callable[[Grid, np.random.Generator, int], Relief]
    belt_tint: Colour


def draw_blank(kind: Kind, side_px: int, seed: tuple[int, ...], missing: int = -1) -> Blank:
    """Return a part of a kind.

    Args:
        kind: what to draw.
        side_px: width and height of the result.
        seed: which machining marks; equal seeds give equal marks, whatever is missing.
        missing: number of the feature that was forgotten; -1: none.
    """
    grid = Grid.of(side_px * _OVERSAMPLING)
    relief = kind.draw(grid, np.random.default_rng(seed), missing)
    rgb = Image.fromarray(np.rint(relief.lit()).astype(np.uint8)).reduce(_OVERSAMPLING)
    alpha = Image.fromarray(np.rint(relief.solid * 255).astype(np.uint8)).reduce(_OVERSAMPLING)
    return Blank(np.asarray(rgb), np.asarray(alpha))


def _ring(count: int, radius: float, start_rad: float = 0.0) -> list[tuple[float, float]]:
    """Return `count` points evenly on a circle."""
    angles = start_rad + np.arange(count) * (2 * np.pi / count)
    return [(float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles]


def _flange(grid: Grid, rng: np.random.Generator, missing: int) -> Relief:
    """Draw a turned steel flange: hub with bore and keyway, six bolt holes, an engraved name."""
    relief = Relief(grid)
    relief.body(grid.circle(0, 0, 0.94), STEEL, thickness=0.06, bevel=0.05, gloss=0.55)
    relief.add(grid.circle(0, 0, 0.85), -0.012, bevel=0.02)
    relief.add(grid.circle(0, 0, 0.42), 0.05, bevel=0.05)
    relief.tint *= turned_marks(rng, grid.x, grid.y)[..., None]
    for number, (x, y) in enumerate(_ring(6, 0.635)):
        if number != missing:
            relief.add(grid.circle(x, y, 0.14), -0.02, bevel=0.02)
            relief.cut(grid.circle(x, y, 0.088), bevel=0.02)
    bore = np.minimum(grid.circle(0, 0, 0.22), grid.box(0, -0.22, 0.055, 0.06))
    relief.cut(bore, bevel=0.03)
    words = grid.text("LP-40", 0, 0.64, 0.11)
    relief.paint(words * 0.75, DARK_STEEL)
    relief.height -= words * 0.006
    return relief


def _screw(relief: Relief, x: float, y: float, angle_rad: float) -> None:
    """Drive a countersunk cross-head screw in."""
    grid = relief.grid
    relief.add(grid.circle(x, y, 0.118), 0.03, bevel=0.06, tint=DARK_STEEL)
    own = grid.turned(x, y, angle_rad)
    cross = np.minimum(own.box(0, 0, 0.07, 0.018, 0.01), own.box(0, 0, 0.018, 0.07, 0.01))
    relief.add(cross, -0.03, bevel=0.02, tint=(40, 42, 46))


def _bracket(grid: Grid, rng: np.random.Generator, missing: int) -> Relief:
    """Draw a brushed aluminium bracket: four screws, a slot, a punched window, printed data."""
    relief = Relief(grid)
    relief.body(grid.box(0, 0, 0.95, 0.66, 0.1), (186, 189, 190), thickness=0.05, bevel=0.03, gloss=0.4)
    relief.tint *= brushed_marks(rng, grid.side_px)[..., None]
    relief.cut(grid.box(-0.28, -0.12, 0.26, 0.17, 0.06), bevel=0.02)
    relief.cut(grid.box(0.48, -0.24, 0.2, 0.055, 0.055), bevel=0.02)
    relief.add(grid.box(0.02, 0.4, 0.56, 0.13, 0.03), -0.008, bevel=0.01)
    turns_rad = rng.uniform(0, np.pi / 2, 4)
    for number, (x, y) in enumerate(((-0.78, -0.48), (0.78, -0.48), (-0.78, 0.48), (0.78, 0.48))):
        relief.add(grid.circle(x, y, 0.14), -0.02, bevel=0.03)
        if number == missing:
            relief.cut(grid.circle(x, y, 0.075), bevel=0.03)
        else:
            _screw(relief, x, y, turns_rad[number])
    relief.paint(grid.text("LOUPE  BR-217", 0.02, 0.36, 0.1), INK)
    relief.paint(grid.text("24V  IP65  MADE TO TEST", 0.02, 0.455, 0.066), INK)
    head = np.maximum(np.abs(grid.y - 0.06) - (grid.x - 0.3) * np.float32(0.6), grid.x - np.float32(0.42))
    arrow = np.minimum(head, grid.box(0.52, 0.06, 0.11, 0.025))
    relief.add(arrow, 0.0, bevel=0.01, tint=(178, 44, 38))
    return relief


def _gear(grid: Grid, rng: np.random.Generator, missing: int) -> Relief:
    """Draw a moulded gear: eighteen teeth, five ribs and windows, a brass bush."""
    relief = Relief(grid)
    radius, angle = np.hypot(grid.x, grid.y), np.arctan2(grid.y, grid.x)
    teeth = 18
    wave = np.clip(np.cos(angle * teeth) * 2.6, -1, 1)
    if missing >= 0:
        gap = 2 * np.pi * missing / teeth
        away = np.abs(np.angle(np.exp(1j * (angle - gap)))).astype(np.float32)
        wave = np.where(away < np.pi / teeth, np.float32(-1), wave)
    outline = (radius - 0.87 - 0.065 * wave).astype(np.float32)
    relief.body(outline, GEAR_BLUE, thickness=0.06, bevel=0.035, gloss=0.3)
    relief.tint *= moulded_marks(rng, grid.side_px)[..., None]
    relief.add(grid.circle(0, 0, 0.72), -0.03, bevel=0.03)
    relief.add(grid.circle(0, 0, 0.3), 0.045, bevel=0.03)
    for x, y in _ring(5, 0.5, 0.35):
        relief.cut(grid.circle(x, y, 0.135), bevel=0.02)
    for x, y in _ring(5, 0.5, 0.35 + np.pi / 5):
        along = grid.turned(x, y, float(np.arctan2(y, x)))
        relief.add(along.box(0, 0, 0.21, 0.03, 0.02), 0.03, bevel=0.03)
    relief.add(grid.circle(0, 0, 0.2), 0.02, bevel=0.02, tint=SHAFT)
    relief.cut(grid.circle(0, 0, 0.12), bevel=0.02)
    relief.paint(grid.text("Z18", 0.0, 0.255, 0.075) * 0.8, (210, 222, 234))
    return relief


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("flange", 6, _flange, (58, 66, 62)),
        Kind("bracket", 4, _bracket, (50, 56, 66)),
        Kind("gear", 18, _gear, (112, 114, 108)),
    )
}

"""Damage to a blank: scratch, stain, dent, missing piece; each with the mask of what it changed (arrow 1).

Sizes are part units (the blank spans 2), so a defect is as large on every image size. Defects are
clear to a careful look and small against the part: 0.1 to 3 % of its area.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from services.ingest.synthetic.parts import Blank
from services.ingest.synthetic.shapes import Floats, Grid
from services.ingest.synthetic.surface import smooth_noise

MISSING = "missing"
_STAINS = ((74, 50, 24), (112, 62, 26), (34, 32, 36), (92, 88, 40))


@dataclass(frozen=True)
class Damaged:
    """A blank after its accident.

    Attributes:
        blank: what is left.
        mask: (S, S) bool, pixels that the defect changed.
    """

    blank: Blank
    mask: NDArray[np.bool_]


def scratch(blank: Blank, rng: np.random.Generator) -> Damaged:
    """Draw one bent scratch: a dark groove beside a bright burr."""
    side = len(blank.alpha)
    x, y = _spot_on(blank, rng)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.75)
    bend, width = rng.uniform(-0.25, 0.25), rng.uniform(0.012, 0.024)
    along = np.linspace(-0.5, 0.5, 24)
    across = bend * (along**2) + 0.006 * rng.standard_normal(24).cumsum() / 4
    points_x = x + length * (along * np.cos(angle) - across * np.sin(angle))
    points_y = y + length * (along * np.sin(angle) + across * np.cos(angle))
    groove = _stroke(side, points_x, points_y, width)
    burr = _stroke(side, points_x + width * 0.7, points_y + width * 0.7, width * 0.8)
    solid = _solid(blank)
    rgb = blank.rgb.astype(np.float32)
    rgb *= (1 - rng.uniform(0.5, 0.75) * groove * solid)[..., None]
    rgb += (rng.uniform(35, 65) * burr * solid)[..., None]
    return Damaged(_with_rgb(blank, rgb), np.maximum(groove, burr) * solid > 0.25)


def stain(blank: Blank, rng: np.random.Generator) -> Damaged:
    """Spill something: an uneven blot with a darker rim."""
    side = len(blank.alpha)
    x, y = _spot_on(blank, rng)
    grid = Grid.of(side).turned(x, y, rng.uniform(0, np.pi))
    radius, flat = rng.uniform(0.09, 0.2), rng.uniform(0.55, 1.0)
    ragged = smooth_noise(rng, (side, side), (12, 12)) * 0.3 + smooth_noise(rng, (side, side), (40, 40)) * 0.1
    level = np.clip((1 + ragged - np.hypot(grid.x, grid.y / flat) / radius) * 2.2, 0, 1)
    rim = np.exp(-(((level - 0.5) / 0.25) ** 2)) * 0.22
    uneven = 1 + 0.15 * smooth_noise(rng, (side, side), (30, 30))
    share = np.clip(level * uneven * rng.uniform(0.38, 0.55) + rim * (level > 0), 0, 0.9) * _solid(blank)
    colour = np.asarray(_STAINS[rng.integers(len(_STAINS))], np.float32)
    rgb = blank.rgb + share[..., None] * (colour - blank.rgb)
    return Damaged(_with_rgb(blank, rgb), share > 0.15)


def dent(blank: Blank, rng: np.random.Generator) -> Damaged:
    """Hit it once: a round hollow, dark towards the lamp and bright on the far side."""
    x, y = _spot_on(blank, rng)
    grid = Grid.of(len(blank.alpha)).turned(x, y, 0.0)
    radius = np.float32(rng.uniform(0.075, 0.13))
    reach = np.hypot(grid.x, grid.y) / radius
    bowl = np.exp(-2.2 * reach**2)
    # The lamp is top left: the slope that looks away from it lies on the near side.
    tilt = (grid.x + grid.y) / radius * bowl
    depth = rng.uniform(0.85, 1.25)
    solid = _solid(blank)
    rgb = blank.rgb * (1 + solid * np.clip(depth * tilt - 0.16 * bowl, -0.6, 0.6))[..., None]
    return Damaged(_with_rgb(blank, rgb), (reach < 1.05) & (solid > 0.5))


def chip(blank: Blank, rng: np.random.Generator) -> Damaged:
    """Break a piece of the outline off; the fracture shows."""
    side = len(blank.alpha)
    x, y = _spot_on_outline(blank, rng)
    grid = Grid.of(side).turned(x, y, rng.uniform(0, np.pi))
    radius = rng.uniform(0.1, 0.19)
    ragged = smooth_noise(rng, (side, side), (26, 26)) * 0.1
    reach = np.hypot(grid.x, grid.y * rng.uniform(1.0, 1.5)) / radius + ragged
    gone = np.clip((1 - reach) * 12, 0, 1)
    fracture = np.exp(-(((reach - 1.05) / 0.1) ** 2)) * 0.45
    alpha = blank.alpha * (1 - gone)
    rgb = blank.rgb * (1 - fracture)[..., None]
    mask = (blank.alpha > 127) & (alpha < 128)
    return Damaged(Blank(_to_bytes(rgb), _to_bytes(alpha)), mask)


def forgotten(blank: Blank, without: Blank) -> Damaged:
    """Take the same part without one of its features; the mask is where the two differ."""
    change = np.abs(blank.rgb.astype(np.int16) - without.rgb).max(axis=2)
    change = np.maximum(change, np.abs(blank.alpha.astype(np.int16) - without.alpha))
    wide = Image.fromarray((change > 24).astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(3))
    return Damaged(without, np.asarray(wide) > 0)


# What damages a surface or an outline; a missing feature needs a second blank, so `line` calls it.
DAMAGES: Mapping[str, Callable[[Blank, np.random.Generator], Damaged]] = {
    "scratch": scratch,
    "stain": stain,
    "dent": dent,
    MISSING: chip,
}
DEFECTS = tuple(DAMAGES)


def _solid(blank: Blank) -> Floats:
    return blank.alpha.astype(np.float32) / np.float32(255)


def _with_rgb(blank: Blank, rgb: Floats) -> Blank:
    return Blank(_to_bytes(rgb), blank.alpha)


def _to_bytes(values: Floats) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _spot_on(blank: Blank, rng: np.random.Generator) -> tuple[float, float]:
    """Return a point in part units well inside of the material, so that no defect falls off the part."""
    small = Image.fromarray(blank.alpha).resize((32, 32), Image.Resampling.BOX)
    inner = np.argwhere(np.asarray(small.filter(ImageFilter.MinFilter(3))) > 250)
    row, column = inner[rng.integers(len(inner))]
    return (float(column) + 0.5) / 16 - 1, (float(row) + 0.5) / 16 - 1


def _spot_on_outline(blank: Blank, rng: np.random.Generator) -> tuple[float, float]:
    """Return a point in part units where a ray from outside first meets material."""
    side = len(blank.alpha)
    angle = rng.uniform(0, 2 * np.pi)
    reach = np.linspace(1.4, 0.0, 200)
    columns = ((reach * np.cos(angle) + 1) * side / 2).astype(int)
    rows = ((reach * np.sin(angle) + 1) * side / 2).astype(int)
    seen = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    hits = np.flatnonzero(seen & (blank.alpha[rows.clip(0, side - 1), columns.clip(0, side - 1)] > 127))
    distance = float(reach[hits[0]])
    return distance * float(np.cos(angle)), distance * float(np.sin(angle))


def _stroke(side: int, x: NDArray[np.float64], y: NDArray[np.float64], width: float) -> Floats:
    """Return (S, S) shares (0-1) of a line that tapers to both ends; drawn three times as large."""
    scale = side * 3 / 2
    page = Image.new("L", (side * 3, side * 3), 0)
    pen = ImageDraw.Draw(page)
    places = list(zip((x + 1) * scale, (y + 1) * scale, strict=True))
    for number in range(len(places) - 1):
        taper = np.sin(np.pi * (number + 1) / len(places)) ** 0.6
        pen.line(places[number : number + 2], fill=255, width=max(2, round(width * scale * taper)))
    return np.asarray(page.reduce(3), np.float32) / np.float32(255)

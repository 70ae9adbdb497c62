"""A sheet of synthetic defects for people: each photo as it was, outlined, beside what became of it.

The outline is drawn on the good photo, so that nothing covers the defect (`loupe synth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from services.trainer.dataset import Dataset
from services.trainer.synthesis.spoil import KINDS, Spoilt, spoil

_PAIRS_A_ROW, _GAP_PX, _CAPTION_PX = 4, 10, 22
_GROUND, _INK, _OUTLINE = (255, 255, 255), (30, 30, 30), np.array([255, 0, 200], np.uint8)


@dataclass(frozen=True, slots=True)
class Sample:
    """A good photo and what became of it."""

    name: str
    good: NDArray[np.uint8]
    spoilt: Spoilt


def samples(photos: Dataset, count: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Sample]:
    """Return `count` spoilt photos: the kinds in turn, the photos in turn, every other choice seeded."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        at = number % len(photos)
        other = (at + 1 + int(rng.integers(max(1, len(photos) - 1)))) % len(photos)
        spoilt = spoil(photos.pixels(at), photos.pixels(other), rng, [kinds[number % len(kinds)]])
        made.append(Sample(photos.images[at].name, photos.pixels(at), spoilt))
    return made


def draw_sheet(shown: Sequence[Sample]) -> Image.Image:
    """Return one picture of all samples; the first one's side counts for all."""
    side = shown[0].good.shape[0]
    wide, tall = 2 * side + _GAP_PX, side + _CAPTION_PX + _GAP_PX
    columns = min(_PAIRS_A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * (wide + _GAP_PX) + _GAP_PX, rows * tall + _GAP_PX), _GROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for number, one in enumerate(shown):
        left = _GAP_PX + number % columns * (wide + _GAP_PX)
        top = _GAP_PX + number // columns * tall
        sheet.paste(Image.fromarray(_outlined(one)), (left, top))
        sheet.paste(Image.fromarray(one.spoilt.pixels), (left + side + 2, top))
        area = np.count_nonzero(one.spoilt.mask)
        caption = f"{one.spoilt.kind}, {area} px ({area / side**2:.1%})  {one.name}"
        pen.text((left, top + side + 3), caption[: wide // 7], _INK, font)
    return sheet


def _outlined(sample: Sample) -> NDArray[np.uint8]:
    """Return the (S, S, 3) good photo with a line around what will differ."""
    pixels = sample.good.copy()
    pixels[binary_dilation(sample.spoilt.mask, iterations=3) & ~binary_dilation(sample.spoilt.mask)] = (
        _OUTLINE
    )
    return pixels

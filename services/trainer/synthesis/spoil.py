"""A good photo -> a spoilt one and the mask of what differs (arrow 6).

Draws a kind, lets it make a patch, and keeps what can be seen and is not too large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing

from services.domain.errors import BadRequest
from services.trainer.synthesis.cut_paste import cut_paste
from services.trainer.synthesis.missing_part import missing_part
from services.trainer.synthesis.nsa import nsa
from services.trainer.synthesis.perlin import perlin
from services.trainer.synthesis.scene import Box, Generator, Patch, Scene
from services.trainer.synthesis.scratch import clear_mark, scratch

_SPOILERS: Mapping[str, Callable[[Scene, Generator], Patch]] = {
    "cut-paste": cut_paste,
    "perlin": perlin,
    "nsa": nsa,
    "missing-part": missing_part,
    "scratch": scratch,
}
KINDS = tuple(_SPOILERS)
# A change of fewer of 256 levels in every channel is not seen in a real photo: noise and JPEG make as much.
VISIBLE_LEVELS = 10
# Pixels that differ, and their share of the picture; what is beyond is drawn again.
MIN_VISIBLE_PX, MAX_VISIBLE_RATIO = 4, 0.15
_TRIES = 8
# Gaps of up to four pixels between pixels that differ belong to the defect: a texture on a texture
# is equal here and there by chance, and its mask must not fall into crumbs.
_CLOSING = np.ones((5, 5), bool)
_CLOSING_PX = 2


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A photo with one synthetic defect.

    Attributes:
        pixels: (S, S, 3) uint8 RGB.
        mask: (S, S) bool, where it differs visibly; never empty.
        kind: one of `KINDS`.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str


def spoil(
    pixels: NDArray[np.uint8], other: NDArray[np.uint8], rng: Generator, kinds: Sequence[str] = KINDS
) -> Spoilt:
    """Return a spoilt copy of `pixels`; equal arguments give equal results.

    Where nothing visible comes of some tries (all pixels are equal, and so are the other's), it gets
    a clear short scratch, whatever `kinds` says.

    Args:
        pixels: (S, S, 3) uint8 of a good part; not changed.
        other: (S, S, 3) uint8 of another good part, or the same one.
        rng: every random choice.
        kinds: which to draw from.

    Raises:
        BadRequest: an unknown kind, none at all, or pictures that are not square or differ in size.
    """
    _check(pixels, other, kinds)
    scene = Scene(pixels, other)
    most_px = MAX_VISIBLE_RATIO * scene.side**2
    for _ in range(_TRIES):
        kind = kinds[int(rng.integers(len(kinds)))]
        patch = _SPOILERS[kind](scene, rng)
        spoilt, mask = _placed(scene, patch)
        if MIN_VISIBLE_PX <= np.count_nonzero(mask) <= most_px:
            return Spoilt(spoilt, mask, kind)
    return Spoilt(*_placed(scene, clear_mark(scene, rng)), "scratch")


def _check(pixels: NDArray[np.uint8], other: NDArray[np.uint8], kinds: Sequence[str]) -> None:
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown or not kinds:
        wrong = f"There is no kind {unknown[0]} of synthetic defect" if unknown else "No kind was named"
        raise BadRequest(f"{wrong}; there are {', '.join(KINDS)}.", kinds=list(kinds))
    if pixels.shape != other.shape or pixels.shape[0] != pixels.shape[1] or pixels.shape[0] == 0:
        message = f"Only square pictures of equal size are spoilt, not {pixels.shape} with {other.shape}."
        raise BadRequest(message)


def _placed(scene: Scene, patch: Patch) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (S, S, 3) uint8 with the patch in it and the (S, S) mask of what differs."""
    inside = patch.box.slices
    spoilt = scene.pixels.copy()
    spoilt[inside] = np.clip(np.rint(patch.pixels), 0, 255).astype(np.uint8)
    return spoilt, _difference(scene.pixels, spoilt, patch.box)


def _difference(before: NDArray[np.uint8], after: NDArray[np.uint8], box: Box) -> NDArray[np.bool_]:
    """Return (S, S) where a channel differs by `VISIBLE_LEVELS` or more, small gaps closed."""
    inside = box.slices
    step = np.abs(after[inside].astype(np.int16) - before[inside]).max(axis=2)
    seen = np.pad(step >= VISIBLE_LEVELS, _CLOSING_PX)
    closed = binary_closing(seen, _CLOSING)[_CLOSING_PX:-_CLOSING_PX, _CLOSING_PX:-_CLOSING_PX]
    mask = np.zeros(before.shape[:2], bool)
    mask[inside] = closed
    return mask

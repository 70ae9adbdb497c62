"""Mask images as people draw them -> one black-and-white mask per anomaly type (arrow 5).

White, or the colour that was named for the type, is anomaly; everything else is not. Stores nothing.
"""

from __future__ import annotations

import io
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.domain.errors import BadRequest
from services.vision.decode import decode

_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
# JPEG and antialiasing turn white into nearly white; half way to black is the usual border.
_WHITE_FROM = 128
# Grey whose channels differ by less is noise of a lossy file, not a colour.
_GREY_WITHIN = 24


def read_mask(data: bytes, size_px: tuple[int, int], colour: str | None = None) -> bytes:
    """Return a mask as PNG: 8-bit grey, 255 where the anomaly is, 0 elsewhere; equal masks, equal bytes.

    Args:
        data: an encoded image of any format that `decode` reads.
        size_px: width and height of the upright picture that the mask speaks of.
        colour: `#rrggbb` of the type in a mask with a colour per type; None: white.

    Raises:
        UnreadableImage: not an image.
        BadRequest: of another size than the picture, without a single marked pixel, or in colours that
            nobody named; the sentence says which.
    """
    seen = decode(data, size_px)
    if (seen.width_px, seen.height_px) != size_px:
        message = (
            f"The mask has {seen.width_px} x {seen.height_px} pixels, "
            f"the picture {size_px[0]} x {size_px[1]}; they have to be equal."
        )
        raise BadRequest(message, mask_px=(seen.width_px, seen.height_px), image_px=size_px)
    marked = _white(seen.pixels) if colour is None else _of_colour(seen.pixels, colour)
    if not marked.any():
        wanted = "white" if colour is None else colour
        raise BadRequest(f"The mask marks nothing: no pixel of it is {wanted}.")
    file = io.BytesIO()
    # (H, W) bool -> (H, W) uint8, 0 or 255
    Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).save(file, "PNG")
    return file.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    """Return width and height of an upright picture, after reading all of it.

    Raises:
        UnreadableImage: not an image, or damaged.
        ImageTooLarge: more pixels than are decoded at all.
    """
    seen = decode(data)
    return seen.width_px, seen.height_px


def checked_colour(text: str) -> str:
    """Return a colour as `#rrggbb`.

    Raises:
        BadRequest: it is none.
    """
    found = _COLOUR.fullmatch(text)
    if found is None:
        raise BadRequest(f"{text[:40]!r} is not a colour; write it as #rrggbb, for example #d62728.")
    return f"#{found[1].lower()}"


def _white(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (H, W) of (H, W, 3): what is nearer to white than to black."""
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    if (spread > _GREY_WITHIN).any():
        message = (
            "The mask has colours. Say which colour is which type (scratch=#d62728), "
            "or draw one black-and-white mask per type."
        )
        raise BadRequest(message)
    return np.asarray(pixels[:, :, 1] >= _WHITE_FROM)


def _of_colour(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """Return (H, W) of (H, W, 3): exactly this colour."""
    wanted = np.array(list(bytes.fromhex(checked_colour(colour)[1:])), np.uint8)
    return np.asarray((pixels == wanted).all(axis=2))

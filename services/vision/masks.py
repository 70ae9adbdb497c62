"""Mask images as people draw them -> one black-and-white mask per anomaly type (arrow 5).

What a mask marks is decided per file:

- it was written by `read_mask`, which it says itself: white;
- a colour is named for the type: the pixels of exactly this colour, if at least half opaque;
- some pixels are transparent: those that are at least half opaque, whatever their one colour;
- else it is black and white. White is the anomaly, unless the background is white: that is when white is
  more than half of the picture and more than half of its outermost pixels, and there is black as well.

Stores nothing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.domain.errors import BadRequest
from services.vision.decode import UPRIGHT_BY, decode, open_image, orientation_of
from services.vision.regions import label_components

_GROUND = "#ffffff"
# A text in the PNG: which colour is the anomaly.
_SIGN = "anomaly"
_COLOUR = re.compile(r"#?([0-9a-fA-F]{6})")
# JPEG and antialiasing turn white into nearly white; half way to black is the usual border.
_WHITE_FROM = 128
# The edges of soft brushes: as much paint as ground.
_OPAQUE_FROM = 128
# Grey whose channels differ by less is noise of a lossy file, not a colour.
_GREY_WITHIN = 24


def read_mask(data: bytes, size_px: tuple[int, int], colour: str | None = None) -> bytes:
    """Return a mask as PNG: 8-bit grey, 255 where the anomaly is, 0 elsewhere; equal masks, equal bytes.

    What it returned is read the same again, even a mask of nearly the whole picture.

    Args:
        data: an encoded image of any format that `decode` reads.
        size_px: width and height of the upright picture that the mask speaks of.
        colour: `#rrggbb` of the type in a mask with a colour per type; None: see the module.

    Raises:
        UnreadableImage: not an image.
        BadRequest: of another size than the picture, without a single marked pixel, or in colours that
            nobody named; the sentence says which.
    """
    return _encoded(marked_pixels(data, size_px, colour))


def marked_pixels(data: bytes, size_px: tuple[int, int], colour: str | None = None) -> NDArray[np.bool_]:
    """Return (height, width) bool of what a mask marks; see `read_mask`."""
    opaque = _with_transparency(data)
    if opaque is None:
        seen = decode(data, size_px)
        _check_size((seen.width_px, seen.height_px), size_px)
        if colour is not None:
            marked = _of_colour(seen.pixels, colour)
        else:
            marked = _white(seen.pixels)
            marked = ~marked if _is_white_ground(marked) and not _is_ours(data) else marked
    else:
        _check_size((opaque.shape[1], opaque.shape[0]), size_px)
        pixels, marked = opaque[:, :, :3], opaque[:, :, 3] >= _OPAQUE_FROM
        if colour is None:
            _check_one_colour(pixels[marked])
        else:
            marked = marked & _of_colour(pixels, colour)
    _check_marks(marked, colour or ("white" if opaque is None else "opaque"))
    return marked


def pixels_by_colour(
    data: bytes, size_px: tuple[int, int], colours: Mapping[str, str]
) -> dict[str, NDArray[np.bool_]]:
    """Return anomaly type -> (height, width) bool of a mask with a colour per type, those that are there.

    Args:
        data: an encoded image.
        size_px: width and height of the upright picture that the mask speaks of.
        colours: `#rrggbb` by type. White, and what is less than half opaque, is the ground.

    Raises:
        UnreadableImage: not an image.
        BadRequest: of another size than the picture, with a colour that nobody named, or without a single
            marked pixel.
    """
    opaque = _with_transparency(data)
    if opaque is None:
        decoded = decode(data, size_px)
        found_px, pixels = (decoded.width_px, decoded.height_px), decoded.pixels
        seen = np.ones(pixels.shape[:2], np.bool_)
    else:
        found_px, pixels = (opaque.shape[1], opaque.shape[0]), opaque[:, :, :3]
        seen = opaque[:, :, 3] >= _OPAQUE_FROM
    _check_size(found_px, size_px)
    marked = {name: seen & _of_colour(pixels, colour) for name, colour in colours.items()}
    unnamed = seen & ~np.any([_of_colour(pixels, _GROUND), *marked.values()], axis=0)
    if unnamed.any():
        colour = bytes(pixels[unnamed][0]).hex()
        message = (
            f"The mask has {int(unnamed.sum())} pixels in colours that nobody named, "
            f"for example #{colour}; named are {', '.join(colours.values())}."
        )
        raise BadRequest(message)
    found = {name: one for name, one in marked.items() if one.any()}
    if not found:
        raise BadRequest(f"The mask marks nothing: no pixel of it is {' or '.join(colours.values())}.")
    return found


def on_grid(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return (side, side) of an (H, W) mask: the cells of which half or more is marked.

    Half keeps areas, so that overlaps with it are fair. But a region may be smaller than a cell, and a lost
    one would be learnt as normal: where no cell of a region is half marked, its fullest one stands for it.
    """
    covered = np.asarray(
        Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX), np.float32
    )
    marked = covered >= 0.5
    labels, count = label_components(covered > 0)
    flat = labels.ravel()
    fullest = np.zeros(count + 1, np.float32)
    np.maximum.at(fullest, flat, covered.ravel())
    is_small = fullest < 0.5
    is_small[0] = False
    kept = is_small[labels] & (covered >= fullest[labels])
    return np.asarray(marked | kept)


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


def _with_transparency(data: bytes) -> NDArray[np.uint8] | None:
    """Return upright (H, W, 4) uint8 RGBA of an image with transparent pixels, None of any other."""
    with open_image(data) as image:
        image.load()
        if not image.has_transparency_data:
            return None
        rgba = image.convert("RGBA")
        orientation = orientation_of(image)
        if orientation in UPRIGHT_BY and image.format != "TIFF":  # which Pillow turns itself
            rgba = rgba.transpose(UPRIGHT_BY[orientation])
        pixels = np.asarray(rgba)
    return pixels if (pixels[:, :, 3] < _OPAQUE_FROM).any() else None


def _check_size(found_px: tuple[int, int], size_px: tuple[int, int]) -> None:
    if found_px != size_px:
        message = (
            f"The mask has {found_px[0]} x {found_px[1]} pixels, "
            f"the picture {size_px[0]} x {size_px[1]}; they have to be equal."
        )
        raise BadRequest(message, mask_px=found_px, image_px=size_px)


def _check_marks(marked: NDArray[np.bool_], wanted: str) -> None:
    if not marked.any():
        raise BadRequest(f"The mask marks nothing: no pixel of it is {wanted}.")


def _is_white_ground(white: NDArray[np.bool_]) -> bool:
    """Tell whether the anomaly is the black of an (H, W) mask; see the module."""
    rim = np.concatenate([white[0], white[-1], white[1:-1, 0], white[1:-1, -1]])
    return bool(white.mean() > 0.5 and rim.mean() > 0.5 and not white.all())


def _is_ours(data: bytes) -> bool:
    """Tell whether `read_mask` wrote it."""
    with open_image(data) as image:
        return _SIGN in image.info


def _white(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (H, W) of (H, W, 3): what is nearer to white than to black."""
    spread = pixels.max(axis=2).astype(np.int16) - pixels.min(axis=2)
    if (spread > _GREY_WITHIN).any():
        raise _unnamed_colours()
    return np.asarray(pixels[:, :, 1] >= _WHITE_FROM)


def _check_one_colour(pixels: NDArray[np.uint8]) -> None:
    """Refuse (K, 3) pixels of several colours, each of which may be a type."""
    if len(pixels) and (np.ptp(pixels, axis=0) > _GREY_WITHIN).any():
        raise _unnamed_colours()


def _unnamed_colours() -> BadRequest:
    return BadRequest(
        "The mask has colours. Say which colour is which type (scratch=#d62728), "
        "or draw one black-and-white mask per type."
    )


def _of_colour(pixels: NDArray[np.uint8], colour: str) -> NDArray[np.bool_]:
    """Return (H, W) of (H, W, 3): exactly this colour."""
    wanted = np.array(list(bytes.fromhex(checked_colour(colour)[1:])), np.uint8)
    return np.asarray((pixels == wanted).all(axis=2))


def _encoded(marked: NDArray[np.bool_]) -> bytes:
    file, sign = io.BytesIO(), PngInfo()
    sign.add_text(_SIGN, "white")
    # (H, W) bool -> (H, W) uint8, 0 or 255
    Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).save(file, "PNG", pnginfo=sign)
    return file.getvalue()

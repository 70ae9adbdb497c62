"""Encoded image bytes -> the pixels a model sees (arrow 2; the same function in training).

The image is stretched to the model's input with antialiasing. JPEG is decoded at the smallest DCT
scale that still covers it. Nothing here trusts a file name or a media type.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from services.domain.errors import ImageTooLarge, UnreadableImage

MODEL_INPUT_PX = (224, 224)
# 100 Mpx in colour take 400 MB (Pillow has four bytes for RGB), with transparency twice that for a moment.
MAX_IMAGE_PX = 100_000_000
# Pixels that are converted at a time.
_STRIP_PX = 1 << 20
# Every format is a parser that faces hostile bytes, so only those that cameras and people send.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
UPRIGHT_BY = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset({5, 6, 7, 8})

# Pillow's own guard warns once per process at 89 Mpx and raises at twice that; ours is stricter,
# comes before any pixel is decoded and knows one limit, so Pillow's is switched off.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels for a model.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, 0-255, upright, C-contiguous.
        width_px: width of the upright original.
        height_px: height of the upright original.
    """

    pixels: NDArray[np.uint8]
    width_px: int
    height_px: int


def decode(
    data: bytes, size_px: tuple[int, int] = MODEL_INPUT_PX, *, max_image_px: int = MAX_IMAGE_PX
) -> Decoded:
    """Decode an image of any size and mode to upright RGB of `size_px` (width, height).

    Sixteen-bit values are scaled by their full range; transparent pixels become black, because
    nothing was seen there; of several frames the first counts.

    Raises:
        UnreadableImage: no image, of an unknown format, or damaged.
        ImageTooLarge: its header declares more than `max_image_px`; nothing was decoded.
    """
    with open_image(data, max_image_px=max_image_px) as image:
        return _decode_opened(image, size_px)


@contextmanager
def open_image(data: bytes, *, max_image_px: int = MAX_IMAGE_PX) -> Iterator[Image.Image]:
    """Open an image without decoding it; whatever goes wrong with it meanwhile is the image's fault.

    Raises:
        UnreadableImage: no image, of an unknown format, or damaged.
        ImageTooLarge: its header declares more than `max_image_px`; nothing was decoded.
    """
    if not data:
        message = "The image is empty (0 bytes)."
        raise UnreadableImage(message, size_bytes=0)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(image, max_image_px)
            yield image
    except (UnreadableImage, ImageTooLarge):
        raise
    except UnidentifiedImageError as error:
        message = f"The {len(data)} bytes are not an image in a known format ({', '.join(_FORMATS)})."
        raise UnreadableImage(message, size_bytes=len(data)) from error
    except Exception as error:
        # Decoders raise anything on hostile bytes (struct.error, SyntaxError, zlib.error, ...);
        # whatever it was, this image cannot be read and the next one can.
        reason = str(error).rstrip(". ") or type(error).__name__
        message = f"The image is damaged or truncated: {reason}."
        raise UnreadableImage(message, size_bytes=len(data)) from error


def _check_size(image: Image.Image, max_image_px: int) -> None:
    width_px, height_px = image.size
    if width_px * height_px > max_image_px:
        message = f"The image has {width_px} x {height_px} pixels; at most {max_image_px} are decoded."
        raise ImageTooLarge(message, width_px=width_px, height_px=height_px, max_image_px=max_image_px)


def _decode_opened(image: Image.Image, size_px: tuple[int, int]) -> Decoded:
    width_px, height_px = image.size
    # A sideways JPEG is scaled before it is turned: cover the longer side either way.
    image.draft(None, (max(size_px), max(size_px)))
    is_tiff = image.format == "TIFF"  # Pillow turns TIFF upright itself, while loading
    image.load()
    orientation = 1 if is_tiff else orientation_of(image)
    if is_tiff:
        width_px, height_px = image.size
    is_sideways = orientation in SIDEWAYS
    target_px = (size_px[1], size_px[0]) if is_sideways else size_px
    small = _to_eight_bits(image).resize(target_px, Image.Resampling.BILINEAR).convert("RGB")
    if orientation in UPRIGHT_BY:
        small = small.transpose(UPRIGHT_BY[orientation])
    if is_sideways:
        width_px, height_px = height_px, width_px
    return Decoded(np.array(small, np.uint8, order="C"), width_px, height_px)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) when there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (OSError, ValueError, TypeError, SyntaxError, KeyError, OverflowError):
        return 1  # pixels are fine, only the note about them is not


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit grey or RGB."""
    if image.mode in {"L", "RGB"} and "transparency" not in image.info:
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        return _by_strips(image, "L", _from_sixteen_bits)
    if image.mode == "F":
        message = "The image has 32-bit float pixels, whose black and white are not defined."
        raise UnreadableImage(message, mode=image.mode)
    if image.has_transparency_data:
        return _by_strips(image, "RGB", _on_black)
    return image.convert("RGB")


def _by_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a strip at a time: what conversions need in between would be several times a large image."""
    whole = Image.new(mode, image.size)
    rows = max(1, _STRIP_PX // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(convert(strip), (0, top))
    return whole


def _from_sixteen_bits(strip: Image.Image) -> Image.Image:
    # (H, W) float32; 65535 / 257 = 255: the whole range, where Pillow's own conversion clips at 255.
    grey = np.clip(np.asarray(strip, np.float32) / np.float32(257), 0, 255)
    return Image.fromarray(np.rint(grey).astype(np.uint8))


def _on_black(strip: Image.Image) -> Image.Image:
    seen = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen).convert("RGB")

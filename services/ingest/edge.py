"""At the edge: publish a part of a picture, or a smaller one (arrow 1).

The picture is turned upright by its EXIF note first, so that a region of interest is where people see it.
Format and depth stay: JPEG stays JPEG, PNG and TIFF stay lossless with 8 or 16 bit grey, WebP stays WebP.
Colour of 16 bit becomes 8 bit, which is all that a model sees of it. Judges nothing; a picture that cannot
be read is published as it is, and the stream quarantines it.
"""

from __future__ import annotations

import io
import logging
import math
from dataclasses import dataclass
from typing import Any

from PIL import Image, JpegImagePlugin

from services.domain.camera import Area
from services.domain.errors import BadRequest, ImageTooLarge, UnreadableImage
from services.vision.decode import MAX_IMAGE_PX, SIDEWAYS, UPRIGHT_BY, open_image, orientation_of

logger = logging.getLogger(__name__)

# Encoded once more, an image loses once more: 95 keeps what 4:2:0 and 8x8 blocks of a camera left.
_JPEG_QUALITY = 95
# Measured on a photo: 6, the default, takes 1.4 times as long as 1 and saves an eighth of the bytes.
_PNG_LEVEL = 1
_LOSSLESS_TIFF = frozenset({"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"})
# Pillow resizes these by repeating pixels, or not at all.
_RESIZED_AS = {"1": "L", "P": "RGB", "PA": "RGBA"}
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Reframed:
    """A picture made of another.

    Attributes:
        image: encoded bytes.
        content_type: its media type.
        area: what of the upright original it shows, in whole pixels of that: left, top, width, height as
            shares (0-1), by comma; None: all of it.
    """

    image: bytes
    content_type: str
    area: str | None


@dataclass(frozen=True, slots=True)
class Box:
    """Whole pixels of an upright picture; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top


class Edge:
    """Crops and scales the pictures of one camera; holds no state, so threads may share it."""

    def __init__(self, area: Area | None, longest_side_px: int | None) -> None:
        """Check both.

        Raises:
            BadRequest: the area is empty or reaches out of the picture, or the longest side is below 1.
        """
        if area is not None and not _is_inside(area):
            raise BadRequest(
                "An area is left,top,width,height in shares of the picture from 0 to 1, and lies inside "
                "of it, as in 0.25,0.1,0.5,0.5."
            )
        if longest_side_px is not None and longest_side_px < 1:
            raise BadRequest(f"The longest side has at least 1 pixel, not {longest_side_px}.")
        self._area, self._longest_px = area, longest_side_px

    def apply(self, image: bytes, *, max_image_px: int = MAX_IMAGE_PX) -> Reframed | None:
        """Return what is to be published instead of a picture; None: the picture itself.

        That is so when there is nothing to change, and when it cannot be read.
        """
        if self._area is None and self._longest_px is None:
            return None
        try:
            with open_image(image, max_image_px=max_image_px) as opened:
                return self._reframe(opened, image)
        except (UnreadableImage, ImageTooLarge) as error:
            logger.info("a picture is published as it is: %s", error)
            return None

    def _reframe(self, image: Image.Image, data: bytes) -> Reframed | None:
        is_tiff = image.format == "TIFF"  # Pillow turns TIFF upright itself, while loading
        if is_tiff:
            image.load()
        orientation = 1 if is_tiff else orientation_of(image)
        whole_px = image.size[::-1] if orientation in SIDEWAYS else image.size
        box = box_of(self._area, *whole_px)
        ratio = min(1.0, (self._longest_px or math.inf) / max(box.width, box.height))
        is_whole = (box.width, box.height) == whole_px
        if is_whole and ratio == 1:
            return None
        settings = _settings_of(image, data)  # before `draft` and `load`, which forget some of it
        stored_px = image.size
        if ratio < 1:
            # JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that has the pixels that are wanted:
            # 4000 to 1000 pixels in a third of the time.
            image.draft(None, (math.ceil(stored_px[0] * ratio), math.ceil(stored_px[1] * ratio)))
        image.load()
        scale = image.size[0] / stored_px[0], image.size[1] / stored_px[1]
        upright = image.transpose(UPRIGHT_BY[orientation]) if orientation in UPRIGHT_BY else image
        if orientation in SIDEWAYS:
            scale = scale[::-1]
        part = _cut(upright, box, ratio, scale)
        out = io.BytesIO()
        kind = settings.pop("format")
        part.save(out, kind, **settings)
        return Reframed(out.getvalue(), Image.MIME[kind], None if is_whole else _text_of(box, whole_px))


def box_of(area: Area | None, width_px: int, height_px: int) -> Box:
    """Return the pixels of an area of an upright picture; never empty."""
    if area is None:
        return Box(0, 0, width_px, height_px)
    left, right = _span(area.left_ratio, area.width_ratio, width_px)
    top, bottom = _span(area.top_ratio, area.height_ratio, height_px)
    return Box(left, top, right, bottom)


def _span(start_ratio: float, length_ratio: float, whole_px: int) -> tuple[int, int]:
    start = round(start_ratio * whole_px)
    end = min(round((start_ratio + length_ratio) * whole_px), whole_px)
    if end <= start:
        # Less than a pixel: the one that it begins in.
        start = min(math.floor(start_ratio * whole_px), whole_px - 1)
        end = start + 1
    return start, end


def _is_inside(area: Area) -> bool:
    spans = (area.left_ratio, area.width_ratio), (area.top_ratio, area.height_ratio)
    # Shares that people wrote with some digits may add up to a little more than one.
    return all(0 <= start < 1 and length > 0 and start + length <= 1 + 1e-6 for start, length in spans)


def _cut(upright: Image.Image, box: Box, ratio: float, scale: tuple[float, float]) -> Image.Image:
    """Return a part of a picture that was decoded at `scale`, scaled to `ratio` of the original."""
    if ratio == 1:
        return upright.crop((box.left, box.top, box.right, box.bottom))
    if upright.mode in _RESIZED_AS:
        has_alpha = upright.mode == "P" and upright.has_transparency_data
        upright = upright.convert("RGBA" if has_alpha else _RESIZED_AS[upright.mode])
    target_px = max(1, round(box.width * ratio)), max(1, round(box.height * ratio))
    edges = box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1]
    right, bottom = min(edges[2], upright.width), min(edges[3], upright.height)
    return upright.resize(target_px, Image.Resampling.BILINEAR, box=(edges[0], edges[1], right, bottom))


def _settings_of(image: Image.Image, data: bytes) -> dict[str, Any]:
    """Return how to write what is made of an image: in its own format, and as well as it came."""
    kind = image.format or "PNG"
    settings: dict[str, Any] = {"format": kind}
    if image.info.get("icc_profile"):
        settings["icc_profile"] = image.info["icc_profile"]
    if kind == "JPEG":
        sampling = JpegImagePlugin.get_sampling(image)
        settings |= {"quality": _JPEG_QUALITY, "subsampling": sampling if sampling >= 0 else 0}
    elif kind == "TIFF":
        packing = image.info.get("compression")
        settings["compression"] = packing if packing in _LOSSLESS_TIFF else "tiff_deflate"
    elif kind == "WEBP":
        # The first chunk says how pixels are packed, or an extended header comes before it.
        settings |= {"lossless": True} if b"VP8L" in data[:64] else {"quality": _JPEG_QUALITY}
    elif kind in ("PNG", "GIF"):
        settings |= {"format": "PNG", "compress_level": _PNG_LEVEL}
    return settings


def _text_of(box: Box, whole_px: tuple[int, int]) -> str:
    width_px, height_px = whole_px
    shares = box.left / width_px, box.top / height_px, box.width / width_px, box.height / height_px
    return ",".join(f"{share:.{_DIGITS}f}" for share in shares)

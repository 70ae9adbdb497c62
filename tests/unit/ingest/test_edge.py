"""Crop and scale at the edge: formats, depths, upright pictures, and pictures that are none."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from services.domain.camera import Area
from services.domain.errors import BadRequest
from services.ingest.edge import Edge, Reframed, box_of

HALF = Area(0.25, 0.5, 0.5, 0.5)


def gradient(width: int, height: int, top: int = 255) -> NDArray[np.uint16]:
    """Return (H, W) values that differ from pixel to pixel, from 0 to `top`."""
    values = np.arange(width * height, dtype=np.float64).reshape(height, width)
    return np.asarray(values * top / values.max(), np.uint16)


def encoded(pixels: NDArray[Any], kind: str, **settings: Any) -> bytes:
    """Return pixels as the bytes of an image."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **settings)
    return out.getvalue()


def decoded(reframed: Reframed | None) -> NDArray[Any]:
    """Return the pixels of what is published."""
    assert reframed is not None
    with Image.open(io.BytesIO(reframed.image)) as image:
        return np.asarray(image)


RGB = np.stack([gradient(80, 40).astype(np.uint8)] * 3, axis=-1)
GREY_16 = gradient(80, 40, 65535)


@pytest.mark.parametrize(
    ("kind", "pixels", "media_type"),
    [
        ("PNG", RGB, "image/png"),
        ("PNG", RGB[..., 0], "image/png"),
        ("PNG", GREY_16, "image/png"),
        ("TIFF", RGB, "image/tiff"),
        ("TIFF", GREY_16, "image/tiff"),
        ("BMP", RGB, "image/bmp"),
        ("PPM", RGB, "image/x-portable-anymap"),
    ],
)
def test_a_part_of_a_lossless_image_is_that_part(kind: str, pixels: NDArray[Any], media_type: str) -> None:
    reframed = Edge(HALF, None).apply(encoded(pixels, kind))
    part = decoded(reframed)
    assert part.dtype == pixels.dtype
    # Width 80: from 20 to 60. Height 40: from 20 to 40.
    np.testing.assert_array_equal(part, pixels[20:40, 20:60])
    assert reframed is not None
    assert (reframed.content_type, reframed.area) == (media_type, "0.250000,0.500000,0.500000,0.500000")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_is_scaled_in_sixteen_bit(kind: str) -> None:
    small = decoded(Edge(None, 40).apply(encoded(GREY_16, kind)))
    assert small.shape == (20, 40)
    assert small.dtype == np.uint16
    # Bilinear over a gradient of 65535 in 3,200 steps: within some steps of the mean of four pixels.
    mean = GREY_16.reshape(20, 2, 40, 2).mean(axis=(1, 3))
    assert np.abs(small[1:-1, 1:-1].astype(float) - mean[1:-1, 1:-1]).max() < 2 * 65535 / 80
    assert len(np.unique(small)) > 256


def test_jpeg_stays_jpeg_with_its_sampling_and_loses_little() -> None:
    smooth = np.stack(np.meshgrid(np.linspace(0, 255, 160), np.linspace(0, 255, 80)) * 2, axis=-1)[..., :3]
    data = encoded(smooth.astype(np.uint8), "JPEG", quality=95, subsampling=1)
    reframed = Edge(HALF, None).apply(data)
    assert reframed is not None
    assert reframed.content_type == "image/jpeg"
    with Image.open(io.BytesIO(reframed.image)) as image:
        assert JpegImagePlugin.get_sampling(image) == 1
    whole = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(decoded(reframed).astype(int) - whole[40:80, 40:120]).mean() < 2


@pytest.mark.parametrize("is_lossless", [True, False])
def test_webp_stays_webp_and_lossless_if_it_was(is_lossless: bool) -> None:
    data = encoded(RGB, "WEBP", lossless=is_lossless, quality=95)
    reframed = Edge(HALF, None).apply(data)
    assert reframed is not None
    assert reframed.content_type == "image/webp"
    whole = np.asarray(Image.open(io.BytesIO(data)))
    error = np.abs(decoded(reframed).astype(int) - whole[20:40, 20:60])
    assert error.max() == 0 if is_lossless else error.mean() < 12


def test_a_palette_keeps_its_colours_and_transparency() -> None:
    picture = Image.fromarray(RGB).quantize(16)
    out = io.BytesIO()
    picture.save(out, "PNG", transparency=0)
    part = Edge(HALF, None).apply(out.getvalue())
    assert part is not None
    with Image.open(io.BytesIO(part.image)) as image:
        np.testing.assert_array_equal(
            np.asarray(image.convert("RGB")), np.asarray(picture.convert("RGB"))[20:40, 20:60]
        )
    assert decoded(Edge(None, 40).apply(out.getvalue())).shape == (20, 40, 4)


@pytest.mark.parametrize(
    ("size", "longest", "wanted"),
    [((80, 40), 40, (40, 20)), ((40, 80), 10, (5, 10)), ((500, 2), 50, (50, 1))],
)
def test_the_longest_side_is_the_limit(size: tuple[int, int], longest: int, wanted: tuple[int, int]) -> None:
    reframed = Edge(None, longest).apply(encoded(gradient(*size).astype(np.uint8), "JPEG"))
    assert decoded(reframed).shape == wanted[::-1]
    assert reframed is not None
    assert reframed.area is None


def test_nothing_is_ever_enlarged_or_encoded_in_vain() -> None:
    data = encoded(RGB, "PNG")
    assert Edge(None, 80).apply(data) is None
    assert Edge(None, 1000).apply(data) is None
    assert Edge(Area(0, 0, 1, 1), None).apply(data) is None
    assert Edge(None, None).apply(data) is None
    assert decoded(Edge(HALF, 1000).apply(data)).shape == (20, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("longest", [None, 20])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_an_area_is_where_people_see_it(orientation: int, longest: int | None, kind: str) -> None:
    # Seen upright, the picture is white at its top left quarter and black elsewhere.
    seen = np.zeros((64, 128), np.uint8)
    seen[:32, :64] = 255
    turned = Image.fromarray(seen)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpositions that Pillow numbers
    if orientation in back:
        turned = turned.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    turned.save(out, kind, exif=exif)
    quarter = decoded(Edge(Area(0, 0, 0.5, 0.5), longest).apply(out.getvalue()))
    assert quarter.shape == ((32, 64) if longest is None else (10, 20))
    # A scaled pixel at the border is a mean that reaches over it.
    assert quarter[:-1, :-1].min() > 200
    rest = decoded(Edge(Area(0.5, 0, 0.5, 1), longest).apply(out.getvalue()))
    assert rest[:, 1:].max() < 55


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        encoded(RGB, "PNG")[:-40],
        encoded(RGB, "JPEG")[:300],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 99,
    ],
)
def test_what_cannot_be_read_is_published_as_it_is(data: bytes) -> None:
    assert Edge(HALF, 20).apply(data) is None


def test_a_picture_beyond_the_limit_is_not_decoded() -> None:
    assert Edge(HALF, None).apply(encoded(RGB, "PNG"), max_image_px=80 * 40 - 1) is None


@pytest.mark.parametrize(
    "area",
    [
        Area(0, 0, 0, 1),
        Area(0, 0, 1, 1.1),
        Area(-0.1, 0, 1, 1),
        Area(0.6, 0, 0.5, 1),
        Area(1, 0, 0.1, 1),
        Area(float("nan"), 0, 1, 1),
    ],
)
def test_an_area_that_is_none_is_refused(area: Area) -> None:
    with pytest.raises(BadRequest, match=r"0\.25,0\.1,0\.5,0\.5"):
        Edge(area, None)


def test_a_longest_side_of_nothing_is_refused() -> None:
    with pytest.raises(BadRequest, match="at least 1 pixel, not 0"):
        Edge(None, 0)


shares = st.floats(0, 1, exclude_max=True)


@given(shares, shares, st.floats(1e-9, 1), st.floats(1e-9, 1), st.integers(1, 20_000), st.integers(1, 20_000))
def test_any_area_is_its_pixels_and_never_empty(
    left: float, top: float, width: float, height: float, width_px: int, height_px: int
) -> None:
    area = Area(left, top, min(width, 1 - left), min(height, 1 - top))
    Edge(area, None)
    box = box_of(area, width_px, height_px)
    assert 0 <= box.left < box.right <= width_px
    assert 0 <= box.top < box.bottom <= height_px
    for found, share, whole in (
        (box.left, left, width_px), (box.right, left + area.width_ratio, width_px),
        (box.top, top, height_px), (box.bottom, top + area.height_ratio, height_px),
    ):  # fmt: skip
        assert abs(found - share * whole) <= 1


@pytest.mark.photos
def test_photos_of_all_kinds_become_smaller_and_stay_what_they_are(data: Path) -> None:
    kinds = (".jpg", ".jpeg", ".png")
    files = list(islice((file for file in data.rglob("*") if file.suffix.lower() in kinds), 40))
    assert files
    for file in files:
        whole = file.read_bytes()
        with Image.open(io.BytesIO(whole)) as image:
            longest, kind = max(image.size), image.format
        reframed = Edge(Area(0.1, 0.1, 0.8, 0.8), longest // 2).apply(whole)
        assert reframed is not None, file
        with Image.open(io.BytesIO(reframed.image)) as image:
            assert image.format == kind
            assert max(image.size) <= longest // 2

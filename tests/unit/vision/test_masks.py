"""Masks as people draw them: one black-and-white PNG per type comes out, or a sentence."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from services.domain.errors import BadRequest, UnreadableImage
from services.vision.decode import decode
from services.vision.masks import (
    checked_colour,
    marked_pixels,
    on_grid,
    pixels_by_colour,
    read_mask,
    size_of,
)
from services.vision.regions import label_components

SIZE_PX = (40, 30)
# A marked rectangle of 10 x 5 pixels.
MARKED = np.zeros((30, 40), np.bool_)
MARKED[10:15, 20:30] = True


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def grey() -> Image.Image:
    return Image.fromarray(MARKED.astype(np.uint8) * 255)


def marked_in(mask: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    return np.asarray(decode(mask, SIZE_PX).pixels[:, :, 0] == 255)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "RGBA", "P", "I;16"])
def test_white_is_the_anomaly_in_every_mode(mode: str) -> None:
    image = grey().convert(mode) if mode != "I;16" else Image.fromarray(MARKED.astype(np.uint16) * 65535)
    mask = read_mask(encoded(image), SIZE_PX)
    assert (marked_in(mask) == MARKED).all()
    assert Image.open(BytesIO(mask)).mode == "L"
    assert mask == read_mask(encoded(grey(), "BMP"), SIZE_PX) == read_mask(mask, SIZE_PX)


def test_what_was_read_once_is_read_the_same_again() -> None:
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[~MARKED] = 255  # white paint on nearly the whole of a transparent ground
    for drawn, marked in ((encoded(grey()), MARKED), (encoded(Image.fromarray(pixels)), ~MARKED)):
        mask = read_mask(drawn, SIZE_PX)
        assert (marked_in(mask) == marked).all()
        assert read_mask(mask, SIZE_PX) == mask


def test_a_lossy_mask_is_cut_half_way_between_black_and_white() -> None:
    mask = read_mask(encoded(grey(), "JPEG"), SIZE_PX)
    assert (marked_in(mask) != MARKED).mean() < 0.02


def test_a_mask_with_a_colour_per_type_is_split() -> None:
    pixels = np.full((30, 40, 3), 255, np.uint8)
    pixels[MARKED] = (0xD6, 0x27, 0x28)
    pixels[0:3, 0:3] = (0x1F, 0x77, 0xB4)
    drawn = encoded(Image.fromarray(pixels))
    assert (marked_in(read_mask(drawn, SIZE_PX, "#D62728")) == MARKED).all()
    assert marked_in(read_mask(drawn, SIZE_PX, "1f77b4")).sum() == 9
    with pytest.raises(BadRequest, match="no pixel of it is #00ff00"):
        read_mask(drawn, SIZE_PX, "#00ff00")
    with pytest.raises(BadRequest, match="Say which colour is which type"):
        read_mask(drawn, SIZE_PX)


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(BadRequest, match="The mask has 40 x 30 pixels, the picture 80 x 60"):
        read_mask(encoded(grey()), (80, 60))


def test_a_mask_is_as_large_as_the_upright_picture() -> None:
    sideways = Image.fromarray(np.zeros((40, 30, 3), np.uint8))
    exif = sideways.getexif()
    exif[0x0112] = 6
    file = BytesIO()
    sideways.save(file, "JPEG", exif=exif)
    assert size_of(file.getvalue()) == SIZE_PX


def test_an_empty_mask_and_no_mask_are_refused() -> None:
    with pytest.raises(BadRequest, match="marks nothing: no pixel of it is white"):
        read_mask(encoded(Image.new("L", SIZE_PX)), SIZE_PX)
    with pytest.raises(BadRequest, match="marks nothing: no pixel of it is opaque"):
        read_mask(encoded(Image.new("RGBA", SIZE_PX)), SIZE_PX)
    with pytest.raises(UnreadableImage):
        read_mask(b"no image", SIZE_PX)


@pytest.mark.parametrize("text", ["red", "#12345", "#12345g", ""])
def test_a_colour_is_six_hexadecimal_digits(text: str) -> None:
    with pytest.raises(BadRequest, match="not a colour"):
        checked_colour(text)


def _brushed() -> Image.Image:
    """Return green paint whose opacity is 40, 128 or 255 across the marked part, and some that is gone."""
    pixels = np.zeros((30, 40, 4), np.uint8)
    pixels[MARKED] = (0x23, 0xA4, 0x36, 255)
    pixels[10:15, 29] = (0x23, 0xA4, 0x36, 128)
    pixels[10:15, 30] = (0x23, 0xA4, 0x36, 40)
    pixels[20:25, 5:9] = (0x23, 0xA4, 0x36, 0)
    return Image.fromarray(pixels)


def _with_palette(image: Image.Image) -> Image.Image:
    """Return the image with a palette whose entries have an opacity each, as the cookie set's masks."""
    colours, where = np.unique(np.asarray(image).reshape(-1, 4), axis=0, return_inverse=True)
    palette = Image.fromarray(where.reshape(30, 40).astype(np.uint8)).convert("P")
    palette.putpalette(colours[:, :3].astype(np.uint8).tobytes())
    palette.info["transparency"] = colours[:, 3].astype(np.uint8).tobytes()
    return palette


@pytest.mark.parametrize("colour", [None, "#23a436"])
def test_paint_on_a_transparent_ground_marks_where_it_is_at_least_half_opaque(colour: str | None) -> None:
    for image in (_brushed(), _with_palette(_brushed())):
        assert (marked_pixels(encoded(image), SIZE_PX, colour) == MARKED).all()


def test_several_colours_on_a_transparent_ground_need_names() -> None:
    pixels = np.array(_brushed())
    pixels[0:2, 0:2] = (255, 0, 0, 255)
    drawn = encoded(Image.fromarray(pixels))
    with pytest.raises(BadRequest, match="Say which colour is which type"):
        marked_pixels(drawn, SIZE_PX)
    assert marked_pixels(drawn, SIZE_PX, "#ff0000").sum() == 4


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_black_on_a_white_ground_is_the_anomaly(mode: str) -> None:
    assert (marked_pixels(encoded(Image.fromarray(~MARKED).convert(mode)), SIZE_PX) == MARKED).all()


def test_a_large_white_anomaly_on_a_black_rim_stays_white() -> None:
    large = np.zeros((30, 40), np.bool_)
    large[2:-2, 2:-2] = True  # 78 % of the picture
    assert (marked_pixels(encoded(Image.fromarray(large)), SIZE_PX) == large).all()
    touching = np.zeros((30, 40), np.bool_)
    touching[:, :18] = True  # 45 %, and nearly half of the rim
    assert (marked_pixels(encoded(Image.fromarray(touching)), SIZE_PX) == touching).all()
    assert marked_pixels(encoded(Image.new("L", SIZE_PX, 255)), SIZE_PX).all()


def test_a_coarser_grid_keeps_areas_and_loses_no_speck() -> None:
    mask = np.zeros((100, 200), np.bool_)
    mask[10:60, 20:120] = True  # a quarter
    mask[90, 190] = True  # one pixel of the 10 x 20 that make a cell
    seen = on_grid(mask, 10)
    assert seen[9, 9]
    assert seen.sum() == 25 + 1
    rng = np.random.default_rng(0)
    blob = np.zeros((512, 512), np.bool_)
    for y, x in rng.integers(40, 470, (12, 2)):
        blob[y - 20 : y + 20, x - 20 : x + 20] = True
    assert on_grid(blob, 56).mean() == pytest.approx(blob.mean(), rel=0.05)


def test_a_finer_grid_repeats_pixels() -> None:
    mask = np.zeros((4, 4), np.bool_)
    mask[1, 2] = True
    seen = on_grid(mask, 8)
    assert seen[2:4, 4:6].all()
    assert seen.sum() == 4


def test_all_colours_of_a_mask_are_read_at_once_and_have_to_be_named() -> None:
    pixels = np.full((30, 40, 3), 255, np.uint8)
    pixels[MARKED] = (0xD6, 0x27, 0x28)
    pixels[0:3, 0:3] = (0x1F, 0x77, 0xB4)
    drawn = encoded(Image.fromarray(pixels))
    names = {"scratch": "#d62728", "dent": "#1f77b4", "hole": "#00ff00"}
    found = pixels_by_colour(drawn, SIZE_PX, names)
    assert list(found) == ["scratch", "dent"]
    assert (found["scratch"] == MARKED).all()
    with pytest.raises(BadRequest, match="9 pixels in colours that nobody named, for example #1f77b4"):
        pixels_by_colour(drawn, SIZE_PX, {"scratch": "#d62728"})
    with pytest.raises(BadRequest, match="they have to be equal"):
        pixels_by_colour(drawn, (80, 60), names)
    green = pixels_by_colour(encoded(_brushed()), SIZE_PX, {"crack": "#23a436"})
    assert (green["crack"] == MARKED).all()
    with pytest.raises(BadRequest, match="no pixel of it is #00ff00"):
        pixels_by_colour(encoded(Image.new("RGB", SIZE_PX, "white")), SIZE_PX, {"hole": "#00ff00"})


@given(arrays.arrays(np.bool_, (24, 36)), st.sampled_from([4, 6, 12, 24, 48]))
def test_what_hangs_together_keeps_a_cell_and_no_other_cell_is_marked(
    mask: NDArray[np.bool_], side: int
) -> None:
    seen = on_grid(mask, side)
    # Pixels and cells on a grid that both divide.
    rows, columns = (np.arange(length * side) // side for length in mask.shape)
    fine = mask[rows][:, columns].reshape(side, mask.shape[0], side, mask.shape[1])
    touched = fine.any(axis=(1, 3))
    assert not (seen & ~touched).any()
    regions, count = label_components(touched)
    assert set(regions[seen].tolist()) == set(range(1, count + 1))

"""Masks as people draw them: one black-and-white PNG per type comes out, or a sentence."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from services.domain.errors import BadRequest, UnreadableImage
from services.vision.decode import decode
from services.vision.masks import checked_colour, read_mask, size_of

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
    assert mask == read_mask(encoded(grey(), "BMP"), SIZE_PX)


def test_what_was_read_once_is_read_the_same_again() -> None:
    mask = read_mask(encoded(grey()), SIZE_PX)
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
    with pytest.raises(UnreadableImage):
        read_mask(b"no image", SIZE_PX)


@pytest.mark.parametrize("text", ["red", "#12345", "#12345g", ""])
def test_a_colour_is_six_hexadecimal_digits(text: str) -> None:
    with pytest.raises(BadRequest, match="not a colour"):
        checked_colour(text)

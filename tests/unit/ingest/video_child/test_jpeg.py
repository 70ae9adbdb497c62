"""JPEGs as they came, and encoded ones with the right size, colours and range."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image

from services.ingest.video_child.jpeg import JpegEncoder, whole_jpeg
from tests.films import jpegs


def pixels(jpeg: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_a_whole_jpeg_passes_and_loses_its_padding() -> None:
    (jpeg,) = jpegs(1)
    assert whole_jpeg(jpeg) == jpeg
    assert whole_jpeg(jpeg + b"\0" * 7) == jpeg


def without_huffman_tables(jpeg: bytes) -> bytes:
    while (at := jpeg.find(b"\xff\xc4")) >= 0:
        jpeg = jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]
    return jpeg


def test_what_not_every_reader_can_decode_does_not_pass() -> None:
    (jpeg,) = jpegs(1)
    for packet in (b"", b"\xff\xd8\xff\xd9", jpeg[:-100], jpeg[1:], without_huffman_tables(jpeg)):
        assert whole_jpeg(packet) is None


@pytest.mark.parametrize(
    "pix_fmt", ["rgb24", "gray", "gray16le", "yuv444p", "yuv420p", "rgba", "yuv420p10le"]
)
def test_colours_and_size_survive_whatever_the_pixel_format(pix_fmt: str) -> None:
    grey = np.full((48, 50, 3), 90, np.uint8)
    frame = av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format=pix_fmt, threads=1)
    found = pixels(JpegEncoder().encode(frame))
    assert found.shape == (48, 50, 3)
    # Limited-range 8-bit luma has steps of 255 / 219 levels; JPEG at quality 90 adds about one.
    assert np.abs(found.astype(int) - 90).max() <= 3


@pytest.mark.parametrize(
    ("color_range", "white"),
    # 235 is white in the limited range, and 20 levels short of it in the full one.
    [(ColorRange.MPEG, 255), (ColorRange.JPEG, 235)],
)
def test_the_range_of_the_film_is_kept_to(color_range: ColorRange, white: int) -> None:
    planes = np.full((48 * 3 // 2, 48), 128, np.uint8)
    planes[:48] = 235
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.color_range = color_range
    assert abs(int(pixels(JpegEncoder().encode(frame))[24, 24, 0]) - white) <= 2


def test_what_jpeg_cannot_hold_is_refused() -> None:
    # JPEG's sides have 16 bits, libjpeg's limit is 65,500.
    frame = av.VideoFrame(65_536, 16, "rgb24")
    with pytest.raises(ValueError, match="65536 x 16"):
        JpegEncoder().encode(frame)


@pytest.mark.parametrize("width_px", range(632, 649))
def test_pictures_of_every_width_are_whole_to_the_right_edge(width_px: int) -> None:
    frame = av.VideoFrame(width_px, 32, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    # (128 - 16) * 255 / 219 = 130.4
    assert np.abs(pixels(JpegEncoder().encode(frame)).astype(int) - 130).max() <= 2

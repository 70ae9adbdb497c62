"""Every kind of good and bad image bytes."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from services.domain.errors import ImageTooLarge, UnreadableImage
from services.vision import decode as decode_module
from services.vision.decode import decode

WIDTH_PX, HEIGHT_PX = 120, 80


def photo() -> Image.Image:
    """Return a picture whose top left quarter is red, top right green, bottom blue."""
    pixels = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    pixels[: HEIGHT_PX // 2, : WIDTH_PX // 2, 0] = 255
    pixels[: HEIGHT_PX // 2, WIDTH_PX // 2 :, 1] = 255
    pixels[HEIGHT_PX // 2 :, :, 2] = 255
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def png_header(width_px: int, height_px: int) -> bytes:
    """Return a PNG whose header declares a size that its few bytes do not hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def corner_colours(data: bytes) -> tuple[str, str, str]:
    """Return the strongest channel near top left, top right and bottom left."""
    pixels = decode(data).pixels
    spots = pixels[30, 30], pixels[30, 190], pixels[190, 30]
    return "rgb"[int(spots[0].argmax())], "rgb"[int(spots[1].argmax())], "rgb"[int(spots[2].argmax())]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_decode_reads_every_format_alike(image_format: str) -> None:
    result = decode(encoded(photo(), image_format))
    assert result.pixels.shape == (224, 224, 3)
    assert result.pixels.dtype == np.dtype(np.uint8)
    assert (result.width_px, result.height_px) == (WIDTH_PX, HEIGHT_PX)
    assert result.pixels.flags.c_contiguous
    assert corner_colours(encoded(photo(), image_format)) == ("r", "g", "b")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"not an image at all" * 40, "not an image"),
        (encoded(photo(), "JPEG")[:400], "truncated"),
        (encoded(photo(), "PNG")[:200], "truncated"),
        (png_header(500, 500), "truncated"),
        (encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "float"),
    ],
    ids=["empty", "junk", "half-jpeg", "half-png", "header-only", "float"],
)
def test_decode_refuses_with_a_plain_sentence(data: bytes, said: str) -> None:
    with pytest.raises(UnreadableImage, match=said):
        decode(data)


def test_decode_refuses_a_huge_header_before_decoding() -> None:
    started_monotonic_s = time.monotonic()
    with pytest.raises(ImageTooLarge, match="50000 x 50000") as caught:
        decode(png_header(50_000, 50_000))
    assert caught.value.details["width_px"] == 50_000
    # Decoding 2,500 Mpx would take a minute and 7.5 GB; reading a header takes no time.
    assert time.monotonic() - started_monotonic_s < 1


def test_decode_keeps_to_the_limit_it_is_given() -> None:
    assert decode(encoded(photo()), max_image_px=WIDTH_PX * HEIGHT_PX).width_px == WIDTH_PX
    with pytest.raises(ImageTooLarge):
        decode(encoded(photo()), max_image_px=WIDTH_PX * HEIGHT_PX - 1)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "corners", "size_px"),
    [
        (1, ("r", "g", "b"), (WIDTH_PX, HEIGHT_PX)),
        (2, ("g", "r", "b"), (WIDTH_PX, HEIGHT_PX)),
        (3, ("b", "b", "g"), (WIDTH_PX, HEIGHT_PX)),
        (6, ("b", "r", "b"), (HEIGHT_PX, WIDTH_PX)),
        (8, ("g", "b", "r"), (HEIGHT_PX, WIDTH_PX)),
    ],
)
def test_decode_turns_photos_upright(
    image_format: str, orientation: int, corners: tuple[str, str, str], size_px: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), image_format, exif=exif)
    result = decode(data)
    assert corner_colours(data) == corners
    assert (result.width_px, result.height_px) == size_px


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's; the pixels are fine
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + bytes(3),  # cut off in its first entry
        # one entry: orientation (0x0112) as text (2), 4 characters, "up"
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x02\x00\x04\x00\x00\x00up\x00\x00" + bytes(4),
    ],
    ids=["cut", "text"],
)
def test_decode_goes_on_without_an_unreadable_orientation(exif: bytes) -> None:
    jpeg = encoded(photo(), "JPEG")
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert decode(data).width_px == WIDTH_PX


def test_decode_scales_sixteen_bits_by_their_whole_range() -> None:
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256).astype(np.uint16)
    for image_format in ("PNG", "TIFF"):
        pixels = decode(encoded(Image.fromarray(ramp), image_format)).pixels
        assert pixels[0, 0, 0] <= 2
        assert abs(int(pixels[112, 112, 0]) - 128) <= 2  # clipping would give 255
        assert pixels[-1, -1, 0] >= 253


def png(pixels: NDArray[np.uint8 | np.uint16], colour_type: int) -> bytes:
    """Return a PNG of 8 or 16 bits (Pillow writes no 16-bit colour); pixels (H, W) or (H, W, channels)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height_px, width_px = pixels.shape[:2]
    rows = pixels.reshape(height_px, -1)
    swapped = rows.astype(">u2") if pixels.dtype == np.uint16 else rows
    body = b"".join(b"\0" + row.tobytes() for row in swapped)
    header = struct.pack(">IIBBBBB", width_px, height_px, 8 * pixels.itemsize, colour_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def ramp16(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(0, 65536, shape).astype(np.uint16)


def expected(pixels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Return what 16-bit values are in 8 bits: 65535 is 255."""
    return np.rint(pixels / 257).astype(np.int64)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_decode_of_sixteen_bit_png_is_numpys(channels: int) -> None:
    pixels = ramp16(64, 48) if channels == 1 else ramp16(64, 48, channels)
    found = decode(png(pixels, 0 if channels == 1 else 2), (48, 64)).pixels.astype(int)
    truth = np.repeat(expected(pixels)[..., None], 3, axis=2) if channels == 1 else expected(pixels)
    # Pillow takes the high byte of colour: at most one level below.
    assert np.abs(found - truth).max() <= (0 if channels == 1 else 1)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_decode_of_sixteen_bit_tiff_is_numpys(order: str) -> None:
    pixels = ramp16(64, 48)
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (48, 64), pixels.astype(order).tobytes())
    found = decode(encoded(image, "TIFF"), (48, 64)).pixels
    assert np.array_equal(found[..., 0], expected(pixels))


def test_decode_of_sixteen_bits_with_transparency_shows_black_where_nothing_was_seen() -> None:
    pixels = ramp16(64, 48, 4)
    pixels[:32, :, 3] = 0
    pixels[32:, :, 3] = 65535
    found = decode(png(pixels, 6), (48, 64)).pixels.astype(int)
    assert found[:32].max() == 0
    assert np.abs(found[32:] - expected(pixels)[32:, :, :3]).max() <= 1


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decode_of_lossless_formats_is_exact(
    image_format: str, options: dict[str, object], mode: str
) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (64, 48, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    found = decode(encoded(image, image_format, **options), (48, 64)).pixels
    assert np.array_equal(found, np.asarray(image.convert("RGB")))


def test_decode_of_a_palette_and_of_one_bit_is_exact() -> None:
    palette = photo().quantize(7)
    found = decode(encoded(palette), (WIDTH_PX, HEIGHT_PX)).pixels
    assert np.array_equal(found, np.asarray(palette.convert("RGB")))
    bits = np.random.default_rng(5).integers(0, 2, (64, 48)).astype(bool)
    found = decode(encoded(Image.fromarray(bits), "TIFF", compression="group4"), (48, 64)).pixels
    assert np.array_equal(found[..., 0], bits * 255)


def test_decode_by_strips_is_the_same_as_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = np.random.default_rng(6).integers(0, 256, (70, 50, 4)).astype(np.uint8)
    images = [encoded(Image.fromarray(seen)), png(ramp16(70, 50), 0)]
    whole = [decode(data).pixels for data in images]
    monkeypatch.setattr(decode_module, "_STRIP_PX", 333)  # strips of 6 rows, the last shorter
    assert all(np.array_equal(one, decode(data).pixels) for one, data in zip(whole, images, strict=True))


@pytest.mark.parametrize(
    ("kind", "most_mb"),
    # 25 Mpx: what Pillow must have (2, 1 or 4 bytes a pixel, twice), and a third more.
    [("16 bits", 25 * (2 + 1) * 4 / 3), ("transparent", 25 * (4 + 4) * 4 / 3)],
)
def test_decode_of_a_large_image_takes_little_more_memory_than_its_pixels(kind: str, most_mb: float) -> None:
    code = """
import io, resource, sys
from numpy.typing import NDArray
from PIL import Image
from services.vision import decode as decode_module
from services.vision.decode import decode
mode = {"16 bits": "I;16", "transparent": "RGBA"}[sys.argv[1]]
buffer = io.BytesIO()
Image.new(mode, (1000, 1000)).save(buffer, "PNG")
decode(buffer.getvalue())  # what is loaded on the first call
small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode(sys.stdin.buffer.read())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small) * 1024 / 1e6)
"""
    mode = {"16 bits": "I;16", "transparent": "RGBA"}[kind]
    data = encoded(Image.new(mode, (5000, 5000)), compress_level=1)
    # A process that a shell forks: the peak of one that we start begins with our own.
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" -c "$1" "$2"; exit $?', sys.executable, code, kind],
        input=data, capture_output=True, check=True,
    )  # fmt: skip
    assert most_mb / 4 < float(done.stdout) < most_mb


def test_decode_shows_transparent_pixels_as_black() -> None:
    grey = np.full((64, 64, 4), 200, np.uint8)
    grey[:, :, 3] = 255
    grey[:32, :, 3] = 0
    pixels = decode(encoded(Image.fromarray(grey))).pixels
    assert pixels[20].max() == 0
    assert pixels[200].min() == 200


def test_decode_honours_transparency_of_a_palette() -> None:
    palette = photo().quantize(4)
    index = palette.getpixel((5, 5))
    pixels = decode(encoded(palette, "PNG", transparency=index)).pixels
    assert pixels[30, 30].max() == 0  # was red
    assert pixels[30, 190].argmax() == 1


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "LA", "RGBA"])
def test_decode_turns_every_mode_into_rgb(mode: str) -> None:
    image_format = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    grey = Image.new("RGB", (60, 60), (255, 255, 255)).convert(mode)
    pixels = decode(encoded(grey, image_format)).pixels
    assert pixels.shape == (224, 224, 3)
    assert pixels.min() >= 250


def test_decode_scales_a_large_jpeg_close_to_full_decoding() -> None:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype(np.uint8))
    large = coarse.resize((1800, 1200), Image.Resampling.BICUBIC)
    from_jpeg = decode(encoded(large, "JPEG", quality=95)).pixels.astype(int)
    from_png = decode(encoded(large, "PNG")).pixels.astype(int)
    assert np.abs(from_jpeg - from_png).mean() < 3  # grey levels


def test_decode_stretches_to_a_size_that_is_not_square() -> None:
    assert decode(encoded(photo(), "JPEG"), (64, 32)).pixels.shape == (32, 64, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 1200))
def test_decode_never_raises_anything_else(noise: bytes, at: int) -> None:
    good = encoded(photo(), "JPEG")
    damaged = good[:at] + noise + good[at + len(noise) :]
    with suppress(UnreadableImage, ImageTooLarge):
        assert decode(damaged).pixels.shape == (224, 224, 3)

"""Films made for tests: every picture shows its own number, so that a test can tell which ones arrived."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

_BITS = 10


@dataclass(frozen=True)
class Film:
    """What a film is made of.

    Attributes:
        codec: name of the encoder.
        size_px: width and height, multiples of 16 and at least 160.
        options: of the encoder.
    """

    codec: str = "libx264"
    frames: int = 30
    fps: int = 10
    size_px: tuple[int, int] = (320, 240)
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


def numbered_picture(number: int, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture that shows `number` as ten stripes, black for 0 and white for 1, above a grey ramp.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    width_px, height_px = size_px
    bits = [255 * (number >> bit & 1) for bit in range(_BITS)]
    stripes = np.repeat(np.array(bits, np.uint8), width_px // _BITS)
    picture = np.zeros((height_px, width_px), np.uint8)
    picture[: height_px // 2, : stripes.size] = stripes
    picture[height_px // 2 :] = np.linspace(40, 215, width_px).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2)


def number_of(jpeg: bytes) -> int:
    """Return the number that a picture shows."""
    picture = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
    height_px, width_px = picture.shape
    step_px = width_px // _BITS
    middles = picture[height_px // 4, step_px // 2 : step_px * _BITS : step_px]
    return sum(1 << bit for bit, value in enumerate(middles) if value > 127)


def write_film(path: Path, film: Film | None = None) -> Path:
    """Write a film whose pictures are numbered from 0; the suffix names the container."""
    film = film or Film()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(film.codec, rate=film.fps)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = film.size_px
        stream.pix_fmt = film.pix_fmt
        stream.options = dict(film.options)
        for number in range(film.frames):
            frame = av.VideoFrame.from_ndarray(numbered_picture(number, film.size_px), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a file with a second of silence and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for start in range(0, 8000, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def jpegs(frames: int, size_px: tuple[int, int] = (320, 240)) -> list[bytes]:
    """Return numbered pictures as JPEG."""
    return [_jpeg(numbered_picture(number, size_px)) for number in range(frames)]


def h264_units(film: Film) -> Iterator[tuple[bytes, ...]]:
    """Yield the NAL units of each picture of an H.264 film; parameter sets come with key pictures."""
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height = film.size_px
    context.pix_fmt, context.framerate = "yuv420p", Fraction(film.fps)
    context.time_base = Fraction(1, film.fps)
    context.options = {"preset": "ultrafast", "tune": "zerolatency", **film.options}
    for number in range(film.frames):
        frame = av.VideoFrame.from_ndarray(numbered_picture(number, film.size_px), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, film.fps)
        for packet in context.encode(frame):
            yield tuple(split_units(bytes(packet)))
    for packet in context.encode(None):
        yield tuple(split_units(bytes(packet)))


def split_units(annex_b: bytes) -> list[bytes]:
    """Return the NAL units of a byte stream (ITU-T H.264, Annex B)."""
    units = annex_b.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [unit for unit in units if unit]


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=90, subsampling="4:2:0")
    return out.getvalue()

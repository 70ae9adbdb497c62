"""1080p pictures a second, decoded and encoded as JPEG, from a film and from an RTSP camera.

`ratio` is the rate of `VideoSource` over a film / the rate of a bare loop over the same film in one
process: PyAV with its own choice of threads, Pillow. Each is the best of some runs, alternating.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from threading import Event

import av
import numpy as np
import psutil
from av.video.stream import VideoStream
from PIL import Image
from rich.console import Console

from services.ingest.sources import Shot, Skipped
from services.ingest.sources.video import VideoSource
from services.ingest.synthetic import SyntheticLine
from tests.films import Film, split_units
from tests.rtsp import RtspCamera

SIZE_PX = (1920, 1080)
TARGET_FPS = 60.0
# More than any machine of two cores takes, so that the reader is the limit.
_CAMERA_FPS = 120
_PICTURES = 120
_SEED = 0
console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when fewer than `TARGET_FPS` came from either."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_line_video", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each, the best counts")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long the camera is watched")
    asked = parser.parse_args(arguments)
    console.print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(prefix="loupe-bench-") as name:
        film = write_line_film(Path(name) / "line.mp4")
        pairs = [(film_fps(film), bare_fps(film)) for _ in range(asked.runs)]
        taken_fps, loop_fps = (max(pair[side] for pair in pairs) for side in (0, 1))
        console.print(f"film {taken_fps:.1f} frames/s, bare loop {loop_fps:.1f} frames/s")
        camera_fps, skipped = rtsp_fps(film, asked.seconds)
    console.print(f"rtsp {camera_fps:.1f} frames/s of {_CAMERA_FPS}, {skipped} pictures passed over")
    console.print(f"film_fps={taken_fps:.1f} rtsp_fps={camera_fps:.1f} ratio={taken_fps / loop_fps:.2f}")
    return 0 if min(taken_fps, camera_fps) >= TARGET_FPS else 1


def write_line_film(path: Path) -> Path:
    """Write a film of one synthetic part that moves, with a sensor's noise, at 8 Mbit/s."""
    part = Image.open(io.BytesIO(SyntheticLine(_SEED).part(0).jpeg())).convert("RGB")
    width_px, height_px = SIZE_PX
    scene = np.asarray(part.resize((width_px + _PICTURES * 4, height_px)), dtype=np.int16)
    random = np.random.default_rng(_SEED)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = SIZE_PX
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 8_000_000, 30
        stream.options = {"preset": "veryfast", "tune": "zerolatency"}
        for number in range(_PICTURES):
            view = scene[:, number * 4 : number * 4 + width_px]
            noise = random.integers(-3, 4, (height_px, width_px, 1), dtype=np.int16)
            pixels = np.clip(view + noise, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def film_fps(film: Path) -> float:
    """Return frames per second through `VideoSource`, from its first picture on."""
    return _rate(VideoSource(str(film), loop=True), frames=2 * _PICTURES)[0]


def rtsp_fps(film: Path, seconds: float) -> tuple[float, int]:
    """Return frames per second from a camera that sends more than can be taken, and how many it let go."""
    with RtspCamera(Film(fps=_CAMERA_FPS), pictures=_units_of(film)) as camera:
        return _rate(VideoSource(camera.address), seconds=seconds)


def bare_fps(film: Path) -> float:
    """Return frames per second of a loop without processes, queues and accounts."""
    begun_s = time.perf_counter()
    with av.open(str(film)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            image = frame.to_image()  # type: ignore[no-untyped-call]  # PyAV leaves this one without types
            image.save(io.BytesIO(), "JPEG", quality=90, subsampling="4:2:0")
    return _PICTURES / (time.perf_counter() - begun_s)


def _rate(source: VideoSource, *, frames: int | None = None, seconds: float = 60.0) -> tuple[float, int]:
    """Return shots per second after the first one, and pictures passed over since then."""
    shots, skipped, begun_s = 0, 0, 0.0
    with closing(source.shots(Event())) as items:
        for item in items:
            now_s = time.perf_counter()
            if isinstance(item, Shot):
                begun_s = begun_s or now_s
                shots += 1
            elif isinstance(item, Skipped) and begun_s:
                skipped += item.count
            if begun_s and (shots == frames or now_s - begun_s > seconds):
                break
    return (shots - 1) / (now_s - begun_s), skipped


def _units_of(film: Path) -> list[tuple[bytes, ...]]:
    """Return the NAL units of each picture; key pictures bring the parameter sets, as cameras send them."""
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        to_byte_stream = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        return [
            tuple(split_units(bytes(packet)))
            for incoming in container.demux(stream)
            for packet in to_byte_stream.filter(incoming if incoming.size else None)
        ]


if __name__ == "__main__":
    sys.exit(main())

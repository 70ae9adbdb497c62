"""MB/s of the spool: frames appended, and frames that come and leave again, beside bare writes and fsyncs.

Each frame is one transaction of one thread, or shares it with those of other threads. The bare loop writes
the same bytes into files of the same folder, with one `fsync` a frame.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import psutil
from rich.console import Console

from services.adapters.clock import SystemClock
from services.domain.camera import ShedPolicy
from services.domain.topics import FRAMES
from services.ingest.spool import CameraSpool, Spool
from services.wire.record import OutRecord

TARGET_MB_S = 200.0
# As long as those of an ingester's frames.
_HEADERS = tuple((f"ce_name{number}", b"x" * 40) for number in range(12))
# Frames that wait for their acknowledgement while the next ones come.
_WINDOW = 64
console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_line spool", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--kb", type=int, default=200, help="size of a frame, KB")
    parser.add_argument("--runs", type=int, default=3, help="of each; the best counts")
    parser.add_argument("--folder", type=Path, default=None, help="where; else the temporary folder")
    asked = parser.parse_args(arguments)
    image = os.urandom(asked.kb * 1000)
    console.print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}; frames of {asked.kb} KB")
    measures: dict[str, Callable[[Path], float]] = {
        "bare": lambda folder: bare(folder, image, asked.seconds),
        "append": lambda folder: spooled(folder, image, asked.seconds, cameras=1, is_steady=False),
        "steady": lambda folder: spooled(folder, image, asked.seconds, cameras=1, is_steady=True),
        "steady, 4 cameras": lambda folder: spooled(folder, image, asked.seconds, cameras=4, is_steady=True),
    }
    best = dict.fromkeys(measures, 0.0)
    for _ in range(asked.runs):
        for name, measure in measures.items():
            with tempfile.TemporaryDirectory(prefix="loupe-spool-", dir=asked.folder) as folder:
                best[name] = max(best[name], measure(Path(folder)))
    for name, mb_s in best.items():
        console.print(f"{name}: {mb_s:.0f} MB/s, {mb_s / best['bare']:.2f} of bare")
    console.print(f"steady_mb_s={best['steady']:.0f} ratio={best['steady'] / best['bare']:.2f}")
    return 0 if min(best["append"], best["steady"]) >= TARGET_MB_S else 1


def bare(folder: Path, image: bytes, seconds: float) -> float:
    """Return MB/s of plain files, each synchronised before the next."""
    started_s, frames = time.monotonic(), 0
    while time.monotonic() - started_s < seconds:
        with (folder / str(frames % 256)).open("wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
        frames += 1
    return frames * len(image) / 1e6 / (time.monotonic() - started_s)


def spooled(folder: Path, image: bytes, seconds: float, *, cameras: int, is_steady: bool) -> float:
    """Return MB/s that a spool accepts, frames leaving it again if `is_steady`."""
    with closing(Spool(folder, clock=SystemClock(), max_bytes=1 << 40)) as spool:
        ends_s = time.monotonic() + seconds
        counts = [0] * cameras
        opened = [spool.camera(f"camera {number}", ShedPolicy.BLOCK) for number in range(cameras)]

        def fill(number: int, camera: CameraSpool) -> None:
            record = OutRecord(FRAMES.name, b"camera", image, _HEADERS)
            while time.monotonic() < ends_s:
                camera.accept(record, receipt=f"/a/folder/of/files/{camera.next_sequence}.jpg|123|456")
                counts[number] += 1
                if is_steady and cameras == 1:
                    _acknowledge(spool, _WINDOW)

        started_s = time.monotonic()
        threads = [threading.Thread(target=fill, args=pair) for pair in enumerate(opened)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if is_steady and cameras > 1:
                _acknowledge(spool, _WINDOW)
            threads[0].join(0.01)
        return sum(counts) * len(image) / 1e6 / (time.monotonic() - started_s)


def _acknowledge(spool: Spool, keep: int) -> None:
    """Let the oldest frames leave until `keep` are left of each camera."""
    for number, _ in spool.feed.waiting():
        while spool.feed.backlog(number) > keep:
            spooled = spool.feed.take(number)
            if spooled is None:
                break
            spool.feed.acknowledge(spooled)


if __name__ == "__main__":
    sys.exit(main())

"""Frames/s of one ingester process from a watched folder to a real Kafka, beside a bare loop without spool.

The bare loop reads the same files and sends them by the same producer, then waits for all. Both are
told in frames per second of the clock and per second of their own processor time: the broker runs on the
same machine. `ratio` is the ingester's rate per processor second / the bare loop's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil
from rich.console import Console

from services.adapters.broker import Delivery
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.domain.topics import FRAMES
from services.ingest.pipeline import CameraSpec, Ingester
from services.ingest.sources import Taken
from services.ingest.sources.folder import FolderSource
from services.ingest.spool import Sender, Spool
from services.wire.record import OutRecord
from tests.servers import Servers

TARGET_FPS = 300.0
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Rate:
    """Frames per second, by the clock and by the process's own processor time."""

    fps: float
    core_fps: float

    def __str__(self) -> str:
        return f"{self.fps:.0f} frames/s, {self.core_fps:.0f} frames per core-second"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_line ingest", description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="how many files")
    parser.add_argument("--kb", type=int, default=200, help="size of a file, KB")
    parser.add_argument("--runs", type=int, default=2, help="of each; the best counts")
    asked = parser.parse_args(arguments)
    ours, theirs = Rate(0, 0), Rate(0, 0)
    with tempfile.TemporaryDirectory(prefix="loupe-bench-") as name:
        folder = Path(name).resolve()
        servers = Servers(folder / "home")
        try:
            with servers.running("kafka"):
                at = servers.addresses.kafka_bootstrap
                console.print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")
                for run in range(asked.runs):
                    inbox = _files(folder / f"in-{run}", asked.files, asked.kb * 1000)
                    theirs = max(theirs, bare(inbox, at), key=lambda rate: rate.core_fps)
                    ours = max(ours, ingest(inbox, folder / f"spool-{run}", at), key=lambda r: r.core_fps)
        finally:
            servers.close()
    console.print(f"ingester: {ours}")
    console.print(f"read and send: {theirs}")
    console.print(f"core_fps={ours.core_fps:.0f} ratio={ours.core_fps / theirs.core_fps:.2f}")
    return 0 if ours.core_fps >= TARGET_FPS else 1


def ingest(inbox: Path, spool_folder: Path, bootstrap: str) -> Rate:
    """Return the rate from the first file taken to the last frame acknowledged and crossed out."""
    clock = SystemClock()
    files = sum(1 for _ in inbox.iterdir())
    producer = KafkaBrokerProducer(bootstrap)
    with closing(Spool(spool_folder, clock=clock)) as spool:
        source = _Timed(FolderSource(inbox), files)
        sender = Sender(spool, lambda: producer, clock)
        sender.start()
        ended = Ingester(CameraSpec("bench", source), spool, clock).run(Event())
        if ended.captured != files or not sender.flush(120):
            raise RuntimeError(f"only {ended.captured} of {files} files came through")
        rate = source.rate()
        sender.stop()
    return rate


def bare(inbox: Path, bootstrap: str) -> Rate:
    """Return the rate of a loop that reads and sends."""
    producer = KafkaBrokerProducer(bootstrap)
    files = sorted(inbox.iterdir())
    started_s, worked_s = time.monotonic(), time.process_time()
    window: list[Delivery] = []
    for file in files:
        window.append(producer.send(OutRecord(FRAMES.name, b"bare", file.read_bytes())))
        if len(window) == 128:
            for delivery in window:
                delivery.result(60)
            window.clear()
    producer.flush(120)
    rate = Rate(len(files) / (time.monotonic() - started_s), len(files) / (time.process_time() - worked_s))
    producer.close()
    return rate


class _Timed:
    """A source that notes when its first picture comes, and ends after the last."""

    def __init__(self, inner: FolderSource, count: int) -> None:
        self._inner, self._count = inner, count
        self._started_s = self._worked_s = 0.0

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        left = self._count
        for taken in self._inner.shots(stop):
            if taken is not None:
                if left == self._count:
                    self._started_s, self._worked_s = time.monotonic(), time.process_time()
                left -= 1
            yield taken
            if left == 0:
                return

    def rate(self) -> Rate:
        return Rate(
            self._count / (time.monotonic() - self._started_s),
            self._count / (time.process_time() - self._worked_s),
        )


def _files(folder: Path, count: int, size_bytes: int) -> Path:
    folder.mkdir()
    image = bytearray(os.urandom(size_bytes))
    for number in range(count):
        image[:8] = number.to_bytes(8, "big")
        (folder / f"{number:06}.jpg").write_bytes(image)
    return folder


if __name__ == "__main__":
    sys.exit(main())

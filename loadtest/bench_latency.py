"""Capture to consumer at a steady rate: through spool and Kafka, beside a bare producer and consumer.

Each frame carries the time at which it was taken; one consumer of the product's kind notes when it has it.
`ratio` is our 99th percentile over the bare one's.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event

import psutil
from rich.console import Console

from loadtest.verdicts import Quantiles
from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.domain.topics import FRAMES
from services.ingest.pipeline import CameraSpec, Ingester
from services.ingest.sources import Shot
from services.ingest.spool import Sender, Spool
from services.wire.record import OutRecord
from tests.servers import Servers

TARGET_P99_MS = 50.0
_STAMP_BYTES = 8
_DEADLINE_S = 60.0
console = Console(highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when the target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_line latency", description=__doc__)
    parser.add_argument("--frames", type=int, default=600, help="how many, of each")
    parser.add_argument("--fps", type=float, default=20.0, help="frames per second")
    parser.add_argument("--kb", type=int, default=200, help="size of a frame, KB")
    asked = parser.parse_args(arguments)
    body = os.urandom(asked.kb * 1000 - _STAMP_BYTES)
    with tempfile.TemporaryDirectory(prefix="loupe-bench-") as name:
        folder = Path(name).resolve()
        servers = Servers(folder / "home")
        try:
            with servers.running("kafka"):
                at = servers.addresses.kafka_bootstrap
                console.print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")
                bare = _measure(at, asked.frames, lambda: _bare(at, body, asked.frames, asked.fps))
                ours = _measure(at, asked.frames, lambda: _ours(at, body, asked.frames, asked.fps, folder))
        finally:
            servers.close()
    for label, found in (("producer to consumer", bare), ("capture by spool to consumer", ours)):
        console.print(f"{label}: p50 {found.p50_ms:.1f} ms, p95 {found.p95_ms:.1f}, p99 {found.p99_ms:.1f}")
    console.print(f"p50_ms={ours.p50_ms:.1f} p99_ms={ours.p99_ms:.1f} ratio={ours.p99_ms / bare.p99_ms:.2f}")
    return 0 if ours.p99_ms <= TARGET_P99_MS else 1


def _measure(bootstrap: str, frames: int, send: Callable[[], None]) -> Quantiles:
    """Return the latencies of the frames that `send` sends, as a consumer in another thread sees them."""
    consumer = KafkaBrokerConsumer(
        bootstrap, topics=[FRAMES.name], group=f"bench-{time.monotonic_ns()}", auto_offset_reset="latest"
    )
    while not consumer.assignment():
        consumer.poll(0.1, 1)
    consumer.poll(0.5, 1)
    taken_ms: list[float] = []

    def consume() -> None:
        end_s = time.monotonic() + _DEADLINE_S + frames
        while len(taken_ms) < frames and time.monotonic() < end_s:
            for record in consumer.poll(0.2, 64):
                sent_ns = int.from_bytes(record.value[:_STAMP_BYTES], "big")
                taken_ms.append((time.monotonic_ns() - sent_ns) / 1e6)

    thread = threading.Thread(target=consume)
    thread.start()
    send()
    thread.join(_DEADLINE_S)
    consumer.close()
    if len(taken_ms) < frames:
        raise RuntimeError(f"only {len(taken_ms)} of {frames} frames arrived")
    return Quantiles.of(taken_ms)


def _stamped(body: bytes) -> bytes:
    return time.monotonic_ns().to_bytes(_STAMP_BYTES, "big") + body


def _bare(bootstrap: str, body: bytes, frames: int, fps: float) -> None:
    producer = KafkaBrokerProducer(bootstrap)
    start_s = time.monotonic()
    for number in range(frames):
        time.sleep(max(0.0, start_s + number / fps - time.monotonic()))
        producer.send(OutRecord(FRAMES.name, b"bare", _stamped(body)))
    producer.flush(_DEADLINE_S)
    producer.close()


def _ours(bootstrap: str, body: bytes, frames: int, fps: float, folder: Path) -> None:
    clock, producer = SystemClock(), KafkaBrokerProducer(bootstrap)
    with closing(Spool(folder / "spool", clock=clock)) as spool:
        sender = Sender(spool, lambda: producer, clock)
        sender.start()
        Ingester(CameraSpec("bench", _Steady(body, frames, fps)), spool, clock).run(Event())
        sender.flush(_DEADLINE_S)
        sender.stop()


class _Steady:
    """A source that takes a picture when it is due and stamps it then."""

    def __init__(self, body: bytes, frames: int, fps: float) -> None:
        self._body, self._frames, self._fps = body, frames, fps

    def shots(self, stop: Event) -> Iterator[Shot]:
        start_s = time.monotonic()
        for number in range(self._frames):
            stop.wait(max(0.0, start_s + number / self._fps - time.monotonic()))
            yield Shot(_stamped(self._body), "image/jpeg", str(number))


if __name__ == "__main__":
    sys.exit(main())

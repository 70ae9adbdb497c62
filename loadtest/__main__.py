"""`make load`: an open-loop load on the stack; exit code 1 when a threshold is broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from threading import Event

from rich.console import Console

from loadtest.generator import Generator, Load
from loadtest.stack_under_test import stack_under_test
from loadtest.thresholds import Thresholds
from loadtest.verdicts import Verdicts
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.ingest.synthetic import SyntheticLine, write_folder

PROJECT = "load"
_STANDSTILL_S = 30.0
console = Console(highlight=False)


def main() -> int:
    """Send the load, wait for its verdicts, hold the numbers against the thresholds."""
    asked = _arguments()
    load = Load(
        asked.rate,
        round(asked.rate * asked.seconds),
        asked.cameras,
        (asked.size, asked.size),
        project=PROJECT,
    )
    thresholds = Thresholds(max_p50_ms=asked.max_p50_ms, max_p99_ms=asked.max_p99_ms)
    with tempfile.TemporaryDirectory(prefix="loupe-load-") as name, stack_under_test() as under_test:
        photos = Path(name) / "photos"
        write_folder(SyntheticLine(load.seed, load.size_px), photos, normals=60, anomalies=0)
        under_test.fit_and_host(photos, PROJECT, Path(name) / "models")
        producer = KafkaBrokerProducer(under_test.addresses.kafka_bootstrap)
        sent = Generator(load, producer, SystemClock()).run(Event())
        producer.close()
        verdicts = Verdicts(under_test.engine, list(sent.epochs.values()))
        stored = verdicts.wait_for(sent.frames, _STANDSTILL_S)
        latency = verdicts.latency() if stored else None
    console.print(
        f"{sent.frames} frames of {sent.size_bytes / 1000:.0f} KB at {sent.achieved_fps:.1f} frames/s from "
        f"{asked.cameras} cameras, {sent.acknowledged} acknowledged, {stored} verdicts stored"
    )
    if latency is not None:
        console.print(
            f"p50 {latency.p50_ms:.0f} ms, p95 {latency.p95_ms:.0f} ms, p99 {latency.p99_ms:.0f} ms"
        )
    broken = thresholds.broken_by(sent, stored, latency)
    for sentence in broken:
        console.print(f"[red]broken:[/] {sentence}")
    return 1 if broken else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest", description=__doc__)
    parser.add_argument("--rate", type=float, default=10.0, help="frames/s of all cameras together")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long")
    parser.add_argument("--cameras", type=int, default=2, help="how many cameras take turns")
    parser.add_argument("--size", type=int, default=320, help="side of the square frames, px")
    parser.add_argument("--max-p50-ms", type=float, default=Thresholds.max_p50_ms, help="threshold")
    parser.add_argument("--max-p99-ms", type=float, default=Thresholds.max_p99_ms, help="threshold")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

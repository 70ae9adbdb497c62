"""`make bench-stream`: sustained rate against the bare loop, and latency at 5 frames/s, on real parts.

In this order, in one run on the same cores: latency at a low rate, bare loops, drain of a backlog, bare
loops again. Ends with one line `ratio=… p50_ms=… p99_ms=…`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from threading import Event

import psutil
from rich.console import Console
from rich.table import Table

from loadtest.bare_loop import VARIANTS, measure
from loadtest.generator import Generator, Load, Sent
from loadtest.stack_under_test import StackUnderTest, stack_under_test
from loadtest.verdicts import Quantiles, Verdicts
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.domain.errors import StopProcess
from services.ingest.synthetic import SyntheticLine, write_folder

PROJECT = "bench"
SEED = 0
# Nothing new for so long means that the stream stands still.
_STANDSTILL_S = 60.0
console = Console(highlight=False)


def main() -> None:
    """Measure and print."""
    asked = _arguments()
    size_px = (asked.size, asked.size)
    with tempfile.TemporaryDirectory(prefix="loupe-bench-") as name, stack_under_test() as under_test:
        folder = Path(name)
        write_folder(SyntheticLine(SEED, size_px), folder / "photos", normals=60, anomalies=0)
        outcome = under_test.fit_and_host(folder / "photos", PROJECT, folder / "models")
        model = outcome.folder / "model.onnx"
        # Anybody else's work on these cores makes every number below worthless.
        console.print(f"load average of the last minute: {psutil.getloadavg()[0]:.1f}")
        console.print(f"{PROJECT} {outcome.announcement.version}, {under_test.addresses.units} units")

        _send(under_test, Load(20.0, 100, size_px=size_px, seed=SEED, project=PROJECT, camera_prefix="warm"))
        slow = Load(5.0, asked.latency_frames, size_px=size_px, seed=SEED, project=PROJECT)
        latency = _latency(under_test, slow)
        bare_fps = _bare_loops(model, folder / "photos" / "normal", asked.bare_seconds)
        flood = Load(
            None, asked.backlog_frames, 4, size_px, seed=SEED, project=PROJECT, camera_prefix="flood"
        )
        drain_fps = _drain(under_test, flood)
        bare_fps = max(bare_fps, _bare_loops(model, folder / "photos" / "normal", asked.bare_seconds))
        console.print(f"bare loop {bare_fps:.1f} frames/s, sustained {drain_fps:.1f} frames/s")
        console.print(f"memory of the stack {under_test.rss_mb() / 1000:.2f} GB")
        console.print(
            f"ratio={drain_fps / bare_fps:.2f} p50_ms={latency.p50_ms:.0f} p99_ms={latency.p99_ms:.0f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench_stream", description=__doc__)
    parser.add_argument("--size", type=int, default=320, help="side of the square frames, px (224-640)")
    parser.add_argument("--latency-frames", type=int, default=300, help="frames sent at 5 frames/s")
    parser.add_argument("--backlog-frames", type=int, default=3000, help="frames to drain")
    parser.add_argument("--bare-seconds", type=float, default=6.0, help="seconds per bare loop")
    return parser.parse_args()


def _send(under_test: StackUnderTest, load: Load) -> tuple[Sent, Verdicts]:
    """Send a load and return when every frame of it has its verdict."""
    producer = KafkaBrokerProducer(under_test.addresses.kafka_bootstrap)
    try:
        sent = Generator(load, producer, SystemClock()).run(Event())
    finally:
        producer.close()
    verdicts = Verdicts(under_test.engine, list(sent.epochs.values()))
    stored = verdicts.wait_for(sent.frames, _STANDSTILL_S)
    if stored < sent.frames:
        shed = verdicts.shed(list(sent.epochs)) or "none"
        raise StopProcess(f"{sent.frames - stored} of {sent.frames} frames have no verdict; shed: {shed}")
    return sent, verdicts


def _latency(under_test: StackUnderTest, load: Load) -> Quantiles:
    sent, verdicts = _send(under_test, load)
    latency = verdicts.latency()
    _print_stages(verdicts, f"latency: {sent.frames} frames of {sent.size_bytes / 1000:.0f} KB at 5 frames/s")
    _print_quantiles("capture to stored", latency)
    return latency


def _drain(under_test: StackUnderTest, load: Load) -> float:
    before_s = under_test.cpu_s()
    sent, verdicts = _send(under_test, load)
    used_s = {name: cpu_s - before_s.get(name, 0.0) for name, cpu_s in under_test.cpu_s().items()}
    _print_stages(verdicts, f"drain: {sent.frames} frames, published in {sent.elapsed_s:.1f} s, then judged")
    table = Table("CPU per frame", "ms", box=None, header_style="dim", padding=(0, 2))
    for name, cpu_s in sorted(used_s.items(), key=lambda item: -item[1]):
        if cpu_s * 1000 / sent.frames >= 0.01:
            table.add_row(name, f"{cpu_s * 1000 / sent.frames:.2f}")
    table.add_row("together", f"{sum(used_s.values()) * 1000 / sent.frames:.2f}")
    console.print(table)
    return verdicts.steady_rate_fps()


def _bare_loops(model: Path, images: Path, seconds: float) -> float:
    rates = {variant: measure(variant, model, images, seconds) for variant in VARIANTS}
    for variant, rate_fps in rates.items():
        console.print(f"bare loop {variant}: {rate_fps:.1f} frames/s")
    return max(rates.values())


def _print_stages(verdicts: Verdicts, title: str) -> None:
    table = Table(title=title, title_justify="left", box=None, header_style="dim", padding=(0, 2))
    for column in ("stage", "mean ms", "p50", "p95", "p99"):
        table.add_column(column)
    for stage, found in verdicts.stages().items():
        cells = (found.mean_ms, found.p50_ms, found.p95_ms, found.p99_ms)
        table.add_row(stage, *(f"{cell:.1f}" for cell in cells))
    console.print(table)


def _print_quantiles(name: str, found: Quantiles) -> None:
    console.print(f"{name}: p50 {found.p50_ms:.0f} ms, p95 {found.p95_ms:.0f} ms, p99 {found.p99_ms:.0f} ms")


if __name__ == "__main__":
    main()

"""`make soak`: does memory stay flat? One camera at a steady rate for an hour, the slope of each part's MB.

Runs on the stack of `LOUPE_HOME`, else on one of its own. A camera is added to the running ingester like
anybody's; its photos are shown in a loop. The slope is a straight line through the samples after the first
tenth (caches fill then), with its standard error. Ends with `balanced=…` and the steepest slope.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from loadtest.stack_under_test import StackUnderTest, stack_under_test
from services.domain.errors import StopProcess
from services.embedded import stack
from services.embedded.settings import inherited_environment
from services.ingest.synthetic import SyntheticLine, write_folder

PROJECT = "soak"
CAMERA = "soak-1"
_SAMPLE_EVERY_S = 10.0
_WARM_UP_RATIO = 0.1
console = Console(highlight=False)


def main() -> int:
    """Run the camera, sample, print."""
    asked = _arguments()
    with tempfile.TemporaryDirectory(prefix="loupe-soak-") as name, stack_under_test() as under_test:
        photos = Path(name) / "photos"
        write_folder(SyntheticLine(0, (asked.size, asked.size)), photos, normals=200, anomalies=0)
        if not asked.line_only:
            under_test.fit_and_host(photos, PROJECT, Path(name) / "models")
        source = str(photos / "normal")
        how = ("--loop", "--fps", f"{asked.fps:g}", "--project", PROJECT, "--shed", "block")
        _loupe(under_test, "camera", "add", CAMERA, source, *how)
        try:
            times_s, memory_mb = _samples(under_test, asked.minutes * 60)
            camera = json.loads(_loupe(under_test, "camera", "show", CAMERA, "--json"))
        finally:
            _loupe(under_test, "camera", "remove", CAMERA)
        _print(times_s, memory_mb)
        console.print(f"{camera['captured']} frames captured, {camera['acknowledged']} acknowledged by Kafka")
        if asked.line_only:
            return 0
        done = _loupe(under_test, "ledger", "--camera", CAMERA, "--wait", "120", "--json", may_fail=True)
    ledger = json.loads(done)
    told = ledger["cameras"][CAMERA]
    console.print(
        f"{told['judged']} judged, {told['shed']} shed, {len(told['missing'])} missing; "
        f"balanced={str(ledger['balanced']).lower()}"
    )
    return 0 if ledger["balanced"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long")
    parser.add_argument("--fps", type=float, default=50.0, help="frames per second")
    parser.add_argument("--size", type=int, default=320, help="side of the square frames, px")
    parser.add_argument("--line-only", action="store_true", help="no model: frames wait in Kafka unjudged")
    return parser.parse_args()


def _loupe(under_test: StackUnderTest, *words: str, may_fail: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli.main", *words],
        env=inherited_environment() | {"LOUPE_HOME": str(under_test.settings.home_folder.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    if done.returncode and not may_fail:
        raise StopProcess(f"loupe {' '.join(words)} failed: {done.stderr.strip()}")
    return done.stdout


def _samples(
    under_test: StackUnderTest, seconds: float
) -> tuple[NDArray[np.float64], dict[str, list[float]]]:
    """Return sample times, (N,) seconds, and each part's memory at them, MB."""
    started_s = time.monotonic()
    times_s: list[float] = []
    memory_mb: dict[str, list[float]] = {}
    while (now_s := time.monotonic() - started_s) < seconds:
        times_s.append(now_s)
        for part in stack.status(under_test.settings):
            memory_mb.setdefault(part.name, []).append(part.rss_mb)
        time.sleep(_SAMPLE_EVERY_S)
    return np.array(times_s), memory_mb


def slope_mb_per_h(times_s: NDArray[np.float64], values_mb: NDArray[np.float64]) -> tuple[float, float]:
    """Return the slope of a straight line through (N,) samples and its standard error, MB per hour.

    Ordinary least squares; neighbouring samples depend on each other, so the true error is larger.
    """
    hours = times_s / 3600
    centred = hours - hours.mean()
    spread = float((centred**2).sum())
    slope = float((centred * values_mb).sum()) / spread
    left_over = values_mb - values_mb.mean() - slope * centred
    return slope, float(np.sqrt((left_over**2).sum() / max(1, len(hours) - 2) / spread))


def _print(times_s: NDArray[np.float64], memory_mb: dict[str, list[float]]) -> None:
    first = int(len(times_s) * _WARM_UP_RATIO)
    table = Table("part", "MB at first", "MB at last", "slope MB/h", "±", box=None, header_style="dim")
    for part, values in memory_mb.items():
        if len(values) == len(times_s):
            found = np.array(values[first:])
            slope, error = slope_mb_per_h(times_s[first:], found)
            table.add_row(part, f"{found[0]:.1f}", f"{found[-1]:.1f}", f"{slope:+.2f}", f"{error:.2f}")
    console.print(f"{times_s[-1] / 60:.0f} minutes")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

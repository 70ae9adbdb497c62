"""The yardstick: decode and the same fp32 graph in a bare loop, nothing else.

`python -m loadtest.bare_loop MODEL FOLDER THREADS BATCH SECONDS` is one process of it: it loads, warms
up, says `ready`, waits for a line on standard input, runs, and says how many frames it did.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.vision.decode import decode
from services.vision.runtime import GraphSession


@dataclass(frozen=True)
class BareLoop:
    """One way to use two cores."""

    processes: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads} threads, batch {self.batch}"


# The honest best of these is what the stream is held against.
VARIANTS = tuple(
    BareLoop(processes, threads, batch) for processes, threads in ((1, 2), (2, 1)) for batch in (1, 8)
)


def measure(variant: BareLoop, model: Path, images: Path, seconds: float) -> float:
    """Return frames per second of a variant, all its processes together."""
    command = [
        sys.executable, "-m", "loadtest.bare_loop",
        str(model), str(images), str(variant.threads), str(variant.batch), str(seconds),
    ]  # fmt: skip
    loops = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(variant.processes)
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            if loop.stdout.readline() != "ready\n":
                raise RuntimeError("a bare loop did not start")
        # All are loaded and warm; now they run side by side.
        answers = [loop.stdin.write("go\n") for loop in loops if loop.stdin]
        assert len(answers) == len(loops)
        for loop in loops:
            assert loop.stdin is not None
            loop.stdin.flush()
        return sum(float(loop.communicate(timeout=seconds + 60)[0]) for loop in loops)
    finally:
        for loop in loops:
            loop.kill()


def main(model: str, images: str, threads: str, batch: str, seconds: str) -> None:
    """Run one process of a variant."""
    session = GraphSession(Path(model), threads=int(threads))
    data = [file.read_bytes() for file in sorted(Path(images).glob("*.jpg"))]
    size = int(batch)
    pixels = np.stack([decode(data[n % len(data)]).pixels for n in range(size)])
    for _ in range(3):
        session.infer(pixels)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    frames, started_s = 0, time.monotonic()
    while (elapsed_s := time.monotonic() - started_s) < float(seconds):
        for row in range(size):
            pixels[row] = decode(data[(frames + row) % len(data)]).pixels
        session.infer(pixels)
        frames += size
    sys.stdout.write(f"{frames / elapsed_s}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

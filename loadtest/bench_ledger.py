"""The ledger's proof over many frames: how fast, in how much memory, and does it find what is planted?

`python -m loadtest.bench_ledger --frames 10000000` fills a SQLite database with verdicts of several cameras
and runs, and declared ranges that are all still open (the worst case: nothing is known to have ended),
plants holes, doubled declarations and frames shed and judged, and runs the proof in a process of its own.
Topics are not part of it: reading them again is as fast as Kafka's client, which is measured by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Engine

from services.adapters.broker.lag import LagMeter
from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine
from services.adapters.metrics import Metrics
from services.domain.topics import FRAMES
from services.results.gauges import STREAM_GROUP, GapFinder, Gauges
from services.results.ledger import Scope, prove
from services.results.proof import Proof, prove_sequences
from services.results.store import Store

CAMERAS, EPOCHS = 4, 2
# Frames per declared range, as an ingester at 50 frames/s declares them every second.
_PER_RANGE = 50
# Of so many frames one is missing, one is declared twice, and one is shed and judged: these.
_ONE_IN = 100_000
_MISSING, _DOUBLED, _SHED = _ONE_IN // 2, 7, 11
_PLANTED = {"missing": _MISSING, "doubled": _DOUBLED, "shed and judged": _SHED}
# Frames that one statement inserts.
_ROWS_PER_INSERT = 200_000
TARGET_FPS = 200_000


@dataclass(frozen=True)
class Measured:
    """What the proof's process says of itself."""

    frames: int
    prove_s: float
    quick_s: float
    gauges_s: float
    start_mb: float
    peak_mb: float
    missing: int
    doubled: int
    shed_and_judged: int
    strangers: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, prove, print; end with 1 when it is too slow or finds anything but what is planted."""
    asked = _arguments(arguments)
    if asked.prove:
        print(json.dumps(asdict(_measure(asked.prove))))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(prefix="loupe-bench-ledger-", dir=asked.folder) as name:
        path = Path(name) / "loupe.db"
        started_s = time.monotonic()
        planted = fill(path, asked.frames)
        print(f"filled in {time.monotonic() - started_s:.0f} s, {path.stat().st_size / 1e9:.1f} GB")  # noqa: T201
        done = subprocess.run(
            [sys.executable, "-m", "loadtest.bench_ledger", "--prove", str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found = Measured(**json.loads(done.stdout.splitlines()[-1]))
    fps = found.frames / found.prove_s
    counts = (found.missing, found.doubled, found.shed_and_judged)
    is_exact = counts == planted and not found.strangers
    print(  # noqa: T201
        f"frames={found.frames} proof_fps={fps:.0f} quick_fps={found.frames / found.quick_s:.0f} "
        f"gauges_s={found.gauges_s:.1f} peak_mb={found.peak_mb:.0f} (of which {found.start_mb:.0f} before)\n"
        f"missing={found.missing} doubled={found.doubled} shed_and_judged={found.shed_and_judged} "
        f"planted={planted} exact={is_exact}"
    )
    if not is_exact or fps < TARGET_FPS:
        raise SystemExit(1)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the database is made; about 5 GB")
    parser.add_argument("--prove", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def fill(path: Path, frames: int) -> tuple[int, int, int]:
    """Write a database and return what is planted: missing, declared twice, shed and judged."""
    migrate(f"sqlite:///{path}")
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode=OFF")
    database.execute("PRAGMA synchronous=OFF")
    query = (
        "SELECT name, sql FROM sqlite_master WHERE type='index' AND tbl_name='inspections' AND sql NOT NULL"
    )
    indexes = database.execute(query).fetchall()
    for name, _ in indexes:
        database.execute(f'DROP INDEX "{name}"')
    database.execute("BEGIN")
    missing = doubled = both = 0
    for camera, epoch, count in _runs(frames):
        missing += _judge(database, camera, epoch, count)
        doubled += _declare(database, camera, epoch, count)
        both += _shed(database, camera, epoch, count)
    database.execute("COMMIT")
    for _, sql in indexes:
        database.execute(sql)
    database.close()
    return missing, doubled, both


def _runs(frames: int) -> Iterator[tuple[str, str, int]]:
    each, left = divmod(frames, CAMERAS * EPOCHS)
    for number in range(CAMERAS * EPOCHS):
        epoch = f"2026-01-{1 + number // CAMERAS:02}T00:00:00.000000+00:00"
        yield f"cam-{number % CAMERAS}", epoch, each + (number < left)


def _judge(database: sqlite3.Connection, camera: str, epoch: str, count: int) -> int:
    """Insert verdicts of all frames but the planted ones; ids are shaped as ids, and are none."""
    holes = len(range(_MISSING, count, _ONE_IN))
    for first in range(0, count, _ROWS_PER_INSERT):
        database.execute(
            """
            WITH RECURSIVE n(s) AS (SELECT ? UNION ALL SELECT s + 1 FROM n WHERE s + 1 < ?)
            INSERT INTO inspections (inspection_id, frame_id, role, run, camera, epoch, sequence, project,
                model_version, subject, is_anomalous, is_uncertain, confidence, score, threshold, regions,
                retention, width_px, height_px, stage_ms, unit, captured_at, judged_at, stored_at,
                latency_ms)
            SELECT printf('%s-%s-%018d', ?, substr(?, 1, 10), s),
                printf('%s-%s-%018d', ?, substr(?, 1, 10), s), 'live', '', ?, ?, s, 'parts', 'v1', '', 0, 0,
                0.9, 0.2, 0.5, '[]', '', 224, 224, '{}', 'unit', '2026-01-01 00:00:00.000000',
                '2026-01-01 00:00:00.000000', '2026-01-01 00:00:00.000000', 40.0
            FROM n WHERE s % ? != ?
            """,
            (first, min(first + _ROWS_PER_INSERT, count), camera, epoch, camera, epoch, camera, epoch,
             _ONE_IN, _MISSING),
        )  # fmt: skip
    return holes


def _declare(database: sqlite3.Connection, camera: str, epoch: str, count: int) -> int:
    """Insert open declared ranges, and plant one frame in `_ONE_IN` that a second entry declares, too."""
    twice = [(n, n) for n in range(_DOUBLED, count, _ONE_IN)]
    ranges = [(first, min(first + _PER_RANGE, count) - 1) for first in range(0, count, _PER_RANGE)]
    for kind, rows in (("one", ranges), ("two", twice)):
        database.executemany(
            "INSERT INTO ledger_captured"
            " (entry_id, number, camera, epoch, first, last, declared_at, is_ended)"
            " VALUES (?, 0, ?, ?, ?, ?, '2026-01-01 00:00:00.000000', 0)",
            ((f"{kind}-{camera}-{epoch[:10]}-{first}", camera, epoch, first, last) for first, last in rows),
        )
    return len(twice)


def _shed(database: sqlite3.Connection, camera: str, epoch: str, count: int) -> int:
    """Insert declared sheds of frames that were judged."""
    both = range(_SHED, count, _ONE_IN)
    database.executemany(
        "INSERT INTO ledger_shed_ranges (entry_id, number, camera, epoch, first, last, reason, declared_at)"
        " VALUES (?, 0, ?, ?, ?, ?, 'broker-unavailable', '2026-01-01 00:00:00.000000')",
        ((f"shed-{camera}-{epoch[:10]}-{n}", camera, epoch, n, n) for n in both),
    )
    return len(both)


def _measure(path: Path) -> Measured:
    """Prove a database in this process, look at it quickly, and as the gauges do; return how it went."""
    engine = open_engine(f"sqlite:///{path}")
    start_mb = _peak_mb()
    proof, started_s = Proof(), time.monotonic()
    prove_sequences(engine, None, Scope(), proof)
    prove_s = time.monotonic() - started_s
    started_s = time.monotonic()
    prove(engine, None)
    quick_s = time.monotonic() - started_s
    gauges_s = _look(engine)
    strangers = sum(
        int(str(one["sequence"])) % _ONE_IN != _PLANTED[str(one["finding"])] for one in proof.findings()
    )
    return Measured(
        frames=proof.checks["equation"].looked_at,
        prove_s=prove_s,
        quick_s=quick_s,
        gauges_s=gauges_s,
        start_mb=start_mb,
        peak_mb=_peak_mb(),
        missing=proof.checks["equation"].wrong,
        doubled=proof.checks["declared once"].noted,
        shed_and_judged=proof.checks["one end"].noted,
        strangers=strangers,
    )


def _look(engine: Engine) -> float:
    """Return how long the gauges' first look takes, with everything open."""
    clock, reader = SystemClock(), MemoryTopicReader(MemoryBroker())
    finder, meter = (
        GapFinder(engine, Store(engine, clock), reader),
        LagMeter(reader, FRAMES.name, STREAM_GROUP),
    )
    gauges = Gauges(finder, meter, Metrics(), clock, every_s=1)
    started_s = time.monotonic()
    gauges.look()
    return time.monotonic() - started_s


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

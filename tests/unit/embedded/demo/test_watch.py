"""What a demo says of its own run, in a home that remembers others."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine, writing
from services.domain.frame import ingester_frame_id
from services.domain.ledger import CameraBalance
from services.embedded.demo.watch import Watcher
from services.results.batch import Read
from services.results.store import Store
from tests.unit.results.builders import EPOCH, frame, ledger_records, shed_range, verdict, verdict_records

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class ThisRun:
    """Captured two frames with camera `cam-1`."""

    epochs = (EPOCH,)

    def frame_ids(self) -> dict[str, set[UUID]]:
        return {"cam-1": {ingester_frame_id("cam-1", EPOCH, sequence) for sequence in (0, 1)}}


def watcher_of(tmp_path: Path, *sequences: int) -> Watcher:
    """Return a watcher of a database with verdicts on these frames."""
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    engine = open_engine(url)
    verdicts = [verdict(frame(sequence)) for sequence in sequences]
    read = [Read(v, r) for v, r in zip(verdicts, verdict_records(*verdicts), strict=True)]
    Store(engine, FakeClock()).add_inspections(read)
    return Watcher(engine, ThisRun(), NOW)


def test_frames_of_other_runs_are_not_counted(tmp_path: Path) -> None:
    watcher = watcher_of(tmp_path, 0, 1, 2, 3)
    assert watcher.balances() == {"cam-1": CameraBalance(2, 2, 0, 0)}


def test_a_frame_without_end_is_missing(tmp_path: Path) -> None:
    balance = watcher_of(tmp_path, 1, 2).balances()["cam-1"]
    assert (balance.captured, balance.judged) == (2, 1)
    assert balance.missing == (ingester_frame_id("cam-1", EPOCH, 0),)


def test_watching_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    watcher = watcher_of(tmp_path, 0)
    with writing(open_engine(f"sqlite:///{tmp_path / 'loupe.db'}")):
        # A write lock here would wait for the writer's, ten seconds, and then fail.
        assert watcher.cameras()["cam-1"].judged == 1
        assert len(watcher.verdicts()) == 1
        assert watcher.latency().p50_ms is not None


def test_a_frame_that_its_ingester_declared_shed_is_not_missing(tmp_path: Path) -> None:
    watcher = watcher_of(tmp_path, 1)
    engine = open_engine(f"sqlite:///{tmp_path / 'loupe.db'}")
    (record,) = ledger_records(shed_range(0, 0))
    Store(engine, FakeClock()).add_declared([Read(shed_range(0, 0), record)])
    assert watcher.balances() == {"cam-1": CameraBalance(2, 1, 0, 1)}

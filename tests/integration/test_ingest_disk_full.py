"""Promise P17 for the ingester, on real disks that are full: a named state, nothing lost, and it goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import SystemClock
from services.domain.camera import CameraState, ShedPolicy
from services.domain.errors import SourceUnavailable
from services.domain.ledger import EntryKind
from services.domain.topics import FRAMES, LEDGER, MIB
from services.ingest.pipeline import CameraSpec, Ingester
from services.ingest.sources import Settled, Shot
from services.ingest.sources.folder import FolderSource
from services.ingest.spool import Sender, Spool
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from tests.poll import poll_until
from tests.unit.ingest.stage import ListSource, declared

IMAGE_BYTES = MIB


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own, in memory; the test is skipped where nobody may make one."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be made here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def grow(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


class Plant:
    """A camera that waits while its spool is full, and a Kafka that is there from the start."""

    def __init__(self, folder: Path, count: int, *, reserve_bytes: int) -> None:
        self.broker, clock = MemoryBroker(), SystemClock()
        self.spool = Spool(folder, clock=clock, max_bytes=1 << 30, reserve_bytes=reserve_bytes)
        self.sender = Sender(self.spool, lambda: MemoryProducer(self.broker), clock)
        images = [os.urandom(IMAGE_BYTES) for _ in range(count)]
        shots = [Shot(image, "image/jpeg", f"{number}.jpg") for number, image in enumerate(images)]
        spec = CameraSpec("cam", ListSource(shots), shed=ShedPolicy.BLOCK)
        self.ingester = Ingester(spec, self.spool, clock)
        self.camera = Thread(target=self.ingester.run, args=(Event(),))

    def close(self) -> None:
        self.camera.join(60)
        self.sender.stop()
        self.spool.close()

    def check(self, count: int) -> None:
        """All of them came, in order, and the ledger says so."""
        poll_until(lambda: not self.camera.is_alive(), deadline_s=60, what="the camera is through")
        assert self.sender.flush(60)
        frames = [decode_frame(record) for record in self.broker.records(FRAMES.name)]
        assert [frame.sequence for frame in frames] == list(range(count))
        entries = [decode_ledger_entry(record.value) for record in self.broker.records(LEDGER.name)]
        assert declared([e for e in entries if e.kind is EntryKind.CAPTURED]) == list(range(count))
        assert not [e for e in entries if e.kind is EntryKind.SHED]
        assert self.ingester.progress().captured == count


def test_a_disk_that_others_fill_makes_the_camera_wait_before_the_spool_breaks(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=256m") as folder:
        plant = Plant(folder / "spool", 60, reserve_bytes=128 * MIB)
        (folder / "ballast").write_bytes(bytes(120 * MIB))
        plant.camera.start()
        try:
            poll_until(lambda: plant.ingester.progress().is_disk_full, deadline_s=30)
            (folder / "ballast").unlink()
            plant.sender.start()
            plant.check(60)
            assert not plant.ingester.progress().is_disk_full
        finally:
            plant.close()


def test_a_disk_without_a_byte_left_loses_nothing_and_the_spool_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    with disk(tmp_path / "disk", "size=24m") as folder:
        # No reserve: SQLite itself finds the disk full, in the middle of a commit.
        plant = Plant(folder / "spool", 60, reserve_bytes=0)
        plant.camera.start()
        plant.sender.start()
        try:
            poll_until(lambda: plant.ingester.progress().is_disk_full, deadline_s=30)
            grow(folder, "size=256m")
            plant.check(60)
        finally:
            plant.close()
        # What is on disk is whole: it opens, and holds nothing any more.
        again = Spool(folder / "spool", clock=SystemClock(), reserve_bytes=0)
        assert (again.leftovers, again.is_settled) == ((), True)
        again.close()


def test_files_that_cannot_be_moved_on_a_full_disk_are_taken_once_and_moved_later(tmp_path: Path) -> None:
    receipts: dict[str, Settled] = {}
    taken: list[str] = []

    def run_once() -> None:
        """Take what is there, as the supervisor has it done again and again; ends with the trouble."""
        for one in FolderSource(folder, captured_before=receipts.get).shots(stop):
            if isinstance(one, Shot):
                taken.append(one.subject)
                settled = receipts[one.receipt or ""] = Settled(decoy)
                one.on_settled(settled)
            if not list(folder.glob("*.jpg")):
                return

    decoy, stop = uuid4(), Event()
    # Root of the file system, done/, failed/ and three pictures: no room for the folder of a day.
    with disk(tmp_path / "disk", "size=4m,nr_inodes=6") as folder:
        for name in ("done", "failed"):
            (folder / name).mkdir()
        for number in range(3):
            (folder / f"{number}.jpg").write_bytes(b"picture")
        for _ in range(2):
            with pytest.raises(SourceUnavailable, match="the disk is full") as told:
                run_once()
            assert told.value.state == CameraState.DISK_FULL
        assert taken == ["0.jpg", "1.jpg", "2.jpg"]
        grow(folder, "nr_inodes=100")
        run_once()
        assert taken == ["0.jpg", "1.jpg", "2.jpg"]
        assert sorted(path.name for path in (folder / "done").rglob("*.jpg")) == taken

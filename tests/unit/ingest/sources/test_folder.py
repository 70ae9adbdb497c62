"""A watched folder: what is taken, when, in which order, and where it goes."""

from __future__ import annotations

import errno
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from uuid import uuid4

import pytest

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.ingest.sources.filing import GRACE_S, Filing
from services.ingest.sources.folder import EMPTY_SETTLE_S, SETTLE_S, FolderSource
from services.ingest.sources.protocol import Settled, Shot, Taken, Unreadable

ACCEPTED = Settled(uuid4())


def put(folder: Path, *names: str, at_s: float = 0.0) -> None:
    """Write files, the n-th one changed `at_s` + n seconds after the epoch."""
    for number, name in enumerate(names):
        (folder / name).write_bytes(name.encode())
        os.utime(folder / name, (at_s + number, at_s + number))


def take(
    shots: Iterator[Taken | None], count: int, *, deadline_s: float = 20, settle: bool = True
) -> list[Taken]:
    """Return the next `count` pictures of a source, each settled at once."""
    end_s, taken = time.monotonic() + deadline_s, list[Taken]()
    for one in shots:
        assert time.monotonic() < end_s, f"{len(taken)} of {count} within {deadline_s} s"
        if one is not None:
            taken.append(one)
            if settle and isinstance(one, Shot | Unreadable):
                one.on_settled(ACCEPTED)
        if len(taken) == count:
            break
    return taken


def nothing_comes(shots: Iterator[Taken | None], *, for_s: float) -> bool:
    """Tell whether a source is idle for a time."""
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        if next(shots) is not None:
            return False
    return True


def below(folder: Path) -> list[str]:
    """Return the names of all files below a folder, without days and hours."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_files_that_are_there_come_oldest_first_and_then_by_name(tmp_path: Path) -> None:
    put(tmp_path, "c.jpg", "a.png", at_s=100)
    put(tmp_path, "z.jpg", at_s=50)
    put(tmp_path, "b.jpg", at_s=101)
    shots = take(FolderSource(tmp_path).shots(Event()), 4)
    assert [(shot.subject, shot.content_type, shot.image) for shot in shots if isinstance(shot, Shot)] == [
        ("z.jpg", "image/jpeg", b"z.jpg"), ("c.jpg", "image/jpeg", b"c.jpg"),
        ("a.png", "image/png", b"a.png"), ("b.jpg", "image/jpeg", b"b.jpg"),
    ]  # fmt: skip


def test_a_settled_file_moves_into_an_hour_of_a_day_and_not_before(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (shot,) = take(FolderSource(tmp_path).shots(Event()), 1, settle=False)
    assert (tmp_path / "a.jpg").exists()
    assert isinstance(shot, Shot)
    shot.on_settled(ACCEPTED)
    (moved,) = (tmp_path / "done").rglob("*.jpg")
    day, hour, name = moved.relative_to(tmp_path / "done").parts
    assert (len(day), len(hour), name) == (10, 2, "a.jpg")
    assert not (tmp_path / "a.jpg").exists()


def test_a_frame_that_was_let_go_leaves_its_file_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (shot,) = take(FolderSource(tmp_path).shots(Event()), 1, settle=False)
    assert isinstance(shot, Shot)
    shot.on_settled(Settled(uuid4(), ShedReason.DROPPED_NEWEST))
    assert below(tmp_path / "failed") == ["a.jpg", "a.jpg.reason.txt"]
    (reason,) = (tmp_path / "failed").rglob("*.txt")
    assert reason.read_text() == "Its frame was let go: dropped-newest.\n"


def test_equal_names_are_numbered_and_never_overwritten(tmp_path: Path) -> None:
    source = FolderSource(tmp_path)
    shots = source.shots(Event())
    for number in range(4):
        (tmp_path / "image.jpg").write_bytes(b"%d" % number)
        take(shots, 1)
    assert below(tmp_path / "done") == ["image.2.jpg", "image.3.jpg", "image.4.jpg", "image.jpg"]
    assert {path.read_bytes() for path in (tmp_path / "done").rglob("*.jpg")} == {b"0", b"1", b"2", b"3"}


def test_a_picture_that_replaced_a_taken_one_is_taken_too(tmp_path: Path) -> None:
    put(tmp_path, "latest.jpg")
    shots = FolderSource(tmp_path).shots(Event())
    (first,) = take(shots, 1, settle=False)
    (tmp_path / "latest.jpg").write_bytes(b"the next picture")
    assert isinstance(first, Shot)
    first.on_settled(ACCEPTED)
    (second,) = take(shots, 1)
    assert isinstance(second, Shot)
    assert (first.image, second.image) == (b"latest.jpg", b"the next picture")
    assert first.receipt != second.receipt


def test_what_is_no_finished_image_is_left_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg.tmp", "a.part", "b.jpg.filepart", "c.png.crdownload", ".d.jpg", "notes.txt")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "notes.txt")
    os.mkfifo(tmp_path / "pipe.jpg")
    put(tmp_path, "z.jpg")
    before = sorted(path.name for path in tmp_path.iterdir())
    shots = FolderSource(tmp_path).shots(Event())
    (only,) = take(shots, 1)
    assert isinstance(only, Shot)
    assert only.subject == "z.jpg"
    assert nothing_comes(shots, for_s=3 * SETTLE_S)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "done", "failed"} - {"z.jpg"})


def test_a_growing_file_is_taken_whole(tmp_path: Path) -> None:
    shots = FolderSource(tmp_path).shots(Event())
    with (tmp_path / "slow.jpg").open("wb", buffering=0) as file:
        for part in range(4):
            file.write(b"%d" % part)
            # The writer pauses, but not as long as a file has to stand still.
            assert nothing_comes(shots, for_s=SETTLE_S / 2)
    (shot,) = take(shots, 1)
    assert isinstance(shot, Shot)
    assert shot.image == b"0123"


def test_a_file_that_was_only_made_is_waited_for(tmp_path: Path) -> None:
    assert EMPTY_SETTLE_S > 4 * SETTLE_S
    (tmp_path / "a.jpg").touch()
    shots = FolderSource(tmp_path).shots(Event())
    assert nothing_comes(shots, for_s=4 * SETTLE_S)
    (tmp_path / "a.jpg").write_bytes(b"bytes")
    (shot,) = take(shots, 1)
    assert isinstance(shot, Shot)
    assert shot.image == b"bytes"


def test_a_rename_into_place_is_taken(tmp_path: Path) -> None:
    shots = FolderSource(tmp_path).shots(Event())
    put(tmp_path, "a.jpg.part")
    assert nothing_comes(shots, for_s=2 * SETTLE_S)
    (tmp_path / "a.jpg.part").rename(tmp_path / "a.jpg")
    (shot,) = take(shots, 1, deadline_s=5)
    assert isinstance(shot, Shot)
    assert shot.subject == "a.jpg"


def test_a_name_that_is_no_text_has_a_stand_in_and_moves_as_it_is(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.jpg")
    (tmp_path / name).write_bytes(b"1")
    (shot,) = take(FolderSource(tmp_path).shots(Event()), 1)
    assert isinstance(shot, Shot)
    assert shot.subject == "gr\N{REPLACEMENT CHARACTER}n.jpg"
    assert shot.receipt is not None
    assert shot.receipt.encode().decode() == shot.receipt
    assert below(tmp_path / "done") == [name]


def test_another_file_as_old_and_long_as_a_taken_one_is_taken_too(tmp_path: Path) -> None:
    # A station that names every picture alike and whose clock stands still; each has the same length.
    put(tmp_path, "image.bmp", at_s=100)
    shots = FolderSource(tmp_path).shots(Event())
    (first,) = take(shots, 1, settle=False)
    assert isinstance(first, Shot)
    (tmp_path / "image.tmp").write_bytes(b"IMAGE.BMP")
    os.utime(tmp_path / "image.tmp", (100, 100))
    (tmp_path / "image.tmp").replace(tmp_path / "image.bmp")
    first.on_settled(ACCEPTED)
    (second,) = take(shots, 1)
    assert isinstance(second, Shot)
    assert (first.image, second.image) == (b"image.bmp", b"IMAGE.BMP")
    # The first one was overwritten by who wrote the second.
    assert below(tmp_path) == ["image.bmp"]
    assert below(tmp_path / "done") == ["image.bmp"]


def test_a_change_of_rights_alone_takes_no_file_twice(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    shots = FolderSource(tmp_path).shots(Event())
    (one,) = take(shots, 1, settle=False)
    assert isinstance(one, Shot)
    (tmp_path / "a.jpg").chmod(0o640)
    one.on_settled(ACCEPTED)
    assert below(tmp_path / "done") == ["a.jpg"]
    assert nothing_comes(shots, for_s=1.0)


def test_files_that_were_taken_before_move_with_a_sign_of_life_each(tmp_path: Path) -> None:
    names = [f"{number:02}.jpg" for number in range(20)]
    put(tmp_path, *names)
    moved_at_signs, ends_s = set[int](), time.monotonic() + 20
    for _ in FolderSource(tmp_path, captured_before=lambda _: ACCEPTED).shots(Event()):
        moved_at_signs.add(len(below(tmp_path / "done")))
        if len(below(tmp_path / "done")) == len(names):
            break
        assert time.monotonic() < ends_s
    # A share that takes a second for each would be taken for hanging otherwise.
    assert moved_at_signs >= set(range(1, len(names)))


def test_a_file_that_is_too_large_fails_with_the_numbers(tmp_path: Path) -> None:
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(CLAIM_LIMIT_BYTES + 1)
    (one,) = take(FolderSource(tmp_path).shots(Event()), 1)
    assert isinstance(one, Unreadable)
    assert (one.subject, one.reason) == ("huge.tif", "It has 104.9 MB, at most 104.9 MB are taken.")
    assert one.shed is ShedReason.TOO_LARGE
    assert below(tmp_path / "failed") == ["huge.tif", "huge.tif.reason.txt"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_fails(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "a.jpg").chmod(0)
    failed, taken = take(FolderSource(tmp_path).shots(Event()), 2)
    assert isinstance(failed, Unreadable)
    assert isinstance(taken, Shot)
    assert "Permission denied" in failed.reason


def test_a_file_that_vanished_is_declared_and_the_next_one_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    shots = FolderSource(tmp_path).shots(Event())
    # Both are in the same listing; the first is shown, the second goes.
    assert isinstance(take(shots, 1)[0], Shot)
    (tmp_path / "b.jpg").unlink()
    put(tmp_path, "c.jpg")
    gone, there = take(shots, 2)
    assert isinstance(gone, Unreadable)
    assert (gone.subject, gone.reason) == ("b.jpg", "It cannot be read: No such file or directory.")
    assert isinstance(there, Shot)
    assert below(tmp_path / "failed") == []


def test_a_folder_that_vanished_is_told_and_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    source = FolderSource(folder)
    shots = source.shots(Event())
    assert next(shots) is None
    folder.rename(tmp_path / "away")
    with pytest.raises(SourceUnavailable, match="is not there") as gone:
        nothing_comes(shots, for_s=20)
    assert gone.value.state == CameraState.SOURCE_GONE
    with pytest.raises(SourceUnavailable, match="is not there"):
        next(source.shots(Event()))
    (tmp_path / "away").rename(folder)
    put(folder, "a.jpg")
    assert len(take(source.shots(Event()), 1)) == 1


def test_a_share_that_goes_away_declares_none_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "share"
    folder.mkdir()
    put(folder, "a.jpg", "b.jpg")
    source = FolderSource(folder)
    shots = source.shots(Event())
    take(shots, 1)
    # What an unmounted share leaves: an empty folder in its place.
    folder.rename(tmp_path / "away")
    folder.mkdir()
    with pytest.raises(SourceUnavailable, match="replaced by another"):
        take(shots, 1)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    put(tmp_path, "file")
    with pytest.raises(SourceUnavailable) as refused:
        next(FolderSource(tmp_path / "file", keeps_files=True).shots(Event()))
    assert refused.value.state == CameraState.SOURCE_GONE


class Disk:
    """A rename that fails as long as it is told to."""

    def __init__(self, number: int) -> None:
        self.number: int | None = number
        self.tries = 0

    def rename(self, source: Path, target: Path) -> None:
        self.tries += 1
        if self.number is not None:
            raise OSError(self.number, os.strerror(self.number))
        source.rename(target)


def test_a_full_disk_is_told_and_nothing_is_taken_twice(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    disk = Disk(errno.ENOSPC)
    source = FolderSource(tmp_path, filing=Filing(tmp_path, rename=disk.rename))
    shots = source.shots(Event())
    take(shots, 2)
    with pytest.raises(SourceUnavailable, match=r"a\.jpg is accounted for.*disk is full") as full:
        next(shots)
    assert full.value.state == CameraState.DISK_FULL
    # Two at once and two again: no hot loop.
    assert disk.tries == 4
    disk.number = None
    put(tmp_path, "c.jpg", at_s=100)
    (third,) = take(source.shots(Event()), 1)
    assert isinstance(third, Shot)
    assert third.subject == "c.jpg"
    assert below(tmp_path / "done") == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_file_that_somebody_holds_is_moved_later_and_the_others_go_on(tmp_path: Path) -> None:
    assert GRACE_S > 5
    put(tmp_path, "a.jpg")
    disk = Disk(errno.EBUSY)
    shots = FolderSource(tmp_path, filing=Filing(tmp_path, rename=disk.rename)).shots(Event())
    take(shots, 1)
    assert nothing_comes(shots, for_s=1)
    disk.number = None
    put(tmp_path, "b.jpg")
    take(shots, 1)
    assert below(tmp_path / "done") == ["a.jpg", "b.jpg"]


def test_what_was_captured_by_an_ingester_that_died_is_moved_unread(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    (shot,) = take(FolderSource(tmp_path).shots(Event()), 1, settle=False)
    assert isinstance(shot, Shot)
    journal = {shot.receipt: ACCEPTED}
    (other,) = take(FolderSource(tmp_path, captured_before=journal.get).shots(Event()), 1)
    assert isinstance(other, Shot)
    assert other.subject == "b.jpg"
    assert below(tmp_path / "done") == ["a.jpg", "b.jpg"]


def test_a_file_that_is_put_back_is_taken_again(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (first,) = take(FolderSource(tmp_path).shots(Event()), 1, settle=False)
    assert isinstance(first, Shot)
    first.on_settled(Settled(uuid4(), ShedReason.STORE_UNAVAILABLE))
    (failed,) = (tmp_path / "failed").rglob("a.jpg")
    failed.rename(tmp_path / "a.jpg")
    journal = {first.receipt: ACCEPTED}
    (again,) = take(FolderSource(tmp_path, captured_before=journal.get).shots(Event()), 1)
    assert isinstance(again, Shot)
    assert again.image == first.image


def test_kept_files_stay_and_are_taken_once_and_again_when_they_change(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    source = FolderSource(tmp_path, keeps_files=True)
    shots = source.shots(Event())
    take(shots, 2)
    assert nothing_comes(shots, for_s=4 * SETTLE_S)
    assert nothing_comes(source.shots(Event()), for_s=2 * SETTLE_S)
    (tmp_path / "b.jpg").write_bytes(b"changed")
    (changed,) = take(source.shots(Event()), 1)
    assert isinstance(changed, Shot)
    assert changed.image == b"changed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "b.jpg"]


def test_only_new_files_are_taken_where_that_is_asked(tmp_path: Path) -> None:
    put(tmp_path, "old.jpg")
    shots = FolderSource(tmp_path, keeps_files=True, only_new=True).shots(Event())
    assert next(shots) is None
    put(tmp_path, "new.jpg", at_s=-100)
    (shot,) = take(shots, 1)
    assert isinstance(shot, Shot)
    assert shot.subject == "new.jpg"


def test_a_stop_ends_it_soon(tmp_path: Path) -> None:
    stop = Event()
    shots = FolderSource(tmp_path).shots(stop)
    next(shots)
    stop.set()
    assert list(shots) == []


@pytest.mark.parametrize("keeps_files", [False, True])
def test_many_files_come_in_order_and_in_bounded_memory(tmp_path: Path, keeps_files: bool) -> None:
    # Names of one file: made ten times as fast as 50,000 files.
    (tmp_path / "one").write_bytes(b"1")
    for number in range(50_000):
        os.link(tmp_path / "one", tmp_path / f"{number:06d}.jpg")
    tracemalloc.start()
    try:
        shots = FolderSource(tmp_path, keeps_files=keeps_files).shots(Event())
        # More than one listing holds.
        taken = take(shots, 4_500, deadline_s=60)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [shot.subject for shot in taken if isinstance(shot, Shot)] == [
        f"{n:06d}.jpg" for n in range(4_500)
    ]
    # 4,500 shots of the test's own, a listing of 4,096 and their stillness; 50,000 would be five times that.
    assert most_bytes < 12_000_000

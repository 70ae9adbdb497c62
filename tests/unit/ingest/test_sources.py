"""Files, watched folders and the synthetic line as sources."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from threading import Event, Thread

import pytest

from services.domain.errors import BadRequest
from services.ingest.sources import (
    FileSource,
    Shot,
    SyntheticSource,
    Unreadable,
    WatchSource,
    images_in,
    open_source,
)
from tests.poll import poll_until


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(name.encode())


def test_images_are_found_by_suffix_and_sorted(tmp_path: Path) -> None:
    put(tmp_path, "b.JPG", "a.png", "c.tiff", "d.webp", "e.bmp", "f.jpeg", "notes.txt", ".hidden.jpg")
    assert [file.name for file in images_in(tmp_path)] == [
        "a.png", "b.JPG", "c.tiff", "d.webp", "e.bmp", "f.jpeg",
    ]  # fmt: skip


def test_a_folder_is_shown_once_or_over_and_over(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.png")
    files = images_in(tmp_path)
    once = [shot for shot in FileSource(files).shots(Event()) if isinstance(shot, Shot)]
    assert [(shot.subject, shot.content_type, shot.image) for shot in once] == [
        ("a.jpg", "image/jpeg", b"a.jpg"), ("b.png", "image/png", b"b.png"),
    ]  # fmt: skip
    looped = islice(FileSource(files, loop=True).shots(Event()), 5)
    assert [shot.subject for shot in looped] == ["a.jpg", "b.png", "a.jpg", "b.png", "a.jpg"]


def test_subjects_are_relative_to_a_root(tmp_path: Path) -> None:
    (tmp_path / "normal").mkdir()
    put(tmp_path, "normal/a.jpg")
    (shot,) = FileSource(images_in(tmp_path / "normal"), root=tmp_path).shots(Event())
    assert shot.subject == "normal/a.jpg"


def test_a_name_that_is_no_text_has_a_stand_in(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfcn.jpg")
    put(tmp_path, "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / name)
    (shot,) = FileSource(images_in(tmp_path), root=tmp_path).shots(Event())
    assert isinstance(shot, Shot)
    assert shot.subject == "gr\N{REPLACEMENT CHARACTER}n.jpg"


def test_a_file_that_vanished_is_unreadable_and_the_next_one_is_shown(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    files = images_in(tmp_path)
    files[0].unlink()
    gone, there = FileSource(files).shots(Event())
    assert gone == Unreadable("a.jpg", "No such file or directory")
    assert isinstance(there, Shot)


def test_a_stop_ends_a_loop(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    stop = Event()
    shots = FileSource(images_in(tmp_path), loop=True).shots(stop)
    next(shots)
    stop.set()
    assert list(shots) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere", "does not exist"),
        ("file.jpg", "is a file"),
        ("empty", "holds no images"),
        ("outer", "name that one"),
        ("synthetic:x", "no number"),
        ("synthetic:-1", "no number"),
    ],
)
def test_bad_sources_are_refused_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "outer" / "good").mkdir(parents=True)
    put(tmp_path, "file.jpg", "outer/good/a.jpg")
    with pytest.raises(BadRequest, match=says):
        open_source(text)


def test_a_folder_is_not_looped_and_watched_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not both"):
        open_source(str(tmp_path), loop=True, watch=True)


def test_the_synthetic_source_names_parts_and_lots() -> None:
    source = open_source("synthetic:2")
    assert isinstance(source, SyntheticSource)
    first, second = islice(source.shots(Event()), 2)
    assert (first.part_id, second.subject, first.lot_id) == ("gear-000000", "gear-000001", "lot-0000")
    assert first.image[:2] == b"\xff\xd8"
    assert first.image != second.image


def test_a_watched_folder_shows_new_files_once_they_are_whole(tmp_path: Path) -> None:
    put(tmp_path, "old.jpg")
    stop, seen, idle = Event(), [], Event()

    def watch() -> None:
        for shot in WatchSource(tmp_path).shots(stop):
            if isinstance(shot, Shot):
                seen.append(shot)
            else:
                idle.set()

    watcher = Thread(target=watch)
    watcher.start()
    try:
        assert idle.wait(10)
        with (tmp_path / "new.jpg").open("wb", buffering=0) as file:
            file.write(b"first half, ")
            idle.clear()
            # The writer is slow, but does not pause as long as a file has to stand still.
            assert idle.wait(10)
            file.write(b"second half")
        put(tmp_path, "notes.txt")
        poll_until(lambda: seen, deadline_s=10)
    finally:
        stop.set()
        watcher.join(10)
    assert [(shot.subject, shot.image) for shot in seen] == [("new.jpg", b"first half, second half")]
    assert not watcher.is_alive()

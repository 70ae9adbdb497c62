"""Files as they lie as a source."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from threading import Event

from services.ingest.sources import FileSource, Shot, Unreadable, images_in


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

"""From what a person wrote to a source."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryConsumer
from services.adapters.clock import SystemClock
from services.adapters.object_store import memory_store
from services.domain.camera import Camera
from services.domain.errors import BadRequest, SourceUnavailable
from services.ingest.sources import FileSource, Shot, SourceKind, SyntheticSource, check_source, open_camera
from services.ingest.sources.bucket import BucketSource
from services.ingest.sources.folder import FolderSource
from services.ingest.sources.names import NamedSource
from services.ingest.sources.opening import open_source
from services.ingest.sources.triggers import TriggeredSource, TriggerFeed
from services.ingest.sources.video import VideoSource


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(name.encode())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/data/line-1", "folder"),
        ("/data/with.dot/v1.2", "folder"),
        ("/data/shift.MP4", "film"),
        ("rtsp://10.0.0.7/stream", "stream"),
        ("RTSPS://10.0.0.7:322/stream", "stream"),
        ("https://camera.plant/mjpg", "stream"),
        ("usb:/dev/video0", "usb"),
        ("s3://plant-bucket/line-1", "s3"),
        ("s3://plant-bucket", "s3"),
        ("push:", "push"),
        ("synthetic", "synthetic"),
        ("synthetic:7", "synthetic"),
    ],
)
def test_a_source_is_told_by_its_text(text: str, kind: str) -> None:
    assert check_source(text) == kind


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "one of"),
        ("a\nb", "one of"),
        ("photos", "begin with /"),
        ("./photos", "begin with /"),
        ("/data/a.jpg", "is a picture"),
        ("ftp://host/x", "ftp: is no kind of source"),
        ("file:///data", "file: is no kind of source"),
        ("C:\\photos", "begin with /"),
        ("rtsp://", "no host"),
        ("rtsp://host:port/x", "no number"),
        ("usb:video0", "by its device"),
        ("s3://B ad/x", "no address"),
        ("s3://bucket/../x", "no address"),
        ("push:cam-1", "nothing more"),
        ("synthetic:x", "no number"),
        ("synthetic:-1", "no number"),
    ],
)
def test_what_is_no_source_is_refused_with_a_sentence(text: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        check_source(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadRequest, match="as the secret") as refused:
        check_source("rtsp://admin:hunter2@10.0.0.7/stream")
    assert "hunter2" not in str(refused.value)


def camera(source: str, **changes: object) -> Camera:
    return replace(Camera("cam-1", source), **changes)  # type: ignore[arg-type]


def test_each_kind_is_opened_and_nothing_is_read(tmp_path: Path) -> None:
    pushed = SyntheticSource.__new__(SyntheticSource)
    assert isinstance(open_camera(camera("/nowhere/at/all")), FolderSource)
    assert isinstance(open_camera(camera("/nowhere/film.mp4")), VideoSource)
    assert isinstance(open_camera(camera("rtsp://127.0.0.1:1/x"), secret="user:word"), VideoSource)
    assert isinstance(open_camera(camera("s3://plant/x"), store=memory_store()), BucketSource)
    assert open_camera(camera("push:"), push=lambda name: pushed if name == "cam-1" else None) is pushed  # type: ignore[arg-type,return-value]
    assert isinstance(open_camera(camera("synthetic:7")), SyntheticSource)


def test_what_a_camera_needs_and_is_not_there_is_told() -> None:
    with pytest.raises(BadRequest, match="no object store"):
        open_camera(camera("s3://plant/x"))
    with pytest.raises(BadRequest, match="no HTTP door"):
        open_camera(camera("push:"))
    with pytest.raises(BadRequest, match="waits for triggers"):
        open_camera(camera("/data", is_triggered=True))
    with pytest.raises(BadRequest, match="no regular expression"):
        open_camera(camera("/data", name_pattern="("))


def test_triggers_and_names_wrap_a_source() -> None:
    broker = MemoryBroker()
    feed = TriggerFeed(lambda: MemoryConsumer(broker, topics=["loupe.triggers"], group="g"), SystemClock())
    assert isinstance(open_camera(camera("/data", is_triggered=True), feed=feed), TriggeredSource)
    assert isinstance(open_camera(camera("/data", name_pattern="(?P<part_id>P1)")), NamedSource)


def test_a_folder_to_be_looped_is_looked_for_again(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="is not there"):
        open_camera(camera(str(tmp_path / "later"), loop=True))
    put(tmp_path, "a.jpg")
    looped = open_camera(camera(str(tmp_path), loop=True))
    assert isinstance(looped, FileSource)
    assert len(list(islice(looped.shots(Event()), 3))) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere", "does not exist"),
        ("nowhere.mp4", "does not exist"),
        ("file.jpg", "is a file"),
        ("empty", "holds no images"),
        ("outer", "name that one"),
        ("synthetic:x", "no number"),
        ("synthetic:-1", "no number"),
        ("ftp://host/x", "no kind of camera"),
    ],
)
def test_bad_sources_by_hand_are_refused_with_a_sentence(
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
    with pytest.raises(BadRequest, match="Only a folder"):
        open_source("rtsp://127.0.0.1/x", loop=True)
    with pytest.raises(BadRequest, match="is no folder"):
        open_source(str(tmp_path / "none"), watch=True)


def test_films_and_cameras_may_be_named_by_hand(tmp_path: Path) -> None:
    put(tmp_path, "film.mkv")
    assert isinstance(open_source(str(tmp_path / "film.mkv"), loop=True), VideoSource)
    assert isinstance(open_source("rtsp://127.0.0.1:1/x"), VideoSource)


def test_a_watched_folder_shows_only_what_comes_and_moves_nothing(tmp_path: Path) -> None:
    put(tmp_path, "old.jpg")
    shots = open_source(str(tmp_path), watch=True).shots(Event())
    assert next(shots) is None
    put(tmp_path, "new.jpg")
    shot = next(one for one in shots if one is not None)
    assert isinstance(shot, Shot)
    assert shot.subject == "new.jpg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jpg", "old.jpg"]


def test_the_synthetic_source_names_parts_and_lots() -> None:
    source = open_source("synthetic:2")
    assert isinstance(source, SyntheticSource)
    first, second = islice(source.shots(Event()), 2)
    assert (first.part_id, second.subject, first.lot_id) == ("gear-000000", "gear-000001", "lot-0000")
    assert first.image[:2] == b"\xff\xd8"
    assert first.image != second.image


def test_kinds_are_named_as_people_write_them() -> None:
    assert {kind.value for kind in SourceKind} == {
        "folder",
        "film",
        "stream",
        "usb",
        "s3",
        "push",
        "synthetic",
    }

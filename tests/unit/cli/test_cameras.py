"""`loupe camera …` over a database: what is added, shown, refused; nothing secret is ever printed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from services.adapters.database import open_engine
from services.cli import camera_views
from services.cli.main import app
from services.domain.camera import Area, CameraState, OriginalPolicy, ShedPolicy
from services.ingest.camera_rows import CameraReport
from services.ingest.camera_store import CameraStore


class Desk:
    """The command, and the database that it writes."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self.store = CameraStore(self.engine)

    def run(self, *words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, ["camera", *words])
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    monkeypatch.setenv("LOUPE_DATABASE_URL", url)
    monkeypatch.setenv("LOUPE_INGEST_URL", "http://127.0.0.1:9101/")
    monkeypatch.setenv("COLUMNS", "200")
    made = Desk(url)
    made.run("list")
    yield made
    made.engine.dispose()


def test_a_folder_is_added_with_all_its_options(desk: Desk, tmp_path: Path) -> None:
    desk.run(
        "add", "press-1", str(tmp_path), "--fps", "2.5", "--project", "plates", "--area", "0.1,0.2,0.3,0.4",
        "--longest-side", "640", "--keep-original", "all", "--name-pattern", r"(?P<part_id>\d+)", "--shed",
        "block", "--silent-after", "30", "--trigger", "--loop", "--keep-files", "--paused",
    )  # fmt: skip
    camera = desk.store.cameras()["press-1"].camera
    assert (camera.source, camera.fps, camera.project) == (str(tmp_path), 2.5, "plates")
    assert camera.area == Area(0.1, 0.2, 0.3, 0.4)
    assert (camera.longest_side_px, camera.keep_original) == (640, OriginalPolicy.ALL)
    assert (camera.shed, camera.silent_after_s) == (ShedPolicy.BLOCK, 30)
    assert camera.is_triggered
    assert camera.loop
    assert camera.keeps_files
    assert camera.is_paused
    assert desk.json("show", "press-1")["state"] == "paused"


@pytest.mark.parametrize(
    ("words", "shed"),
    [
        (["/photos"], ShedPolicy.BLOCK),
        (["/films/shift.mp4"], ShedPolicy.BLOCK),
        (["s3://bucket/line-1"], ShedPolicy.BLOCK),
        (["push:"], ShedPolicy.BLOCK),
        (["rtsp://127.0.0.1:9/main"], ShedPolicy.DROP_OLDEST),
        (["http://127.0.0.1:9/mjpeg"], ShedPolicy.DROP_OLDEST),
        (["usb:/dev/video0"], ShedPolicy.DROP_OLDEST),
        (["synthetic"], ShedPolicy.DROP_OLDEST),
        (["/photos", "--trigger"], ShedPolicy.DROP_OLDEST),
        (["/photos", "--shed", "sample"], ShedPolicy.SAMPLE),
    ],
)
def test_a_full_spool_drops_only_what_does_not_wait_elsewhere(
    desk: Desk, words: list[str], shed: ShedPolicy
) -> None:
    desk.run("add", "press-1", *words)
    assert desk.store.cameras()["press-1"].camera.shed is shed
    desk.run("set", "press-1", "--fps", "1")
    assert desk.store.cameras()["press-1"].camera.shed is shed


def test_cameras_of_a_file_get_the_shed_policy_of_their_kind(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("camera,source,shed\na,/photos,\nb,/photos,sample\nc,synthetic,\n")
    desk.run("add", "--from", str(tmp_path / "c.csv"))
    sheds = [one.camera.shed for one in desk.store.cameras().values()]
    assert sheds == [ShedPolicy.BLOCK, ShedPolicy.SAMPLE, ShedPolicy.DROP_OLDEST]


@pytest.mark.parametrize("name", ["[/]", "[red]press", "a=b"])
def test_an_id_is_no_markup(desk: Desk, name: str) -> None:
    assert name in desk.run("add", name, "push:").output
    for command in ("pause", "resume", "list", "remove"):
        assert name in desk.run(command, *([] if command == "list" else [name])).output


@pytest.mark.parametrize("width", [80, 140])
def test_the_list_of_cameras_fits_and_has_whole_headings(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(camera_views, "console", Console(width=width, force_terminal=True))
    names = ["press-1", "a-camera-with-a-very-long-name-in-the-third-hall-on-the-left"]
    for name in names:
        desk.run("add", name, "rtsp://127.0.0.1:9/main")
    desk.store.take("ingester", 10)
    since = datetime.now(UTC) - timedelta(hours=20)
    message = "The picture has been the same for 30 seconds, so nobody can say whether the camera films. " * 2
    desk.store.renew(
        "ingester",
        [
            CameraReport(name, CameraState.UNKNOWN_CODEC, message, since, captured=10**7, shed=123, fps=29.97)
            for name in names
        ],
    )
    text = Text.from_ansi(desk.run("list").output).plain
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split() == ["camera", "state", "since", "fps", "captured", "shed", "spooled"]
    assert " ".join(text.split()).count(message.strip()) == 2
    assert all(name in text for name in names)


def test_a_relative_folder_is_taken_from_here(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "not there" in desk.run("add", "press-1", "later").stderr
    assert desk.store.cameras()["press-1"].camera.source == str(tmp_path / "later")


@pytest.mark.parametrize(
    ("written", "password"), [("hush", "hush"), ("h@sh:1", "h@sh:1"), ("hu%2Fsh", "hu/sh"), ("", "")]
)
def test_a_password_is_kept_apart_and_never_printed(desk: Desk, written: str, password: str) -> None:
    printed = desk.run("add", "gate", f"rtsp://admin:{written}@127.0.0.1:9/main").output
    printed += desk.run("show", "gate").output + desk.run("show", "gate", "--json").output
    printed += desk.run("list").output + desk.run("list", "--json").output
    assert "admin" not in printed
    assert not password or (password not in printed and written not in printed)
    stored = desk.store.cameras()["gate"]
    assert (stored.camera.source, stored.secret) == ("rtsp://127.0.0.1:9/main", f"admin:{password}")
    assert desk.json("show", "gate")["secret"] == "set"


def test_a_password_that_cannot_be_told_apart_is_refused_without_being_printed(desk: Desk) -> None:
    result = desk.run("add", "gate", "rtsp://admin:hu/sh@127.0.0.1/main", code=2)
    assert "%2F" in result.output
    assert "hu/sh" not in result.output
    assert desk.store.cameras() == {}


def test_a_secret_may_be_a_variable_of_the_ingester(desk: Desk) -> None:
    desk.run("add", "gate", "rtsp://127.0.0.1:9/main", "--secret", "env:GATE_LOGIN")
    assert desk.json("show", "gate")["secret"] == "env:GATE_LOGIN"
    desk.run("add", "two", "rtsp://a:b@127.0.0.1:9/main", "--secret", "env:GATE_LOGIN", code=2)
    desk.run("add", "two", "rtsp://127.0.0.1:9/main", "--secret", "env:no name", code=2)
    assert "pass" not in desk.run("add", "two", "rtsp://env:pass@127.0.0.1:9/main", code=2).output


def test_a_push_camera_gets_a_token_that_is_shown_once(desk: Desk) -> None:
    told = desk.json("add", "plc 1", "push:")
    assert told["url"] == "http://127.0.0.1:9101/v1/cameras/plc%201/frames"
    digest = hashlib.sha256(told["token"].encode()).hexdigest()
    assert desk.store.cameras()["plc 1"].push_token_sha256 == digest
    assert told["token"] not in desk.run("show", "plc 1").output
    assert digest not in desk.run("show", "plc 1", "--json").output
    other = desk.json("token", "plc 1")
    assert other["token"] != told["token"]
    desk.run("set", "plc 1", "--silent-after", "5")
    assert (
        desk.store.cameras()["plc 1"].push_token_sha256 == hashlib.sha256(other["token"].encode()).hexdigest()
    )
    desk.run("add", "folder", "/photos")
    assert "Nothing is pushed" in desk.run("token", "folder", code=2).output


@pytest.mark.parametrize(
    "words",
    [
        ["press-1"],
        [],
        ["", "synthetic"],
        [" x", "synthetic"],
        ["x" * 129, "synthetic"],
        ["press-1", ""],
        ["press-1", "ftp://host/x"],
        ["press-1", "push:here"],
        ["press-1", "s3://UPPER/x"],
        ["press-1", "synthetic:many"],
        ["press-1", "synthetic", "--fps", "0"],
        ["press-1", "synthetic", "--fps", "nan"],
        ["press-1", "synthetic", "--fps", "1001"],
        ["press-1", "synthetic", "--area", "0,0,1"],
        ["press-1", "synthetic", "--area", "0.5,0,0.6,1"],
        ["press-1", "synthetic", "--area", "0,0,0,1"],
        ["press-1", "synthetic", "--area", "nan,0,1,1"],
        ["press-1", "synthetic", "--longest-side", "1"],
        ["press-1", "synthetic", "--silent-after", "-1"],
        ["press-1", "synthetic", "--silent-after", "nan"],
        ["press-1", "synthetic", "--name-pattern", "("],
        ["press-1", "synthetic", "--name-pattern", "x"],
        ["press-1", "synthetic", "--project", "a/b"],
        ["press-1", "push:", "--trigger"],
        ["press-1", "push:", "--loop"],
        ["press-1", "synthetic", "--from", "x.yaml"],
    ],
)
def test_nonsense_is_refused_with_a_sentence(desk: Desk, words: list[str]) -> None:
    output = desk.run("add", *words, code=2).output
    assert output.strip().endswith((".", ")", "╯"))
    assert "Traceback" not in output
    assert desk.store.cameras() == {}


def test_a_known_id_is_refused(desk: Desk) -> None:
    desk.run("add", "press-1", "synthetic")
    assert "already" in desk.run("add", "press-1", "synthetic", code=2).output


YAML = """
- id: press-1
  source: synthetic:1
  fps: 2
  trigger: yes
- id: press-2
  source: rtsp://u:hush@127.0.0.1:9/x
  area: [0, 0, 0.5, 1]
"""
JSON = json.dumps(
    {"cameras": [
        {"camera": "press-1", "source": "synthetic:1", "fps": 2, "trigger": True},
        {"camera": "press-2", "source": "rtsp://u:hush@127.0.0.1:9/x", "area": "0,0,0.5,1"},
    ]}
)  # fmt: skip
CSV = """camera,source,fps,trigger,area
press-1,synthetic:1,2,yes,
press-2,rtsp://u:hush@127.0.0.1:9/x,,,"0,0,0.5,1"
"""


@pytest.mark.parametrize(("name", "text"), [("c.yaml", YAML), ("c.json", JSON), ("c.csv", CSV)])
def test_a_file_adds_many(desk: Desk, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    desk.run("add", "--from", str(tmp_path / name))
    found = desk.store.cameras()
    assert (found["press-1"].camera.fps, found["press-1"].camera.is_triggered) == (2.0, True)
    assert found["press-2"].camera.area == Area(0, 0, 0.5, 1)
    assert found["press-2"].secret == "u:hush"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.yaml", "- id: a\n  source: synthetic\n- id: b\n", "Camera 2 (b)"),
        ("c.yaml", "- id: a\n  source: synthetic\n  frames: 3\n", "'frames'"),
        ("c.yaml", "- id: a\n  source: synthetic\n  fps: fast\n", "no fps"),
        ("c.yaml", "a: [", "no YAML"),
        ("c.yaml", "", "no list"),
        ("c.yaml", "[]", "no camera"),
        ("c.json", "{", "no JSON"),
        ("c.csv", "camera,source\na,synthetic\na,synthetic\n", "already"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_adds_nothing(
    desk: Desk, tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert says in desk.run("add", "--from", str(tmp_path / name), code=2).output.replace("\n", " ")
    assert desk.store.cameras() == {}


def test_set_changes_what_is_given_and_unset_takes_it_back(desk: Desk) -> None:
    desk.run("add", "gate", "rtsp://u:hush@127.0.0.1:9/x", "--fps", "2", "--area", "0,0,0.5,1")
    desk.run("set", "gate", "--fps", "4", "--unset", "area")
    stored = desk.store.cameras()["gate"]
    assert (stored.camera.fps, stored.camera.area, stored.secret) == (4.0, None, "u:hush")
    desk.run("set", "gate", "--source", "rtsp://127.0.0.1:9/other")
    assert desk.store.cameras()["gate"].secret is None
    assert "--fps 2" in desk.run("set", "gate", code=2).output
    assert "cannot be unset" in desk.run("set", "gate", "--unset", "shed", code=2).output
    assert "No camera is called none" in desk.run("set", "none", "--fps", "1", code=2).output


def test_pause_resume_and_remove(desk: Desk) -> None:
    for name in ("a", "b"):
        desk.run("add", name, "synthetic")
    desk.run("pause", "a", "b")
    assert all(one.camera.is_paused for one in desk.store.cameras().values())
    desk.run("resume", "b")
    assert not desk.store.cameras()["b"].camera.is_paused
    assert "accounted" in desk.run("remove", "a").output
    assert list(desk.store.cameras()) == ["b"]
    for command in ("pause", "resume", "remove", "show", "token"):
        assert "No camera is called none" in desk.run(command, "none", code=2).output


def test_the_list_says_how_each_does(desk: Desk) -> None:
    for name in ("a", "b"):
        desk.run("add", name, "synthetic")
    desk.store.take("ingester", 10)
    since = datetime.now(UTC) - timedelta(minutes=3)
    desk.store.renew(
        "ingester",
        [
            CameraReport("a", CameraState.RUNNING, "", since, captured=7, fps=2.5),
            CameraReport("b", CameraState.UNREACHABLE, "No answer [/red].", since, shed=1),
        ],
    )
    output = desk.run("list").output
    assert "running" in output
    assert "No answer [/red]." in output
    assert "3 m" in output
    assert [one["camera"] for one in desk.json("list", "--state", "unreachable")] == ["b"]
    assert desk.json("show", "a")["captured"] == 7
    assert "No camera is dark" in desk.run("list", "--state", "dark").output


def test_a_long_list_ends_with_a_summary(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    file.write_text("camera,source\n" + "".join(f"cam-{n},synthetic\n" for n in range(60)))
    desk.run("add", "--from", str(file))
    assert "60 cameras: 60 new" in desk.run("list").output


def test_a_list_that_nobody_reads_begins_with_what_is_in_trouble(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "many.csv"
    file.write_text("camera,source\n" + "".join(f"cam-{n:03},synthetic\n" for n in range(300)))
    desk.run("add", "--from", str(file))
    desk.store.take("ingester", 300)
    desk.store.renew("ingester", [CameraReport("cam-299", CameraState.DARK, "", datetime.now(UTC))])
    lines = desk.run("list").output.splitlines()
    assert lines[1].startswith("cam-299")
    assert lines[-2].startswith("100 more")
    assert "299 new, 1 dark" in lines[-1]
    assert len(desk.json("list")) == 300

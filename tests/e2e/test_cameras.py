"""Cameras as data on the whole stack: folders, pushes, films; every frame ends, and files end in `done`."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.e2e.line import Line, loupe
from tests.films import Film, write_film
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture
def camera() -> str:
    """A camera id that no other test uses."""
    return f"camera-{uuid4().hex[:6]}"


def state_of(line: Line, camera: str) -> str:
    """Return the state that `loupe camera show` tells."""
    return str(json.loads(loupe(line.home, "camera", "show", camera, "--json"))["state"])


def wait_for_state(line: Line, camera: str, *states: str) -> None:
    """Return once the camera is in one of these states."""
    poll_until(lambda: state_of(line, camera) in states, deadline_s=60, every_s=0.5, what=f"{states}")


def images_of(line: Line, count: int) -> list[bytes]:
    """Return some photos of the line."""
    return [file.read_bytes() for file in sorted((line.photos / "normal").iterdir())[:count]]


def test_a_watched_folder_is_judged_and_its_files_are_moved(line: Line, camera: str, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for number, image in enumerate(images_of(line, 5)):
        (inbox / f"lot7_part{number}.jpg").write_bytes(image)
    (inbox / "garbage.jpg").write_bytes(b"no image at all")
    pattern = r"(?P<lot_id>lot\d+)_(?P<part_id>part\d+)"
    loupe(line.home, "camera", "add", camera, str(inbox), "--name-pattern", pattern)
    balance = line.wait_for_balance(camera, captured=6)
    assert (balance["judged"], balance["quarantined"], balance["shed"]) == (5, 1, 0)
    rows = line.verdicts(camera)
    assert {(row.lot_id, row.part_id) for row in rows} == {("lot7", f"part{n}") for n in range(5)}
    poll_until(lambda: not list(inbox.glob("*.jpg")), deadline_s=30, what="all files are moved")
    assert len(list((inbox / "done").rglob("*.jpg"))) == 6

    loupe(line.home, "camera", "pause", camera)
    wait_for_state(line, camera, "paused")
    (inbox / "late.jpg").write_bytes(images_of(line, 1)[0])
    loupe(line.home, "camera", "resume", camera)
    line.wait_for_balance(camera, captured=7)
    loupe(line.home, "camera", "remove", camera)
    assert camera not in loupe(line.home, "camera", "list")
    assert line.wait_for_balance(camera, captured=7)["judged"] == 6


def test_a_pushed_picture_is_accepted_once_it_is_safe(line: Line, camera: str) -> None:
    told = json.loads(loupe(line.home, "camera", "add", camera, "push:", "--json"))
    url, token = told["url"], told["token"]
    wait_for_state(line, camera, "running", "silent")
    one, two, three = images_of(line, 3)
    with httpx.Client(timeout=30) as client:
        assert client.post(url, content=one).status_code == 401
        assert client.post(url, content=one, headers={"Authorization": "Bearer x"}).status_code in {401, 403}
        mine = {"Authorization": f"Bearer {token}"}
        answer = client.post(url, content=one, headers=mine | {"X-Loupe-Part-Id": "p1", "ce-id": "once"})
        assert answer.status_code == 202, answer.text
        again = client.post(url, content=one, headers=mine | {"X-Loupe-Part-Id": "p1", "ce-id": "once"})
        assert again.json()["frames"][0]["frame_id"] == answer.json()["frames"][0]["frame_id"]
        files = [("image", ("2.jpg", two, "image/jpeg")), ("image", ("3.jpg", three, "image/jpeg"))]
        many = client.post(url, files=files, headers=mine)
        assert many.status_code == 202, many.text
    ids = {answer.json()["frames"][0]["frame_id"], *(frame["frame_id"] for frame in many.json()["frames"])}
    balance = line.wait_for_balance(camera, captured=3)
    assert balance["judged"] == 3
    assert {row.frame_id for row in line.verdicts(camera)} == ids
    loupe(line.home, "camera", "remove", camera)


def test_a_film_is_judged_and_skipped_pictures_are_declared(line: Line, camera: str, tmp_path: Path) -> None:
    film = tmp_path / "belt.mp4"
    write_film(film, Film(frames=30, fps=10))
    loupe(line.home, "camera", "add", camera, str(film), "--fps", "5")
    balance = line.wait_for_balance(camera, captured=30)
    assert balance["judged"] == balance["shed"] == 15
    wait_for_state(line, camera, "ended")
    loupe(line.home, "camera", "remove", camera)


def test_a_wrong_camera_is_named_and_stops_no_other(line: Line, camera: str, tmp_path: Path) -> None:
    gone, inbox = tmp_path / "gone", tmp_path / "inbox"
    gone.mkdir()
    inbox.mkdir()
    loupe(line.home, "camera", "add", f"{camera}-gone", str(gone))
    # By one rename: its camera may be making `done/` in it at this moment.
    gone.rename(tmp_path / "moved")
    loupe(line.home, "camera", "add", f"{camera}-url", "rtsp://user:hush@127.0.0.1:9/none")
    loupe(line.home, "camera", "add", camera, str(inbox))
    wait_for_state(line, f"{camera}-gone", "source-gone")
    wait_for_state(line, f"{camera}-url", "unreachable")
    (inbox / "one.jpg").write_bytes(images_of(line, 1)[0])
    assert line.wait_for_balance(camera, captured=1)["judged"] == 1
    every = loupe(line.home, "camera", "list", "--json") + loupe(line.home, "logs", "ingest", code=None)
    assert "hush" not in every
    gone.mkdir()
    wait_for_state(line, f"{camera}-gone", "running", "silent")
    loupe(line.home, "camera", "remove", camera, f"{camera}-gone", f"{camera}-url")

"""Faults on the line under load, each ended by the proof: the broker stops or dies, the ingester dies."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from tests.e2e.line import Line, loupe
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
FPS = 10


@pytest.fixture
def running_camera(line: Line) -> Iterator[str]:
    """A camera of the ingest process that shows photos in a loop."""
    camera = f"loaded-{uuid4().hex[:6]}"
    source = str(line.photos / "normal")
    loupe(line.home, "camera", "add", camera, source, "--loop", "--fps", str(FPS), "--shed", "block")
    poll_until(lambda: len(line.verdicts(camera)) >= 5, deadline_s=60, what="the first verdicts")
    yield camera
    loupe(line.home, "camera", "remove", camera, code=None)


def prove(line: Line, camera: str) -> dict[str, Any]:
    """Stop the camera, wait until nothing is on its way, and return its side of the proof."""
    loupe(line.home, "camera", "remove", camera)
    told = json.loads(
        loupe(line.home, "ledger", "--camera", camera, "--prove", "--wait", "120", "--json", code=None)
    )
    assert told["balanced"], told
    balance: dict[str, Any] = told["cameras"][camera]
    assert balance["captured"] == balance["judged"] + balance["quarantined"] + balance["shed"]
    rows = line.verdicts(camera)
    assert len({row.frame_id for row in rows}) == len(rows) == balance["judged"]
    return balance


def wait_for_more(line: Line, camera: str, count: int, deadline_s: float = 120) -> None:
    """Return once so many more verdicts are stored."""
    before = len(line.verdicts(camera))
    poll_until(
        lambda: len(line.verdicts(camera)) >= before + count, deadline_s=deadline_s, what="verdicts go on"
    )


def wait_for_new_ingester(line: Line, old_pid: int) -> None:
    """Return once the supervisor has started another one."""

    def is_new() -> bool:
        parts = json.loads(loupe(line.home, "status", "--json", code=None))
        found = next(part for part in parts if part["name"] == "ingest")
        return found["pid"] not in {None, old_pid}

    poll_until(is_new, deadline_s=60, what="a new ingester")


def seconds_pass(seconds: float, process: psutil.Process) -> None:
    """Let a fault last: wait for an end that must not come."""
    with pytest.raises(psutil.TimeoutExpired):
        process.wait(timeout=seconds)


@pytest.mark.parametrize("outage_s", [1, 10, 60])
def test_a_broker_that_stands_still_costs_time_and_no_frame(
    line: Line, running_camera: str, outage_s: float
) -> None:
    broker = psutil.Process(line.pid_of("kafka"))
    before = len(line.verdicts(running_camera))
    broker.send_signal(signal.SIGSTOP)
    try:
        seconds_pass(outage_s, broker)
    finally:
        broker.send_signal(signal.SIGCONT)
    # What was captured meanwhile waited on disk: the rate was kept.
    wait_for_more(line, running_camera, int(FPS * outage_s * 0.7) + 5)
    balance = prove(line, running_camera)
    assert balance["shed"] == 0
    assert balance["judged"] - before >= FPS * outage_s * 0.7


def test_a_killed_broker_costs_no_frame(line: Line, running_camera: str) -> None:
    psutil.Process(line.pid_of("kafka")).send_signal(signal.SIGKILL)
    wait_for_more(line, running_camera, 5 * FPS)
    assert prove(line, running_camera)["shed"] == 0


def test_a_killed_ingester_goes_on_and_nothing_it_took_is_lost(line: Line, running_camera: str) -> None:
    for _ in range(3):
        before = line.pid_of("ingest")
        psutil.Process(before).send_signal(signal.SIGKILL)
        wait_for_new_ingester(line, before)
        wait_for_more(line, running_camera, FPS)
    prove(line, running_camera)


def test_the_ingester_stops_in_time_with_everything_declared(line: Line, running_camera: str) -> None:
    ingester = psutil.Process(line.pid_of("ingest"))
    ingester.send_signal(signal.SIGTERM)
    assert ingester.wait(timeout=10) in {0, None}
    wait_for_new_ingester(line, ingester.pid)
    wait_for_more(line, running_camera, FPS)
    assert prove(line, running_camera)["shed"] == 0


def test_photos_of_a_killed_ingester_are_moved_once(line: Line, tmp_path: Path) -> None:
    inbox, camera = tmp_path / "inbox", f"inbox-{uuid4().hex[:6]}"
    inbox.mkdir()
    photos = [file.read_bytes() for file in sorted((line.photos / "normal").iterdir())]
    loupe(line.home, "camera", "add", camera, str(inbox), "--fps", "20")
    for number in range(60):
        (inbox / f"{number:03d}.jpg").write_bytes(photos[number % len(photos)])
        if number in {20, 40}:
            psutil.Process(line.pid_of("ingest")).send_signal(signal.SIGKILL)
    line.wait_for_balance(camera, captured=60, deadline_s=120)
    poll_until(lambda: not list(inbox.glob("*.jpg")), deadline_s=30, what="all files are moved")
    assert len(list((inbox / "done").rglob("*.jpg"))) == 60
    assert prove(line, camera)["judged"] == 60

"""SIGKILL in mid-run: of the stream, of a unit, of Triton, of the broker, of results: nothing is lost."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from uuid import uuid4

import psutil
import pytest

from tests.e2e.line import LOUPE, Line
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

FRAMES = 80
VICTIMS: dict[str, Callable[[Line], psutil.Process]] = {
    "stream replica": lambda line: line.replica_of("stream:Stream"),
    "inference unit": lambda line: line.replica_of("inspector-parts:Inspector"),
    "tritonserver": lambda line: psutil.Process(line.pid_of("triton")),
    "broker": lambda line: psutil.Process(line.pid_of("kafka")),
    "results": lambda line: psutil.Process(line.pid_of("results")),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_nothing_is_lost_or_doubled_when_a_part_is_killed(line: Line, victim: str) -> None:
    camera = f"fault-{uuid4().hex[:6]}"
    command = [str(LOUPE), "camera", "run", str(line.photos / "normal"), "--camera", camera, "--fps", "10"]
    running = subprocess.Popen(
        [*command, "--loop", "--count", str(FRAMES)],
        env={"LOUPE_HOME": str(line.home), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        poll_until(
            lambda: len(line.verdicts(camera)) >= FRAMES // 8, deadline_s=60, what="the first verdicts"
        )
        VICTIMS[victim](line).send_signal(signal.SIGKILL)
        assert running.wait(timeout=120) == 0
    finally:
        if running.poll() is None:
            running.kill()
    balance = line.wait_for_balance(camera, captured=FRAMES, deadline_s=120)
    assert balance["judged"] + balance["shed"] == FRAMES
    verdicts = line.verdicts(camera)
    assert len({row.frame_id for row in verdicts}) == len(verdicts) == balance["judged"]
    # Only the broker's own absence lets a camera give frames up, and it is back well before that.
    assert balance["shed"] == 0

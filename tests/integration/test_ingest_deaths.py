"""An ingester that is killed between any two steps: nothing is lost, nothing is captured twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from services.embedded.settings import inherited_environment
from tests.integration.arrivals import Arrivals, in_order
from tests.integration.dying_ingester import STEPS

FILES = 40


def run(folder: Path, bootstrap: str, camera: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "tests.integration.dying_ingester", "--folder", str(folder / "in"),
            "--spool", str(folder / "spool"), "--bootstrap", bootstrap, "--camera", camera, *options,
        ],
        env=inherited_environment(), capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_between_any_two_steps_neither_loses_nor_doubles(
    kafka_bootstrap: str, tmp_path: Path, step: str
) -> None:
    camera, inbox = f"cam-{uuid4().hex[:6]}", tmp_path / "in"
    inbox.mkdir()
    names = {f"{number:02}.jpg" for number in range(FILES)}
    for name in names:
        (inbox / name).write_bytes(f"picture {name}".encode())
    # Entries come once a second; of all else the seventh is in mid-run.
    after = "0" if step.startswith("entry") else "7"
    dead = run(tmp_path, kafka_bootstrap, camera, "--step", step, "--after", after)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    done = run(tmp_path, kafka_bootstrap, camera)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("settled"), done.stderr
    topics = Arrivals(kafka_bootstrap)
    frames, shed = topics.wait_until_balanced(camera, FILES)
    topics.close()
    assert shed == []
    # A frame may arrive twice, with one id; a file is one frame.
    by_id = {frame.frame_id: frame.subject for frame in frames}
    assert sorted(by_id.values()) == sorted(names)
    assert in_order(frames)
    assert {file.name for file in (inbox / "done").rglob("*.jpg")} == names
    assert list(inbox.glob("*.jpg")) == []

"""A fit in its own process: results, refusals, crashes, the end of either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from services.domain.errors import NotEnoughImages, Rejected, RetryLater
from services.domain.label import Verdict
from services.domain.model_version import DEFAULT_OPTIONS
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.efficientnet import default_backbone_path
from services.trainer.fit_process import FitJob, FitProcess, TrainingImage
from services.vision.runtime import verify_folder
from tests.poll import poll_until
from tests.unit.trainer.pictures import picture


@pytest.fixture
def folder(tmp_path: Path, backbone: BackboneFile) -> Path:
    if not default_backbone_path().is_file():
        pytest.skip("needs the backbone that `make setup` prepares")
    return tmp_path


def job_of(folder: Path, count: int) -> FitJob:
    images = []
    for seed in range(count):
        (folder / f"{seed}").write_bytes(picture(seed))
        images.append(TrainingImage(f"{seed}", Verdict.NORMAL))
    return FitJob("plates", "v1", DEFAULT_OPTIONS, images)


def children() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):  # ended meanwhile
            if "services.trainer.fit_process" in process.cmdline():
                found.append(process)
    return found


@pytest.fixture
def stubborn(folder: Path) -> Iterator[FitJob]:
    """A job whose child waits for ever: one of its photos is a pipe that nobody writes."""
    os.mkfifo(folder / "pipe")
    yield FitJob("plates", "v1", DEFAULT_OPTIONS, [TrainingImage("pipe", Verdict.NORMAL)])
    assert children() == []


def test_a_fit_leaves_a_whole_folder(folder: Path) -> None:
    model = FitProcess(timeout_s=60).run(job_of(folder, 4), folder)
    manifest = verify_folder(model)
    assert (manifest.project, manifest.version, manifest.train_images) == ("plates", "v1", 4)


def test_too_few_images_are_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(NotEnoughImages, match="at least 2 different photos"):
        FitProcess(timeout_s=60).run(job_of(folder, 1), folder)


def test_a_crash_is_tried_again_and_then_told(folder: Path, stubborn: FitJob) -> None:
    killed: list[int] = []

    def kill_two() -> None:
        for _ in range(2):
            child = poll_until(lambda: [c for c in children() if c.pid not in killed], deadline_s=20)[0]
            killed.append(child.pid)
            child.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_two)
    killer.start()
    with pytest.raises(Rejected, match="ended by signal 9, probably for lack of memory"):
        FitProcess(timeout_s=60).run(stubborn, folder)
    killer.join(10)
    assert len(killed) == 2


def test_a_fit_that_takes_too_long_is_ended(folder: Path, stubborn: FitJob) -> None:
    with pytest.raises(Rejected, match="ended after 1 s"):
        FitProcess(timeout_s=1).run(stubborn, folder)


def test_stop_ends_the_fit_at_once(folder: Path, stubborn: FitJob) -> None:
    process = FitProcess(timeout_s=60)

    def stop_it() -> None:
        poll_until(children, deadline_s=20)
        process.stop()

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    with pytest.raises(RetryLater):
        process.run(stubborn, folder)
    stopper.join(10)
    with pytest.raises(RetryLater):  # and refuses the next
        process.run(stubborn, folder)


def test_a_killed_trainer_takes_its_fit_along(folder: Path, stubborn: FitJob) -> None:
    code = (
        "from pathlib import Path; from services.domain.label import Verdict\n"
        "from services.domain.model_version import FitOptions\n"
        "from services.trainer.fit_process import FitJob, FitProcess, TrainingImage\n"
        f"job = FitJob('plates', 'v1', FitOptions(), [TrainingImage('pipe', Verdict.NORMAL)])\n"
        f"FitProcess(timeout_s=60).run(job, Path({str(folder)!r}))"
    )
    parent = psutil.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    child = poll_until(parent.children, deadline_s=20)[0]
    poll_until(lambda: len(child.threads()) > 1, deadline_s=20, what="the child watches its parent")
    parent.kill()
    parent.wait(10)
    poll_until(lambda: not child.is_running() or child.status() == "zombie", deadline_s=10)

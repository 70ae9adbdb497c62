"""A fit in its own process: results, refusals, crashes, the end of either side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from services.domain.errors import Cancelled, NotEnoughImages, Rejected, RetryLater
from services.domain.label import Split, Verdict
from services.domain.model_version import DEFAULT_OPTIONS, FitOptions
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.efficientnet import default_backbone_path
from services.trainer.fit_process import FitJob, FitProcess, Tell, TrainingImage, job_from
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
    return FitJob("plates", "v1", FitOptions(families=("memory",)), images)


def deaf(stage: str, done_ratio: float) -> None:
    """Take no notice of progress."""


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


def told_to(told: list[tuple[str, float]]) -> Tell:
    return lambda stage, done_ratio: told.append((stage, done_ratio))


def test_a_fit_leaves_a_whole_folder_and_tells_how_far_it_is(folder: Path) -> None:
    told: list[tuple[str, float]] = []
    job = replace(job_of(folder, 4), data_digest="d" * 64, notes=("Entry 9 is gone.",))
    fitted = FitProcess(timeout_s=180).run(job, folder, told_to(told))
    manifest = verify_folder(fitted.model)
    assert (manifest.data_digest, "Entry 9 is gone." in manifest.warnings) == ("d" * 64, True)
    assert (manifest.project, manifest.version, manifest.train_images) == ("plates", "v1", 4)
    assert {stage for stage, _ in told} & {"learn", "calibrate", "write"}
    assert all(0 <= done_ratio <= 1 for _, done_ratio in told)


def test_a_cancelled_fit_is_gone_within_two_seconds(folder: Path, stubborn: FitJob) -> None:
    asked_monotonic_s: list[float] = []

    def cancel_once_it_runs(stage: str, done_ratio: float) -> None:
        if children():
            asked_monotonic_s.append(time.monotonic())
            raise Cancelled("Training t1 was cancelled.")

    with pytest.raises(Cancelled):
        FitProcess(timeout_s=60).run(stubborn, folder, cancel_once_it_runs)
    assert time.monotonic() - asked_monotonic_s[0] < 2
    assert children() == []


def test_a_job_survives_its_way_to_the_child(folder: Path) -> None:
    options = FitOptions(0.05, 10.0, ("memory", "aligned"), True, 2, 7)
    images = [
        TrainingImage("a", Verdict.NORMAL),
        TrainingImage("b", Verdict.ANOMALY, ("dent",), {"dent": "b.mask0.png"}, Split.TEST),
    ]
    job = FitJob("plates", "v1", options, images, "0" * 64, ("Two pictures are equal.",), 5)
    assert job_from(json.dumps(asdict(job))) == job


def test_too_few_images_are_refused_in_a_sentence(folder: Path) -> None:
    with pytest.raises(NotEnoughImages, match="at least 2 different photos"):
        FitProcess(timeout_s=60).run(job_of(folder, 1), folder, deaf)


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
        FitProcess(timeout_s=60).run(stubborn, folder, deaf)
    killer.join(10)
    assert len(killed) == 2


def test_a_fit_that_takes_too_long_is_ended(folder: Path, stubborn: FitJob) -> None:
    with pytest.raises(Rejected, match="ended after 1 s"):
        FitProcess(timeout_s=1).run(stubborn, folder, deaf)


def test_stop_ends_the_fit_at_once(folder: Path, stubborn: FitJob) -> None:
    process = FitProcess(timeout_s=60)

    def stop_it() -> None:
        poll_until(children, deadline_s=20)
        process.stop()

    stopper = threading.Thread(target=stop_it)
    stopper.start()
    with pytest.raises(RetryLater):
        process.run(stubborn, folder, deaf)
    stopper.join(10)
    with pytest.raises(RetryLater):  # and refuses the next
        process.run(stubborn, folder, deaf)


def test_a_killed_trainer_takes_its_fit_along(folder: Path, stubborn: FitJob) -> None:
    code = (
        "from pathlib import Path; from services.domain.label import Split, Verdict\n"
        "from services.domain.model_version import FitOptions\n"
        "from services.trainer.fit_process import FitJob, FitProcess, TrainingImage\n"
        f"job = FitJob('plates', 'v1', FitOptions(), [TrainingImage('pipe', Verdict.NORMAL)])\n"
        f"FitProcess(timeout_s=60).run(job, Path({str(folder)!r}), print)"
    )
    parent = psutil.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    child = poll_until(parent.children, deadline_s=20)[0]
    poll_until(lambda: len(child.threads()) > 1, deadline_s=20, what="the child watches its parent")
    parent.kill()
    parent.wait(10)
    poll_until(lambda: not child.is_running() or child.status() == "zombie", deadline_s=10)

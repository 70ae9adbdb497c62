"""A driver with a Ray of its own: fits, is refused, and is cancelled; prints what it saw as JSON.

    python ray_fits.py FOLDER

FOLDER holds the photos `0`, `1`, ... Its own process, so that Ray, which cannot be ended cleanly inside of
another program, ends with it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from services.domain.errors import Cancelled, NotEnoughImages
from services.domain.label import Verdict
from services.domain.model_version import DEFAULT_OPTIONS
from services.trainer.fit_memory import needed_bytes
from services.trainer.fit_process import FitJob, TrainingImage
from services.trainer.fit_ray import RayFit
from services.vision.runtime import verify_folder
from tests.poll import poll_until


def job_of(count: int) -> FitJob:
    """Return a fit of so many photos."""
    images = [TrainingImage(str(number), Verdict.NORMAL) for number in range(count)]
    return FitJob(
        "plates", f"v{count}", DEFAULT_OPTIONS, images, memory_bytes=needed_bytes(count, 0, DEFAULT_OPTIONS)
    )


def fitters() -> list[psutil.Process]:
    """Return the fits that run on this machine as children of Ray's workers."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "services.trainer.fit_process" in process.cmdline():
                found.append(process)
        except psutil.Error:  # ended meanwhile
            continue
    return found


def main(folder: Path) -> dict[str, Any]:
    """Fit three times."""
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=80 << 20,
        _node_ip_address="127.0.0.1",
    )  # fmt: skip
    fit = RayFit(address="auto", timeout_s=120)
    stages: list[str] = []
    seen: dict[str, Any] = {"offered_bytes": fit.offered_bytes()}

    model = fit.run(job_of(4), folder, lambda stage, _: stages.append(stage)).model
    seen["train_images"] = verify_folder(model).train_images
    seen["is_in_folder"] = model.is_relative_to(folder)
    seen["stages"] = sorted(set(stages))

    try:
        fit.run(job_of(1), folder, lambda *_: None)
    except NotEnoughImages as error:
        seen["refused"] = error.message

    cancelled_monotonic_s: list[float] = []

    def cancel(_stage: str, _done_ratio: float) -> None:
        if fitters():
            cancelled_monotonic_s.append(time.monotonic())
            raise Cancelled("Called off.")

    try:
        fit.run(job_of(6), folder, cancel)
    except Cancelled:
        poll_until(lambda: not fitters(), deadline_s=10)
        seen["gone_after_s"] = time.monotonic() - cancelled_monotonic_s[0]
    return seen


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))

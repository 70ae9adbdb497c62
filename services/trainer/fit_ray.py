"""A fit on a Ray cluster, with the memory, CPUs and GPU that it asks for (arrow 6).

The photos travel to an actor one by one, which fits them as `FitProcess` does and gives the model folder
back. Ends with the actor: a cancelled or stopped fit leaves nothing running. Imports Ray only when it fits.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from services.domain.errors import MissingPart, Rejected, RetryLater
from services.trainer.fit_memory import trains_network
from services.trainer.fit_process import FitJob, FitProcess, FitResult, Tell, job_from, refusal

# What a fit uses: its own threads, see `Recipe.threads`.
_CPUS = 2
# Between two looks at a fit that runs; a cancelled one has to be gone within 2 s.
_LOOK_EVERY_S = 0.5
WAITING = "wait"
_MODELS_FOLDER = "models"
_FOLDER_PREFIX = "loupe-fit-"


class RayFit:
    """Runs one fit at a time on a cluster; `stop` ends it from another thread."""

    def __init__(self, *, address: str, timeout_s: float) -> None:
        """Use the cluster at `address` (`ray://host:10001`, or `host:6379` on one of its nodes)."""
        self._address = address
        self._timeout_s = timeout_s
        self._is_stopped = threading.Event()

    def offered_bytes(self) -> int:
        """Return how much memory the largest node has for tasks.

        Raises:
            RetryLater: the cluster does not answer, or has no node.
        """
        nodes = [one for one in self._ray().nodes() if one["Alive"]]
        if not nodes:
            raise RetryLater("The Ray cluster has no node now.")
        return int(max(one["Resources"].get("memory", 0) for one in nodes))

    def stop(self) -> None:
        """End the fit that runs, and refuse new ones; harmless when none runs."""
        self._is_stopped.set()

    def run(self, job: FitJob, folder: Path, tell: Tell) -> FitResult:
        """See `FitProcess.run`; also waits for a node that has room.

        Raises:
            NotEnoughImages: too few usable normal photos.
            Rejected: the fit refused the data, crashed, or took too long.
            RetryLater: `stop` was called, or the cluster went away.
            MissingPart: Ray is not installed.
        """
        ray = self._ray()
        fitter = ray.remote(Fitter).options(**self._resources(ray, job)).remote(self._timeout_s)

        def tell_progress() -> None:
            with suppress(ray.exceptions.GetTimeoutError):
                tell(*ray.get(fitter.progress.remote(), timeout=_LOOK_EVERY_S))

        try:
            for file in _files_of(job):
                data = (folder / file).read_bytes()
                self._wait_for(ray, fitter.take.remote(file, data), lambda: tell(WAITING, 0.0))
            result = self._wait_for(ray, fitter.fit.remote(json.dumps(asdict(job))), tell_progress)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            message = "The fit was ended on the Ray cluster, probably for lack of memory."
            raise Rejected(message, project=job.project) from error
        except ray.exceptions.RayTaskError as error:  # it would fail again, for ever
            message = f"The fit failed on the Ray cluster: {type(error.cause).__name__}: {error.cause}"
            raise Rejected(message, project=job.project) from error
        except ray.exceptions.RayError as error:
            raise RetryLater(f"The Ray cluster failed: {error}") from error
        finally:
            ray.kill(fitter)
        fitted, files = result
        if isinstance(fitted, str):
            raise refusal(fitted, files)
        return _unpacked(fitted, files, folder / _MODELS_FOLDER)

    def _wait_for(self, ray: Any, reference: Any, tick: Callable[[], None]) -> Any:
        """Return what a call gives, ticking meanwhile."""
        while True:
            if self._is_stopped.is_set():
                raise RetryLater("The trainer is stopping; the training starts again with it.")
            if ray.wait([reference], timeout=_LOOK_EVERY_S)[0]:
                return ray.get(reference)
            tick()

    def _resources(self, ray: Any, job: FitJob) -> dict[str, Any]:
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        return {
            "num_cpus": min(_CPUS, ray.cluster_resources().get("CPU", 0)),
            "num_gpus": 1 if has_gpu and trains_network(job.options) else 0,
            "memory": job.memory_bytes,
            # The fit itself, and the question how far it is.
            "max_concurrency": 2,
        }

    def _ray(self) -> Any:
        """Return Ray, connected.

        Raises:
            MissingPart: it is not installed.
            RetryLater: the cluster does not answer.
        """
        try:
            import ray
        except ImportError as error:
            message = (
                "LOUPE_FIT_RUNS_ON is ray, but Ray is not installed: pip install 'loupe-inspect[serve]'."
            )
            raise MissingPart(message) from error
        try:
            if not ray.is_initialized():
                ray.init(address=self._address, log_to_driver=False)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise RetryLater(f"No Ray cluster answers at {self._address}: {error}") from error
        return ray


class Fitter:
    """The side on the cluster: an actor with a folder of its own."""

    def __init__(self, timeout_s: float) -> None:
        """Give up a fit after `timeout_s`; the cluster watches over the memory."""
        # One that was killed leaves its folder, named by its process, to the next.
        for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
            owner = left.name.removeprefix(_FOLDER_PREFIX)
            # In a container process ids soon come again.
            if owner == str(os.getpid()) or (owner.isdigit() and not psutil.pid_exists(int(owner))):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = Path(tempfile.gettempdir(), f"{_FOLDER_PREFIX}{os.getpid()}")
        self._folder.mkdir(mode=0o700)
        self._fit = FitProcess(timeout_s=timeout_s)
        self._progress: tuple[str, float] = (WAITING, 0.0)

    def take(self, file: str, data: bytes) -> None:
        """Keep a file of the job."""
        (self._folder / file).write_bytes(data)

    def progress(self) -> tuple[str, float]:
        """Return the stage and the share of it done (0-1)."""
        return self._progress

    def fit(self, job: str) -> tuple[FitResult, dict[str, bytes]] | tuple[str, str]:
        """Return what came out with the files of the model folder, or the cause and reason of a refusal."""
        try:
            fitted = self._fit.run(job_from(job), self._folder, self._tell)
            files = sorted(path for path in fitted.model.rglob("*") if path.is_file())
            return fitted, {str(path.relative_to(fitted.model)): path.read_bytes() for path in files}
        except Rejected as error:
            return error.cause, error.message
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _tell(self, stage: str, done_ratio: float) -> None:
        self._progress = (stage, done_ratio)


def _files_of(job: FitJob) -> Iterator[str]:
    for image in job.images:
        yield image.file
        yield from image.masks.values()


def _unpacked(fitted: FitResult, files: Mapping[str, bytes], folder: Path) -> FitResult:
    """Write the files of a model folder into `folder`, under the version's own name."""
    model = folder / fitted.model.name
    shutil.rmtree(model, ignore_errors=True)
    for place, data in files.items():
        file = model / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return replace(fitted, model=model)

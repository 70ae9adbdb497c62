"""A fit in a process of its own: its memory and its crash stay its own (arrow 6).

`FitProcess.run` writes the job as JSON into a folder and starts this module on it, which fits and
leaves `result.json` there. The child ends itself when its parent dies: it holds the other end of
the parent's pipe. Does not register.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from services.domain.errors import LoupeError, NotEnoughImages, Rejected, RetryLater
from services.domain.label import Verdict
from services.domain.model_version import FitOptions

logger = logging.getLogger(__name__)

_JOB_FILE, _RESULT_FILE, _MODELS_FOLDER = "job.json", "result.json", "models"
# Lower priority than the replicas that judge live frames on the same cores.
_NICE = 10
# A child that crashed may have met a moment without memory: once more, then it is the data.
_TRIES = 2
_EXIT_WITHOUT_PARENT = 3


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One photo of a job.

    Attributes:
        file: name inside the job's folder.
        verdict: NORMAL trains, ANOMALY only tests.
    """

    file: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class FitJob:
    """What a fit needs to know; see `services.trainer.fit.fit_model`."""

    project: str
    version: str
    options: FitOptions
    images: Sequence[TrainingImage]


class FitProcess:
    """Runs one fit at a time; `stop` ends it from another thread."""

    def __init__(self, *, timeout_s: float) -> None:
        """Give up a fit after `timeout_s`."""
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, job: FitJob, folder: Path) -> Path:
        """Fit from the photos in `folder` and return the model folder; blocks for as long as it takes.

        Raises:
            NotEnoughImages: too few usable normal photos.
            Rejected: the fit refused the data, crashed twice, or took too long.
            RetryLater: `stop` was called.
        """
        (folder / _JOB_FILE).write_text(json.dumps(asdict(job)))
        for attempt in range(1, _TRIES + 1):
            status = self._run_child(folder)
            if status == 0:
                return _result_of(folder)
            logger.warning("fit %s of %s ended with status %d", job.version, job.project, status)
            if attempt == _TRIES:
                raise Rejected(_crash_sentence(status), project=job.project, status=status)
        raise AssertionError("unreachable")

    def stop(self) -> None:
        """End the fit that runs, and refuse new ones; harmless when none runs."""
        with self._lock:
            self._is_stopped = True
            if self._child is not None:
                self._child.kill()

    def _run_child(self, folder: Path) -> int:
        """Return the child's exit status; negative is a signal."""
        shutil.rmtree(folder / _MODELS_FOLDER, ignore_errors=True)
        command = [sys.executable, "-m", __name__, str(folder)]
        with self._lock:
            self._refuse_when_stopped()
            child = self._child = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            status = child.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            message = f"The fit was ended after {self._timeout_s:.0f} s; use fewer photos."
            raise Rejected(message, timeout_s=self._timeout_s) from None
        finally:
            child.kill()
            child.communicate()
            with self._lock:
                self._child = None
        self._refuse_when_stopped()
        return status

    def _refuse_when_stopped(self) -> None:
        if self._is_stopped:
            raise RetryLater("The trainer is stopping; the training starts again with it.")


def _crash_sentence(status: int) -> str:
    if status < 0:
        hint = ", probably for lack of memory" if -status == signal.SIGKILL else ""
        return f"The fit was ended by signal {-status}{hint}."
    return f"The fit ended with status {status}; the trainer's log says why."


def _result_of(folder: Path) -> Path:
    result = json.loads((folder / _RESULT_FILE).read_text())
    if "model" in result:
        return Path(result["model"])
    kind = NotEnoughImages if result["cause"] == NotEnoughImages.__name__ else Rejected
    raise kind(result["reason"])


def _end_with_parent() -> None:
    """Block until the parent closes its end of the pipe, then end at once."""
    # Not sys.stdin: its lock, held by this thread, makes the interpreter abort at its end.
    while os.read(0, 1):
        pass
    os._exit(_EXIT_WITHOUT_PARENT)


def _fit(folder: Path) -> dict[str, str]:
    """Return what `result.json` is to say."""
    # Imported here: the parent reads this module, too, and stays small.
    from services.trainer.dataset import LabelledImage
    from services.trainer.fit import fit_model

    job = json.loads((folder / _JOB_FILE).read_text())
    images = [
        LabelledImage(folder / one["file"], one["file"], Verdict(one["verdict"])) for one in job["images"]
    ]
    try:
        fitted = fit_model(
            images,
            project=job["project"],
            version=job["version"],
            out_dir=folder / _MODELS_FOLDER,
            options=FitOptions(**job["options"]),
        )
    except LoupeError as error:
        return {"cause": error.cause, "reason": error.message}
    return {"model": str(fitted.folder)}


def main(folder: Path) -> None:
    """Fit what `job.json` in `folder` describes."""
    from services.adapters.logs import configure_logging

    configure_logging("trainer.fit")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICE)
    (folder / _RESULT_FILE).write_text(json.dumps(_fit(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

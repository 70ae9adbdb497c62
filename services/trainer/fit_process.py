"""A fit in a process of its own: its memory and its crash stay its own (arrow 6).

`FitProcess.run` writes the job as JSON into a folder and starts this module on it, which fits, tells how
far it is in `progress.json` and leaves `result.json` there. The child ends itself when its parent dies: it
holds the other end of the parent's pipe. Does not register.
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
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.domain.errors import LoupeError, NotEnoughImages, Rejected, RetryLater
from services.domain.label import Split, Verdict
from services.domain.model_version import FitOptions
from services.trainer.fit_memory import offered_here_bytes

if TYPE_CHECKING:
    from services.trainer.dataset import LabelledImage

logger = logging.getLogger(__name__)

_JOB_FILE, _PROGRESS_FILE, _RESULT_FILE, _MODELS_FOLDER = (
    "job.json", "progress.json", "result.json", "models",
)  # fmt: skip
# Until the child has told anything: it imports its libraries.
_STARTING = "read"
# A cancelled fit has to be gone within 2 s: this, a second between two looks at the job, and the kill.
_LOOK_EVERY_S = 0.25
# Lower priority than the replicas that judge live frames on the same cores.
_NICE = 10
# A child that crashed may have met a moment without memory: once more, then it is the data.
_TRIES = 2
_EXIT_WITHOUT_PARENT = 3


# Told by whoever works: the stage, and the share of it done (0-1).
Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """One photo of a job; see `services.trainer.dataset.LabelledImage`.

    Attributes:
        file: name inside the job's folder.
        masks: anomaly type -> name of a PNG inside the job's folder.
    """

    file: str
    verdict: Verdict
    types: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class FitJob:
    """What a fit needs to know; see `services.trainer.fit.fit_model`.

    Attributes:
        data_digest: of the dataset version that the images are.
        notes: what is to be said of the data beside what the fit itself finds.
        memory_bytes: what it is going to take, estimated.
    """

    project: str
    version: str
    options: FitOptions
    images: Sequence[TrainingImage]
    data_digest: str = ""
    notes: tuple[str, ...] = ()
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a fit gives back.

    Attributes:
        model: the model folder.
        left_out: sentences about photos that it went on without.
        near_duplicates: sentences about photos that show nearly the same.
    """

    model: Path
    left_out: tuple[str, ...] = ()
    near_duplicates: tuple[str, ...] = ()


class FitProcess:
    """Runs one fit at a time; `stop` ends it from another thread."""

    def __init__(self, *, timeout_s: float, memory_bytes: int | None = None) -> None:
        """Give up a fit after `timeout_s`; None of memory: most of what the machine has."""
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def offered_bytes(self) -> int:
        """Return how much memory a fit may take."""
        return self._memory_bytes or offered_here_bytes()

    def run(self, job: FitJob, folder: Path, tell: Tell) -> FitResult:
        """Fit from the photos in `folder`; blocks for as long as it takes.

        Args:
            job: what to fit.
            folder: holds the photos; the model folder is made in it.
            tell: told how far it is, several times a second; an error that it raises ends the fit.

        Raises:
            NotEnoughImages: too few usable normal photos.
            Rejected: the fit refused the data, crashed twice, or took too long.
            RetryLater: `stop` was called.
        """
        (folder / _JOB_FILE).write_text(json.dumps(asdict(job)))
        for attempt in range(1, _TRIES + 1):
            status = self._run_child(folder, tell)
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

    def _run_child(self, folder: Path, tell: Tell) -> int:
        """Return the child's exit status; negative is a signal."""
        shutil.rmtree(folder / _MODELS_FOLDER, ignore_errors=True)
        (folder / _PROGRESS_FILE).unlink(missing_ok=True)
        command = [sys.executable, "-m", __name__, str(folder)]
        with self._lock:
            self._refuse_when_stopped()
            child = self._child = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            status = self._wait_for(child, folder, tell)
        finally:
            child.kill()
            child.communicate()
            with self._lock:
                self._child = None
        self._refuse_when_stopped()
        return status

    def _wait_for(self, child: subprocess.Popen[bytes], folder: Path, tell: Tell) -> int:
        give_up_monotonic_s = time.monotonic() + self._timeout_s
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_LOOK_EVERY_S)
            if time.monotonic() > give_up_monotonic_s:
                message = f"The fit was ended after {self._timeout_s:.0f} s; use fewer photos."
                raise Rejected(message, timeout_s=self._timeout_s)
            tell(*_read_progress(folder))

    def _refuse_when_stopped(self) -> None:
        if self._is_stopped:
            raise RetryLater("The trainer is stopping; the training starts again with it.")


def _crash_sentence(status: int) -> str:
    if status < 0:
        hint = ", probably for lack of memory" if -status == signal.SIGKILL else ""
        return f"The fit was ended by signal {-status}{hint}."
    return f"The fit ended with status {status}; the trainer's log says why."


def _result_of(folder: Path) -> FitResult:
    result = json.loads((folder / _RESULT_FILE).read_text())
    if "model" in result:
        return FitResult(
            folder / result["model"], tuple(result["left_out"]), tuple(result["near_duplicates"])
        )
    raise refusal(result["cause"], result["reason"])


def refusal(cause: str, reason: str) -> Rejected:
    """Return what a fit refused its data with."""
    return (NotEnoughImages if cause == NotEnoughImages.__name__ else Rejected)(reason)


def job_from(text: str) -> FitJob:
    """Return a job as it was before it became JSON."""
    told = json.loads(text)
    options = {**told["options"], "families": tuple(told["options"]["families"])}
    images = [
        TrainingImage(
            one["file"],
            Verdict(one["verdict"]),
            tuple(one["types"]),
            one["masks"],
            Split(one["split"]) if one["split"] else None,
        )
        for one in told["images"]
    ]
    return FitJob(
        **{**told, "options": FitOptions(**options), "images": images, "notes": tuple(told["notes"])}
    )


def end_with_parent() -> None:
    """Block until the parent closes its end of the pipe, then end at once."""
    # Not sys.stdin: its lock, held by this thread, makes the interpreter abort at its end.
    while os.read(0, 1):
        pass
    os._exit(_EXIT_WITHOUT_PARENT)


def _read_progress(folder: Path) -> tuple[str, float]:
    """Return the stage and the share of it done (0-1)."""
    try:
        told = json.loads((folder / _PROGRESS_FILE).read_text())
    except FileNotFoundError:
        return _STARTING, 0.0
    return told["stage"], told["done_ratio"]


class _ProgressFile:
    """Writes how far the fit is, for the parent; whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _PROGRESS_FILE
        self._stage, self._written_monotonic_s = "", 0.0

    def tell(self, stage: str, done_ratio: float) -> None:
        """Write it, unless the same stage was written a moment ago."""
        now_s = time.monotonic()
        if stage == self._stage and now_s - self._written_monotonic_s < _LOOK_EVERY_S:
            return
        self._stage, self._written_monotonic_s = stage, now_s
        arriving = self._file.with_suffix(".new")
        arriving.write_text(json.dumps({"stage": stage, "done_ratio": done_ratio}))
        arriving.replace(self._file)


def _fit(folder: Path) -> dict[str, Any]:
    """Return what `result.json` is to say."""
    # Imported here: the parent reads this module, too, and stays small.
    from services.trainer.fit import fit_model

    job = job_from((folder / _JOB_FILE).read_text())
    try:
        fitted = fit_model(
            [_labelled(folder, one) for one in job.images],
            project=job.project,
            version=job.version,
            out_dir=folder / _MODELS_FOLDER,
            options=job.options,
            progress=_ProgressFile(folder).tell,
            data_digest=job.data_digest,
            notes=job.notes,
        )
    except LoupeError as error:
        return {"cause": error.cause, "reason": error.message}
    return {
        "model": str(fitted.folder.relative_to(folder)),
        "left_out": [f"Entry {one.name} is left out: {one.reason}" for one in fitted.skipped],
        "near_duplicates": fitted.near_duplicates,
    }


def _labelled(folder: Path, one: TrainingImage) -> LabelledImage:
    from services.trainer.dataset import LabelledImage

    masks = {name: folder / file for name, file in one.masks.items()}
    return LabelledImage(folder / one.file, one.file, one.verdict, one.types, masks, one.split)


def main(folder: Path) -> None:
    """Fit what `job.json` in `folder` describes."""
    from services.adapters.logs import configure_logging

    configure_logging("trainer.fit")
    threading.Thread(target=end_with_parent, daemon=True).start()
    os.nice(_NICE)
    (folder / _RESULT_FILE).write_text(json.dumps(_fit(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

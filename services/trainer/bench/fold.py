"""One fit and its test in a process of its own, so that memory and time are its own (arrow 6).

`run_fold` writes a job as JSON into a folder and starts this module on it; the child fits, judges the photos
held out and leaves `fold.json` with arrays beside it. Measures time and memory of the fit alone, before
anything is judged.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import LoupeError, Rejected
from services.domain.label import Verdict
from services.domain.model_version import FitOptions
from services.trainer.bench.protocols import Protocol, folds_of
from services.trainer.bench.sets import read_sets
from services.trainer.evaluating import Judged, judge_photos
from services.trainer.evaluation.by_type import TypeMasks
from services.trainer.evaluation.outcome import Outcome
from services.trainer.fit_process import end_with_parent

_JOB, _RESULT, _LOG = "job.json", "fold.json", "log"
_ARRAYS = ("maps", "masks", "drawn", "found")
# Restoration with its full training is the longest that a bench asks for.
_TIMEOUT_S = 3600.0
THREADS = 2
_WARM_UP, _TIMED = 10, 50


@dataclass(frozen=True, slots=True)
class FoldJob:
    """What to fit and test.

    Attributes:
        data: folder of the sets.
        set_name: which of them.
        protocol: which photos train.
        fold: number of the fit within the protocol, from 0.
        families: names; empty: auto.
        is_thorough: see `FitOptions`.
        backbone: see `services.trainer.backbones.opening.open_backbone`; empty: the default.
        seed: of split and fit.
        max_false_reject_ratio: the promise.
    """

    data: str
    set_name: str
    protocol: Protocol
    fold: int
    families: tuple[str, ...] = ()
    is_thorough: bool = False
    backbone: str = ""
    seed: int = 0
    max_false_reject_ratio: float = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """What a fit and its graph take.

    Attributes:
        fit_s: seconds of the fit, with reading the photos and writing the model folder.
        peak_rss_bytes: of the process until the fit was done.
        ms: milliseconds an image at batch 1, two threads, fp32, without decoding: median of 50.
        serving_ms: the same in the precision that serves.
        file_bytes: of the fp32 graph.
    """

    fit_s: float
    peak_rss_bytes: int
    ms: float
    serving_ms: float
    file_bytes: int


@dataclass(frozen=True, slots=True)
class FoldResult:
    """What a fold came to.

    Attributes:
        judged: scores read as standard deviations above the threshold, so that folds compare.
        family: what auto chose.
        serving: name of the precision that serves.
    """

    judged: Judged
    cost: Cost
    family: str
    serving: str
    warnings: tuple[str, ...]


def run_fold(job: FoldJob, folder: Path) -> FoldResult:
    """Fit and test in a child process; blocks for as long as it takes.

    Raises:
        Rejected: the fit refused, or the child crashed.
    """
    folder.mkdir(parents=True)
    (folder / _JOB).write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", __name__, str(folder)]
    with (folder / _LOG).open("wb") as log:
        # The child holds the other end of this pipe and ends when it closes, at the latest with this process.
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        try:
            status = child.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            message = f"The fit was ended after {_TIMEOUT_S:.0f} s."
            raise Rejected(message, timeout_s=_TIMEOUT_S) from None
        finally:
            child.kill()
            child.communicate()
    if not (folder / _RESULT).is_file():
        last = ((folder / _LOG).read_text(errors="replace").strip().splitlines() or [f"status {status}"])[-1]
        raise Rejected(f"The fit crashed: {last}", status=status)
    result = json.loads((folder / _RESULT).read_text())
    if "reason" in result:
        raise Rejected(result["reason"])
    return _result_of(result, folder)


def median_ms(infer: Callable[[NDArray[np.uint8]], object], pixels: NDArray[np.uint8]) -> float:
    """Return the median milliseconds of `infer(pixels)` over 50 calls, after 10 that do not count."""
    times_ms = []
    for _ in range(_WARM_UP + _TIMED):
        started_s = time.perf_counter()
        infer(pixels)
        times_ms.append(1000 * (time.perf_counter() - started_s))
    return float(np.median(times_ms[_WARM_UP:]))


def _result_of(result: Mapping[str, Any], folder: Path) -> FoldResult:
    outcomes = tuple(
        Outcome(
            **{
                **one,
                "truth": Verdict(one["truth"]),
                "verdict": Verdict(one["verdict"]),
                "types": tuple(one["types"]),
                "found_types": tuple(one["found_types"]),
            }
        )
        for one in result["outcomes"]
    )
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in _ARRAYS
        if (folder / f"{name}.npy").is_file()
    }
    types = TypeMasks(tuple(result["types"]), arrays["drawn"], arrays["found"]) if result["types"] else None
    judged = Judged(outcomes, arrays.get("maps"), arrays.get("masks"), types)
    cost = Cost(**result["cost"])
    return FoldResult(judged, cost, result["family"], result["serving"], tuple(result["warnings"]))


def _fit_and_test(folder: Path, job: FoldJob) -> dict[str, Any]:
    """Return what `fold.json` is to say."""
    # Imported here: the parent reads this module, too, and needs neither.
    from services.trainer.fit import Recipe, fit_model
    from services.vision.runtime import GraphSession, OnnxModel
    from services.vision.variants import MODEL_FILE

    one = read_sets(Path(job.data), [job.set_name])[0]
    fold = folds_of(one, job.protocol, job.seed)[job.fold]
    started_s = time.monotonic()
    fitted = fit_model(
        fold.train,
        project="bench",
        version="v",
        out_dir=folder / "models",
        options=FitOptions(
            max_false_reject_ratio=job.max_false_reject_ratio,
            families=job.families,
            is_thorough=job.is_thorough,
            seed=job.seed,
        ),
        recipe=Recipe(backbone=job.backbone or None, threads=THREADS),
    )
    fit_s = time.monotonic() - started_s
    peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    file = fitted.folder / MODEL_FILE
    model = OnnxModel(fitted.folder, threads=THREADS)
    judged = judge_photos(fold.test, model)
    _, height_px, width_px, _ = fitted.manifest.inputs[0].shape
    pixels = np.zeros((1, height_px, width_px, 3), np.uint8)
    cost = Cost(
        fit_s=fit_s,
        peak_rss_bytes=peak_rss_bytes,
        ms=median_ms(GraphSession(file, threads=THREADS).infer, pixels),
        serving_ms=median_ms(model.infer, pixels),
        file_bytes=file.stat().st_size,
    )
    calibration = fitted.manifest.calibration
    _save_arrays(folder, judged, calibration.map_threshold)
    return {
        "outcomes": [
            {**asdict(one), "score": (one.score - calibration.threshold) / calibration.normal_sd}
            for one in judged.outcomes
        ],
        "types": judged.type_masks.types if judged.type_masks else (),
        "cost": asdict(cost),
        "family": fitted.manifest.family,
        "serving": fitted.manifest.serving,
        "warnings": fitted.manifest.warnings,
    }


def _save_arrays(folder: Path, judged: Judged, map_threshold: float) -> None:
    """Write what was drawn and found; maps read from the threshold of their fold."""
    if judged.maps is None or judged.masks is None:
        return
    np.save(folder / "maps.npy", judged.maps - np.float32(map_threshold), allow_pickle=False)
    np.save(folder / "masks.npy", judged.masks, allow_pickle=False)
    if judged.type_masks is not None:
        np.save(folder / "drawn.npy", judged.type_masks.drawn, allow_pickle=False)
        np.save(folder / "found.npy", judged.type_masks.found, allow_pickle=False)


def main(folder: Path) -> None:
    """Do what `job.json` in `folder` says."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    said = json.loads((folder / _JOB).read_text())
    job = FoldJob(**{**said, "protocol": Protocol(said["protocol"]), "families": tuple(said["families"])})
    try:
        result = _fit_and_test(folder, job)
    except LoupeError as error:
        result = {"reason": error.message}
    (folder / _RESULT).write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

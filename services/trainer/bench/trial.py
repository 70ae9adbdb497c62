"""One row of the bench: a set, a protocol, families, a backbone and a seed -> figures (arrow 6).

Runs the protocol's fits one after the other, puts what was said of all photos together and evaluates it
once. Figures of time and memory are medians over the fits.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, LoupeError
from services.trainer.bench.fold import FoldJob, FoldResult, run_fold
from services.trainer.bench.protocols import Protocol, folds_of
from services.trainer.bench.sets import BenchSet
from services.trainer.bench.shares import wilson
from services.trainer.evaluating import Judged
from services.trainer.evaluation.by_type import TypeMasks
from services.trainer.families import all_families

# What the fit chooses from: all families that take seconds, or also those that train for minutes.
AUTO, THOROUGH = "auto", "thorough"


def check_families(asked: Sequence[str]) -> None:
    """Refuse what no trial could fit.

    Args:
        asked: as in `Trial`.

    Raises:
        BadRequest: one of them does not exist.
    """
    known = [one.name for one in all_families()]
    for name in (name for one in asked if one not in {AUTO, THOROUGH} for name in one.split("+")):
        if name not in known:
            message = f"There is no family {name}; there are {', '.join(known)}, and {AUTO} and {THOROUGH}."
            raise BadRequest(message, family=name)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    Attributes:
        families: names joined by `+`, `auto` or `thorough`.
        backbone: see `FoldJob.backbone`; empty: the default.
    """

    set_name: str
    protocol: Protocol
    families: str
    backbone: str
    seed: int
    max_false_reject_ratio: float = 0.02

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it from other trials."""
        return tuple(str(value) for value in asdict(self).values())


# A trial with what it came to, as it stands in the file: see `run_trial`.
TrialRecord = Mapping[str, Any]


def key_of(record: TrialRecord) -> tuple[str, ...]:
    """Return the key of the trial that a record is of."""
    return tuple(str(record[name]) for name in Trial.__slots__)


def run_trial(trial: Trial, one: BenchSet, data: Path) -> dict[str, Any]:
    """Return the trial's record: the trial itself, and `metrics`, `intervals`, `types`, `cost`, or `reason`.

    A trial that cannot be done has a `reason` instead: a family refused the photos, or a fit crashed.
    """
    started_s = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="loupe-bench-"))
    record: dict[str, Any] = {**asdict(trial), "photos": one.counts}
    try:
        folds = range(len(folds_of(one, trial.protocol, trial.seed)))
        record |= _figures([run_fold(_job(trial, fold, data), folder / str(fold)) for fold in folds], one)
    except LoupeError as error:
        record["reason"] = error.message
    finally:
        shutil.rmtree(folder)
    return {**record, "took_s": round(time.monotonic() - started_s, 1)}


def _job(trial: Trial, fold: int, data: Path) -> FoldJob:
    families = () if trial.families in {AUTO, THOROUGH} else tuple(trial.families.split("+"))
    return FoldJob(
        data=str(data.resolve()),
        set_name=trial.set_name,
        protocol=trial.protocol,
        fold=fold,
        families=families,
        is_thorough=trial.families == THOROUGH,
        backbone=trial.backbone,
        seed=trial.seed,
        max_false_reject_ratio=trial.max_false_reject_ratio,
    )


def _figures(folds: Sequence[FoldResult], one: BenchSet) -> dict[str, Any]:
    """Return what the folds of a set came to together."""
    judged = pooled([fold.judged for fold in folds])
    evaluation = judged.evaluation()
    intervals: dict[str, Sequence[float]] = dict(evaluation.intervals)
    # A bootstrap of photos that were all judged rightly has no width; these are counted shares.
    for name, count in (("false_reject_ratio", len(one.normals)), ("recall_ratio", len(one.anomalies))):
        if name in evaluation.metrics:
            intervals[name] = wilson(evaluation.metrics[name], count)
    return {
        "metrics": _rounded(evaluation.metrics),
        "intervals": {name: [round(end, 4) for end in ends] for name, ends in intervals.items()},
        "types": [
            {name: value for name, value in asdict(row).items() if value is not None}
            for row in evaluation.types
        ],
        "counts": asdict(evaluation.counts),
        "cost": _rounded(
            {
                name: statistics.median(getattr(fold.cost, name) for fold in folds)
                for name in folds[0].cost.__slots__
            }
        ),
        "chosen": sorted({fold.family for fold in folds}),
        "serving": sorted({fold.serving for fold in folds}),
        "warnings": sorted({warning for fold in folds for warning in fold.warnings}),
    }


def pooled(parts: Sequence[Judged]) -> Judged:
    """Return what several models said of different photos as if one had."""
    if len(parts) == 1:
        return parts[0]
    outcomes = tuple(outcome for part in parts for outcome in part.outcomes)
    maps, masks = _joined([part.maps for part in parts]), _joined([part.masks for part in parts])
    kinds = [part.type_masks for part in parts if part.type_masks is not None]
    types = None
    if len(kinds) == len(parts):
        drawn, found = _joined([one.drawn for one in kinds]), _joined([one.found for one in kinds])
        types = TypeMasks(kinds[0].types, drawn, found) if drawn is not None and found is not None else None
    return Judged(outcomes, maps, masks, types)


def _joined(parts: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return the arrays one after the other; None unless all are there."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if len(present) == len(parts) else None


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in numbers.items()}

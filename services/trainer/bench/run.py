"""All trials one after the other, each written down at once, so that what was done is not lost (arrow 6).

A run that was interrupted goes on where it stopped: trials that the file already holds are not done again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from services.domain.errors import BadRequest
from services.trainer.bench.machine import this_machine
from services.trainer.bench.protocols import Protocol
from services.trainer.bench.sets import BenchSet
from services.trainer.bench.trial import AUTO, Trial, TrialRecord, key_of, run_trial

FORMAT = 1
# Families that look at good parts alone are the same with labels as without.
USUAL_FAMILIES: Mapping[Protocol, tuple[str, ...]] = {
    Protocol.NORMALS_ONLY: (AUTO, "memory", "aligned"),
    Protocol.SUPERVISED: (AUTO, "supervised"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tried, everything with everything.

    Attributes:
        families: as in `Trial`; other ones are worth trying with labels than without.
        backbones: as in `Trial`.
    """

    sets: tuple[BenchSet, ...]
    protocols: tuple[Protocol, ...]
    families: Mapping[Protocol, tuple[str, ...]]
    backbones: tuple[str, ...]
    seeds: tuple[int, ...]
    max_false_reject_ratio: float = 0.02

    @property
    def trials(self) -> tuple[tuple[Trial, BenchSet], ...]:
        """All trials with their sets, seed by seed: the first seed alone makes a whole table."""
        return tuple(
            (Trial(one.name, protocol, families, backbone, seed, self.max_false_reject_ratio), one)
            for seed, protocol, backbone in product(self.seeds, self.protocols, self.backbones)
            for families, one in product(self.families[protocol], self.sets)
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One trial of a run was done.

    Attributes:
        done: trials that are done, with those of earlier runs.
        left_s: seconds that the others will take, by what this run's took on average.
    """

    record: TrialRecord
    done: int
    total: int
    left_s: float


def run(
    plan: Plan,
    data: Path,
    out: Path,
    *,
    command: str,
    tell: Callable[[Step], None],
    do: Callable[[Trial, BenchSet, Path], dict[str, Any]] = run_trial,
) -> dict[str, Any]:
    """Run the trials that `out` does not hold yet and return all of the plan, as written there.

    Args:
        plan: what to try.
        data: folder of the sets.
        out: JSON file, made or gone on with.
        command: for the record.
        tell: told of each trial done now.
        do: what does one.

    Raises:
        BadRequest: `out` is no such file.
    """
    kept = {key_of(record): record for record in _read(out)}
    wanted = plan.trials
    left = [(trial, one) for trial, one in wanted if trial.key not in kept]
    started_s = time.monotonic()
    document = _document(kept, command)
    for done, (trial, one) in enumerate(left, start=1):
        kept[trial.key] = do(trial, one, data)
        document = _document(kept, command)
        write_whole(out, document)
        left_s = (time.monotonic() - started_s) / done * (len(left) - done)
        tell(Step(kept[trial.key], len(wanted) - len(left) + done, len(wanted), left_s))
    keys = {trial.key for trial, _ in wanted}
    return {**document, "trials": [record for key, record in kept.items() if key in keys]}


def _document(kept: dict[tuple[str, ...], TrialRecord], command: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(this_machine()),
        "command": command,
        "trials": list(kept.values()),
    }


def _read(out: Path) -> Sequence[TrialRecord]:
    """Return the trials that a file holds; none where there is no file."""
    if not out.is_file():
        return ()
    try:
        document = json.loads(out.read_text())
        trials: list[dict[str, Any]] = document["trials"]
        if document["format"] == FORMAT and all(key_of(one) for one in trials):
            # What could not be done may be possible now.
            return [one for one in trials if "reason" not in one]
    except (ValueError, KeyError, TypeError):
        pass
    raise BadRequest(f"{out} is not a file of `loupe bench`; give another with --out.", file=str(out))


def write_whole(out: Path, document: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step: an interruption leaves the old one or the new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(out.suffix + ".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(out)

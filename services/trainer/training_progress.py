"""How far a training is and when it will end, told in its job at most once a second (arrow 6).

The same call tells the trainer that somebody has cancelled it. Knows nothing of what the stages do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from services.adapters.clock import Clock
from services.domain.errors import Cancelled, RetryLater
from services.trainer.jobs import PROMOTING, Jobs

logger = logging.getLogger(__name__)

FETCHING = "fetch"
# Seconds of each stage for 30 photos without a network to train, until a training of the project was
# measured here; only their proportions count, the pace is measured as the training goes.
USUAL_S: Mapping[str, float] = {
    FETCHING: 0.5, "read": 0.5, "learn": 3.0, "choose": 2.0, "calibrate": 4.0, "write": 0.5, PROMOTING: 2.0,
}  # fmt: skip
# Before this much time and this share of the work a pace is a guess.
_LEAST_S, _LEAST_RATIO = 1.0, 0.02
_TELL_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a training is.

    Attributes:
        done_ratio: of the whole (0-1); never falls.
        eta_s: seconds to its end; None: not known yet.
    """

    done_ratio: float
    eta_s: float | None


class Estimate:
    """Turns stages into one share and a time, by the usual lengths of stages and the pace so far."""

    def __init__(self, usual_s: Mapping[str, float], started_monotonic_s: float) -> None:
        """Expect stages in the order of `usual_s`, as long as it says."""
        self._measured_s: dict[str, float] = {}
        self._usual_s = dict(usual_s)
        self._started_s = self._stage_started_s = started_monotonic_s
        self._stage = ""
        self._passed: list[str] = []
        self._done_ratio = 0.0

    def at(self, stage: str, stage_ratio: float, now_monotonic_s: float) -> Standing:
        """Return how far the training is, with `stage_ratio` (0-1) of `stage` done."""
        if stage != self._stage:
            self._begin(stage, now_monotonic_s)
        whole = sum(self._usual_s.values())
        ahead = list(self._usual_s)[list(self._usual_s).index(stage) + 1 :]
        done = whole - sum(self._usual_s[one] for one in ahead) - self._usual_s[stage] * (1 - stage_ratio)
        self._done_ratio = max(self._done_ratio, min(1.0, done / whole))
        elapsed_s = now_monotonic_s - self._started_s
        if elapsed_s < _LEAST_S or done < _LEAST_RATIO * whole:
            return Standing(self._done_ratio, None)
        return Standing(self._done_ratio, elapsed_s / done * max(0.0, whole - done))

    def end(self, now_monotonic_s: float) -> dict[str, float]:
        """Return how long each stage took."""
        self._end_stage(now_monotonic_s)
        return self._measured_s

    def _begin(self, stage: str, now_monotonic_s: float) -> None:
        if self._stage:
            self._end_stage(now_monotonic_s)
        if stage not in self._usual_s:
            self._usual_s = _inserted(self._usual_s, after=self._stage, stage=stage)
        self._stage = stage

    def _end_stage(self, now_monotonic_s: float) -> None:
        took_s = now_monotonic_s - self._stage_started_s
        self._measured_s[self._stage] = self._measured_s.get(self._stage, 0.0) + took_s
        self._stage_started_s = now_monotonic_s


class ProgressReport:
    """Tells one training's progress; an instance is a `fit_process.Tell`."""

    def __init__(self, jobs: Jobs, clock: Clock, training_id: str, estimate: Estimate) -> None:
        """Write into the job `training_id`."""
        self._jobs, self._clock, self._training_id, self._estimate = jobs, clock, training_id, estimate
        self._told_monotonic_s: float | None = None

    def __call__(self, stage: str, stage_ratio: float) -> None:
        """Tell how far it is, unless that was told within the last second.

        Raises:
            Cancelled: somebody called it off.
        """
        now_s = self._clock.monotonic_s()
        standing = self._estimate.at(stage, stage_ratio, now_s)
        if self._told_monotonic_s is not None and now_s - self._told_monotonic_s < _TELL_EVERY_S:
            return
        self._told_monotonic_s = now_s
        try:
            self._write(stage, standing)
        except RetryLater as error:
            logger.warning("progress is not told: %s", error.message)  # the work itself goes on

    def close_door(self) -> None:
        """Tell that the version is being promoted: from now on nobody can cancel it.

        Raises:
            Cancelled: somebody was faster.
            DatabaseUnavailable: try again.
        """
        self._write(PROMOTING, self._estimate.at(PROMOTING, 0.0, self._clock.monotonic_s()))

    def _write(self, stage: str, standing: Standing) -> None:
        now = self._clock.now()
        if not self._jobs.tell(self._training_id, stage, standing.done_ratio, standing.eta_s, now):
            raise Cancelled(f"Training {self._training_id} was cancelled.", training_id=self._training_id)


def _inserted(usual_s: Mapping[str, float], *, after: str, stage: str) -> dict[str, float]:
    """Return the stages with one that nobody foresaw, as long as the others are on average."""
    length_s = sum(usual_s.values()) / len(usual_s)
    made: dict[str, float] = {} if after in usual_s else {stage: length_s}
    for name, usual in usual_s.items():
        made[name] = usual
        if name == after:
            made[stage] = length_s
    return made

"""A run writes each trial down, goes on where it stopped, and never does a trial twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from services.domain.errors import BadRequest
from services.trainer.bench.protocols import Protocol
from services.trainer.bench.run import Plan, Step, run
from services.trainer.bench.sets import BenchSet
from services.trainer.bench.trial import Trial
from tests.unit.trainer.bench.made import bench_set, record


class Bench:
    """Does trials; the one with `stops_at` is interrupted."""

    def __init__(self, stops_at: int | None = None, reason: str = "") -> None:
        self.done: list[Trial] = []
        self.steps: list[Step] = []
        self._stops_at, self._reason = stops_at, reason

    def __call__(self, trial: Trial, one: BenchSet, data: Path) -> dict[str, Any]:  # noqa: ARG002
        if len(self.done) == self._stops_at:
            raise KeyboardInterrupt
        self.done.append(trial)
        made = record(trial)
        return {**made, "reason": self._reason} if self._reason else made

    def run(self, out: Path, seeds: int = 3) -> dict[str, Any]:
        families = dict.fromkeys(Protocol, ("auto", "memory"))
        plan = Plan((bench_set(),), tuple(Protocol), families, ("",), tuple(range(seeds)))
        return run(plan, Path(), out, command="loupe bench", tell=self.steps.append, do=self)


def test_every_trial_of_the_plan_is_done_and_written(tmp_path: Path) -> None:
    bench = Bench()
    document = bench.run(tmp_path / "new" / "bench.json")
    assert len({trial.key for trial in bench.done}) == 3 * 2 * 2  # seeds, protocols, families
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == document
    assert document["command"] == "loupe bench"
    assert [step.done for step in bench.steps] == list(range(1, 13))
    assert bench.steps[-1].left_s == 0


def test_the_first_seed_alone_makes_a_whole_table(tmp_path: Path) -> None:
    bench = Bench()
    bench.run(tmp_path / "bench.json")
    assert {trial.seed for trial in bench.done[:4]} == {0}


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second = Bench(stops_at=5), Bench()
    with pytest.raises(KeyboardInterrupt):
        first.run(tmp_path / "bench.json")
    document = second.run(tmp_path / "bench.json")
    assert not {one.key for one in first.done} & {one.key for one in second.done}
    assert (len(first.done), len(second.done), len(document["trials"])) == (5, 7, 12)
    assert second.steps[0].done == 6


def test_a_smaller_plan_shows_its_own_trials_and_loses_no_others(tmp_path: Path) -> None:
    Bench().run(tmp_path / "bench.json")
    bench = Bench()
    assert len(bench.run(tmp_path / "bench.json", seeds=1)["trials"]) == 4
    assert not bench.done
    assert len(json.loads((tmp_path / "bench.json").read_text())["trials"]) == 12


def test_what_could_not_be_done_is_tried_again(tmp_path: Path) -> None:
    document = Bench(reason="No.").run(tmp_path / "bench.json", seeds=1)
    assert {one["reason"] for one in document["trials"]} == {"No."}
    again = Bench()
    document = again.run(tmp_path / "bench.json", seeds=1)
    assert len(again.done) == 4
    assert not any("reason" in one for one in document["trials"])


@pytest.mark.parametrize("text", ["", "[]", '{"trials": 7}', '{"format": 1, "trials": [{"seed": 0}]}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    out = tmp_path / "thesis.json"
    out.write_text(text)
    with pytest.raises(BadRequest, match="is not a file of `loupe bench`"):
        Bench().run(out)
    assert out.read_text() == text

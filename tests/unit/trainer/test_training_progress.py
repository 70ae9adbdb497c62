"""Shares and times of a training, and how often they are told."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.domain.errors import Cancelled, DatabaseUnavailable
from services.domain.model_version import TrainingRequest
from services.trainer.jobs import PROMOTING, Jobs
from services.trainer.training_progress import Estimate, ProgressReport

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
USUAL_S = {"fetch": 1.0, "learn": 8.0, PROMOTING: 1.0}


def test_the_time_left_follows_the_pace_so_far() -> None:
    estimate = Estimate(USUAL_S, 100.0)
    assert estimate.at("fetch", 0.5, 100.5).eta_s is None  # too early for a pace
    # A stage of 1 s took 2 s, so 9 more take 18.
    assert estimate.at("learn", 0.0, 102.0).eta_s == pytest.approx(18.0)
    half = estimate.at("learn", 0.5, 110.0)
    assert half.done_ratio == pytest.approx(0.5)
    assert half.eta_s == pytest.approx(10.0)
    assert estimate.at(PROMOTING, 1.0, 120.0).eta_s == 0.0
    took_s = estimate.end(121.0)
    assert took_s == pytest.approx({"fetch": 2.0, "learn": 18.0, PROMOTING: 1.0})


def test_a_stage_that_nobody_foresaw_has_its_place() -> None:
    estimate = Estimate(USUAL_S, 0.0)
    shares = [
        estimate.at(stage, ratio, float(second)).done_ratio
        for second, (stage, ratio) in enumerate(
            [("fetch", 1.0), ("measure", 0.5), ("measure", 1.0), ("learn", 0.5), (PROMOTING, 1.0)]
        )
    ]
    assert shares == sorted(shares)
    assert (shares[0] < shares[1], shares[-1]) == (True, 1.0)


def test_the_share_never_falls_though_a_crashed_fit_begins_again() -> None:
    estimate = Estimate(USUAL_S, 0.0)
    far = estimate.at("learn", 0.9, 5.0).done_ratio
    assert estimate.at("fetch", 0.0, 6.0).done_ratio == far


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    jobs = Jobs(open_engine(url))
    jobs.queue(TrainingRequest("t1", "plates", AT))
    jobs.run("t1")
    return jobs


def test_progress_is_told_at_most_once_a_second(jobs: Jobs) -> None:
    clock = FakeClock(AT)
    report = ProgressReport(jobs, clock, "t1", Estimate(USUAL_S, 0.0))
    written: list[str] = []
    event.listen(
        jobs._engine, "before_cursor_execute", lambda _c, _cu, said, *_: written.append(said.split()[0])
    )
    for _ in range(30):
        report("learn", 0.5)
        clock.advance(0.1)
    assert written.count("UPDATE") == 3


class AwayJobs(Jobs):
    """Its database is away."""

    def tell(
        self, training_id: str, stage: str, done_ratio: float, eta_s: float | None, at: datetime
    ) -> bool:
        raise DatabaseUnavailable("It does not answer.")


def test_a_database_that_is_away_does_not_end_the_work(jobs: Jobs) -> None:
    report = ProgressReport(AwayJobs(jobs._engine), FakeClock(AT), "t1", Estimate(USUAL_S, 0.0))
    report("learn", 0.5)
    with pytest.raises(DatabaseUnavailable):
        report.close_door()  # but nothing is promoted that might be cancelled


def test_cancelling_is_noticed(jobs: Jobs) -> None:
    clock = FakeClock(AT)
    report = ProgressReport(jobs, clock, "t1", Estimate(USUAL_S, 0.0))
    report("learn", 0.1)
    jobs.cancel("t1", "ada", AT)
    clock.advance(1.0)
    with pytest.raises(Cancelled):
        report("learn", 0.2)
    with pytest.raises(Cancelled):
        report.close_door()

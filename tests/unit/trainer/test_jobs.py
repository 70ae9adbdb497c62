"""The life of a training request."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.adapters.database import migrate, open_engine
from services.domain.errors import BadRequest, UnknownObject
from services.domain.model_version import FitOptions, JobState, TrainingRequest
from services.trainer.jobs import PROMOTING, Jobs

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
REQUEST = TrainingRequest(
    "t1", "plates", AT, "ada", FitOptions(tiles=2, families=("memory",)), trigger="labels"
)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    return Jobs(open_engine(url))


def test_asking_twice_makes_one_job(jobs: Jobs) -> None:
    assert jobs.queue(REQUEST).state is JobState.QUEUED
    assert jobs.run("t1")
    assert jobs.queue(REQUEST).state is JobState.RUNNING
    jobs.finish("t1", "v1", "made", AT)
    job = jobs.queue(REQUEST)
    assert (job.state, job.version, job.message, job.ended_at) == (JobState.DONE, "v1", "made", AT)
    assert not jobs.run("t1")
    assert jobs.get("t1").state is JobState.DONE


def test_a_job_tells_who_asked_and_how(jobs: Jobs) -> None:
    job = jobs.queue(REQUEST)
    assert (job.author, job.trigger, job.options["tiles"], job.options["families"]) == (
        "ada", "labels", 2, ["memory"],
    )  # fmt: skip


def test_a_failed_job_tells_why_and_may_run_again(jobs: Jobs) -> None:
    jobs.queue(REQUEST)
    jobs.fail("t1", "x" * 2000, AT)
    failed = jobs.get("t1")
    assert (failed.state, len(failed.message)) == (JobState.FAILED, 1024)
    assert jobs.run("t1")
    assert (jobs.get("t1").state, jobs.get("t1").message) == (JobState.RUNNING, "")


def test_an_unknown_job_is_named(jobs: Jobs) -> None:
    assert not jobs.knows("t9")
    with pytest.raises(UnknownObject, match="no training t9"):
        jobs.get("t9")
    with pytest.raises(UnknownObject, match="no training t9"):
        jobs.cancel("t9", "ada", AT)


@pytest.mark.parametrize("training_id", ["x" * 257, "a\x00b"])
def test_an_id_that_no_database_takes_is_refused(jobs: Jobs, training_id: str) -> None:
    with pytest.raises(BadRequest, match="at most 256 printable characters"):
        jobs.queue(TrainingRequest(training_id, "plates", AT))


def test_only_a_running_job_tells_how_far_it_is(jobs: Jobs) -> None:
    jobs.queue(REQUEST)
    assert not jobs.tell("t1", "learn", 0.5, 3.0, AT)
    jobs.run("t1")
    assert jobs.tell("t1", "learn", 0.5, 3.0, AT)
    jobs.need("t1", 12345)
    job = jobs.get("t1")
    assert (job.stage, job.done_ratio, job.eta_s, job.told_at, job.memory_bytes) == (
        "learn", 0.5, 3.0, AT, 12345,
    )  # fmt: skip
    jobs.run("t1")  # again, by the next trainer
    assert (jobs.get("t1").stage, jobs.get("t1").done_ratio) == ("", 0.0)


def test_a_cancelled_job_stays_cancelled(jobs: Jobs) -> None:
    jobs.queue(REQUEST)
    jobs.run("t1")
    job = jobs.cancel("t1", "ada", AT)
    assert (job.state, job.cancelled_by, job.message) == (JobState.CANCELLED, "ada", "Cancelled by ada.")
    assert not jobs.tell("t1", "learn", 0.5, None, AT)
    assert not jobs.run("t1")
    jobs.fail("t1", "late", AT)
    jobs.finish("t1", "v1", "late", AT)
    assert jobs.get("t1") == job
    assert jobs.cancel("t1", "ben", AT) == job  # twice is once


def test_what_has_ended_or_is_being_promoted_cannot_be_cancelled(jobs: Jobs) -> None:
    jobs.queue(REQUEST)
    jobs.run("t1")
    jobs.tell("t1", PROMOTING, 0.9, None, AT)
    with pytest.raises(BadRequest, match="too late"):
        jobs.cancel("t1", "ada", AT)
    jobs.finish("t1", "v1", "made", AT)
    with pytest.raises(BadRequest, match="is done already"):
        jobs.cancel("t1", "ada", AT)


def test_jobs_are_listed_by_project_and_open_ones_make_it_busy(jobs: Jobs) -> None:
    for number, project in enumerate(("plates", "caps", "plates")):
        jobs.queue(TrainingRequest(f"t{number}", project, AT + timedelta(seconds=number)))
    assert [one.training_id for one in jobs.all()] == ["t0", "t1", "t2"]
    assert [one.training_id for one in jobs.all("plates")] == ["t0", "t2"]
    assert jobs.is_busy("caps")
    jobs.fail("t1", "no", AT)
    assert not jobs.is_busy("caps")

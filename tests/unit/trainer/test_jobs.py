"""The life of a training request."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.adapters.database import migrate, open_engine
from services.domain.errors import UnknownObject
from services.domain.model_version import JobState, TrainingRequest
from services.trainer.jobs import Jobs

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    return Jobs(open_engine(url))


def test_asking_twice_makes_one_job(jobs: Jobs) -> None:
    request = TrainingRequest("t1", "plates", AT)
    assert jobs.queue(request).state is JobState.QUEUED
    jobs.run("t1")
    assert jobs.queue(request).state is JobState.RUNNING
    jobs.finish("t1", "v1", "made", AT)
    job = jobs.queue(request)
    assert (job.state, job.version, job.message, job.ended_at) == (JobState.DONE, "v1", "made", AT)


def test_a_failed_job_tells_why_and_may_run_again(jobs: Jobs) -> None:
    jobs.queue(TrainingRequest("t1", "plates", AT))
    jobs.fail("t1", "x" * 2000, AT)
    failed = jobs.get("t1")
    assert (failed.state, len(failed.message)) == (JobState.FAILED, 1024)
    jobs.run("t1")
    assert (jobs.get("t1").state, jobs.get("t1").message) == (JobState.RUNNING, "")


def test_an_unknown_job_is_named(jobs: Jobs) -> None:
    with pytest.raises(UnknownObject, match="no training t9"):
        jobs.get("t9")

"""`loupe train` without servers: lists, policies, cancelling, and what is shown of a running one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import Engine
from typer.testing import CliRunner

from services.adapters.database import migrate, open_engine
from services.cli.main import app
from services.cli.train import follow
from services.cli.train_views import eta_text, print_jobs, stage_text
from services.domain.model_version import FitOptions, JobState, TrainingRequest
from services.trainer.jobs import Jobs
from services.trainer.policies import Policies
from tests.poll import poll_until

runner = CliRunner()
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    monkeypatch.setenv("LOUPE_DATABASE_URL", url)
    monkeypatch.setenv("COLUMNS", "80")
    engine = open_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def jobs(engine: Engine) -> Jobs:
    return Jobs(engine)


def run(*words: str, code: int = 0) -> str:
    done = runner.invoke(app, ["train", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_nothing_was_trained_yet(engine: Engine) -> None:
    assert run("--list") == "Nothing was trained yet.\n"
    assert json.loads(run("--list", "--json")) == {"trainings": [], "policies": []}


def test_trainings_are_listed_newest_first_with_what_came_of_them(jobs: Jobs) -> None:
    for number, project in enumerate(("caps", "plates", "caps")):
        asked_at = AT + timedelta(hours=number)
        jobs.queue(TrainingRequest(f"{project}-{number}", project, asked_at, "ada"))
    jobs.fail("caps-0", "Too few photos.", AT)
    jobs.run("caps-2")
    jobs.tell("caps-2", "learn", 0.42, None, AT)
    text = run("--list", "caps")
    assert text.index("caps-2") < text.index("caps-0")
    assert "Too few photos." in text
    assert "learning 42%" in text
    assert "plates" not in text
    told = json.loads(run("--list", "--json"))["trainings"]
    assert [(one["training_id"], one["state"], one["stage"]) for one in told] == [
        ("caps-2", "running", "learn"), ("plates-1", "queued", ""), ("caps-0", "failed", ""),
    ]  # fmt: skip


def test_a_list_is_readable_at_80_columns(jobs: Jobs) -> None:
    jobs.queue(TrainingRequest("caps-20261121-104058-ab12", "caps", AT, "ada", trigger="nightly"))
    jobs.fail("caps-20261121-104058-ab12", "The fit would take about 4,096 MiB of memory. " * 4, AT)
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown:
        print_jobs(console, jobs.all(), AT)
    assert max(map(len, shown.get().splitlines())) <= 80
    assert "ada (nightly)" in shown.get()


def test_a_policy_is_set_shown_and_removed(engine: Engine) -> None:
    text = run("caps", "--after-labels", "20", "--nightly", "02:30", "--tiles", "2", "--family", "memory")
    assert "after 20 new or changed labels and at 02:30 UTC" in text
    (policy,) = Policies(engine).all()
    assert (policy.after_labels, policy.nightly_at) == (20, "02:30")
    assert policy.options == FitOptions(tiles=2, families=("memory",))
    assert "02:30" in run("--list")
    told = json.loads(run("--list", "--json"))["policies"]
    assert [(one["project"], one["options"]["tiles"]) for one in told] == [("caps", 2)]
    assert run("caps", "--on-request") == "caps trains on request only.\n"
    assert Policies(engine).all() == ()
    assert json.loads(run("caps", "--nightly", "03:00", "--json"))["policy"]["nightly_at"] == "03:00"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Name the project to train"),
        (["caps", "--max-false-reject", "0.7"], "makes no sense"),
        (["caps", "--on-request", "--nightly", "02:30"], "means neither"),
        (["caps", "--nightly", "25:00"], "no time of day"),
        (["../x", "--after-labels", "3"], "cannot be a project's name"),
        (["--cancel", "t9"], "There is no training t9"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(engine: Engine, words: list[str], sentence: str) -> None:
    assert sentence in run(*words, code=2)


def test_a_training_is_cancelled_once(jobs: Jobs) -> None:
    jobs.queue(TrainingRequest("t1", "caps", AT))
    assert run("--cancel", "t1") == "t1 is cancelled.\n"
    assert jobs.get("t1").state is JobState.CANCELLED
    assert json.loads(run("--cancel", "t1", "--json"))["state"] == "cancelled"
    jobs.queue(TrainingRequest("t2", "caps", AT))
    jobs.run("t2")
    jobs.finish("t2", "v1", "made", AT)
    assert "is done already" in run("--cancel", "t2", code=2)


def test_who_waits_is_told_when_it_has_ended(jobs: Jobs) -> None:
    jobs.queue(TrainingRequest("t1", "caps", AT))
    found: list[JobState] = []
    waiting = threading.Thread(target=lambda: found.append(follow(jobs, "t1").state))
    waiting.start()
    jobs.run("t1")
    jobs.tell("t1", "learn", 0.5, 3.0, AT)
    jobs.finish("t1", "v1", "made", AT)
    poll_until(lambda: found, deadline_s=10)
    waiting.join(10)
    assert found == [JobState.DONE]


def test_the_time_left_counts_down_between_two_reports(jobs: Jobs) -> None:
    jobs.queue(TrainingRequest("t1", "caps", AT))
    assert (stage_text(jobs.get("t1")), eta_text(jobs.get("t1"), AT)) == ("waiting", "")
    jobs.run("t1")
    jobs.tell("t1", "learn", 0.5, 30.0, AT)
    job = jobs.get("t1")
    assert eta_text(job, AT + timedelta(seconds=10)) == "20 s left"
    assert eta_text(job, AT + timedelta(seconds=60)) == "0 s left"
    jobs.tell("t1", "learn", 0.5, 600.0, AT)
    assert eta_text(jobs.get("t1"), AT) == "10 min left"

"""`loupe route`: what people see of routes, and what comes of their words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine
from services.cli import route
from services.cli.main import app
from services.domain.hosting import Hosting, HostingStatus
from services.hosting.store import HostingStore, Wish
from services.ingest.camera_store import CameraStore
from services.ingest.configuration import stored_camera
from services.results.batch import Read
from services.results.store import Store
from tests.unit.results.builders import frame, verdict, verdict_records

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A database with hosted projects, and the command."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self.store = HostingStore(self.engine)

    def host(self, *projects: str, status: HostingStatus = HostingStatus.HOSTED) -> None:
        for project in projects:
            self.store.wish([Wish(Hosting(project, "v1", "s3://m/v1"), by="ada")], AT)
            self.store.note(project, status, "")

    def run(self, *words: str, code: int = 0) -> Result:
        done = CliRunner().invoke(app, ["route", *words], env={"COLUMNS": "200"})
        assert done.exit_code == code, done.output
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    monkeypatch.setenv("LOUPE_DATABASE_URL", url)
    return Desk(url)


def test_a_route_is_added_changed_listed_and_removed(desk: Desk) -> None:
    desk.host("plates", "caps")
    desk.run("add", "press-*", "plates", "--retention", "long", "--deadline", "5")
    desk.run("set", "press-*", "plates", "--archive", "all", "--deadline", "0")
    desk.run("add", "*", "caps", "--mode", "canary", "--share", "0.05", "--priority", "2")
    canary, live = desk.json("list")
    assert (canary["project"], canary["mode"], canary["share_ratio"]) == ("caps", "canary", 0.05)
    assert (live["archive"], live["retention"], live["deadline_s"]) == ("all", "long", None)
    assert live["changed_by"]
    assert datetime.fromisoformat(live["changed_at"]).tzinfo is not None
    listed = desk.run("list").stdout
    assert "press-*" in listed
    assert "5.0%" in listed
    desk.run("remove", "*", "caps", "--mode", "canary")
    assert [one["project"] for one in desk.json("list")] == ["plates"]


@pytest.mark.parametrize(
    "words",
    [
        ("add", "*", "plates", "--share", "0.1"),
        ("add", "*", "plates", "--mode", "canary"),
        ("add", "*", "plates", "--mode", "canary", "--share", "1.5"),
        ("add", "*", "no project"),
        ("add", "", "plates"),
        ("add", "*", "plates", "--deadline", "-1"),
        ("add", "*", "plates", "--priority", "99999999999"),
        ("add", "*", "plates", "--archive", "some"),
        ("set", "*", "plates"),
        ("set", "*", "plates", "--archive", "all"),
        ("remove", "*", "plates"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(desk: Desk, words: tuple[str, ...]) -> None:
    done = desk.run(*words, code=2)
    assert "Traceback" not in done.output
    assert desk.json("list") == []


def test_two_routes_of_one_name_are_refused(desk: Desk) -> None:
    desk.run("add", "*", "plates")
    assert "already" in desk.run("add", "*", "plates", "--archive", "all", code=2).output


def test_a_route_to_a_project_that_is_not_hosted_is_told_to_wait(desk: Desk) -> None:
    desk.host("caps")
    desk.host("broken", status=HostingStatus.HOSTING_FAILED)
    assert "not hosted yet" in desk.run("add", "*", "plates").stdout
    assert "not hosted" not in desk.run("add", "*", "caps").stdout
    assert [one["is_hosted"] for one in desk.json("list")] == [True, False]


def test_without_routes_the_only_project_judges(desk: Desk) -> None:
    assert "No project is hosted" in desk.run("list").stdout
    desk.host("plates")
    assert "plates, the only project" in desk.run("list").stdout
    (found,) = desk.json("test", "any")
    assert (found["project"], found["counts"]) == ("plates", True)
    assert "by default" in found["why"]
    desk.host("caps")
    assert "no-route" in desk.run("list").stdout
    assert "no-route" in desk.run("test", "any").stdout


def test_says_who_judges_a_camera_and_why_others_do_not(desk: Desk) -> None:
    desk.host("plates", "caps", "new")
    for words in (
        ("*", "plates"),
        ("press-*", "caps"),
        ("press-*", "new", "--mode", "canary", "--share", "0.25"),
        ("*", "plates", "--mode", "shadow"),
        ("press-7", "gone", "--priority", "5"),
        ("saw-*", "new"),
    ):
        desk.run("add", *words)
    found = [(one["project"], one["mode"], one["counts"], one["why"]) for one in desk.json("test", "press-7")]
    assert found == [
        ("gone", "live", False, "does not count, gone is not hosted"),
        ("caps", "live", True, "judges 75.0% of the frames"),
        ("new", "canary", True, "judges 25.0% of the frames instead"),
        (
            "plates",
            "live",
            False,
            "does not count, the live route press-* to caps is more important",
        ),
        ("plates", "shadow", True, "judges as well, without events"),
    ]
    shown = desk.run("test", "press-7").stdout
    assert "canary route press-* to new: judges 25.0%" in shown


def test_a_shadow_alone_judges_nobody(desk: Desk) -> None:
    desk.host("plates", "caps")
    desk.run("add", "*", "caps", "--mode", "shadow")
    (found,) = desk.json("test", "cam")
    assert (found["counts"], found["why"]) == (False, "does not count, no live route matches")


def seen(desk: Desk, *names: str, **options: str) -> None:
    """Configure cameras."""
    new = [stored_camera({"camera": name, "source": "synthetic", **options}) for name in names]
    CameraStore(desk.engine).add(new, "ada")


def test_a_change_that_leaves_cameras_without_a_judge_says_which(desk: Desk) -> None:
    desk.host("plates", "caps")
    seen(desk, "saw-1", "saw-2")
    seen(desk, "press-1")
    seen(desk, "asks-itself", project="caps")
    done = desk.run("add", "press-*", "plates")
    assert done.stderr == (
        "No live route matches 2 cameras, whose frames are let go and declared shed (no-route): "
        "saw-1, saw-2.\n"
    )
    assert desk.json("add", "saw-1", "caps")["cameras_without_route"] == ["saw-2"]
    assert desk.run("add", "saw-*", "plates").stderr == ""
    assert desk.json("remove", "saw-*", "plates")["cameras_without_route"] == ["saw-2"]
    assert "1 camera, whose" in desk.run("set", "press-*", "plates", "--archive", "all").stderr


def test_cameras_of_foreign_producers_are_known_by_their_verdicts(desk: Desk) -> None:
    desk.host("plates", "caps")
    told = [
        replace(verdict(frame(n, "foreign")), project="plates", judged_at=datetime.now(UTC)) for n in range(3)
    ]
    batch = [Read(one, record) for one, record in zip(told, verdict_records(*told), strict=True)]
    Store(desk.engine, SystemClock()).add_inspections(batch)
    assert desk.json("add", "press-*", "plates")["cameras_without_route"] == ["foreign"]


def test_many_cameras_without_a_judge_are_counted(desk: Desk) -> None:
    desk.host("plates", "caps")
    seen(desk, *(f"saw-{n}" for n in range(9)))
    assert desk.run("add", "press-*", "plates").stderr.endswith("saw-3, saw-4 and 4 more.\n")


def test_nobody_hosted_means_waiting_and_no_warning(desk: Desk) -> None:
    seen(desk, "saw-1")
    assert desk.run("add", "press-*", "plates").stderr == ""


@pytest.mark.parametrize("width", [80, 140])
def test_the_list_of_routes_fits_and_has_whole_headings(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(route, "console", Console(width=width))
    desk.host("plates-of-line-3", "caps")
    kept = ("--deadline", "5", "--archive", "all", "--retention", "forever")
    desk.run("add", "press-*", "plates-of-line-3", *kept)
    desk.run("add", "*", "caps", "--mode", "canary", "--share", "0.125", "--priority", "10")
    shown = desk.run("list").stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    for heading in ("cameras", "project", "mode", "keeps pixels", "priority"):
        assert heading in lines[0]
    assert ("set by" in lines[0]) is (width == 140)
    assert "deadline 5 s" in shown or "deadline" in lines[0]
    assert "canary 12.5%" in shown

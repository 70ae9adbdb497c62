"""`loupe route`: what people see of routes, and what comes of their words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.adapters.database import migrate, open_engine
from services.cli.main import app
from services.domain.hosting import Hosting, HostingStatus
from services.hosting.store import HostingStore, Wish

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """A database with hosted projects, and the command."""

    def __init__(self, url: str) -> None:
        self.store = HostingStore(open_engine(url))

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

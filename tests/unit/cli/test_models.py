"""`loupe models`: what serves, what was kept and why, and the way back."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.adapters.database import migrate, open_engine
from services.adapters.object_store.store import memory_store
from services.cli.main import app
from services.domain.model_version import VersionState
from services.embedded.home import Home
from services.trainer.registry import Registry
from tests.unit.trainer.models import CREATED_AT, model_folder, promoted

WORSE = "It is worse on anomalous images than version v1: it gets 5 wrong that are judged right now."


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Two projects; of `plates` v1 serves, v2 was kept and v3 is a candidate."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    migrate(home.database_url)
    engine = open_engine(home.database_url)
    registry = Registry(engine, memory_store())
    for n, version in enumerate(("v1", "v2", "v3")):
        folder, manifest = model_folder(tmp_path, version=version, created_at=CREATED_AT + timedelta(n))
        registry.register(folder, manifest)
    registry.decide("plates", "v1", VersionState.PROMOTED, {"reasons": ["It is the first."]}, CREATED_AT)
    counted = {"is_proved": True, "normals": 50, "false_rejects": 1, "anomalies": 8, "found": 3}
    evidence = {"reasons": [WORSE], "candidate": counted}
    registry.decide("plates", "v2", VersionState.KEPT, evidence, CREATED_AT + timedelta(1))
    promoted(registry, *model_folder(tmp_path, project="caps", version="v7"))
    engine.dispose()
    return home


def models(home: Home, *arguments: str) -> Result:
    environment = {"LOUPE_HOME": str(home.path), "COLUMNS": "80"}
    return CliRunner().invoke(app, ["models", *arguments], env=environment)


def test_versions_are_listed_with_what_became_of_them(home: Home) -> None:
    lines = models(home, "plates").stdout.splitlines()
    assert lines[0].split() == ["version", "state", "made", "AUROC", "rejects", "recall", "family", "data"]
    (kept,) = (line for line in lines if line.startswith("v2"))
    # 1 of 50 and 3 of 8, as replayed; the AUROC of its fit.
    assert [kept.split()[n] for n in (1, 4, 5, 6)] == ["kept", "0.990", "2.0%", "37.5%"]
    assert [line.split()[:2] for line in lines if line.startswith("v")][1:] == [
        ["v3", "candidate"],
        ["v2", "kept"],
        ["v1", "serves"],
    ]
    assert any(WORSE in line for line in lines)


def test_without_a_project_each_ones_serving_version_is_listed(home: Home) -> None:
    lines = models(home).stdout.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith(("caps", "plates"))] == [
        ["caps", "v7", "serves"],
        ["plates", "v1", "serves"],
    ]


def test_json_says_it_all(home: Home) -> None:
    third, second, first = json.loads(models(home, "plates", "--json").stdout)
    assert (third["state"], second["state"], first["serves"]) == ("candidate", "kept", True)
    assert (second["reasons"], second["recall_ratio"], second["family"]) == ([WORSE], 0.375, "memory")
    assert set(json.loads(models(home, "--json").stdout)) == {"caps", "plates"}


def test_a_kept_version_is_promoted_by_hand_and_the_older_one_comes_back(home: Home) -> None:
    done = models(home, "plates", "--promote", "v2", "--reason", "the test set is old", "--author", "ada")
    assert done.exit_code == 0, done.output
    assert "version v2 is promoted" in done.stdout
    assert "It had been kept: It is worse" in done.stdout
    assert "`loupe up` will host this version" in done.stdout
    _, second, _ = json.loads(models(home, "plates", "--json").stdout)
    assert second["serves"]
    assert second["evidence"]["by_hand"][0]["author"] == "ada"
    assert "Promoted by ada: the test set is old." in models(home, "plates").stdout
    assert models(home, "plates", "--promote", "v1").exit_code == 0
    *_, first = json.loads(models(home, "plates", "--json").stdout)
    assert first["serves"]


def test_what_was_promoted_last_is_announced_again_and_nothing_else_changes(home: Home) -> None:
    before = models(home, "plates", "--json").stdout
    done = models(home, "plates", "--promote", "v1")
    assert (done.exit_code, "v1 is the one to serve already" in done.stdout) == (0, True), done.output
    assert models(home, "plates", "--json").stdout == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--promote", "v1"], "Say whose version it is"),
        (["plates", "--promote", "v3"], "has not been proved yet"),
        (["plates", "--promote", "v9"], "There is no version v9 of plates."),
        (["bottles"], "There is no project bottles."),
    ],
)
def test_what_cannot_be_is_a_sentence(home: Home, arguments: list[str], sentence: str) -> None:
    done = models(home, *arguments)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.output


def test_without_a_home_there_is_no_project(tmp_path: Path) -> None:
    done = models(Home(tmp_path / "nowhere"))
    assert (done.exit_code, "no project yet" in done.stderr) == (2, True)

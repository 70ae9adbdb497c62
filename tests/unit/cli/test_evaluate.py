"""`loupe evaluate` without a stack: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.adapters.database import migrate, open_engine
from services.adapters.object_store import folder_store
from services.cli.evaluate import told_types, worst_mistakes
from services.cli.main import app
from services.domain.label import Verdict
from services.embedded.home import Home
from services.trainer.evaluation.by_type import TypeRow
from services.trainer.evaluation.outcome import Outcome
from services.trainer.registry import Registry
from services.vision.runtime import verify_folder
from tests.unit.serve.models import picture, write_version
from tests.unit.trainer.models import promoted


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home whose project `plates` calls bright pictures anomalous: `v1` serves, `v2` was not promoted."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    migrate(home.database_url)
    engine = open_engine(home.database_url)
    registry = Registry(engine, folder_store(home.objects))
    folder = write_version(tmp_path / "fitted")
    promoted(registry, folder, verify_folder(folder))
    other = write_version(tmp_path / "fitted", "v2")
    registry.register(other, verify_folder(other))
    engine.dispose()
    return home


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three dark normal photos, one bright one that is rejected, three bright anomalies, one dark one."""
    levels = {
        "normal/a.png": 50, "normal/b.png": 60, "normal/c.png": 70, "normal/glare.png": 250,
        "anomaly/d.png": 200, "anomaly/e.png": 210, "anomaly/f.png": 220, "anomaly/hidden.png": 40,
    }  # fmt: skip
    folder = tmp_path / "photos"
    for name, level in levels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(level))
    return folder


def evaluate(home: Home, *arguments: str) -> Result:
    environment = {"LOUPE_HOME": str(home.path), "COLUMNS": "200"}
    return CliRunner().invoke(app, ["evaluate", *arguments], env=environment)


def test_tells_a_person_how_good_it_is_and_exits_with_0_though_it_is_poor(home: Home, photos: Path) -> None:
    result = evaluate(home, "plates", str(photos))
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for told in (
        "plates v1 judged 8 photos, 4 normal and 4 anomalous.",
        "precision 0.750 (95 %: ",
        "recall 0.750 (95 %: ",
        "F1 0.750 (95 %: ",
        # 9 of 16 pairs are right but for `hidden`, which is below all, and `glare`, which is above all.
        "image AUROC 0.562 (95 %: ",
        "; promised: at most 2.0%",
        "Of 4 anomalous photos 3 were found and 1 missed; of 4 normal ones 3 passed and 1 were rejected.",
        "normal/glare.png, score 9.80",
        "anomaly/hidden.png, score 1.57",
    ):
        assert told in text, text


def test_the_report_is_what_json_prints(home: Home, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.json"
    result = evaluate(home, "plates", str(photos), "--json", "--report", str(report))
    printed = json.loads(result.stdout)
    assert json.loads(report.read_text()) == printed
    assert (printed["project"], printed["version"], printed["threshold"]) == ("plates", "v1", 5.0)
    assert printed["counts"] == {
        "true_positives": 3, "false_positives": 1, "true_negatives": 3, "false_negatives": 1,
    }  # fmt: skip
    assert printed["metrics"]["recall_ratio"] == 0.75
    low, high = printed["intervals"]["recall_ratio"]
    assert 0 <= low < 0.75 < high <= 1
    assert len(printed["outcomes"]) == 8


def test_another_version_is_measured_when_it_is_named(home: Home, photos: Path) -> None:
    printed = json.loads(evaluate(home, "plates", str(photos), "--json", "--version", "v2").stdout)
    assert printed["version"] == "v2"


def test_photos_that_cannot_be_read_are_named(home: Home, photos: Path) -> None:
    (photos / "normal" / "torn.png").write_bytes(picture(50)[:60])
    result = evaluate(home, "plates", str(photos))
    assert result.exit_code == 0
    assert "1 file was left out:" in result.stdout
    assert "normal/torn.png: The image is damaged" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["plates", "nowhere"], "nowhere is not a folder."),
        (["screws", "{photos}"], "There is no project screws. Known are: plates."),
        (["plates", "{photos}", "--version", "v9"], "There is no version v9 of plates."),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(
    home: Home, photos: Path, arguments: list[str], sentence: str
) -> None:
    result = evaluate(home, *(one.format(photos=photos) for one in arguments))
    assert result.exit_code == 2, result.output
    assert sentence in " ".join(result.stderr.split())


def test_a_report_that_cannot_be_written_is_said_before_any_photo_is_judged(
    home: Home, photos: Path, tmp_path: Path
) -> None:
    result = evaluate(home, "plates", str(photos), "--report", str(tmp_path))
    assert result.exit_code == 2
    assert "is a folder; give the name of a file." in " ".join(result.stderr.split())
    assert "judged" not in result.stdout


def test_an_interval_without_width_says_nothing_and_is_not_told(home: Home, photos: Path) -> None:
    (photos / "anomaly" / "hidden.png").unlink()
    (photos / "normal" / "glare.png").unlink()
    text = " ".join(evaluate(home, "plates", str(photos)).stdout.split())
    assert "recall 1.000 F1 1.000" in text
    assert "1.000 to 1.000" not in text


def test_before_the_first_fit_there_is_nothing_to_measure(tmp_path: Path, photos: Path) -> None:
    result = evaluate(Home(tmp_path / "empty"), "plates", str(photos))
    assert result.exit_code == 2
    assert "loupe fit DIR --project plates" in result.stderr
    assert not (tmp_path / "empty").exists()


def test_a_type_that_no_photo_has_is_told_only_where_it_was_found_wrongly() -> None:
    unasked, wrongly, asked = TypeRow("dent", 0, 0), TypeRow("hole", 0, 0, f1=0.0), TypeRow("scratch", 2, 1)
    assert told_types([unasked, wrongly, asked]) == [wrongly, asked]


def test_defects_that_nobody_named_are_no_type_unless_the_version_finds_it() -> None:
    unnamed = TypeRow("anomaly", 48, 0, {"unnamed": 48})
    assert told_types([unnamed]) == []
    found = TypeRow("anomaly", 48, 0, {"anomaly": 48}, f1=1.0)
    assert told_types([found]) == [found]


def test_the_surest_mistakes_come_first() -> None:
    bad, good = Verdict.ANOMALY, Verdict.NORMAL
    outcomes = [
        Outcome("right", bad, 9.0, bad, confidence=0.99),
        Outcome("unsure", good, 5.1, bad, confidence=0.6),
        Outcome("sure", bad, 1.0, good, confidence=0.9),
    ]
    assert [one.name for one in worst_mistakes(outcomes)] == ["sure", "unsure"]

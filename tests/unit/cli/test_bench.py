"""`loupe bench`: what is asked for is understood or refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.bench import duration, names, numbers
from services.cli.main import app
from services.domain.errors import BadRequest
from services.trainer.backbones.efficientnet import default_backbone_path
from tests.unit.trainer.pictures import picture


@pytest.mark.parametrize(
    ("text", "found"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("2,0-1", (2, 0, 1)), ("1,1,0-1", (1, 0))]
)
def test_seeds_are_numbers_and_ranges(text: str, found: tuple[int, ...]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize("text", ["", ",", "one", "4-0", "-1", "1.5", "0-99999999"])
def test_what_is_no_seed_is_a_sentence(text: str) -> None:
    with pytest.raises(BadRequest, match="seed"):
        numbers(text)


def test_names_are_words_between_commas() -> None:
    assert names(" auto, memory+aligned,,") == ("auto", "memory+aligned")
    assert names("") == ()


@pytest.mark.parametrize(("seconds", "told"), [(0, "0 s"), (89, "89 s"), (120, "2 min"), (5400, "1.5 h")])
def test_durations_are_told_as_people_do(seconds: float, told: str) -> None:
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-false-reject", "7"], "A promise of 7 false rejects makes no sense; give 0.001 to 0.5."),
        (["--sets", "biscuits"], "There is no set biscuits; known are cookies"),
        (["--sets", "screws"], "has no set screws"),
        ([], "holds none of the sets"),
        (["--seeds", "many"], "'many' is no seed"),
        (["--families", "auto,memory+oracle"], "There is no family oracle; there are memory, aligned"),
        (["--out", "."], "is a folder; give the name of a file."),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    out = tmp_path / "bench.json"
    done = CliRunner().invoke(
        app, ["bench", "--data", str(tmp_path), "--out", str(out), *arguments], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.output.split())
    assert not out.exists()


def test_a_set_is_measured_told_and_written(tmp_path: Path) -> None:
    if not default_backbone_path().is_file():
        pytest.skip("needs the backbone that `make setup` prepares")
    for folder, count in (("normal", 12), ("missing", 3)):
        (tmp_path / "screws" / folder).mkdir(parents=True)
        for number in range(count):
            photo = picture(number, is_bad=folder == "missing")
            (tmp_path / "screws" / folder / f"{number:02d}.png").write_bytes(photo)
    out = tmp_path / "reports" / "bench.json"
    command = ["bench", "--data", str(tmp_path), "--out", str(out), "--seeds", "0", "--families", "memory"]
    done = CliRunner().invoke(
        app, [*command, "--protocols", "normals-only"], env={"COLUMNS": "200"}, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    (trial,) = json.loads(out.read_text())["trials"]
    # Of twelve normal photos round(0.3 x 12) = 4 are held back.
    assert (trial["set_name"], trial["photos"]) == ("screws", "8; 4 + 3")
    # A white scratch on a grey plate is hard to miss.
    assert trial["metrics"]["image_auroc"] == 1.0
    assert 0 < trial["cost"]["fit_s"] <= trial["took_s"]
    assert trial["cost"]["peak_rss_bytes"] > 50e6
    assert trial["cost"]["ms"] > 0
    assert out.with_suffix(".md").read_text() in done.stdout
    assert "1/1 normals-only, screws, memory, seed 0: image AUROC 1.000" in done.stderr
    again = CliRunner().invoke(app, [*command, "--protocols", "normals-only"], env={"COLUMNS": "200"})
    assert "1/1" not in again.stderr

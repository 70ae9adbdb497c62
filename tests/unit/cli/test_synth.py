"""`loupe synth` writes a sheet, and says in a sentence what hinders it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from services.cli.main import app


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three grey noise photos of 90 x 60 px."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        grey = rng.integers(90, 130, (60, 90), np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
    return folder


def synth(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["synth", *map(str, arguments)])


def test_writes_the_same_sheet_for_the_same_seed(photos: Path, tmp_path: Path) -> None:
    first, again, other = (tmp_path / "sheets" / f"{name}.png" for name in ("first", "again", "other"))
    for file, seed in ((first, 3), (again, 3), (other, 4)):
        result = synth(photos, "--out", file, "--count", 5, "--seed", seed)
        assert result.exit_code == 0, result.output
        assert result.stdout.strip() == str(file)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
    # Four pairs of 224 px in the first row, one in the second.
    with Image.open(first) as sheet:
        assert sheet.width > 8 * 224
        assert 2 * 224 < sheet.height < 3 * 224


def test_a_folder_to_write_to_gets_a_named_file(photos: Path, tmp_path: Path) -> None:
    result = synth(photos, "--out", tmp_path / "there", "--count", 1, "--kind", "scratch")
    assert result.exit_code == 0, result.output
    assert Path(result.stdout.strip()) == tmp_path / "there" / "synthetic-defects.png"


def test_one_photo_is_enough(photos: Path, tmp_path: Path) -> None:
    (photos / "0.png").rename(tmp_path / "0.png")
    result = synth(tmp_path, "--out", tmp_path / "sheet.png", "--count", 6)
    assert result.exit_code == 0, result.output


def test_a_manifest_is_taken_as_fit_takes_it(photos: Path, tmp_path: Path) -> None:
    kind = {"class-name": "normal", "type": "groundtruth/image-classification"}
    lines = [json.dumps({"source-ref": f"{n}.png", "a": 0, "a-metadata": kind}) for n in range(3)]
    (photos / "good.manifest").write_text("\n".join(lines))
    result = synth(photos / "good.manifest", "--out", tmp_path / "sheet.png", "--count", 2)
    assert result.exit_code == 0, result.output


def test_an_unreadable_photo_is_named_and_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "0.png").write_bytes(b"no picture")
    result = synth(photos, "--out", tmp_path / "sheet.png", "--count", 4)
    assert result.exit_code == 0, result.output
    assert "0.png is left out" in result.output


def test_nothing_readable_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"no picture")
    result = synth(tmp_path)
    assert result.exit_code == 2
    assert "None of the 1 photos" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("nowhere",), "is not a folder"), ((".", "--kind", "rust"), "cut-paste, perlin, nsa")],
)
def test_bad_input_is_a_sentence(
    photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(photos)
    result = synth(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr

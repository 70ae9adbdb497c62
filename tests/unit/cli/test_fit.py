"""`loupe fit` without a stack: from photos to a registered version, and sentences for what cannot be."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.adapters.database import open_engine
from services.adapters.object_store.store import folder_store
from services.cli.main import app
from services.trainer.backbones.efficientnet import default_backbone_path
from services.trainer.registry import Registry
from tests.unit.trainer.backbones.networks import Network
from tests.unit.trainer.pictures import pictures

runner = CliRunner()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOUPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "home"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    if not default_backbone_path().is_file():
        pytest.skip("needs the backbone that `make setup` prepares")
    for folder, images in (("normal", pictures(12)), ("anomaly", pictures(3, is_bad=True))):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for image in images:
            (tmp_path / "photos" / folder / image.name).write_bytes(image.read())
    return tmp_path / "photos"


def test_photos_become_a_registered_version(home: Path, photos: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = runner.invoke(app, ["fit", str(photos), "--project", "plates", "--report", str(report)])
    assert done.exit_code == 0, done.output
    numbers = json.loads(report.read_text())
    assert set(numbers) == {
        "project", "version", "train_images", "fit_s", "image_auroc", "threshold", "file_bytes", "warnings",
        "model_dir", "is_promoted", "reasons", "family", "candidates", "graph_ms", "variants", "serving",
        "types", "metrics", "intervals", "promise", "backbone", "tiles", "card", "skipped",
        "measured_on",
    }  # fmt: skip
    assert (numbers["promise"], numbers["tiles"], numbers["card"]) == (
        0.02,
        1,
        str(Path(numbers["model_dir"], "card.html")),
    )
    # What is measured once is told alike everywhere.
    assert numbers["graph_ms"] == numbers["metrics"]["graph_ms"] == numbers["variants"][0]["ms"]
    assert set(numbers["backbone"]) == {"name", "sha256", "licence"}
    assert done.output.rstrip().endswith(f"Card: {numbers['card']}")
    assert (numbers["project"], numbers["train_images"], numbers["image_auroc"]) == ("plates", 12, 1.0)
    assert Path(numbers["model_dir"], "card.html").is_file()
    for told in (numbers["version"], "card.html", "Next: loupe inspect IMAGE --project plates", "Note:"):
        assert told in done.output
    registry = Registry(open_engine(f"sqlite:///{home / 'loupe.db'}"), folder_store(home / "s3"))
    said = registry.latest("plates")
    assert said.version == numbers["version"]
    assert registry.fetch(said, tmp_path / "brought").train_images == 12


def test_without_anomalous_photos_nothing_is_said_of_finding_them(home: Path, photos: Path) -> None:
    for image in (photos / "anomaly").glob("*"):
        image.unlink()
    output, numbers = fitted(photos)
    assert numbers["image_auroc"] is None
    assert "none: there is no anomalous photo that could be used" in output


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A tiny backbone of 64 px."""
    return Network(("N", 3, 64, 64)).write(tmp_path)


def fitted(photos: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    report = photos.parent / "made" / "report.json"
    command = ["fit", str(photos), "-p", "plates", "--report", str(report), *arguments]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    return done.output, json.loads(report.read_text())


def test_a_backbone_of_ones_own_is_named_with_its_licence(home: Path, photos: Path, network: Path) -> None:
    output, numbers = fitted(photos, "--backbone", str(network))
    assert numbers["backbone"] == {
        "name": "tiny",
        "sha256": hashlib.sha256(network.read_bytes()).hexdigest(),
        "licence": "unknown",
    }
    assert "--backbone-licence" in output


def test_a_backbone_without_weights_will_do(home: Path, photos: Path) -> None:
    _, numbers = fitted(photos, "--backbone", "random", "--seed", "3")
    assert numbers["backbone"]["name"] == "random-resnet18-seed3"


def test_what_tiles_cost_is_said_before_the_fit(home: Path, photos: Path, network: Path) -> None:
    own = ("--backbone", str(network), "--backbone-licence", "MIT")
    output, numbers = fitted(photos, *own, "--tiles", "2")
    assert output.startswith("4 tiles, together 96 pixels wide")
    assert output.index("4 tiles") < output.index("Fitted")
    assert (numbers["tiles"], numbers["backbone"]["licence"]) == (2, "MIT")
    assert "--backbone-licence" not in output


def test_help_teaches_the_first_three_commands() -> None:
    done = runner.invoke(app, ["fit", "--help"], terminal_width=80)
    told = " ".join(done.output.split())
    for command in (
        "loupe fit photos/ --project cookies",
        "loupe inspect new.jpg --project cookies",
        "loupe up",
    ):
        assert command in told
    assert max(map(len, done.output.splitlines())) <= 80


@pytest.mark.parametrize(
    ("count", "arguments", "sentence"),
    [
        (None, [], "is not a folder"),
        (0, [], "holds no photos"),
        (1, [], "at least 2 different photos of good parts, better 30 or more; there is 1."),
        (2, ["--project", "../x"], "cannot be a project's name"),
        (2, ["--max-false-reject", "7"], "makes no sense"),
        (2, ["--max-false-reject", "nan"], "makes no sense"),
        (2, ["--max-false-reject", "1e-9"], "give 0.001 to 0.5"),
        (2, ["--budget-ms", "0"], "A budget of 0 ms"),
        (2, ["--budget-ms", "nan"], "A budget of nan ms"),
        (2, ["--family", "oracle"], "There is no family oracle"),
        (2, ["--tiles", "5"], "5 tiles along each side make no sense"),
        (2, ["--seed", "-1"], "A seed of -1 makes no sense"),
        (2, ["--backbone", "absent.onnx"], "absent.onnx is not a file"),
        (2, ["--report", "."], "is a folder"),
    ],
)
def test_what_cannot_be_fitted_is_told_in_a_sentence(
    home: Path, tmp_path: Path, count: int | None, arguments: list[str], sentence: str
) -> None:
    folder = tmp_path / "few"
    if count is not None:
        folder.mkdir()
        for image in pictures(count):
            (folder / image.name).write_bytes(image.read())
    done = runner.invoke(app, ["fit", str(folder), "--project", "plates", *arguments])
    assert done.exit_code == 2, done.output
    assert sentence in " ".join(done.output.split())

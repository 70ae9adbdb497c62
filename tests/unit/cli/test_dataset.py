"""`loupe dataset`: counts, findings, versions and the models that saw them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.adapters.object_store import ObjectStore
from services.adapters.object_store.store import FRAMES_BUCKET, folder_store
from services.cli.dataset import as_data
from services.cli.main import app
from services.domain.label import Mask, Verdict
from services.trainer.dataset_versions import DatasetVersions, Finding, snapshot_of
from services.trainer.datasets import Datasets
from tests.unit.trainer.pictures import picture
from tests.unit.trainer.test_datasets import AT, drawn, label

runner = CliRunner()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    monkeypatch.setenv("LOUPE_DATABASE_URL", url)
    # The command reads rows only; nothing answers there.
    monkeypatch.setenv("LOUPE_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "80")
    return open_engine(url)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "s3")


def fill(engine: Engine, store: ObjectStore) -> Datasets:
    """Label a normal picture, an anomalous one with a mask, and one picture twice."""
    datasets = Datasets(engine, store, FakeClock(AT))
    mask = Mask("dent", store.put_image(FRAMES_BUCKET, drawn((160, 160))))
    images = [store.put_image(FRAMES_BUCKET, picture(seed)) for seed in range(3)]
    datasets.store(label(images[0]))
    datasets.store(replace(label(images[1], Verdict.ANOMALY), classes=("dent",), masks=(mask,)))
    datasets.store(label(images[2]))
    # The same pixels, another file: a byte after the end of a PNG is not looked at.
    datasets.store(label(store.put_image(FRAMES_BUCKET, picture(2) + b"\x00"), Verdict.ANOMALY))
    return datasets


def run(*words: str, code: int = 0) -> str:
    done = runner.invoke(app, ["dataset", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_nothing_labelled_is_said(engine: Engine) -> None:
    assert "Nothing of plates is labelled" in run("plates", code=2)


def test_counts_and_contradictions_are_shown(engine: Engine, store: ObjectStore) -> None:
    fill(engine, store)
    text = run("plates")
    assert "1 normal, 1 anomaly" in text
    assert "1 dent" in text
    assert "never" in text
    assert "The same pixels are labelled differently" in text
    told = json.loads(run("plates", "--json"))
    assert (told["images"], told["verdicts"], told["masks"]) == (2, {"normal": 1, "anomaly": 1}, 1)
    assert [one["kind"] for one in told["findings"]] == ["contradiction"]
    assert run("plates", "--versions") == "No training has read it yet.\n"


def test_versions_name_what_trainings_saw(engine: Engine, store: ObjectStore) -> None:
    datasets, versions = fill(engine, store), DatasetVersions(engine, store)
    version = versions.write("plates", snapshot_of(datasets.all_entries("plates")), AT)
    versions.add_findings(version, [Finding("near-duplicate", "1 and 3 show one object.")])
    later = snapshot_of(datasets.all_entries("plates")[:1])
    newest = versions.write("plates", later, AT + timedelta(hours=1))
    text = run("plates", "--versions")
    assert text.index(newest.digest[:12]) < text.index(version.digest[:12])
    seen = versions.of_project("plates")[::-1]
    told = as_data("plates", later, seen)
    assert [(one["digest"], one["images"]) for one in told["versions"]] == [
        (newest.digest, 1), (version.digest, 2),
    ]  # fmt: skip
    assert json.loads(json.dumps(told))["versions"][1]["findings"][-1]["kind"] == "near-duplicate"

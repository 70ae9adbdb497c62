"""`loupe image` and `loupe archive`: what people and programs read."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from typer.testing import CliRunner

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.cli.image import as_plain
from services.cli.main import app
from services.domain.frame import ImageReference
from services.results.batch import Read
from services.results.pixels import Pixels
from services.results.store import Store
from tests.unit.results.builders import frame, verdict, verdict_records


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    made = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(made)
    monkeypatch.setenv("LOUPE_DATABASE_URL", made)
    # Nobody listens there; only commands that ask would notice.
    monkeypatch.setenv("LOUPE_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    return made


def test_found_pixels_are_told_with_their_hash() -> None:
    found = Pixels(UUID(int=1), "cam", ("normal",), b"image", "s3://bucket/key")
    told = as_plain(found)
    assert (told["found"], told["bytes"]) == (True, 5)
    assert told["sha256"] == hashlib.sha256(b"image").hexdigest()


def test_an_unknown_frame_is_explained_and_is_an_error(url: str) -> None:
    done = CliRunner().invoke(app, ["image", str(UUID(int=7)), "--json"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["found"], told["sha256"]) == (False, None)
    assert "Nobody knows" in told["notes"][0]
    shown = CliRunner().invoke(app, ["image", str(UUID(int=7))]).stdout
    assert "none" in shown


def test_what_is_no_frame_id_is_refused(url: str) -> None:
    done = CliRunner().invoke(app, ["image", "photo.jpg"])
    assert done.exit_code == 2
    assert "is no frame id" in done.output


def test_the_archive_is_counted_per_class(url: str) -> None:
    kept = ImageReference("s3://loupe-frames/sha256/aa/aa", "a" * 64, 1_500_000)
    told = [verdict(frame(n), image=kept, retention=name) for n, name in enumerate(("short", "", "short"))]
    batch = [Read(one, record) for one, record in zip(told, verdict_records(*told), strict=True)]
    Store(open_engine(url), FakeClock(datetime(2026, 1, 1, tzinfo=UTC))).add_inspections(batch)
    done = CliRunner().invoke(app, ["archive", "status", "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["short"] == {"rows": 2, "images": 2, "size_bytes": 3_000_000}
    assert found["standard"]["rows"] == 1
    assert "730 days" in CliRunner().invoke(app, ["archive", "status"]).stdout


def test_a_sweep_without_a_store_deletes_nothing_and_says_so(url: str) -> None:
    done = CliRunner().invoke(app, ["archive", "sweep"])
    assert done.exit_code == 1
    assert "could not be listed" in done.output

"""One stack and one hosted project for all end-to-end tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.adapters.database import open_engine
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import running_stack
from services.ingest.synthetic.line import SyntheticLine, write_folder
from tests.e2e.line import Line, loupe, wait_until_hosted


@pytest.fixture(scope="session")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    """A running stack with a project `parts`, fitted from the synthetic line."""
    folder: Path = tmp_path_factory.mktemp("line")
    home, photos = folder / "home", folder / "photos"
    write_folder(SyntheticLine(seed=7), photos, normals=50, anomalies=10)
    try:
        loupe(home, "up")
        loupe(home, "fit", str(photos / "normal"), "--project", "parts")
        addresses = running_stack(EmbeddedSettings(home=home))
        assert addresses is not None
        engine = open_engine(addresses.database_url)
        wait_until_hosted(engine, "parts")
        yield Line(home, addresses, engine, "parts", photos)
        engine.dispose()
    finally:
        loupe(home, "down", code=None)

"""A migrated database and the store of the desired state."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.database import migrate, open_engine
from services.hosting.store import HostingStore


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    return open_engine(url)


@pytest.fixture
def store(engine: Engine) -> HostingStore:
    return HostingStore(engine)

"""A tiny model, its store, and a model server in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.model_watch import ModelWatch, NodeLimits
from serve.versions import VersionCache
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectStore, memory_store
from services.adapters.triton.memory import MemoryTriton
from tests.unit.serve.models import write_version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def server(repository: Path) -> MemoryTriton:
    return MemoryTriton(repository)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """Holds versions v1 and v2 of project plates, and v3, whose golden scores are wrong."""
    made = memory_store()
    for version, lie in (("v1", 0.0), ("v2", 0.0), ("v3", 0.1)):
        folder = write_version(tmp_path / "fitted", version, lie=lie)
        made.upload_folder(folder, f"s3://loupe-models/plates/{version}")
    return made


@pytest.fixture
def cache(store: ObjectStore, tmp_path: Path) -> VersionCache:
    return VersionCache(store, tmp_path / "cache")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watch(server: MemoryTriton, cache: VersionCache, clock: FakeClock, repository: Path) -> ModelWatch:
    return ModelWatch(server, cache, clock, NodeLimits(repository, 1))

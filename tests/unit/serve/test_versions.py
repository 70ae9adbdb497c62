"""Version folders: fetched once, verified every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from serve.versions import VersionCache
from services.adapters.object_store import ObjectStore
from services.domain.errors import CorruptModel, UnknownObject

V1 = "s3://loupe-models/plates/v1"


def test_a_version_is_fetched_whole_and_once(
    cache: VersionCache, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache.fetch(V1)
    assert first.manifest.version == "v1"
    monkeypatch.setattr(store, "download_folder", lambda *_: pytest.fail("fetched again"))
    assert cache.fetch(V1).path == first.path


def test_a_copy_that_was_changed_on_disk_is_fetched_again(cache: VersionCache) -> None:
    first = cache.fetch(V1)
    (first.path / "model.onnx").write_bytes(b"something else")
    assert cache.fetch(V1).path == first.path


def test_a_folder_that_is_not_what_its_manifest_says_is_refused(
    cache: VersionCache, store: ObjectStore, tmp_path: Path
) -> None:
    store.put(f"{V1}/model.onnx", b"something else")
    with pytest.raises(CorruptModel):
        cache.fetch(V1)
    assert not list((tmp_path / "cache").iterdir())


def test_a_version_that_nobody_stored_is_unknown(cache: VersionCache) -> None:
    with pytest.raises(UnknownObject):
        cache.fetch("s3://loupe-models/plates/v9")

"""Versions: whole or not there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from services.adapters.object_store.store import ObjectStore, folder_store, memory_store
from services.domain.errors import BadRequest, CorruptModel, StoreUnavailable, UnknownProject
from services.domain.model_version import VersionState
from services.trainer.registry import Registry, new_version
from tests.unit.trainer.models import CREATED_AT, model_folder, promoted

LATER = CREATED_AT + timedelta(hours=1)


@pytest.fixture
def store() -> ObjectStore:
    return memory_store()


@pytest.fixture
def registry(engine: Engine, store: ObjectStore) -> Registry:
    return Registry(engine, store)


class FailingStore(ObjectStore):
    """Takes `allowed` objects, then is gone."""

    def __init__(self, inner: ObjectStore, allowed: int) -> None:
        self._inner, self._allowed = inner, allowed

    def put(self, uri: str, data: bytes) -> None:
        if self._allowed == 0:
            raise StoreUnavailable("gone")
        self._allowed -= 1
        self._inner.put(uri, data)


def test_versions_sort_by_time() -> None:
    early = new_version(datetime(2026, 11, 21, 10, 40, 58, tzinfo=UTC), "ffff")
    late = new_version(datetime(2026, 11, 21, 10, 40, 59, tzinfo=UTC), "0000")
    assert early == "v20261121-104058-ffff"
    assert early < late


def test_a_registered_version_is_found_and_fetched_whole(registry: Registry, tmp_path: Path) -> None:
    folder, manifest = model_folder(tmp_path / "made")
    said = registry.register(folder, manifest, training_id="t1")
    assert said.uri == "s3://loupe-models/plates/v1"
    assert said == registry.of_training("t1") == registry.record("plates", "v1").announcement
    assert registry.projects() == ("plates",)
    brought = tmp_path / "models" / "plates" / "v1"
    assert registry.fetch(said, brought) == manifest
    assert {p.name for p in brought.rglob("*")} == {p.name for p in folder.rglob("*")}
    assert registry.fetch(said, brought) == manifest  # present already


def test_registering_twice_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    folder, manifest = model_folder(tmp_path)
    assert registry.register(folder, manifest) == registry.register(folder, manifest)
    (record,) = registry.records("plates")
    assert (record.state, record.family, record.decided_at) == (VersionState.CANDIDATE, "memory", None)


def test_a_candidate_and_a_kept_version_are_served_by_nobody(registry: Registry, tmp_path: Path) -> None:
    promoted(registry, *model_folder(tmp_path, version="v1"))
    registry.register(*model_folder(tmp_path, version="v2", created_at=LATER))
    assert registry.latest("plates").version == "v1"
    record = registry.decide("plates", "v2", VersionState.KEPT, {"reasons": ["It is worse."]}, LATER)
    assert (record.state, record.reasons, record.decided_at) == (VersionState.KEPT, ("It is worse.",), LATER)
    assert [one.version for one in registry.records("plates")] == ["v1", "v2"]


def test_a_decision_is_made_once(registry: Registry, tmp_path: Path) -> None:
    registry.register(*model_folder(tmp_path))
    first = registry.decide("plates", "v1", VersionState.KEPT, {"reasons": ["First."]}, LATER)
    again = registry.decide("plates", "v1", VersionState.PROMOTED, {"reasons": ["Second."]}, LATER)
    assert again == first


def test_what_was_promoted_last_serves_whenever_it_was_made(registry: Registry, tmp_path: Path) -> None:
    for version, age_s in (("b", 0), ("a", 5), ("c", 9)):
        made_at = CREATED_AT - timedelta(seconds=age_s)
        promoted(registry, *model_folder(tmp_path, version=version, created_at=made_at))
    assert registry.latest("plates").version == "b"
    said = registry.promote("plates", "c", author="ada", reason="b misses scratches", at=LATER)
    assert registry.latest("plates") == said
    (by_hand,) = registry.record("plates", "c").evidence["by_hand"]
    assert (by_hand["author"], by_hand["reason"], by_hand["was"]) == ("ada", "b misses scratches", "promoted")
    # Until the next promotion, whatever was made before it.
    promoted(registry, *model_folder(tmp_path, version="d"), at=LATER + timedelta(seconds=1))
    assert registry.latest("plates").version == "d"


def test_a_kept_version_is_promoted_by_hand_with_its_evidence(registry: Registry, tmp_path: Path) -> None:
    registry.register(*model_folder(tmp_path))
    evidence = {"reasons": ["It is worse."], "candidate": {"is_proved": True}}
    registry.decide("plates", "v1", VersionState.KEPT, evidence, CREATED_AT)
    registry.promote("plates", "v1", author="ada", reason="the test set is old", at=LATER)
    record = registry.record("plates", "v1")
    assert (record.state, record.reasons) == (VersionState.PROMOTED, ("It is worse.",))
    assert record.evidence["by_hand"][0]["was"] == "kept"


def test_what_has_not_proved_itself_is_not_promoted_by_hand_either(
    registry: Registry, tmp_path: Path
) -> None:
    registry.register(*model_folder(tmp_path))
    with pytest.raises(BadRequest, match="not been proved yet"):
        registry.promote("plates", "v1", author="ada", reason="", at=LATER)
    evidence = {"reasons": ["It fails its golden check."], "candidate": {"is_proved": False}}
    registry.decide("plates", "v1", VersionState.KEPT, evidence, CREATED_AT)
    with pytest.raises(BadRequest, match=r"cannot serve\. It fails its golden check"):
        registry.promote("plates", "v1", author="ada", reason="", at=LATER)


def test_promoting_what_was_promoted_last_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    promoted(registry, *model_folder(tmp_path))
    before = registry.record("plates", "v1")
    said = registry.promote("plates", "v1", author="ada", reason="", at=LATER)
    assert (said, registry.record("plates", "v1")) == (before.announcement, before)


def test_promoting_what_is_not_there_is_refused(registry: Registry, tmp_path: Path) -> None:
    promoted(registry, *model_folder(tmp_path))
    with pytest.raises(BadRequest, match=r"no version v9 of plates\. There are: v1"):
        registry.promote("plates", "v9", author="ada", reason="", at=LATER)
    with pytest.raises(UnknownProject):
        registry.promote("bottles", "v1", author="ada", reason="", at=LATER)


@pytest.mark.parametrize("allowed", range(6))
def test_an_upload_that_breaks_off_is_never_a_version(engine: Engine, tmp_path: Path, allowed: int) -> None:
    """The folder has six files; the manifest, the last, makes it whole."""
    folder, manifest = model_folder(tmp_path / "made")
    inner = folder_store(tmp_path / "s3")
    with pytest.raises(StoreUnavailable):
        Registry(engine, FailingStore(inner, allowed)).register(folder, manifest)
    assert not inner.exists("s3://loupe-models/plates/v1/manifest.json")
    with pytest.raises(UnknownProject):
        Registry(engine, inner).latest("plates")
    said = Registry(engine, inner).register(folder, manifest)  # the same again, and it is whole
    Registry(engine, inner).fetch(said, tmp_path / "brought")


def test_a_changed_folder_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    folder, manifest = model_folder(tmp_path)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(CorruptModel, match="changed"):
        registry.register(folder, manifest)


def test_what_was_changed_in_the_store_is_not_fetched(
    registry: Registry, store: ObjectStore, tmp_path: Path
) -> None:
    said = registry.register(*model_folder(tmp_path / "made"))
    store.put(f"{said.uri}/model.onnx", b"another")
    with pytest.raises(CorruptModel):
        registry.fetch(said, tmp_path / "brought")
    assert not (tmp_path / "brought").exists()


def test_another_manifest_than_the_announced_one_is_refused(registry: Registry, tmp_path: Path) -> None:
    said = registry.register(*model_folder(tmp_path / "one"))
    other, _ = model_folder(tmp_path / "two", created_at=CREATED_AT + timedelta(1))
    with pytest.raises(CorruptModel, match="announced"):
        registry.fetch(said, other)


def test_an_unknown_project_is_answered_with_the_known_ones(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnknownProject, match="no other yet"):
        registry.latest("plates")
    registry.register(*model_folder(tmp_path))
    with pytest.raises(UnknownProject, match="No version of plates was promoted yet"):
        registry.latest("plates")
    with pytest.raises(UnknownProject, match="Known are: plates"):
        registry.latest("bottles")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-a", "ä", "a" * 64])
def test_a_project_needs_a_name_that_can_be_one(registry: Registry, tmp_path: Path, name: str) -> None:
    folder, manifest = model_folder(tmp_path, project=name)
    with pytest.raises(BadRequest, match="cannot be a project's name"):
        registry.register(folder, manifest)

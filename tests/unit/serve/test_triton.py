"""One version in a model server: proved, healed, and removed when its replica is dead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serve.triton import Lease, ServedModel, reap_orphans
from serve.versions import VersionCache
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectStore
from services.adapters.triton.memory import MemoryTriton
from services.adapters.triton.repository import config_of
from services.domain.errors import CorruptModel, FrameCrashesModel, ModelUnavailable
from tests.unit.serve.models import write_version

V1, V3 = "s3://loupe-models/plates/v1", "s3://loupe-models/plates/v3"
BATCH = np.full((2, 16, 16, 3), 255, np.uint8)
IDLE_S = 1.0


@pytest.fixture
def lease(repository: Path) -> Lease:
    return Lease(repository, "plates.v1.a#b/c")


@pytest.fixture
def model(server: MemoryTriton, lease: Lease, cache: VersionCache, clock: FakeClock) -> ServedModel:
    return ServedModel(server, lease, cache.fetch(V1), clock, threads=1)


def test_names_become_what_triton_takes(lease: Lease) -> None:
    assert lease.name == "plates.v1.a_b_c"


def test_a_loaded_model_judges(model: ServedModel) -> None:
    found = model.infer(BATCH)
    assert found.scores.tolist() == pytest.approx([10, 10])
    assert found.maps.shape == (2, 16, 16)


def test_other_numbers_than_when_trained_are_refused(
    server: MemoryTriton, lease: Lease, cache: VersionCache, clock: FakeClock
) -> None:
    with pytest.raises(CorruptModel, match="other numbers"):
        ServedModel(server, lease, cache.fetch(V3), clock, threads=1)


@pytest.fixture(params=[1.02, 1.5], ids=["as trained", "another processor"])
def faster(request: pytest.FixtureRequest, store: ObjectStore, tmp_path: Path) -> tuple[str, float]:
    """A version with a faster variant, whose scores are so many times those that it had when trained."""
    uri = "s3://loupe-models/plates/v4"
    folder = write_version(tmp_path / "fast", "v4", faster_gain=request.param)
    store.upload_folder(folder, uri)
    return uri, request.param


def test_the_faster_variant_serves_where_it_proves_itself_and_fp32_elsewhere(
    server: MemoryTriton,
    lease: Lease,
    cache: VersionCache,
    clock: FakeClock,
    faster: tuple[str, float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    uri, gain = faster
    model = ServedModel(server, lease, cache.fetch(uri), clock, threads=1)
    is_faster = gain < 1.1
    assert model.variant.name == ("int8" if is_faster else "fp32")
    assert model.infer(BATCH).scores[0] == pytest.approx(10.2 if is_faster else 10)
    assert ("fp32 serves instead" in caplog.text) is not is_faster
    # Healing proves the same variant again.
    server.crash(lease.name)
    clock.advance(IDLE_S)
    model.tend(IDLE_S)
    assert model.problem is None


def test_configuration_names_the_tensors_of_the_manifest(cache: VersionCache) -> None:
    text = config_of("plates.v1.x", cache.fetch(V1).manifest, threads=2)
    assert 'name: "pixels" data_type: TYPE_UINT8 dims: [-1, 16, 16, 3]' in text
    assert 'name: "score" data_type: TYPE_FP32 dims: [-1]' in text
    assert 'key: "THREADS" value: { string_value: "2" }' in text


def test_a_dead_stub_is_suspected_found_and_healed(
    model: ServedModel, server: MemoryTriton, lease: Lease
) -> None:
    server.crash(lease.name)
    with pytest.raises(FrameCrashesModel):
        model.infer(BATCH)
    # Known to be broken now: the next batch is not tried, so nothing is held against it.
    with pytest.raises(ModelUnavailable):
        model.infer(BATCH)
    model.tend(IDLE_S)
    assert model.problem is None
    model.infer(BATCH)


def test_a_canary_finds_a_dead_stub_without_traffic(
    model: ServedModel, server: MemoryTriton, lease: Lease, clock: FakeClock
) -> None:
    server.crash(lease.name)
    assert lease.name in server.loaded()  # it says so, and lies
    clock.advance(IDLE_S)
    model.tend(IDLE_S)
    model.infer(BATCH)


def test_traffic_is_proof_enough(
    model: ServedModel, server: MemoryTriton, lease: Lease, clock: FakeClock
) -> None:
    clock.advance(IDLE_S / 2)
    model.infer(BATCH)
    server.crash(lease.name)
    clock.advance(IDLE_S / 2)
    model.tend(IDLE_S)
    assert model.problem is None  # not looked at yet


def test_a_restarted_server_that_forgot_the_model_gets_it_again(
    model: ServedModel, server: MemoryTriton, clock: FakeClock
) -> None:
    server.is_up = False
    clock.advance(IDLE_S)
    with pytest.raises(ModelUnavailable):
        model.tend(IDLE_S)
    server.is_up = True
    model.tend(IDLE_S)
    model.infer(BATCH)


def test_retiring_removes_all_traces(model: ServedModel, server: MemoryTriton, repository: Path) -> None:
    model.retire(drain_s=1)
    assert server.loaded() == frozenset()
    assert list(repository.iterdir()) == []


def test_orphans_are_reaped_and_the_living_stay(
    model: ServedModel, server: MemoryTriton, lease: Lease, repository: Path
) -> None:
    orphan = repository / "plates.v1.dead"
    orphan.mkdir()
    (orphan / "lease").touch()  # nobody holds it
    foreign = repository / "somebody-elses-model"
    foreign.mkdir()
    assert reap_orphans(server, repository) == ("plates.v1.dead",)
    assert sorted(path.name for path in repository.iterdir()) == [lease.name, foreign.name]
    model.infer(BATCH)

"""What every model server has to do: the one in memory and the real tritonserver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from serve.triton import Lease, ServedModel
from serve.versions import VersionCache, VersionFolder
from services.adapters.clock import SystemClock
from services.adapters.object_store import memory_store
from services.adapters.triton import ModelServer
from services.adapters.triton.memory import MemoryTriton
from services.adapters.triton.server import TritonServer
from services.domain.errors import CorruptModel, ModelUnavailable
from services.vision.runtime import verify_folder
from services.vision.variants import fp32_of
from tests.poll import poll_until
from tests.servers import TritonAccess
from tests.unit.serve.models import write_version

OUTPUTS = ("score", "map")
# More than `_SHARED_ABOVE_BYTES`, so that the real one is tried by shared memory as well.
MANY = 400


@pytest.fixture(params=["memory", "real"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ModelServer, Path]]:
    """A server and its repository."""
    server: ModelServer
    if request.param == "memory":
        repository = tmp_path / "repository"
        server = MemoryTriton(repository)
    else:
        access: TritonAccess = request.getfixturevalue("triton_access")
        repository, server = access.repository, TritonServer(access.grpc)
    yield server, repository
    server.close()


@pytest.fixture
def lease(place: tuple[ModelServer, Path], tmp_path: Path) -> Iterator[Lease]:
    """A model in the repository, not loaded; its score is the brightness, 0 to 10."""
    server, repository = place
    store = memory_store()
    store.upload_folder(write_version(tmp_path / "fitted"), "s3://loupe-models/plates/v1")
    made = Lease(repository, f"plates.v1.{tmp_path.name}")
    version = VersionCache(store, tmp_path / "cache").fetch("s3://loupe-models/plates/v1")
    made.write(version, fp32_of(version.manifest), threads=1)
    yield made
    server.unload(made.name)
    made.give_up()


def scores(server: ModelServer, name: str, *values: int) -> list[float]:
    batch = np.stack([np.full((16, 16, 3), value, np.uint8) for value in values])
    found, maps = server.infer(name, input_name="pixels", batch=batch, outputs=OUTPUTS, timeout_s=10)
    assert found.dtype == maps.dtype == np.float32
    assert maps.shape == (len(values), 16, 16)
    return list(found.tolist())


def test_a_live_server_that_has_loaded_nothing(place: tuple[ModelServer, Path], lease: Lease) -> None:
    server, _ = place
    assert server.is_live()
    assert lease.name not in server.loaded()


def test_a_loaded_model_judges_batches_of_any_size(place: tuple[ModelServer, Path], lease: Lease) -> None:
    server, _ = place
    server.load(lease.name)
    assert lease.name in server.loaded()
    assert scores(server, lease.name, 255) == pytest.approx([10])
    assert scores(server, lease.name, 0, 51, 255) == pytest.approx([0, 2, 10])


@pytest.mark.parametrize("count", [MANY, 2 * MANY, MANY + 1])
def test_large_batches_come_back_in_order(place: tuple[ModelServer, Path], lease: Lease, count: int) -> None:
    server, _ = place
    server.load(lease.name)
    values = [index % 256 for index in range(count)]
    for _ in range(2):  # the second by memory that is shared already
        assert scores(server, lease.name, *values) == pytest.approx([v * 10 / 255 for v in values], abs=1e-4)


def test_a_model_that_is_not_loaded_is_unavailable(place: tuple[ModelServer, Path], lease: Lease) -> None:
    server, _ = place
    with pytest.raises(ModelUnavailable):
        scores(server, lease.name, 1)


def test_unloading_is_harmless_twice(place: tuple[ModelServer, Path], lease: Lease) -> None:
    server, _ = place
    server.load(lease.name)
    for _ in range(2):
        server.unload(lease.name)
    assert lease.name not in server.loaded()


def test_what_is_not_in_the_repository_cannot_be_loaded(place: tuple[ModelServer, Path]) -> None:
    with pytest.raises(CorruptModel):
        place[0].load("nothing")


def test_a_graph_that_is_none_cannot_be_loaded(place: tuple[ModelServer, Path], lease: Lease) -> None:
    (lease.folder / "1" / "model.onnx").unlink()
    (lease.folder / "1" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(CorruptModel):
        place[0].load(lease.name)


def test_a_batch_of_the_wrong_shape_fails_alone(place: tuple[ModelServer, Path], lease: Lease) -> None:
    server, _ = place
    server.load(lease.name)
    wrong = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(ModelUnavailable):
        server.infer(lease.name, input_name="pixels", batch=wrong, outputs=OUTPUTS, timeout_s=10)
    assert scores(server, lease.name, 255) == pytest.approx([10])


def test_a_dead_model_says_it_is_ready_and_unload_and_load_heal_it(
    place: tuple[ModelServer, Path], lease: Lease, request: pytest.FixtureRequest
) -> None:
    server, _ = place
    server.load(lease.name)
    if isinstance(server, MemoryTriton):
        server.crash(lease.name)
    else:
        _kill_stub(request.getfixturevalue("triton_access"), lease.name)
    with pytest.raises(ModelUnavailable):
        scores(server, lease.name, 255)
    assert lease.name in server.loaded()
    # Loading alone may heal it or not: Triton looks whether files in the folder have changed.
    server.unload(lease.name)
    server.load(lease.name)
    assert scores(server, lease.name, 255) == pytest.approx([10])


def _kill_stub(access: TritonAccess, name: str) -> None:
    """Kill what runs the model, as a segmentation fault in it would."""
    tree = psutil.Process(access.process_id).children(recursive=True)
    alive = [child for child in tree if child.status() != psutil.STATUS_ZOMBIE]
    (stub,) = [child for child in alive if any(name in word for word in child.cmdline())]
    stub.kill()
    poll_until(lambda: not stub.is_running() or stub.status() == psutil.STATUS_ZOMBIE, deadline_s=5)


@pytest.mark.parametrize(("gain", "serving"), [(1.02, "int8"), (1.5, "fp32")])
def test_fp32_takes_over_where_the_faster_graph_computes_other_numbers(
    place: tuple[ModelServer, Path], tmp_path: Path, gain: float, serving: str
) -> None:
    server, repository = place
    folder = write_version(tmp_path / "fitted", faster_gain=gain)
    lease = Lease(repository, f"plates.v1.{tmp_path.name}")
    version = VersionFolder(folder, verify_folder(folder))
    model = ServedModel(server, lease, version, SystemClock(), threads=1)
    assert model.variant.name == serving
    expected = 10.2 if serving == "int8" else 10
    bright = np.full((3, 16, 16, 3), 255, np.uint8)
    assert model.infer(bright).scores.tolist() == pytest.approx([expected] * 3)
    model.retire(drain_s=1)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    server = TritonServer("127.0.0.1:1")
    assert not server.is_live()
    for call in (lambda: server.load("x"), lambda: server.unload("x"), server.loaded):
        with pytest.raises(ModelUnavailable):
            call()
    server.close()

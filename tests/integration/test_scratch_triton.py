"""The golden check in a real tritonserver of its own, which ends with whoever started it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from services.domain.errors import ModelUnavailable
from services.embedded.leftovers import remove_shared_memory
from services.trainer.proving import ScratchProver
from services.trainer.scratch_triton import ScratchTriton, TritonParts
from services.vision.runtime import verify_folder
from tests.poll import poll_until
from tests.servers import Servers
from tests.unit.serve.models import write_version
from tests.unit.trainer.judges import Project

_SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def parts(own_servers: Servers) -> TritonParts:
    """The installed server; none of the stack's is started."""
    at = own_servers.addresses
    return TritonParts(at.tritonserver, at.backend_python)


def children() -> list[psutil.Process]:
    """Return what this process has started and what that has."""
    return psutil.Process().children(recursive=True)


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = {one.pid for one in children()}
    yield
    left = [one for one in children() if one.pid not in before]
    assert left == []
    assert list(_SHARED_MEMORY.glob("loupe_scratch_*")) == []


def test_a_good_version_is_proved_and_a_wrong_one_is_not(parts: TritonParts, tmp_path: Path) -> None:
    prover = ScratchProver(parts)
    good = write_version(tmp_path, "v1")
    proof = prover.prove(good, verify_folder(good))
    assert proof.is_proved
    assert proof.sentence == "Its golden outputs come out in fp32, by a tritonserver of its own."
    wrong = write_version(tmp_path, "v2", lie=1.0)
    proof = prover.prove(wrong, verify_folder(wrong))
    assert not proof.is_proved
    assert "computes other numbers than when it was trained" in proof.sentence


def test_a_graph_that_triton_cannot_load_is_never_promoted(parts: TritonParts, tmp_path: Path) -> None:
    project = Project(tmp_path, prover=ScratchProver(parts))
    assert project.consider("v1").is_promoted
    folder, manifest = project.fitted("v2")
    # Damaged after the registration verified it, before Triton reads it.
    (folder / "model.onnx").write_bytes(b"no graph")
    proof = ScratchProver(parts).prove(folder, manifest)
    assert not proof.is_proved
    assert "Triton cannot load candidate" in proof.sentence
    assert project.registry.latest("plates").version == "v1"


def test_a_server_that_cannot_start_in_time_is_told(parts: TritonParts) -> None:
    with (
        pytest.raises(ModelUnavailable, match="did not answer within 0 s"),
        ScratchTriton(parts, start_timeout_s=0.0),
    ):
        pass


def test_a_server_that_ends_at_once_is_told_with_its_last_words(parts: TritonParts, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tritonserver"
    program.write_text("#!/bin/sh\necho no such backend\nexit 1\n")
    program.chmod(0o755)
    broken = TritonParts(tmp_path, parts.python)
    with (
        pytest.raises(ModelUnavailable, match="tritonserver ended at once: no such backend"),
        ScratchTriton(broken),
    ):
        pass
    version = write_version(tmp_path, "v1")
    proof = ScratchProver(broken).prove(version, verify_folder(version))
    assert proof.is_proved
    assert "by ONNX Runtime in the trainer's process; tritonserver ended at once" in proof.sentence


_HOLD = """
import sys
from pathlib import Path
from services.adapters.triton.repository import write_model
from services.trainer.scratch_triton import ScratchTriton, TritonParts
from services.vision.runtime import verify_folder
from services.vision.variants import fp32_of
server, python, version = map(Path, sys.argv[1:])
manifest = verify_folder(version)
with ScratchTriton(TritonParts(server, python)) as scratch:
    write_model(scratch.repository / "m", version, manifest, fp32_of(manifest), 1)
    scratch.server.load("m")
    print(scratch.process_id, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("killed", ["trainer", "guard"])
def test_the_server_and_its_models_end_with_a_killed_trainer(
    parts: TritonParts, killed: str, tmp_path: Path
) -> None:
    version = write_version(tmp_path, "v1")
    trainer = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(parts.server), str(parts.python), str(version)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert trainer.stdout is not None
        guard = psutil.Process(int(trainer.stdout.readline()))
        family = [guard, *guard.children(recursive=True)]
        folder = Path(guard.cmdline()[3])
        regions = [word.partition("=")[2] for one in family for word in one.cmdline() if "shm-region" in word]
        assert len(family) > 2  # the guard, the server and the model's own process
        (trainer if killed == "trainer" else guard).kill()
        poll_until(
            lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family),
            deadline_s=20,
            what="the server's end",
        )
        if killed == "trainer":
            assert not folder.exists()
    finally:
        trainer.kill()
        trainer.communicate()
        if killed == "guard":  # whose last work it is
            shutil.rmtree(folder, ignore_errors=True)
            for region in regions:
                remove_shared_memory(region.rpartition("=")[2])

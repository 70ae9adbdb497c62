"""A fit on Ray without Ray; `tests/integration/test_fit_ray.py` has a real one."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from services.domain.errors import MissingPart, Rejected, RetryLater
from services.domain.label import Verdict
from services.domain.model_version import DEFAULT_OPTIONS
from services.trainer.fit_process import FitJob, FitResult, TrainingImage
from services.trainer.fit_ray import WAITING, Fitter, RayFit, _files_of, _unpacked


def test_without_ray_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what an import of a missing module meets
    with pytest.raises(MissingPart, match="LOUPE_FIT_RUNS_ON is ray, but Ray is not installed"):
        RayFit(address="auto", timeout_s=1).offered_bytes()


def test_an_actor_keeps_files_and_removes_what_a_killed_one_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, foreign = tmp_path / "loupe-fit-4194305", tmp_path / "loupe-fit-notes"  # above any process id
    namesake = tmp_path / f"loupe-fit-{os.getpid()}"
    for folder in (left, foreign, namesake):
        (folder / "of before").mkdir(parents=True)
    fitter = Fitter(timeout_s=1)
    assert (left.exists(), foreign.exists()) == (False, True)
    assert list(namesake.iterdir()) == []
    fitter.take("a.png", b"pixels")
    assert [path.read_bytes() for path in tmp_path.glob("loupe-fit-*/a.png")] == [b"pixels"]
    assert fitter.progress() == (WAITING, 0.0)


class FailingRay(ModuleType):
    """A cluster on which every call ends with one error."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__("ray")
        self.error = error
        self.killed: list[object] = []
        self.exceptions = SimpleNamespace(
            RayError=RayError, RayActorError=ActorDied, OutOfMemoryError=OutOfMemory, RayTaskError=TaskFailed
        )

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def remote(self, _what: object = None) -> FailingRay:
        return self  # class, options, actor, method: all lead here

    def options(self, **_resources: object) -> FailingRay:
        return self

    @property
    def fit(self) -> FailingRay:
        return self

    def wait(self, references: list[object], **_timeout: float) -> tuple[list[object], list[object]]:
        return references, []

    def get(self, _reference: object) -> object:
        raise self.error("no space left")

    def kill(self, actor: object) -> None:
        self.killed.append(actor)


class RayError(Exception):
    """Of Ray."""


class ActorDied(RayError):
    """The actor's process ended."""


class OutOfMemory(RayError):
    """Ray ended it."""


class TaskFailed(RayError):
    """The actor's code raised."""

    cause = OSError("no space left")


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (ActorDied, Rejected, "probably for lack of memory"),
        (OutOfMemory, Rejected, "probably for lack of memory"),
        (TaskFailed, Rejected, "failed on the Ray cluster: OSError: no space left"),
        (RayError, RetryLater, "The Ray cluster failed: no space left"),
    ],
)
def test_what_would_fail_again_is_not_tried_for_ever(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    kind: type[Exception],
    sentence: str,
) -> None:
    ray = FailingRay(error)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(kind, match=sentence):
        RayFit(address="auto", timeout_s=1).run(
            FitJob("plates", "v1", DEFAULT_OPTIONS, []), tmp_path, lambda *_: None
        )
    assert len(ray.killed) == 1


def test_photos_travel_with_their_masks() -> None:
    images = [
        TrainingImage("a", Verdict.NORMAL),
        TrainingImage("b", Verdict.ANOMALY, ("dent",), {"dent": "b.mask0.png"}),
    ]
    assert list(_files_of(FitJob("plates", "v1", DEFAULT_OPTIONS, images))) == ["a", "b", "b.mask0.png"]


def test_a_model_folder_comes_back_under_its_name_and_whole(tmp_path: Path) -> None:
    fitted = FitResult(Path("/there/models/v1"), near_duplicates=("Two show one object.",))
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "old").write_bytes(b"of an attempt before")
    came = _unpacked(fitted, {"model.onnx": b"graph", "golden/inputs.npy": b"npy"}, tmp_path)
    assert (came.model, came.near_duplicates) == (tmp_path / "v1", fitted.near_duplicates)
    files = {str(path.relative_to(came.model)) for path in came.model.rglob("*") if path.is_file()}
    assert files == {"model.onnx", "golden/inputs.npy"}

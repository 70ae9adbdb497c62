"""A fit on Ray without Ray; `tests/integration/test_fit_ray.py` has a real one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from services.domain.errors import MissingPart
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
    left.mkdir()
    foreign.mkdir()
    fitter = Fitter(timeout_s=1)
    assert (left.exists(), foreign.exists()) == (False, True)
    fitter.take("a.png", b"pixels")
    assert [path.read_bytes() for path in tmp_path.glob("loupe-fit-*/a.png")] == [b"pixels"]
    assert fitter.progress() == (WAITING, 0.0)


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

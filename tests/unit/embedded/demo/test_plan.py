"""Which photos train and which are filmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.label import Verdict
from services.embedded.demo.plan import plan_from_folder, plan_synthetic


def photos(folder: Path, *, normals: int, anomalies: int, names: tuple[str, str] = ("good", "bad")) -> Path:
    for name, count in zip(names, (normals, anomalies), strict=True):
        (folder / name).mkdir()
        for n in range(count):
            (folder / name / f"{n:02}.jpg").write_bytes(b"x")
    return folder


def test_seventy_percent_of_the_normals_train_and_every_other_photo_is_filmed_once(tmp_path: Path) -> None:
    plan = plan_from_folder(photos(tmp_path, normals=20, anomalies=5), cameras=3, seed=0)
    filmed = [image.name for film in plan.films for image in film.images]
    assert len(plan.train) == 14
    assert len(filmed) == len(set(filmed)) == 11
    assert not set(filmed) & {image.name for image in plan.train}
    assert sum(label is Verdict.ANOMALY for label in plan.labels.values()) == 5


def test_good_and_bad_photos_are_dealt_evenly(tmp_path: Path) -> None:
    plan = plan_from_folder(photos(tmp_path, normals=40, anomalies=12), cameras=2, seed=0)
    for film in plan.films:
        first_half = film.images[: len(film.images) // 2]
        assert 2 <= sum(image.label is Verdict.ANOMALY for image in first_half) <= 4


def test_more_cameras_than_photos_leave_none_idle(tmp_path: Path) -> None:
    plan = plan_from_folder(photos(tmp_path, normals=4, anomalies=0), cameras=9, seed=0)
    assert [len(film.images) for film in plan.films] == [1]


def test_a_folder_that_leaves_nothing_to_film_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="add some more"):
        plan_from_folder(photos(tmp_path, normals=2, anomalies=0), cameras=1, seed=0)


def test_one_good_photo_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughImages, match="at least 2 different photos"):
        plan_from_folder(photos(tmp_path, normals=1, anomalies=9), cameras=1, seed=0)


def test_an_empty_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughImages, match="holds no photos"):
        plan_from_folder(tmp_path, cameras=1, seed=0)


def test_the_synthetic_line_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.embedded.demo.plan.SYNTHETIC_NORMALS", 4)
    monkeypatch.setattr("services.embedded.demo.plan.SYNTHETIC_ANOMALIES", 2)
    folder = tmp_path / "line"
    first = plan_synthetic(folder, cameras=1, seed=3)
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert plan_synthetic(folder, cameras=1, seed=3) == first
    assert [path.name for path in tmp_path.iterdir()] == ["line"]  # nothing half made is left
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == made

"""Folders of photos and how they are split."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.label import Verdict
from services.trainer.dataset import LabelledImage
from services.trainer.folders import read_folder, read_labelled_folder
from services.trainer.splits import split_normals


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_flat_folder_is_all_normal(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.PNG", "notes.txt", ".hidden.png", "masks/c.png")
    images = read_folder(tmp_path)
    assert [(one.name, one.label) for one in images] == [
        ("a.PNG", Verdict.NORMAL),
        ("b.jpg", Verdict.NORMAL),
    ]


@pytest.mark.parametrize("normal", ["normal", "good", "ok", "Good"])
@pytest.mark.parametrize("bad", ["anomaly", "bad", "defect", "anomalous"])
def test_named_folders_give_labels(tmp_path: Path, normal: str, bad: str) -> None:
    put(tmp_path, f"{normal}/1.jpg", f"{normal}/2.jpg", f"{bad}/1.jpg", "stray.jpg")
    images = read_folder(tmp_path)
    assert [(one.name, one.label) for one in images] == [
        (f"{normal}/1.jpg", Verdict.NORMAL),
        (f"{normal}/2.jpg", Verdict.NORMAL),
        (f"{bad}/1.jpg", Verdict.ANOMALY),
    ]


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize("names", [(), ("notes.txt",), ("normal/readme.md", "bad/1.jpg")])
def test_folder_without_good_photos_says_what_to_do(tmp_path: Path, names: tuple[str, ...]) -> None:
    put(tmp_path, *names)
    with pytest.raises(NotEnoughImages, match="Put photos of good parts"):
        read_folder(tmp_path)


def test_bad_photos_alone_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "defect/1.jpg", "1.jpg")
    with pytest.raises(BadRequest, match="none called normal, good, ok"):
        read_folder(tmp_path)


def labelled(normals: int, anomalies: int) -> list[LabelledImage]:
    names = [(f"n{one}", Verdict.NORMAL) for one in range(normals)]
    names += [(f"a{one}", Verdict.ANOMALY) for one in range(anomalies)]
    return [LabelledImage(b"", name, label) for name, label in names]


def test_split_is_seeded_and_whole() -> None:
    images = labelled(10, 4)
    training, rest = split_normals(images, share=0.7, seed=3)
    assert (len(training), len(rest)) == (7, 7)
    assert {one.name for one in training} | {one.name for one in rest} == {one.name for one in images}
    assert all(one.label is Verdict.NORMAL for one in training)
    assert split_normals(images[::-1], share=0.7, seed=3) == (training, rest)
    assert split_normals(images, share=0.7, seed=4) != (training, rest)


@pytest.mark.parametrize(("normals", "expected"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_split_of_few(normals: int, expected: int) -> None:
    training, _ = split_normals(labelled(normals, 2))
    assert len(training) == expected


def test_a_labelled_folder_pairs_masks_with_photos_by_stem(tmp_path: Path) -> None:
    put(tmp_path, "normal/1.jpg", "anomaly/2.jpg", "masks/2.png", "ground_truth/dent/2_mask.png")
    images, masks = read_labelled_folder(tmp_path)
    assert [(one.name, one.label) for one in images] == [
        ("normal/1.jpg", Verdict.NORMAL),
        ("anomaly/2.jpg", Verdict.ANOMALY),
    ]
    drawn = [("anomaly", tmp_path / "masks/2.png"), ("dent", tmp_path / "ground_truth/dent/2_mask.png")]
    assert masks == {"2": drawn}


def test_labels_may_be_of_anomalies_alone_but_not_of_nothing(tmp_path: Path) -> None:
    put(tmp_path / "some", "anomaly/1.jpg")
    assert len(read_labelled_folder(tmp_path / "some")[0]) == 1
    put(tmp_path / "flat", "1.jpg")
    with pytest.raises(BadRequest, match="loupe label DIR normal"):
        read_labelled_folder(tmp_path / "flat")
    with pytest.raises(BadRequest, match="neither a file nor a folder"):
        read_labelled_folder(tmp_path / "none")

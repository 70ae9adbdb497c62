"""Folders of photos and how they are split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.label import Split, Verdict
from services.trainer.dataset import ColouredMask, Dataset, LabelledImage
from services.trainer.folders import read_folder, read_labelled_folder, read_photos


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


@pytest.mark.parametrize("read", [read_folder, read_labelled_folder])
def test_masks_are_found_by_stem_and_folder(
    tmp_path: Path, read: Callable[[Path], tuple[LabelledImage, ...]]
) -> None:
    put(tmp_path, "normal/1.jpg", "anomaly/2.jpg", "anomaly/3.jpg")
    put(tmp_path, "masks/2.png", "ground_truth/dent/2_mask.png", "masks/1.png")
    normal, two, three = read(tmp_path)
    assert (normal.name, normal.label, normal.masks) == ("normal/1.jpg", Verdict.NORMAL, {})
    assert two.masks == {
        "anomaly": tmp_path / "masks/2.png",
        "dent": tmp_path / "ground_truth/dent/2_mask.png",
    }
    assert (three.label, three.types, three.masks) == (Verdict.ANOMALY, (), {})


def test_folders_inside_anomaly_name_types(tmp_path: Path) -> None:
    put(tmp_path, "good/1.jpg", "bad/0.jpg", "bad/dent/1.jpg", "bad/scratch/1.jpg")
    put(tmp_path, "masks/dent/1.png", "masks/scratch/1.png", "masks/0.png")
    _, unnamed, dent, scratch = read_folder(tmp_path)
    assert (unnamed.types, unnamed.masks) == ((), {"anomaly": tmp_path / "masks/0.png"})
    assert (dent.name, dent.types) == ("bad/dent/1.jpg", ("dent",))
    # Stems repeat among types: each has the mask of its own.
    assert dent.masks == {"dent": tmp_path / "masks/dent/1.png"}
    assert scratch.masks == {"scratch": tmp_path / "masks/scratch/1.png"}


def test_train_and_test_give_the_split(tmp_path: Path) -> None:
    put(tmp_path, "train/normal/1.jpg", "train/anomaly/2.jpg", "test/normal/1.jpg", "test/anomaly/dent/2.jpg")
    put(tmp_path, "masks/2.png", "test/masks/2.png", "stray.jpg")
    images = read_folder(tmp_path)
    assert [(one.name, one.split) for one in images] == [
        ("train/normal/1.jpg", Split.TRAIN),
        ("test/normal/1.jpg", Split.TEST),
        ("train/anomaly/2.jpg", Split.TRAIN),
        ("test/anomaly/dent/2.jpg", Split.TEST),
    ]
    assert images[2].masks == {"anomaly": tmp_path / "masks/2.png"}
    assert images[3].masks == {"dent": tmp_path / "test/masks/2.png"}


def test_a_flat_train_is_all_normal_and_other_folders_of_test_are_types(tmp_path: Path) -> None:
    put(tmp_path, "train/good/0.png", "test/good/0.png", "test/hole/0.png", "ground_truth/hole/0_mask.png")
    assert [(one.name, one.label, one.types) for one in read_folder(tmp_path)] == [
        ("train/good/0.png", Verdict.NORMAL, ()),
        ("test/good/0.png", Verdict.NORMAL, ()),
        ("test/hole/0.png", Verdict.ANOMALY, ("hole",)),
    ]
    put(tmp_path / "flat", "train/0.png")
    assert [(one.name, one.split) for one in read_folder(tmp_path / "flat")] == [("train/0.png", Split.TRAIN)]


def test_a_mask_of_no_photo_is_named(tmp_path: Path) -> None:
    put(tmp_path, "normal/1.jpg", "anomaly/2.jpg", "masks/2.png", "masks/tow.png")
    *_, stray = read_folder(tmp_path)
    assert (stray.name, stray.fault) == ("masks/tow.png", "No anomalous photo has the name of this mask.")
    reasons = {one.name: one.reason for one in Dataset([stray]).skipped}
    assert reasons == {"masks/tow.png": stray.fault}


def test_a_manifest_is_read_like_a_folder(tmp_path: Path) -> None:
    def line(source: str, verdict: str, **more: object) -> str:
        kind = {"class-name": verdict, "type": "groundtruth/image-classification"}
        return json.dumps({"source-ref": source, "l-metadata": kind, **more})

    colours = {"1": {"class-name": "chip", "hex-color": "#d62728"}}
    drawn = {
        "m-ref": "masks/2.png",
        "m-ref-metadata": {"internal-color-map": colours, "type": "groundtruth/semantic-segmentation"},
    }
    file = tmp_path / "train.manifest"
    lines = [line("1.png", "normal"), line("2.png", "anomaly", **drawn), "{", line("s3://b/3.png", "normal")]
    file.write_text("\n".join(lines))
    good, bad, broken, remote = read_photos(file)
    assert (good.source, good.name, good.label) == (tmp_path / "1.png", "line 1, 1.png", Verdict.NORMAL)
    assert bad.masks == {"chip": ColouredMask(tmp_path / "masks/2.png", "#d62728")}
    assert bad.all_types == ("chip",)
    assert "not JSON" in broken.fault
    assert "object store" in remote.fault
    skipped = Dataset([good, bad, broken, remote]).skipped
    assert [one.name for one in skipped] == ["line 1, 1.png", "line 2, 2.png", broken.name, remote.name]
    with pytest.raises(BadRequest, match="is not a folder"):
        read_photos(tmp_path / "nowhere")


def test_labels_may_be_of_anomalies_alone_but_not_of_nothing(tmp_path: Path) -> None:
    put(tmp_path / "some", "anomaly/1.jpg")
    assert len(read_labelled_folder(tmp_path / "some")) == 1
    put(tmp_path / "flat", "1.jpg")
    with pytest.raises(BadRequest, match="loupe label DIR normal"):
        read_labelled_folder(tmp_path / "flat")
    with pytest.raises(BadRequest, match="neither a file nor a folder"):
        read_labelled_folder(tmp_path / "none")

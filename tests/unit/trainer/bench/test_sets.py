"""The real sets are read and split as every figure that is compared with was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.domain.errors import BadRequest
from services.domain.label import Split, Verdict
from services.trainer.bench.sets import hold_back, read_sets
from services.trainer.dataset import LabelledImage

COUNTS = {
    "cookies": "31; 14 + 40",
    "PA_BRG01_RL": "34; 14 + 48",
    "PA_ZPB01_RL": "8; 4 + 12",
    "screws": "8; 4 + 13",
    "ball-screw": "9; 0 + 9",
    "scratch-plates": "5; 2 + 242",
}


@pytest.mark.photos
def test_the_real_sets_are_split_as_published(data: Path) -> None:
    assert {one.name: one.counts for one in read_sets(data)} == COUNTS


@pytest.mark.photos
def test_no_photo_trains_and_tests(data: Path) -> None:
    for one in read_sets(data):
        names = [image.name for image in (*one.train, *one.normals, *one.anomalies)]
        assert len(set(names)) == len(names)
        assert {image.label for image in (*one.train, *one.normals)} == {Verdict.NORMAL}
        assert {image.label for image in one.anomalies} == {Verdict.ANOMALY}
        # A fit that splits by itself would keep some of the training photos back.
        assert {image.split for image in one.train} == {Split.TRAIN}


@pytest.mark.photos
@pytest.mark.parametrize(
    ("name", "masked", "types"),
    [("cookies", 32, {"cracked"}), ("PA_BRG01_RL", 48, {"defect"}), ("ball-screw", 9, {"pitting"})],
)
def test_masks_belong_to_their_photos(data: Path, name: str, masked: int, types: set[str]) -> None:
    (one,) = read_sets(data, [name])
    drawn = [image for image in one.anomalies if image.masks]
    assert len(drawn) == masked
    assert {kind for image in drawn for kind in image.masks} == types
    for source in (source for image in drawn for source in image.masks.values()):
        assert isinstance(source, Path)
        assert source.is_file()


@pytest.mark.photos
def test_objects_recur_in_the_pipes(data: Path) -> None:
    (one,) = read_sets(data, ["PA_BRG01_RL"])
    # Twelve good and twelve bad bearings, four photos of each.
    assert len(set(one.objects.values())) == 24
    assert len(one.objects) == 96


def test_the_first_thirty_percent_of_shuffled_names_are_held_back() -> None:
    images = [LabelledImage(b"", f"{number:02d}.jpg") for number in range(48)]
    train, held = hold_back(images[::-1])
    # random.Random(20240).shuffle(range(48)) begins with these.
    assert [one.name for one in held][:3] == ["20.jpg", "19.jpg", "13.jpg"]
    assert (len(train), len(held)) == (34, 14)
    assert {one.name for one in (*train, *held)} == {one.name for one in images}


def test_an_unknown_set_is_a_sentence_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"There is no set biscuits; known are cookies, "):
        read_sets(tmp_path, ["biscuits"])


def test_a_folder_without_sets_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="holds none of the sets"):
        read_sets(tmp_path)


def test_a_set_that_was_asked_for_and_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="has no set screws"):
        read_sets(tmp_path, ["screws"])

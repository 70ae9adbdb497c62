"""Reading photos: copies, damage, groups, bounded memory."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.domain.label import Verdict
from services.trainer import dataset as dataset_module
from services.trainer.dataset import ColouredMask, Dataset, LabelledImage
from services.vision.masks import read_mask
from tests.unit.trainer.pictures import picture, pictures


def test_copies_and_damaged_photos_are_left_out_with_reasons(tmp_path: Path) -> None:
    images = [
        LabelledImage(picture(0), "a"),
        LabelledImage(picture(0), "b"),
        LabelledImage(b"", "c"),
        LabelledImage(tmp_path / "gone.png", "d"),
        LabelledImage(picture(1), "e"),
    ]
    dataset = Dataset(images)
    assert [one.name for one in dataset.images] == ["a", "e"]
    reasons = {one.name: one.reason for one in dataset.skipped}
    assert set(reasons) == {"b", "c", "d"}
    assert "copy of a" in reasons["b"]
    assert "empty" in reasons["c"]
    assert "No such file" in reasons["d"]


def test_digest_depends_on_pixels_and_names() -> None:
    first, again = Dataset(pictures(3)), Dataset(pictures(3))
    assert first.digest == again.digest
    assert first.digest != Dataset(pictures(4)).digest


def test_pixels_beyond_the_cache_are_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Dataset(pictures(11))
    monkeypatch.setattr(dataset_module, "MAX_CACHED_IMAGES", 4)
    bounded = Dataset(pictures(11))
    for (start, pixels), (start_again, pixels_again) in zip(whole.batches(), bounded.batches(), strict=True):
        assert start == start_again
        np.testing.assert_array_equal(pixels, pixels_again)
    assert [len(pixels) for _, pixels in bounded.batches()] == [8, 3]


def test_a_still_camera_over_different_parts_has_no_twins() -> None:
    assert len(set(Dataset(pictures(12)).groups().tolist())) == 12


def test_nearly_equal_photos_share_a_group() -> None:
    originals = Dataset(pictures(12))
    rng = np.random.default_rng(0)
    images = list(originals.images)
    for index in (3, 7):  # the same object again, with a little sensor noise
        pixels = originals.pixels(index).astype(int) + rng.integers(-1, 2, (224, 224, 3))
        header = b"P6 224 224 255\n"
        images.append(
            LabelledImage(header + np.clip(pixels, 0, 255).astype(np.uint8).tobytes(), f"again-{index}")
        )
    groups = Dataset(images).groups().tolist()
    assert groups[12] == groups[3]
    assert groups[13] == groups[7]
    assert len(set(groups)) == 12


def test_a_slow_drift_does_not_become_one_group() -> None:
    def shade(level: int) -> LabelledImage:
        return LabelledImage(b"P6 8 8 255\n" + bytes([level]) * 192, str(level))

    groups = Dataset([shade(level) for level in range(40, 160)]).groups().tolist()
    assert len(set(groups)) >= 4


def test_empty_dataset_is_harmless() -> None:
    empty = Dataset([])
    assert (len(empty), list(empty.batches()), empty.groups().tolist()) == (0, [], [])


def drawn(marked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> bytes:
    file = BytesIO()
    Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).save(file, "PNG")
    return file.getvalue()


def scratch() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return (160, 160), the size of the pictures: a block of 40 x 20 pixels, and one pixel alone."""
    marked = np.zeros((160, 160), np.bool_)
    marked[40:60, 80:120] = True
    marked[150, 150] = True
    return marked


def bad(name: str, **known: object) -> LabelledImage:
    return LabelledImage(picture(50, is_bad=True), name, Verdict.ANOMALY, **known)  # type: ignore[arg-type]


def test_contradictory_labels_of_equal_pixels_leave_all_of_them_out() -> None:
    images = [
        LabelledImage(picture(0), "fine"),
        LabelledImage(picture(1), "once"),
        LabelledImage(picture(1), "twice", Verdict.ANOMALY),
        LabelledImage(picture(1), "thrice"),
    ]
    dataset = Dataset(images)
    assert [one.name for one in dataset.images] == ["fine"]
    assert [one.name for one in dataset.skipped] == ["once", "twice", "thrice"]
    for one in dataset.skipped:
        assert "once is called normal, twice is called anomaly" in one.reason


def test_a_part_of_the_photos_keeps_what_belongs_to_it() -> None:
    images = [*pictures(3), *pictures(2, is_bad=True), bad("broken", fault="It was never sent.")]
    everything = Dataset(images)
    normal = everything.where(lambda one: one.label is Verdict.NORMAL)
    anomalous = everything.where(lambda one: one.label is Verdict.ANOMALY)
    assert (len(normal), len(anomalous), len(normal.skipped)) == (3, 2, 0)
    assert [(one.name, one.reason) for one in anomalous.skipped] == [("broken", "It was never sent.")]
    assert normal.digest == Dataset(pictures(3)).digest != everything.digest
    np.testing.assert_array_equal(anomalous.pixels(1), everything.pixels(4))


def test_masks_come_on_the_grid_of_the_pixels() -> None:
    read = read_mask(drawn(scratch()), (160, 160))
    dataset = Dataset([bad("a", types=("bent",), masks={"scratch": read})], input_px=80)
    assert dataset.images[0].all_types == ("bent", "scratch")
    masks = dataset.masks(0)
    assert list(masks) == ["scratch"]
    assert masks["scratch"][20:30, 40:60].all()
    assert masks["scratch"][75, 75]  # the speck, a quarter of a cell
    assert masks["scratch"].sum() == 201


def test_masks_beyond_the_cache_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [bad("a", masks={"scratch": drawn(scratch())})]
    kept = Dataset(images).masks(0)["scratch"]
    monkeypatch.setattr(dataset_module, "MAX_CACHED_IMAGES", 0)
    np.testing.assert_array_equal(Dataset(images).masks(0)["scratch"], kept)


def test_colours_name_types_and_masks_of_one_file() -> None:
    pixels = np.full((160, 160, 3), 255, np.uint8)
    pixels[scratch()] = (0xD6, 0x27, 0x28)
    pixels[0:20, 0:20] = (0x1F, 0x77, 0xB4)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    both = {
        "scratch": ColouredMask(file.getvalue(), "#d62728"),
        "dent": ColouredMask(file.getvalue(), "#1f77b4"),
    }
    masks = Dataset([bad("a", masks=both)], input_px=160).masks(0)
    np.testing.assert_array_equal(masks["scratch"], scratch())
    assert masks["dent"].sum() == 400
    # Colours are often listed for a whole data set: a type whose colour is not there is not in the photo.
    more = Dataset([bad("a", masks={**both, "hole": ColouredMask(file.getvalue(), "#00ff00")})])
    assert more.images[0].all_types == ("dent", "scratch")


def test_a_mask_that_does_not_fit_leaves_its_photo_out(tmp_path: Path) -> None:
    wrong = {
        "size": (drawn(np.ones((80, 160), np.bool_)), "The mask has 160 x 80 pixels, the picture 160 x 160"),
        "empty": (drawn(np.zeros((160, 160), np.bool_)), "marks nothing"),
        "none": (b"no image", "A mask cannot be read"),
        "gone": (tmp_path / "gone.png", "The mask of gone cannot be read: No such file"),
        "colour": (ColouredMask(drawn(~scratch()), "#00ff00"), "pixels in colours that nobody named, for"),
        "blank": (ColouredMask(drawn(np.ones((160, 160), np.bool_)), "#00ff00"), "no pixel of it is #00ff00"),
    }
    images = [bad(name, masks={name: source}) for name, (source, _) in wrong.items()]
    dataset = Dataset([*pictures(2), *images])
    assert len(dataset) == 2
    for one in dataset.skipped:
        assert wrong[one.name][1] in one.reason


def test_a_photo_of_one_pixel_is_left_out_and_equal_ones_count_once() -> None:
    dataset = Dataset([LabelledImage(b"P6 1 1 255\n" + bytes(3), "dot"), *pictures(1) * 3])
    assert len(dataset) == 1
    assert "only 1 x 1 pixels" in dataset.skipped[0].reason
    assert len(dataset.skipped) == 3


def test_the_digest_depends_on_what_was_said() -> None:
    plain = Dataset([bad("a")]).digest
    assert plain != Dataset([bad("a", types=("scratch",))]).digest
    masked = Dataset([bad("a", masks={"scratch": drawn(scratch())})]).digest
    other = scratch()
    other[0, 0] = True
    assert masked != Dataset([bad("a", masks={"scratch": drawn(other)})]).digest


def noisy(dataset: Dataset, index: int, name: str) -> LabelledImage:
    """Return a photo of the same object again, with a little sensor noise."""
    pixels = dataset.pixels(index).astype(int) + np.random.default_rng(index).integers(-1, 2, (224, 224, 3))
    return LabelledImage(b"P6 224 224 255\n" + np.clip(pixels, 0, 255).astype(np.uint8).tobytes(), name)


def test_near_duplicates_are_told_in_a_sentence() -> None:
    training = Dataset(pictures(12))
    assert training.near_duplicates() == ()
    both = Dataset([*training.images, noisy(training, 3, "again")])
    (sentence,) = both.near_duplicates()
    assert sentence.startswith("1 of 13 photos show nearly the same")
    assert sentence.endswith("again (as normal-3.png).")
    test = Dataset([*pictures(5, first_seed=100), noisy(training, 3, "again")])
    (sentence,) = test.near_duplicates_in(training)
    assert sentence == (
        "1 of 6 photos of the test show nearly the same as one of the training: again (as normal-3.png)."
    )
    assert Dataset(pictures(5, first_seed=100)).near_duplicates_in(training) == ()


def test_many_near_duplicates_are_counted() -> None:
    training = Dataset(pictures(12))
    again = [noisy(training, index, f"again-{index}") for index in range(8)]
    (sentence,) = Dataset([*training.images, *again]).near_duplicates()
    assert sentence.endswith("again-4 (as normal-4.png) and 3 more.")

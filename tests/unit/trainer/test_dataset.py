"""Reading photos: copies, damage, groups, bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.trainer import dataset as dataset_module
from services.trainer.dataset import Dataset, LabelledImage
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

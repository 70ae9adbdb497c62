"""The synthetic line: deterministic, labelled, visible defects."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.domain.errors import BadRequest
from services.ingest.synthetic import DEFECTS, KINDS, SyntheticLine, write_folder


def test_a_frame_is_a_function_of_seed_and_index_alone() -> None:
    one, other = SyntheticLine(3), SyntheticLine(3)
    other.part(9)
    for index in (0, 5):
        assert one.jpeg(index) == other.jpeg(index)
    assert SyntheticLine(6).jpeg(0) != one.jpeg(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size_px", [(224, 224), (640, 480)])
def test_frames_have_the_size_asked_and_masks_belong_to_defects(kind: str, size_px: tuple[int, int]) -> None:
    line = SyntheticLine(1, size_px, anomaly_share=0.5, kind=kind)
    for index in range(12):
        part = line.part(index)
        assert part.image.shape == (size_px[1], size_px[0], 3)
        assert part.image.dtype == np.uint8
        assert part.mask.shape == part.image.shape[:2]
        assert part.label == ("normal" if part.defect is None else "anomaly")
        assert part.mask.any() == (part.defect is not None)


def test_defects_are_visible_and_small() -> None:
    line = SyntheticLine(0, (320, 320), anomaly_share=1.0)
    seen = {}
    for index in range(60):
        part = line.part(index)
        seen[part.defect] = part
        # Of the frame; the part covers about half of it.
        assert 0.0002 < part.mask.mean() < 0.04, (index, part.defect)
    assert set(seen) == set(DEFECTS)


def test_a_defect_changes_pixels_inside_of_its_mask_only() -> None:
    clean = SyntheticLine(0, anomaly_share=1.0)
    for index in range(20):
        damaged = clean._damaged(0, "scratch", np.random.default_rng(index))
        changed = (damaged.blank.rgb != clean._blank(0, -1).rgb).any(axis=2)
        # The taper's faint ends stay below the mask's share of ink.
        assert (changed & ~damaged.mask).sum() < 2.5 * damaged.mask.sum()
        assert (changed & damaged.mask).sum() > 0.9 * damaged.mask.sum()


def test_the_share_of_anomalies_is_kept() -> None:
    line = SyntheticLine(4, anomaly_share=0.2)
    found = sum(line.defect_of(index) is not None for index in range(2000))
    # Binomial(2000, 0.2): 400 with a deviation of 18; four of them.
    assert 328 <= found <= 472
    assert all(line.defect_of(n) == line.part(n).defect for n in range(20))


def test_seeds_make_all_kinds() -> None:
    assert {SyntheticLine(seed, (128, 128)).kind.name for seed in range(3)} == set(KINDS)


def test_write_folder_makes_images_and_masks(tmp_path: Path) -> None:
    write_folder(SyntheticLine(1, (224, 224)), tmp_path, normals=5, anomalies=3)
    assert len(list((tmp_path / "normal").glob("*.jpg"))) == 5
    anomalies = sorted((tmp_path / "anomaly").glob("*.jpg"))
    assert len(anomalies) == 3
    for file in anomalies:
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{file.stem}.png"))
        assert mask.any()
        assert Image.open(io.BytesIO(file.read_bytes())).size == mask.shape[::-1]


def test_a_line_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="pixels"):
        SyntheticLine(0, (10, 320))
    with pytest.raises(BadRequest, match="between 0 and 1"):
        SyntheticLine(0, anomaly_share=1.5)
    with pytest.raises(BadRequest, match="flange"):
        SyntheticLine(0, kind="spoon")
    with pytest.raises(BadRequest, match="no such parts"):
        write_folder(SyntheticLine(0, anomaly_share=0), tmp_path, normals=1, anomalies=1)

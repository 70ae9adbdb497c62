"""Groups of near duplicates against the plain definition, and in a time that thousands allow."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from services.trainer.twins import Thumbnails, thumbnail_of


def _groups_by_definition(fine: NDArray[np.float32]) -> list[int]:
    """Each photo joins the first leader that is near, one after the other."""
    limit = Thumbnails(list(fine)).limit()
    leaders: list[int] = []
    numbers = []
    for one in fine:
        distances = [float(np.sqrt(np.mean(np.square(one - fine[leader])))) for leader in leaders]
        near = [number for number, distance in enumerate(distances) if distance < limit]
        numbers.append(near[0] if near else len(leaders))
        if not near:
            leaders.append(len(numbers) - 1)
    return numbers


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    objects = rng.uniform(0, 255, (90, 28 * 28 * 3))
    # 600 photos, over two blocks; noise from none to far beyond the limit
    shown = objects[rng.integers(0, 90, 600)]
    fine = (shown + rng.normal(size=shown.shape) * rng.uniform(0, 30, (600, 1))).astype(np.float32)
    assert Thumbnails(list(fine)).groups().tolist() == _groups_by_definition(fine)


def test_twins_in_others_are_the_first_that_are_near() -> None:
    rng = np.random.default_rng(0)
    others = rng.uniform(0, 255, (300, 28 * 28 * 3)).astype(np.float32)
    mine = np.concatenate([others[[7, 270]] + 1, rng.uniform(0, 255, (300, 28 * 28 * 3)).astype(np.float32)])
    assert Thumbnails(list(mine)).twins_in(Thumbnails(list(others))) == {0: 7, 1: 270}


def test_thousands_of_photos_take_seconds() -> None:
    rng = np.random.default_rng(0)
    # One scene, and noise that a coarser look nearly averages away.
    scene = rng.uniform(60, 190, 28 * 28 * 3).astype(np.float32)
    fine = scene + 8 * rng.standard_normal((3000, 28 * 28 * 3), np.float32)
    started_s = time.monotonic()
    groups = Thumbnails(list(fine)).groups()
    assert time.monotonic() - started_s < 20
    assert len(set(groups.tolist())) == 3000


def test_thumbnails_are_block_means() -> None:
    pixels = np.zeros((56, 56, 3), np.uint8)
    pixels[:2, 2:4, 1] = 100
    thumbnail = thumbnail_of(pixels).reshape(3, 28, 28)
    assert thumbnail[1, 0, 1] == pytest.approx(100)
    assert thumbnail.sum() == pytest.approx(100)


def test_a_side_that_28_does_not_divide_shares_cells() -> None:
    assert thumbnail_of(np.full((90, 90, 3), 77, np.uint8)) == pytest.approx(77)

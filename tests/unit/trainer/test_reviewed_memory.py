"""Banks that keep their size, and examples of defects that no normal patch comes near."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.trainer.reviewed_memory import (
    Defects,
    defects_of,
    exchanged,
    joined,
    nearest_squared,
    spacing_of,
    squared_distances,
)


def patches(count: int, seed: int, *, dims: int = 6, at: float = 0.0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(at, 1, (count, dims)).astype(np.float32)


@given(st.integers(8, 60), st.integers(1, 80), st.integers(0, 1000), st.floats(0, 8))
def test_a_bank_keeps_its_size_and_knows_what_is_new_to_it(size: int, new: int, seed: int, at: float) -> None:
    bank, alarm = patches(size, seed), patches(new, seed + 1, at=at)
    after, accepted = exchanged(bank, alarm, 0)
    assert after.shape == bank.shape
    assert accepted <= 0.25 * size + 1
    assert np.isin(after[size - accepted :], alarm).all()
    # As long as there was room, nothing of the alarm is farther away than neighbours in the bank were.
    if accepted < 0.25 * size:
        farthest = np.sqrt(squared_distances(alarm, np.concatenate([bank, after])).min(axis=1).max())
        assert farthest <= spacing_of(bank) * 1.001


def test_the_nearest_are_found_a_part_at_a_time() -> None:
    many, few = patches(3000, 1), patches(50, 2)
    tracemalloc.start()
    nearest = nearest_squared(many, few)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert nearest == pytest.approx(squared_distances(many, few).min(axis=1), abs=1e-4)
    assert peak_bytes < 3 * 1024 * 50 * 4 + 200_000


def test_what_was_accepted_before_stays() -> None:
    # Ten times as far from each other as the bank's.
    bank, first, second = patches(40, 1), 10 * patches(5, 2, at=9), 10 * patches(5, 3, at=-9)
    once, accepted = exchanged(bank, first, 0)
    assert accepted == 5
    twice, accepted = exchanged(once, second, accepted)
    assert accepted == 10
    assert (twice[30:35] == once[35:]).all()
    assert squared_distances(first, twice).min(axis=1) == pytest.approx(0, abs=0.1)


def test_the_most_redundant_go() -> None:
    bank = np.vstack([patches(20, 1) * 10, np.full((2, 6), 50, np.float32)])  # two alike
    after, accepted = exchanged(bank, np.full((1, 6), -90, np.float32), 0)
    assert accepted == 1
    assert (after == 50).all(axis=1).sum() == 1
    assert squared_distances(bank[:20], after).min(axis=1) == pytest.approx(0, abs=0.1)


def test_an_example_has_half_the_way_to_the_nearest_normal_patch() -> None:
    bank = np.zeros((3, 2), np.float32)
    found = defects_of(np.array([[0, 8]], np.float32), bank, [], most=4)
    assert found.radii.tolist() == pytest.approx([4])
    assert found.hits(np.array([[0, 5]], np.float32)).tolist() == [True]
    assert found.hits(np.array([[0, 3]], np.float32)).tolist() == [False]


def test_what_a_left_out_normal_photo_shows_is_no_example() -> None:
    bank = np.zeros((3, 2), np.float32)
    odd_photo = np.array([[0, 6]], np.float32)  # 2 away; the bank alone would give a radius of 4
    found = defects_of(np.array([[0, 8], [9, 0]], np.float32), bank, [odd_photo], most=4)
    assert found.patches.tolist() == [[9, 0]]
    assert not len(defects_of(np.zeros((1, 2), np.float32), bank, [], most=4).radii)


def test_examples_are_bounded_and_the_newest_stay() -> None:
    many = Defects(patches(60, 1), np.ones(60, np.float32))
    new = Defects(patches(8, 2), np.ones(8, np.float32))
    both = joined(many, new)
    assert len(both.radii) == 64
    assert (both.patches[:8] == new.patches).all()

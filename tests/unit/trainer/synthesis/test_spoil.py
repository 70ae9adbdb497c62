"""Synthetic defects keep what `spoil` says of them, on any picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from services.domain.errors import BadRequest
from services.trainer.synthesis.scene import Scene
from services.trainer.synthesis.spoil import KINDS, MAX_VISIBLE_RATIO, VISIBLE_LEVELS, spoil

Pixels = NDArray[np.uint8]
seeds, kinds = st.integers(0, 2**32 - 1), st.sampled_from(KINDS)


def _part(side: int, seed: int = 0) -> Pixels:
    """Return a (S, S, 3) bright textured disc on a dark ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    disc = np.hypot(rows, columns) < 0.6
    levels = np.where(disc, 150, 30) + rng.normal(0, 6, (side, side))
    return np.repeat(np.clip(levels, 0, 255)[..., None], 3, axis=2).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, kind=kinds, side=st.integers(16, 96))
def test_mask_is_what_differs(seed: int, kind: str, side: int) -> None:
    part, other = _part(side, 1), _part(side, 2)
    kept = part.copy()
    found = spoil(part, other, np.random.default_rng(seed), [kind])
    step = np.abs(found.pixels.astype(int) - part).max(axis=2)
    seen = step >= VISIBLE_LEVELS
    assert found.mask.any()
    assert not (seen & ~found.mask).any(), "everything that differs is marked"
    # Gaps are closed by a 5 x 5 square, so nothing marked is more than 2 px from what differs.
    assert not (found.mask & ~binary_dilation(seen, np.ones((5, 5)))).any()
    assert found.mask.mean() <= MAX_VISIBLE_RATIO
    assert (str(found.pixels.dtype), found.pixels.shape) == ("uint8", part.shape)
    assert (str(found.mask.dtype), found.mask.shape) == ("bool", part.shape[:2])
    assert np.array_equal(part, kept), "the good photo is not changed"


@settings(max_examples=25, deadline=None)
@given(seed=seeds, side=st.sampled_from([1, 2, 3, 7, 40, 224]), level=st.integers(0, 255), kind=kinds)
def test_equal_pixels_are_spoilt_too(seed: int, side: int, level: int, kind: str) -> None:
    flat = np.full((side, side, 3), level, np.uint8)
    found = spoil(flat, flat, np.random.default_rng(seed), [kind])
    assert found.mask.any()
    assert (found.pixels[found.mask] != level).any()


@given(seed=seeds)
@settings(max_examples=15, deadline=None)
def test_a_seed_fixes_everything(seed: int) -> None:
    part, other = _part(64, 1), _part(64, 2)
    first = spoil(part, other, np.random.default_rng(seed))
    again = spoil(part, other, np.random.default_rng(seed))
    assert first.kind == again.kind
    assert np.array_equal(first.pixels, again.pixels)
    assert np.array_equal(first.mask, again.mask)


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_strengths_are_wide(kind: str) -> None:
    part, other = _part(224, 1), _part(224, 2)
    rng = np.random.default_rng(5)
    found = [spoil(part, other, rng, [kind]) for _ in range(80)]
    areas = [int(one.mask.sum()) for one in found]
    assert min(areas) < 100, "specks"
    assert max(areas) > 600, "and what nobody overlooks"
    strengths = [np.abs(one.pixels.astype(int) - part).max() for one in found]
    assert min(strengths) < 50 < 60 < max(strengths)
    assert {one.kind for one in found} <= {kind, "scratch"}


def test_every_kind_comes() -> None:
    part, other, rng = _part(64, 1), _part(64, 2), np.random.default_rng(0)
    assert {spoil(part, other, rng).kind for _ in range(60)} == set(KINDS)


def test_defects_prefer_the_object() -> None:
    part, other, rng = _part(128, 1), _part(128, 2), np.random.default_rng(0)
    assert Scene(part, other).has_object
    touched = [spoil(part, other, rng).mask[part[..., 0] > 100].any() for _ in range(100)]
    # The disc fills 28 % of the picture.
    assert np.mean(touched) > 0.75


def test_without_an_object_defects_lie_anywhere() -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(100, 110, (96, 96, 3)).astype(np.uint8)
    assert not Scene(ground, ground).has_object
    everywhere = np.sum([spoil(ground, ground, rng).mask for _ in range(200)], axis=0)
    assert (everywhere.reshape(3, 32, 3, 32).sum(axis=(1, 3)) > 0).all()


@pytest.mark.parametrize("kinds", [["rust"], []])
def test_unknown_kinds_are_refused(kinds: list[str]) -> None:
    part = _part(16)
    with pytest.raises(BadRequest, match="cut-paste"):
        spoil(part, part, np.random.default_rng(0), kinds)


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(BadRequest, match="square"):
        spoil(_part(16), _part(17), np.random.default_rng(0))

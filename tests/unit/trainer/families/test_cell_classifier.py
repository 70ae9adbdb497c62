"""The small network on cells: learns what a line cannot tell apart, minds what nobody knows."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.families.cell_classifier import CellClassifier, Cells, train


def ring(count: int, seed: int, channels: int = 6) -> Cells:
    """Return cells that are of class 0 inside a ring of the first two channels, of class 1 on its right."""
    patches = np.random.default_rng(seed).normal(0, 1, (count, channels)).astype(np.float32)
    inside = np.hypot(patches[:, 0], patches[:, 1]) < 0.8
    targets = np.stack([inside, patches[:, 0] > 0.5], axis=1).astype(np.float32)
    # Another scale and place per channel, as features have.
    moved = np.asarray(patches * np.arange(1, channels + 1) + 10, np.float32)
    return Cells(moved, targets, np.ones((count, 2), np.bool_), np.zeros(count, np.int32))


def share_right(network: CellClassifier, cells: Cells) -> list[float]:
    right = (network.logits(cells.patches) > 0) == (cells.targets > 0.5)
    return [float(one) for one in right.mean(axis=0)]


def test_a_ring_and_a_side_are_learnt_together() -> None:
    network = train(ring(3000, 0), seed=0)
    assert min(share_right(network, ring(2000, 1))) > 0.93


def test_one_seed_gives_one_network() -> None:
    first, again, other = (train(ring(500, 0), seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.inner, again.inner)
    assert not np.array_equal(first.inner, other.inner)


def test_unknown_cells_do_not_count() -> None:
    cells = ring(2000, 0)
    # Half of the cells are said to be the opposite, but of them nobody knows.
    lies = np.arange(2000) % 2 == 0
    targets = np.where(lies[:, None], 1 - cells.targets, cells.targets)
    known = Cells(cells.patches, targets, np.repeat(~lies[:, None], 2, axis=1), cells.groups)
    assert min(share_right(train(known, seed=0), ring(2000, 1))) > 0.9


def test_rare_cells_weigh_as_much_as_all_others() -> None:
    rng = np.random.default_rng(0)
    patches = rng.normal(0, 1, (4000, 3)).astype(np.float32)
    is_rare = np.arange(4000) < 20
    patches[is_rare, 0] += 4
    cells = Cells(
        patches, is_rare[:, None].astype(np.float32), np.ones((4000, 1), np.bool_), np.zeros(4000, np.int32)
    )
    found = train(cells, seed=0).logits(patches)[:, 0] > 0
    assert found[is_rare].mean() == 1
    assert found[~is_rare].mean() < 0.05


def test_equal_cells_and_channels_without_spread_are_harmless() -> None:
    cells = ring(100, 0)
    flat = Cells(np.ones_like(cells.patches), cells.targets, cells.is_known, cells.groups)
    assert np.isfinite(train(flat, seed=0).logits(flat.patches)).all()


def test_more_channels_than_are_kept_are_narrowed() -> None:
    cells = ring(1500, 0, channels=300)
    wide = cells.patches.copy()
    wide[:, 2:] = 10 + 0.01 * (wide[:, 2:] - 10)
    wide[:, 2:] += wide[:, :1]  # 298 channels that say what the first one says
    network = train(Cells(wide, cells.targets, cells.is_known, cells.groups), seed=0)
    assert network.inner.shape[0] == 300
    right = (network.logits(wide) > 0) == (cells.targets > 0.5)
    assert right[:, 1].mean() == pytest.approx(1, abs=0.1)

"""The memory family: bank, projection, leaving out."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.dataset import Dataset
from services.trainer.families.memory import MemoryFamily, MemoryHead, greedy_k_centre
from services.trainer.families.protocol import Budget, FitData
from services.trainer.features import FeatureExtractor
from tests.unit.trainer.pictures import pictures


def fit(count: int, extractor: FeatureExtractor, budget: Budget, seed: int = 0) -> list[MemoryHead]:
    dataset = Dataset(pictures(count))
    data = FitData(dataset, np.arange(count, dtype=np.int32), Dataset([]), extractor)
    candidate = MemoryFamily().fit(data, budget, seed, lambda _done: None)
    return [head for head in candidate.heads if isinstance(head, MemoryHead)]


def test_k_centre_takes_the_farthest_each_time() -> None:
    line = np.array([[0.0], [1.0], [2.0], [9.0], [10.0]], np.float32)
    chosen = greedy_k_centre(line, 3, np.random.default_rng(0)).tolist()
    # Whatever comes first, both ends of the line are among the first three.
    assert {0, 4} <= set(chosen) or {0, 3} <= set(chosen)
    assert len(set(chosen)) == 3


def test_k_centre_stops_when_all_that_is_left_is_known() -> None:
    equal = np.ones((50, 4), np.float32)
    assert len(greedy_k_centre(equal, 10, np.random.default_rng(0))) == 1


def test_bank_size_is_fixed_by_the_budget(extractor: FeatureExtractor) -> None:
    budget = Budget(bank_patches=60, sample_patches=500)
    for head in fit(5, extractor, budget):
        assert head.bank.shape == (60, head.spec.dims)
        assert [bank.shape for bank in head.folds] == [(60, head.spec.dims)] * 5


def test_projection_of_all_dimensions_keeps_distances(extractor: FeatureExtractor) -> None:
    _, m16 = fit(3, extractor, Budget(bank_patches=20, sample_patches=300))
    (projection,) = m16.projections
    np.testing.assert_allclose(projection.matrix @ projection.matrix.T, np.eye(112), atol=1e-4)


def test_leaving_a_photo_out_raises_its_distances(extractor: FeatureExtractor) -> None:
    dataset = Dataset(pictures(4))
    _, pixels = next(dataset.batches())
    features = extractor.extract(pixels)
    for head in fit(4, extractor, Budget(bank_patches=400, sample_patches=2000)):
        known = head.distances(features)
        without = head.distances(features, [0, 1, 2, 3])
        assert known.shape == (4, head.grid, head.grid)
        assert without.mean() > known.mean() * 1.05


def test_a_fold_never_saw_the_groups_it_measures(extractor: FeatureExtractor) -> None:
    for head in fit(7, extractor, Budget(bank_patches=10_000, sample_patches=400)):
        whole = {patch.tobytes() for patch in head.bank}  # all of the sample
        for fold, bank in enumerate(head.folds):
            rest = {patch.tobytes() for patch in bank}
            assert rest < whole
            assert fold in head.fold_of.values()


def test_a_sample_of_one_patch_still_compares(extractor: FeatureExtractor) -> None:
    head, _ = fit(2, extractor, Budget(bank_patches=1, sample_patches=1))
    _, pixels = next(Dataset(pictures(2)).batches())
    assert np.isfinite(head.distances(extractor.extract(pixels), [0, 1])).all()


@pytest.mark.parametrize("seed", [0, 7])
def test_fit_is_deterministic(extractor: FeatureExtractor, seed: int) -> None:
    budget = Budget(bank_patches=50, sample_patches=400)
    for first, again in zip(fit(4, extractor, budget, seed), fit(4, extractor, budget, seed), strict=True):
        np.testing.assert_array_equal(first.bank, again.bank)
    other = fit(4, extractor, budget, seed + 1)[0].bank
    assert not np.array_equal(other, fit(4, extractor, budget, seed)[0].bank)


def test_more_photos_than_sample_patches_is_fine(extractor: FeatureExtractor) -> None:
    for head in fit(9, extractor, Budget(bank_patches=6, sample_patches=6)):
        assert len(head.bank) <= 6

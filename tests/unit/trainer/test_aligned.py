"""The aligned family: a Gaussian per position, true refits, wide backbones."""

from __future__ import annotations

import numpy as np
import pytest

from services.trainer.backbones.opening import calibrated, open_backbone
from services.trainer.families.aligned import (
    AlignedFamily,
    AlignedHead,
    fit_positions,
    leading_eigenvectors,
)
from services.trainer.families.protocol import Budget, FitData
from services.trainer.features import FeatureExtractor
from tests.unit.trainer.pictures import fit_data


def fit(data: FitData, seed: int = 0) -> list[AlignedHead]:
    candidate = AlignedFamily().fit(data, Budget(), seed, lambda _done: None)
    return [head for head in candidate.heads if isinstance(head, AlignedHead)]


def test_leading_eigenvectors_are_those_of_lapack() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(20, 20)))
    values = 3.0 ** -np.arange(20)
    matrix = (basis * values) @ basis.T
    found = leading_eigenvectors(np.stack([matrix, 2 * matrix]).astype(np.float32), 4)
    overlap = np.abs(basis[:, :4].T @ found)  # (2, 4, 4)
    np.testing.assert_allclose(overlap, np.stack([np.eye(4)] * 2), atol=0.02)


def test_eigenvectors_of_nothing_are_nothing() -> None:
    assert not leading_eigenvectors(np.zeros((3, 5, 5), np.float32), 2).any()


def test_distance_is_small_along_what_varies_and_large_across() -> None:
    # One position, two channels: photos vary by sd 3 along the first and by sd 0.5 along the second.
    corners = np.array([[3, 0.5], [3, -0.5], [-3, 0.5], [-3, -0.5]], np.float32)
    patches = np.tile(corners, (100, 1))[:, None]
    fitted = fit_positions(patches, rank=1, least=0.0)
    # Mean rest over both channels: 0.25 / 2 = 0.125; e = 9, so 9 / 9.125 of the first is explained:
    # d^2 at (3, 0) = 9 * (1 - 9 / 9.125) / 0.25 = 0.49; at (0, 3) = 9 / 0.25 = 36.
    along, across = fitted.distances(np.array([[3.0, 0.0]])), fitted.distances(np.array([[0.0, 3.0]]))
    assert along[0] == pytest.approx(0.7, rel=0.01)
    assert across[0] == pytest.approx(6, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 40])
def test_equal_photos_have_finite_distances(count: int) -> None:
    fitted = fit_positions(np.ones((count, 4, 8), np.float32), rank=min(count - 1, 2), least=1e-3)
    np.testing.assert_allclose(fitted.distances(np.ones((4, 8), np.float32)), 0, atol=1e-3)
    assert np.isfinite(fitted.distances(np.zeros((4, 8), np.float32))).all()


def test_more_photos_than_channels_give_the_same_gaussian() -> None:
    patches = np.random.default_rng(2).normal(size=(12, 3, 12)).astype(np.float32) * np.arange(1, 13)
    patches = patches.astype(np.float32)
    few, many = fit_positions(patches, 2, 0.0), fit_positions(np.repeat(patches, 2, axis=0), 2, 0.0)
    probe = np.full((3, 12), 2, np.float32)
    # Doubling divides squares of 24 by 23 instead of 12 by 11: variances times 22 / 23, nothing else.
    np.testing.assert_allclose(many.distances(probe), few.distances(probe) * np.sqrt(23 / 22), rtol=0.05)


def test_a_left_out_photo_is_measured_by_a_fold_that_never_saw_it(extractor: FeatureExtractor) -> None:
    data = fit_data(10, extractor)
    _, features = next(extractor.stream(data.normals))
    for head in fit(data):
        assert len(head.folds) == 5
        known, without = head.distances(features), head.distances(features, list(range(8)))
        assert without.mean() > known.mean() * 1.1
        fold = head.fold_of[3]
        alone = head.folds[fold]
        assert alone.known.shape == head.whole.known.shape  # of the same rank
        np.testing.assert_array_equal(head.distances(features, [99] * 8), known)


def test_groups_stay_in_one_fold(extractor: FeatureExtractor) -> None:
    data = fit_data(9, extractor)
    grouped = FitData(data.normals, np.arange(9, dtype=np.int32) // 3, data.anomalies, extractor)
    assert AlignedFamily().why_not(grouped) == (
        "It needs photos of at least 6 different good parts; there are 3."
    )
    for head in fit(grouped):
        assert sorted(head.fold_of) == [0, 1, 2]
        assert len(head.folds) == 3


def test_fit_is_deterministic(extractor: FeatureExtractor) -> None:
    data = fit_data(6, extractor)
    for first, again in zip(fit(data, 3), fit(data, 3), strict=True):
        np.testing.assert_array_equal(first.whole.mean, again.whole.mean)
        assert first.fold_of == again.fold_of


def test_wide_taps_are_projected_so_that_the_file_stays_small() -> None:
    data = fit_data(6, FeatureExtractor(open_backbone("random")))
    backbone = calibrated(open_backbone("random"), data.normals)
    wide = FeatureExtractor(backbone)
    heads = fit(FitData(data.normals, data.groups, data.anomalies, wide))
    numbers = sum(head.whole.mean.size + head.whole.known.size for head in heads)
    assert [head.whole.mean.shape[1] for head in heads] == [64, 64]  # of 64 + 128, and of 256 channels
    assert numbers * 4 <= 6e6

"""The memory family: a bounded bank of normal patches, distance to the nearest (arrow 6).

Patch descriptors are projected linearly (PCA without whitening), a greedy k-centre choice keeps a
fixed number of them, so latency is fixed before the data is seen. No pooling of features: it
blurs small defects away. Idea: PatchCore (Roth et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.families.folds import folds_of
from services.trainer.families.projection import (
    TapProjection,
    concatenated,
    draw_projected,
    leading_directions,
    split_by_tap,
    usable_taps,
)
from services.trainer.families.protocol import SCORE_STRIDE_PX, Budget, Candidate, FitData, StageProgress
from services.trainer.features import FeatureExtractor, Features, Tap
from services.trainer.graph_builder import GraphBuilder

# Leading dimensions in which patches are chosen: a third of the time, and no set came out worse.
_CHOOSING_DIMS = 32


# Dimensions that a projection keeps; on the default backbone all taps together have 176, the coarsest 112.
_MOST_DIMS_TOGETHER, _MOST_DIMS_ALONE = 96, 112


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """What one memory looks at.

    Attributes:
        taps: backbone taps, brought to one grid and concatenated.
        grid: cells along a side.
        dims: most dimensions kept by the projection.
    """

    name: str
    taps: tuple[str, ...]
    grid: int
    dims: int


@dataclass(frozen=True, slots=True)
class MemoryHead:
    """A fitted memory.

    Attributes:
        projections: one per tap, in the spec's order; their results are added.
        offset: (D,) float32, added once.
        bank: (K, D) float32, the patches kept.
        folds: banks that were chosen without one fifth of the groups each. Leaving a photo's patches out of
            the one bank instead leaves holes where they stood for others', and every photo looks strange.
        fold_of: number of the fold that a group was left out of.
        soft_zero: added to squared distances, see `_soft_zero_of`.
    """

    spec: MemorySpec
    projections: tuple[TapProjection, ...]
    offset: NDArray[np.float32]
    bank: NDArray[np.float32]
    folds: tuple[NDArray[np.float32], ...]
    fold_of: Mapping[int, int]
    soft_zero: float

    @property
    def name(self) -> str:
        """Return the spec's name."""
        return self.spec.name

    @property
    def grid(self) -> int:
        """Return the spec's grid."""
        return self.spec.grid

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32; see `Head.distances`."""
        stacked = np.concatenate([one.matrix for one in self.projections], axis=1)
        projected = (
            concatenated(features, self.spec.taps, self.grid) @ stacked.T + self.offset
        )  # (N, cells, D)
        folds = [None] * len(projected) if left_out is None else [self.fold_of.get(one) for one in left_out]
        banks = [self.bank if fold is None else self.folds[fold] for fold in folds]
        nearest = [self._nearest(one, bank) for one, bank in zip(projected, banks, strict=True)]
        return np.stack(nearest).reshape(-1, self.grid, self.grid)

    def _nearest(self, patches: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (cells,) distances of (cells, D) patches to a bank."""
        squares = np.square(patches).sum(axis=1)
        nearest = (np.square(bank).sum(axis=1) - 2 * (patches @ bank.T)).min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares + nearest, 0) + self.soft_zero), np.float32)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw the memory; see `Head.draw`."""
        grid, dims = self.grid, len(self.offset)
        # A last channel of ones: |b|^2 rides in the matrix product against it, one pass over K less.
        padded = [TapProjection(one.tap, np.pad(one.matrix, ((0, 1), (0, 0)))) for one in self.projections]
        offset = np.append(self.offset, np.float32(1))
        total = draw_projected(draw, taps, padded, offset, grid)  # (N, D + 1, g, g)
        flat = draw.add("Reshape", total, draw.constant(np.array([0, dims + 1, grid * grid]), "shape"))
        patches = draw.add("Transpose", flat, perm=[0, 2, 1])
        keys = np.vstack([-2 * self.bank.T, np.square(self.bank).sum(axis=1)])  # (D + 1, K)
        products = draw.add("MatMul", patches, draw.constant(keys.astype(np.float32), "bank"))
        nearest = draw.add("ReduceMin", products, axes=[2], keepdims=0)
        squares = draw.add("ReduceSumSquare", patches, axes=[2], keepdims=0)
        distance = draw.add("Sub", draw.add("Add", squares, nearest), draw.scalar(1))
        soft = draw.add("Add", draw.add("Max", distance, draw.scalar(0)), draw.scalar(self.soft_zero))
        square = draw.constant(np.array([0, grid, grid]), "shape")
        return draw.add("Reshape", draw.add("Sqrt", soft), square)


@dataclass(frozen=True, slots=True)
class _Sample:
    """(P, C) patches, the (P,) groups they are from, and the fold of each group."""

    patches: NDArray[np.float32]
    owners: NDArray[np.int32]
    fold_of: Mapping[int, int]


class MemoryFamily:
    """Fits a memory of all taps together and one of the coarsest alone."""

    name = "memory"

    @property
    def is_slow(self) -> bool:
        """It takes seconds."""
        return False

    def why_not(self, data: FitData) -> str | None:  # noqa: ARG002 - any two photos will do
        """See `Family.why_not`."""
        return None

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:
        """Draw a seeded sample of patches in one pass, then fit each memory; see `Family.fit`."""
        rng = np.random.default_rng(seed)
        extractor, count = data.extractor, len(data.normals)
        specs = specs_of(extractor)
        quotas = _quotas(count, budget.sample_patches, rng)
        samples: dict[str, list[NDArray[np.float32]]] = {spec.name: [] for spec in specs}
        owners: dict[str, list[NDArray[np.int32]]] = {spec.name: [] for spec in specs}
        for start, features in extractor.stream(data.normals):
            for spec in specs:
                for offset, patches in enumerate(concatenated(features, spec.taps, spec.grid)):
                    quota = min(int(quotas[start + offset]), len(patches))
                    samples[spec.name].append(patches[rng.choice(len(patches), quota, replace=False)])
                    owners[spec.name].append(np.full(quota, data.groups[start + offset], np.int32))
            progress(0.5 * start / count)
        heads = []
        for done, spec in enumerate(specs, start=1):
            taps = [extractor.taps[name] for name in spec.taps]
            sample, owned = np.concatenate(samples[spec.name]), np.concatenate(owners[spec.name])
            heads.append(
                _fit_head(spec, taps, _Sample(sample, owned, folds_of(data.groups, seed)), budget, rng)
            )
            progress(0.5 + 0.5 * done / len(specs))
        return Candidate(self.name, tuple(heads))


def specs_of(extractor: FeatureExtractor) -> tuple[MemorySpec, ...]:
    """Return what to look at on a backbone: all taps at the stride of scores, and the coarsest alone."""
    taps = usable_taps(extractor)
    grid = min(taps[0].grid, extractor.input_px // SCORE_STRIDE_PX)
    together = MemorySpec("m8", tuple(tap.name for tap in taps), grid, _MOST_DIMS_TOGETHER)
    if len(taps) == 1:
        return (together,)
    return (together, MemorySpec("m16", (taps[-1].name,), taps[-1].grid, _MOST_DIMS_ALONE))


def greedy_k_centre(patches: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return indices of `count` of the (P, D) patches, each the farthest from those before it.

    Stops early when every patch left equals one that was chosen.
    """
    squares = np.square(patches).sum(axis=1)
    chosen = [int(rng.integers(len(patches)))]
    nearest = np.full(len(patches), np.inf, np.float32)
    while len(chosen) < min(count, len(patches)):
        last = chosen[-1]
        # vecdot, not @: a thousand small products on BLAS's threads wait for one another, ten
        # times as long on a machine that has other work.
        products = np.vecdot(patches, patches[last])
        np.minimum(nearest, squares + squares[last] - 2 * products, out=nearest)
        nearest[last] = 0
        farthest = int(nearest.argmax())
        if nearest[farthest] <= 0:
            break
        chosen.append(farthest)
    return np.array(chosen, np.int64)


def _fit_head(
    spec: MemorySpec,
    taps: Sequence[Tap],
    sample: _Sample,
    budget: Budget,
    rng: np.random.Generator,
) -> MemoryHead:
    """Fit projection and banks to a sample."""
    mean = sample.patches.mean(axis=0)
    centred = sample.patches - mean
    projection = leading_directions(centred, spec.dims)
    patches = centred @ projection.T
    folds = np.array([sample.fold_of.get(owner, -1) for owner in sample.owners.tolist()])
    numbers = sorted(set(sample.fold_of.values()))
    rows = [np.arange(len(patches)), *(np.flatnonzero(folds != number) for number in numbers)]
    seeds = rng.integers(2**32, size=len(rows)).tolist()

    def chosen(known: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
        others = patches[known] if len(known) else patches  # of too small a sample one group may be all
        leading = np.ascontiguousarray(others[:, :_CHOOSING_DIMS])
        kept = greedy_k_centre(leading, budget.bank_patches, np.random.default_rng(seed))
        return np.asarray(others[kept], np.float32)

    with ThreadPoolExecutor(budget.threads) as pool:
        bank, *banks = pool.map(chosen, rows, seeds)
    return MemoryHead(
        spec=spec,
        projections=split_by_tap(projection, taps),
        offset=-projection @ mean,
        bank=bank,
        folds=tuple(banks),
        fold_of=sample.fold_of,
        soft_zero=_soft_zero_of(sample.patches),
    )


def _soft_zero_of(sample: NDArray[np.float32]) -> float:
    """Return what to add to squared distances so that float32 rounding does not show.

    A squared distance is the small difference of large squares, wrong by some 1e-6 of them, and
    near 0 the root would blow that up to 1e-3 of the features' length. With 1e-3 of their own mean
    square added the root is wrong by 2e-5 of it. Good parts differ by squares of 0.3 to 1 of it.
    """
    return max(float(np.square(sample).sum(axis=1).mean()) * 1e-3, 1e-12)


def _quotas(photos: int, total: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how many patches each photo gives so that together they give at most `total`."""
    quotas = np.full(photos, total // photos)
    quotas[rng.choice(photos, total % photos, replace=False)] += 1
    return quotas

"""The memory family: a bounded bank of normal patches, distance to the nearest (arrow 6).

Patch descriptors are projected linearly (PCA without whitening), a greedy k-centre choice keeps a
fixed number of them, so latency is fixed before the data is seen. No pooling of features: it
blurs small defects away. Idea: PatchCore (Roth et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.families.protocol import Budget, Candidate, FitData, StageProgress
from services.trainer.features import FeatureExtractor, Features, Tap
from services.trainer.graph_builder import GraphBuilder
from services.trainer.resizing import draw_resized, resized

_NOBODY = -1  # no group's number


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """What one memory looks at.

    Attributes:
        taps: backbone taps, brought to one grid and concatenated.
        stride_px: side of a cell, in model pixels.
        dims: most dimensions kept by the projection.
    """

    name: str
    taps: tuple[str, ...]
    stride_px: int
    dims: int


M8 = MemorySpec("m8", ("f4", "f8", "f16"), stride_px=8, dims=96)
# Stride 16 alone, with all of its 112 dimensions: the projection only rotates.
M16 = MemorySpec("m16", ("f16",), stride_px=16, dims=112)


@dataclass(frozen=True, slots=True)
class TapProjection:
    """What a projection does to one tap: `matrix` is (D, C) float32."""

    tap: Tap
    matrix: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MemoryHead:
    """A fitted memory.

    Attributes:
        grid: see `Head.grid`.
        projections: one per tap, in the spec's order; their results are added.
        offset: (D,) float32, added once.
        bank: (K, D) float32, the patches kept.
        owners: (K,) int32, the group each of them came from.
        soft_zero: added to squared distances, see `_soft_zero_of`.
    """

    spec: MemorySpec
    grid: int
    projections: tuple[TapProjection, ...]
    offset: NDArray[np.float32]
    bank: NDArray[np.float32]
    owners: NDArray[np.int32]
    soft_zero: float

    @property
    def name(self) -> str:
        """Return the spec's name."""
        return self.spec.name

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32; see `Head.distances`."""
        stacked = np.concatenate([one.matrix for one in self.projections], axis=1)
        projected = _descriptors(features, self.spec, self.grid) @ stacked.T + self.offset  # (N, cells, D)
        groups = [_NOBODY] * len(projected) if left_out is None else list(left_out)
        nearest = [self._nearest(one, group) for one, group in zip(projected, groups, strict=True)]
        return np.stack(nearest).reshape(-1, self.grid, self.grid)

    def _nearest(self, patches: NDArray[np.float32], left_out: int) -> NDArray[np.float32]:
        """Return (cells,) distances of (cells, D) patches to the bank, without one group's."""
        others = self.owners != left_out
        # Where one group taught the whole bank (all photos alike), it is all there is to compare.
        bank = self.bank[others] if others.any() else self.bank
        squares = np.square(patches).sum(axis=1)
        nearest = (np.square(bank).sum(axis=1) - 2 * (patches @ bank.T)).min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares + nearest, 0) + self.soft_zero), np.float32)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw the memory; see `Head.draw`."""
        grid, dims = self.grid, len(self.offset)
        total = self._draw_projections(draw, taps)  # (N, D + 1, g, g), the last channel is 1
        flat = draw.add("Reshape", total, draw.constant(np.array([0, dims + 1, grid * grid]), "shape"))
        patches = draw.add("Transpose", flat, perm=[0, 2, 1])
        # |b|^2 rides in the matrix product, against the constant 1: one pass over K less.
        keys = np.vstack([-2 * self.bank.T, np.square(self.bank).sum(axis=1)])  # (D + 1, K)
        products = draw.add("MatMul", patches, draw.constant(keys.astype(np.float32), "bank"))
        nearest = draw.add("ReduceMin", products, axes=[2], keepdims=0)
        squares = draw.add("ReduceSumSquare", flat, axes=[1], keepdims=0)
        distance = draw.add("Sub", draw.add("Add", squares, nearest), draw.scalar(1))
        soft = draw.add("Add", draw.add("Max", distance, draw.scalar(0)), draw.scalar(self.soft_zero))
        square = draw.constant(np.array([0, grid, grid]), "shape")
        return draw.add("Reshape", draw.add("Sqrt", soft), square)

    def _draw_projections(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw the projected sum of all taps on the spec's grid, with a last channel of ones."""
        total = ""
        for one in self.projections:
            kernel = np.vstack([one.matrix, np.zeros((1, one.tap.channels), np.float32)])
            bias = np.zeros(len(kernel), np.float32) if total else np.append(self.offset, np.float32(1))
            tensor, tap_grid = taps[one.tap.name], one.tap.grid
            if tap_grid > self.grid:  # fewer cells to project; small ones are projected, then resized
                tensor, tap_grid = draw_resized(draw, tensor, tap_grid, self.grid), self.grid
            part = draw.add(
                "Conv",
                tensor,
                draw.constant(kernel[:, :, None, None], "projection"),
                draw.constant(bias, "offset"),
            )
            # 1 x 1 convolutions and interpolation commute.
            part = draw_resized(draw, part, tap_grid, self.grid)
            total = draw.add("Add", total, part) if total else part
        return total


class MemoryFamily:
    """Fits the memories M8 (strides 4, 8 and 16 together) and M16."""

    name = "memory"

    def __init__(self, specs: Sequence[MemorySpec] = (M8, M16)) -> None:
        """Fit these memories."""
        self._specs = tuple(specs)

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
        quotas = _quotas(count, budget.sample_patches, rng)
        samples: dict[str, list[NDArray[np.float32]]] = {spec.name: [] for spec in self._specs}
        owners: dict[str, list[NDArray[np.int32]]] = {spec.name: [] for spec in self._specs}
        for start, features in extractor.stream(data.normals):
            for spec in self._specs:
                for offset, patches in enumerate(_descriptors(features, spec, self._grid(spec, extractor))):
                    quota = min(int(quotas[start + offset]), len(patches))
                    samples[spec.name].append(patches[rng.choice(len(patches), quota, replace=False)])
                    owners[spec.name].append(np.full(quota, data.groups[start + offset], np.int32))
            progress(0.5 * start / count)
        heads = []
        for done, spec in enumerate(self._specs, start=1):
            taps = [extractor.taps[name] for name in spec.taps]
            sample, owned = np.concatenate(samples[spec.name]), np.concatenate(owners[spec.name])
            grid = self._grid(spec, extractor)
            heads.append(_fit_head(spec, grid, taps, sample, owned, budget.bank_patches, rng))
            progress(0.5 + 0.5 * done / len(self._specs))
        return Candidate(self.name, tuple(heads))

    @staticmethod
    def _grid(spec: MemorySpec, extractor: FeatureExtractor) -> int:
        return extractor.input_px // spec.stride_px


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
    grid: int,
    taps: Sequence[Tap],
    sample: NDArray[np.float32],
    owners: NDArray[np.int32],
    bank_patches: int,
    rng: np.random.Generator,
) -> MemoryHead:
    """Fit projection and bank to a sample of (P, C) patches of (P,) owners."""
    mean = sample.mean(axis=0)
    centred = sample - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    projection = np.ascontiguousarray(vectors[:, ::-1][:, : spec.dims].T)  # (D, C), leading first
    patches = centred @ projection.T
    kept = greedy_k_centre(patches, bank_patches, rng)
    ends = np.cumsum([tap.channels for tap in taps])
    parts = np.split(projection, ends[:-1], axis=1)
    return MemoryHead(
        spec=spec,
        grid=grid,
        projections=tuple(TapProjection(tap, part) for tap, part in zip(taps, parts, strict=True)),
        offset=-projection @ mean,
        bank=patches[kept],
        owners=owners[kept],
        soft_zero=_soft_zero_of(sample),
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


def _descriptors(features: Features, spec: MemorySpec, grid: int) -> NDArray[np.float32]:
    """Return (N, cells, C): the taps averaged or interpolated to the grid and concatenated."""
    stacked = np.concatenate([resized(features[tap], grid) for tap in spec.taps], axis=1)  # (N, C, g, g)
    count, channels = stacked.shape[:2]
    return np.ascontiguousarray(stacked.reshape(count, channels, -1).transpose(0, 2, 1))

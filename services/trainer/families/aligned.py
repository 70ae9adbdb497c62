"""The aligned family: at every position a Gaussian of what stands there on good parts (arrow 6).

Sees what a memory cannot: something that is normal elsewhere, or nothing where something belongs.
Idea: PaDiM (Defard et al., ICPR 2020 workshops); here the covariance is its leading directions and
one variance for the rest, so that a model stays small and few photos suffice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
from services.trainer.families.protocol import Budget, Candidate, FitData, StageProgress
from services.trainer.features import FeatureExtractor, Features, Tap
from services.trainer.graph_builder import GraphBuilder

# Leading directions kept of each position's covariance. Of 2, 4 and 8 none was best on every set.
_RANK = 4
# Below this a fold sees less than half of how parts shift: of three photos it let through, it rejected 5 of
# 8 good ones.
_FEWEST_OBJECTS = 6
# A mean and eight directions are settled long before this many photos, which as descriptors take 160 MB.
_MOST_PHOTOS = 200
# 56 x 56 positions of 64 numbers with eight directions are 7 MB of the file.
_MOST_GRID = 56
_MOST_CHANNELS, _PROJECTED_CHANNELS = 128, 64
# Share of the variance over all cells that is always added, so that photos that are all equal do not
# divide by nothing.
_LEAST_VARIANCE_RATIO = 1e-3
_PCA_PATCHES = 12_000
_BLOCK_CELLS = 784
# Of four directions apart by half in variance the last is then right to 1 %; folds iterate as often.
_ITERATIONS = 8


@dataclass(frozen=True, slots=True)
class PositionSpec:
    """What one head looks at.

    Attributes:
        taps: backbone taps, brought to one grid and concatenated.
        grid: cells along a side.
        is_standardised: whether channels are brought to one spread first.
    """

    name: str
    taps: tuple[str, ...]
    grid: int
    is_standardised: bool


@dataclass(frozen=True, slots=True)
class Positions:
    """A Gaussian per position.

    Attributes:
        mean: (P, C) float32.
        known: (P, C, r) float32, the leading directions u, each times sqrt(e / (e + rest)).
        rest: variance in every other direction, one for all positions: read at each from 30 photos it made
            the places that happened to agree alarm (AUPRO .39 instead of .76 on cookies).
    """

    mean: NDArray[np.float32]
    known: NDArray[np.float32]
    rest: float

    def distances(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (P,) distances of (P, C) patches, about 1 for good ones."""
        off = patches - self.mean
        explained = np.square(np.matmul(off[:, None, :], self.known)[:, 0]).sum(axis=1)
        squares = np.maximum(np.square(off).sum(axis=1) - explained, 0)
        return np.asarray(np.sqrt(squares / (self.rest * off.shape[1])), np.float32)


@dataclass(frozen=True, slots=True)
class AlignedHead:
    """A fitted Gaussian per position.

    Attributes:
        name: see `Head.name`.
        grid: see `Head.grid`.
        projections: one per tap; their results are added.
        offset: (D,) float32, added once.
        whole: fitted to all photos.
        folds: fitted without one fifth of the groups each.
        fold_of: number of the fold that a group was left out of.
    """

    name: str
    grid: int
    projections: tuple[TapProjection, ...]
    offset: NDArray[np.float32]
    whole: Positions
    folds: tuple[Positions, ...]
    fold_of: Mapping[int, int]

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32; see `Head.distances`."""
        projected = _projected(features, self.projections, self.offset, self.grid)
        folds = [None] * len(projected) if left_out is None else [self.fold_of.get(one) for one in left_out]
        models = [self.whole if fold is None else self.folds[fold] for fold in folds]
        found = [model.distances(one) for model, one in zip(models, projected, strict=True)]
        return np.stack(found).reshape(-1, self.grid, self.grid)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw the whole model; see `Head.draw`."""
        cells, dims = self.whole.mean.shape
        stacked = draw_projected(draw, taps, self.projections, self.offset, self.grid)
        flat = draw.add("Reshape", stacked, draw.constant(np.array([0, dims, cells]), "shape"))
        off = draw.add("Sub", flat, draw.constant(self.whole.mean.T, "position_mean"))  # (N, D, P)
        squares = draw.add("ReduceSumSquare", off, axes=[1], keepdims=0)  # (N, P)
        if self.whole.known.shape[2]:
            # Products and sums instead of 3,136 small matrix products: a third of their time.
            known = draw.constant(self.whole.known.transpose(2, 1, 0), "known")  # (r, D, P)
            rows = draw.add("Unsqueeze", off, draw.constant(np.array([1]), "axis"))  # (N, 1, D, P)
            products = draw.add("Mul", rows, known)
            along = draw.add("ReduceSum", products, draw.constant(np.array([2]), "axis"), keepdims=0)
            explained = draw.add("ReduceSumSquare", along, axes=[1], keepdims=0)
            squares = draw.add("Sub", squares, explained)
        scaled = draw.add("Mul", draw.add("Relu", squares), draw.scalar(1 / (self.whole.rest * dims)))
        square = draw.constant(np.array([0, self.grid, self.grid]), "shape")
        return draw.add("Reshape", draw.add("Sqrt", scaled), square)


class AlignedFamily:
    """Fits one head on the finest taps and one on the coarsest that is not too coarse."""

    name = "aligned"

    @property
    def is_slow(self) -> bool:
        """It takes seconds."""
        return False

    def why_not(self, data: FitData) -> str | None:
        """See `Family.why_not`."""
        count = len(np.unique(data.groups))
        if count >= _FEWEST_OBJECTS:
            return None
        return f"It needs photos of at least {_FEWEST_OBJECTS} different good parts; there are {count}."

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:  # noqa: ARG002 - its cost is fixed
        """Fit every head to all photos and to four fifths of them five times; see `Family.fit`."""
        rng = np.random.default_rng(seed)
        count = len(data.normals)
        chosen = np.sort(rng.permutation(count)[:_MOST_PHOTOS])
        groups = data.groups[chosen]
        fold_of = folds_of(groups, seed)
        wanted = set(chosen.tolist())
        parts: list[Features] = []
        for start, features in data.extractor.stream(data.normals):
            here = [at for at in range(len(features["pixels"])) if start + at in wanted]
            if here:
                parts.append(
                    {name: value[here] for name, value in features.items() if name in data.extractor.taps}
                )
            progress(0.3 * start / count)
        heads = []
        specs = specs_of(data.extractor)
        for done, spec in enumerate(specs, start=1):
            heads.append(_fit_head(spec, data.extractor, parts, groups, fold_of, rng))
            progress(0.3 + 0.7 * done / len(specs))
        return Candidate(self.name, tuple(heads))


def specs_of(extractor: FeatureExtractor) -> tuple[PositionSpec, ...]:
    """Return what to look at on a backbone: its two finest taps together, and the coarsest alone."""
    taps = usable_taps(extractor)
    fine = PositionSpec("p4", tuple(tap.name for tap in taps[:2]), _grid_of(taps[0]), is_standardised=False)
    if len(taps) == 1:
        return (fine,)
    return (fine, PositionSpec("p16", (taps[-1].name,), _grid_of(taps[-1]), is_standardised=True))


def _grid_of(tap: Tap) -> int:
    grid = tap.grid
    while grid > _MOST_GRID and grid % 2 == 0:
        grid //= 2
    return grid


def fit_positions(patches: NDArray[np.float32], rank: int, least: float) -> Positions:
    """Fit (n, P, C) patches of n photos, n >= 1.

    Args:
        patches: descriptors.
        rank: directions kept.
        least: added to the variance.
    """
    cells, channels = patches.shape[1:]
    mean = patches.mean(axis=0)
    blocks = [slice(start, start + _BLOCK_CELLS) for start in range(0, cells, _BLOCK_CELLS)]
    found = [_leading((patches[:, one] - mean[one]).transpose(1, 0, 2), rank) for one in blocks]
    directions, variances, total = (np.concatenate(parts) for parts in zip(*found, strict=True))
    rest = max(float((total - variances.sum(axis=1)).mean()) / channels, 0) + least
    weight = np.sqrt(variances / (variances + rest))
    return Positions(mean, (directions * weight[:, None, :]).astype(np.float32), rest)


def leading_eigenvectors(matrices: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    """Return (B, k, r) of (B, k, k) symmetric matrices without negative eigenvalues, largest first.

    By simultaneous iteration, all matrices at once: LAPACK's threads, called for each of 3,136 positions,
    wait for one another on a machine that has other work.
    """
    size = matrices.shape[-1]
    start = np.random.default_rng(size).normal(size=(size, rank)).astype(np.float32)
    vectors = np.broadcast_to(start, (len(matrices), size, rank))
    for _ in range(_ITERATIONS):
        vectors = _orthonormal(matrices @ vectors)
    return vectors


def _orthonormal(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (B, k, r) with orthonormal columns, by Gram and Schmidt; columns of nothing stay nothing."""
    done = np.zeros_like(vectors)
    for column in range(vectors.shape[2]):
        one = vectors[:, :, column]
        scale = np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-30)
        one = one / scale
        for _ in range(2):  # once more, for what rounding left
            along = np.matmul(one[:, None, :], done[:, :, :column])  # (B, 1, column)
            one = one - (done[:, :, :column] * along).sum(axis=2)
        length = np.linalg.norm(one, axis=1, keepdims=True)
        done[:, :, column] = np.where(length > 1e-4, one / np.maximum(length, 1e-4), 0)
    return done


def _leading(
    off: NDArray[np.float32], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return directions (B, C, r), their variances (B, r) and the whole variance (B,) of (B, n, C)."""
    off = np.ascontiguousarray(off)
    count, channels = off.shape[1:]
    degrees = max(count - 1, 1)
    total = np.square(off).sum(axis=(1, 2)) / degrees
    flipped = np.ascontiguousarray(off.transpose(0, 2, 1))
    if count > channels:
        directions = leading_eigenvectors(flipped @ off, rank)
    else:  # the smaller matrix leads to the same directions
        directions = _orthonormal(flipped @ leading_eigenvectors(off @ flipped, rank))
    variances = np.square(off @ directions).sum(axis=1) / degrees
    return directions, variances, total


def _fit_head(
    spec: PositionSpec,
    extractor: FeatureExtractor,
    parts: Sequence[Features],
    groups: NDArray[np.int32],
    fold_of: Mapping[int, int],
    rng: np.random.Generator,
) -> AlignedHead:
    taps = [extractor.taps[name] for name in spec.taps]
    projections, offset = _fit_projection(spec, taps, parts, rng)
    patches = np.concatenate([_projected(one, projections, offset, spec.grid) for one in parts])  # (n, P, D)
    folds = np.array([fold_of.get(int(group), -1) for group in groups])
    numbers = sorted(set(fold_of.values()))
    fewest = min([len(folds), *(int((folds != fold).sum()) for fold in numbers)])
    rank = min(_RANK, fewest // 3, patches.shape[2] // 2)
    least = _LEAST_VARIANCE_RATIO * float(patches.var(axis=(0, 1)).mean()) + 1e-12
    fit = partial(fit_positions, rank=rank, least=least)
    return AlignedHead(
        name=spec.name,
        grid=spec.grid,
        projections=projections,
        offset=offset,
        whole=fit(patches),
        folds=tuple(fit(patches[folds != fold]) for fold in numbers),
        fold_of=dict(fold_of),
    )


def _fit_projection(
    spec: PositionSpec, taps: Sequence[Tap], parts: Sequence[Features], rng: np.random.Generator
) -> tuple[tuple[TapProjection, ...], NDArray[np.float32]]:
    """Return the linear map to descriptors: standardised, and where wide to fewer channels."""
    photos = sum(len(one[spec.taps[0]]) for one in parts)
    quota = max(1, _PCA_PATCHES // photos)
    drawn = []
    for one in parts:
        for patches in concatenated(one, spec.taps, spec.grid):
            drawn.append(patches[rng.choice(len(patches), min(quota, len(patches)), replace=False)])
    sample = np.concatenate(drawn)
    mean = sample.mean(axis=0)
    sd = np.maximum(sample.std(axis=0), 1e-6) if spec.is_standardised else np.ones_like(mean)
    matrix = np.diag(1 / sd).astype(np.float32)
    if len(mean) > _MOST_CHANNELS:
        matrix = leading_directions((sample - mean) / sd, _PROJECTED_CHANNELS) / sd
    return split_by_tap(matrix, taps), np.asarray(-matrix @ mean, np.float32)


def _projected(
    features: Features, projections: Sequence[TapProjection], offset: NDArray[np.float32], grid: int
) -> NDArray[np.float32]:
    """Return (N, P, D) descriptors."""
    stacked = np.concatenate([one.matrix for one in projections], axis=1)
    patches = concatenated(features, [one.tap.name for one in projections], grid)
    return np.asarray(patches @ stacked.T + offset, np.float32)

"""A small network on single cells of backbone features: how likely is each to be of each class (arrow 6).

One hidden layer of 1 x 1 convolutions, trained by L-BFGS on a weighted sample of cells in a fraction of a
second. Context comes from the backbone's coarser taps. Does not choose the sample (`supervised`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from services.trainer.families.projection import (
    concatenated,
    draw_projected,
    leading_directions,
    split_by_tap,
)
from services.trainer.features import Features, Tap
from services.trainer.graph_builder import GraphBuilder

# Of 0, 16 and 32, 16 marked about as well as 32 and well above none (mean IoU .68, .70 and .63 on cookies,
# 5-fold); and of 1e-3, 3e-3 and 1e-2 no shrinkage was best on every set.
_HIDDEN = 16
_SHRINKAGE = 3e-3
FULL_STEPS = 60
# Of wider backbones the leading directions; the default one's taps have 176 together.
_MOST_CHANNELS = 256


@dataclass(frozen=True, slots=True)
class Cells:
    """Labelled cells.

    Attributes:
        patches: (n, C) float32 descriptors.
        targets: (n, K) float32, share of the cell that is of each class (0-1).
        is_known: (n, K) bool, False where nobody said.
        groups: (n,) int32 group of the photo.
    """

    patches: NDArray[np.float32]
    targets: NDArray[np.float32]
    is_known: NDArray[np.bool_]
    groups: NDArray[np.int32]

    def where(self, wanted: NDArray[np.bool_]) -> Cells:
        """Return some of the cells."""
        return Cells(self.patches[wanted], self.targets[wanted], self.is_known[wanted], self.groups[wanted])

    def joined(self, others: Cells) -> Cells:
        """Return these cells and others."""
        return Cells(
            np.concatenate([self.patches, others.patches]),
            np.concatenate([self.targets, others.targets]),
            np.concatenate([self.is_known, others.is_known]),
            np.concatenate([self.groups, others.groups]),
        )


@dataclass(frozen=True, slots=True)
class CellClassifier:
    """A trained network.

    Attributes:
        inner: (C, h) float32, from descriptors, with their standardisation in it.
        inner_offset: (h,) float32.
        outer: (h, K) float32.
        outer_offset: (K,) float32.
    """

    inner: NDArray[np.float32]
    inner_offset: NDArray[np.float32]
    outer: NDArray[np.float32]
    outer_offset: NDArray[np.float32]

    def logits(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (..., K) of (..., C) descriptors."""
        hidden = np.maximum(patches @ self.inner + self.inner_offset, 0)
        return np.asarray(hidden @ self.outer + self.outer_offset, np.float32)

    def planes(self, features: Features, taps: tuple[Tap, ...], grid: int) -> NDArray[np.float32]:
        """Return (N, K, g, g) logits of features."""
        logits = self.logits(concatenated(features, [tap.name for tap in taps], grid))
        return np.ascontiguousarray(logits.transpose(0, 2, 1)).reshape(len(logits), -1, grid, grid)

    def draw(self, draw: GraphBuilder, names: Mapping[str, str], taps: tuple[Tap, ...], grid: int) -> str:
        """Draw `planes`; return its name."""
        projections = split_by_tap(self.inner.T, taps)
        hidden = draw_projected(draw, names, projections, self.inner_offset, grid)
        kernel = draw.constant(np.ascontiguousarray(self.outer.T)[:, :, None, None], "classes")
        return draw.add("Conv", draw.add("Relu", hidden), kernel, draw.constant(self.outer_offset, "offset"))

    def of_classes(self, wanted: slice) -> CellClassifier:
        """Return the same network with some of its outputs."""
        return CellClassifier(self.inner, self.inner_offset, self.outer[:, wanted], self.outer_offset[wanted])


def train(cells: Cells, seed: int, steps: int = FULL_STEPS) -> CellClassifier:
    """Fit the network to cells; each class's cells weigh as much as those that are not of it."""
    mean, basis = _basis(cells.patches)
    patches = (cells.patches - mean) @ basis
    channels, classes = patches.shape[1], cells.targets.shape[1]
    weights = _balanced(cells)
    rng = np.random.default_rng(seed)
    shapes = ((channels, _HIDDEN), (_HIDDEN,), (_HIDDEN, classes), (classes,))
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])

    def split(flat: NDArray[np.float64]) -> list[NDArray[np.float32]]:
        parts = np.split(flat.astype(np.float32), ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return weighted cross-entropy plus shrinkage, and its gradient."""
        inner, inner_offset, outer, outer_offset = split(flat)
        before = patches @ inner + inner_offset  # (n, h)
        hidden = np.maximum(before, 0)
        logits = hidden @ outer + outer_offset  # (n, K)
        entropy = np.logaddexp(0, logits) - cells.targets * logits
        pull = weights * (expit(logits) - cells.targets)
        back = (pull @ outer.T) * (before > 0)
        gradient = [
            patches.T @ back + 2 * _SHRINKAGE * inner,
            back.sum(axis=0),
            hidden.T @ pull + 2 * _SHRINKAGE * outer,
            pull.sum(axis=0),
        ]
        shrinkage = _SHRINKAGE * float(np.square(inner).sum() + np.square(outer).sum())
        value = float((weights * entropy).sum()) + shrinkage
        return value, np.concatenate([one.ravel() for one in gradient]).astype(np.float64)

    start = np.concatenate(
        [
            rng.normal(0, channels**-0.5, channels * _HIDDEN),
            np.zeros(_HIDDEN),
            rng.normal(0, _HIDDEN**-0.5, _HIDDEN * classes),
            np.zeros(classes),
        ]
    )
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
    inner, inner_offset, outer, outer_offset = split(found.x)
    inner = basis @ inner
    return CellClassifier(inner, inner_offset - mean @ inner, outer, outer_offset)


def _basis(patches: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (C,) mean and (C, D): what makes (n, C) patches standardised, and where wide narrower."""
    mean, sd = patches.mean(axis=0), np.maximum(patches.std(axis=0), 1e-6)
    basis = np.diag(1 / sd).astype(np.float32)
    if len(mean) > _MOST_CHANNELS:
        basis = leading_directions((patches - mean) @ basis, _MOST_CHANNELS).T / sd[:, None]
        basis = basis / np.maximum(((patches - mean) @ basis).std(axis=0), 1e-6)
    return mean, np.asarray(basis, np.float32)


def _balanced(cells: Cells) -> NDArray[np.float32]:
    """Return (n, K) weights: per class a half for its cells and a half for others, 0 for unknown ones."""
    weights = np.zeros(cells.targets.shape, np.float32)
    for is_wanted in ((cells.targets > 0) & cells.is_known, (cells.targets == 0) & cells.is_known):
        weights += is_wanted * (0.5 / np.maximum(is_wanted.sum(axis=0), 1)).astype(np.float32)
    return np.asarray(weights / len(weights[0]), np.float32)

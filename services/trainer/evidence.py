"""What fitted heads say of photos that they did not learn from: the ground for every choice (arrow 6).

Good photos and labelled anomalies are measured without what their own group taught, and so are synthetic
defects drawn on good photos. Chooses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.trainer.dataset import BATCH_IMAGES, Dataset
from services.trainer.embedding import coarsest_tap, pooled
from services.trainer.families.protocol import MAP_STRIDE_PX, FitData, Head, StageProgress
from services.trainer.features import Features
from services.trainer.scorer import Distances
from services.trainer.synthesis.spoil import spoil
from services.vision.masks import on_grid

# Synthetic defects; with 30 good photos the standard error of an AUROC of .95 is then about .02.
_SPOILT_PHOTOS = 48


@dataclass(frozen=True, slots=True)
class Evidence:
    """Distances per head, all cross-fitted.

    Attributes:
        groups: (n,) int32 group of each normal photo.
        normals: per head (n, g, g) float32.
        spoilt: per head (k, g, g), of synthetic defects.
        spoilt_masks: (k, m, m) bool, where they are, on the grid of the map.
        anomalies: per head (a, g, g), of labelled anomalies.
        anomaly_masks: (a, m, m) bool, all False where nothing was drawn.
        means: (n, C) the coarsest tap's means of normal photos, see `services.trainer.embedding`.
    """

    groups: NDArray[np.int32]
    normals: Distances
    spoilt: Distances
    spoilt_masks: NDArray[np.bool_]
    anomalies: Distances
    anomaly_masks: NDArray[np.bool_]
    means: NDArray[np.float32]

    def of(self, heads: Sequence[int]) -> Evidence:
        """Return the evidence on some of the heads."""
        return replace(
            self,
            normals=[self.normals[index] for index in heads],
            spoilt=[self.spoilt[index] for index in heads],
            anomalies=[self.anomalies[index] for index in heads],
        )


def gather(heads: Sequence[Head], data: FitData, seed: int, progress: StageProgress) -> Evidence:
    """Measure every photo; takes one pass of the backbone over synthetic defects and anomalies.

    Args:
        heads: at least one.
        data: what they learnt from.
        seed: of the synthetic defects.
        progress: told the share done.
    """
    side = data.extractor.input_px // MAP_STRIDE_PX
    tap = coarsest_tap(data.extractor)
    normals, means = _Measured(heads), []
    for start, features in data.extractor.stream(data.normals):
        stop = start + len(features[tap])
        normals.add(features, data.groups[start:stop])
        means.append(pooled(features, tap))
        progress(0.4 * stop / len(data.normals))
    spoilt, spoilt_masks = _Measured(heads), []
    for pixels, masks, groups in _spoilt(data, seed):
        spoilt.add(data.extractor.extract(pixels), groups)
        spoilt_masks += [on_grid(mask, side) for mask in masks]
        progress(0.4 + 0.4 * len(spoilt_masks) / _SPOILT_PHOTOS)
    anomalies = _Measured(heads)
    for start, features in data.extractor.stream(data.anomalies):
        anomalies.add(features, data.anomaly_groups[start : start + len(features[tap])])
    drawn = [_drawn(data.anomalies, index, side) for index in range(len(data.anomalies))]
    progress(1.0)
    return Evidence(
        groups=data.groups,
        normals=normals.distances(),
        spoilt=spoilt.distances(),
        spoilt_masks=np.stack(spoilt_masks),
        anomalies=anomalies.distances(),
        anomaly_masks=np.stack(drawn) if drawn else np.zeros((0, side, side), np.bool_),
        means=np.concatenate(means),
    )


class _Measured:
    """Collects the heads' distances batch by batch."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self._heads = heads
        self._parts = [[np.zeros((0, head.grid, head.grid), np.float32)] for head in heads]

    def add(self, features: Features, groups: NDArray[np.int32]) -> None:
        left_out = groups.tolist()
        for head, parts in zip(self._heads, self._parts, strict=True):
            parts.append(head.distances(features, left_out))

    def distances(self) -> Distances:
        return [np.concatenate(parts) for parts in self._parts]


def _spoilt(
    data: FitData, seed: int
) -> Iterator[tuple[NDArray[np.uint8], list[NDArray[np.bool_]], NDArray[np.int32]]]:
    """Yield batches of (N, S, S, 3) spoilt good photos, their (S, S) masks and their (N,) groups."""
    rng = np.random.default_rng([seed, _SPOILT_PHOTOS])
    count = len(data.normals)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-_SPOILT_PHOTOS // count))])
    chosen = order[:_SPOILT_PHOTOS]
    for start in range(0, _SPOILT_PHOTOS, BATCH_IMAGES):
        batch = chosen[start : start + BATCH_IMAGES]
        made = []
        for index in batch.tolist():
            others = np.flatnonzero(data.groups != data.groups[index])
            other = int(rng.choice(others)) if len(others) else index
            made.append(spoil(data.normals.pixels(index), data.normals.pixels(other), rng))
        yield np.stack([one.pixels for one in made]), [one.mask for one in made], data.groups[batch]


def _drawn(anomalies: Dataset, index: int, side: int) -> NDArray[np.bool_]:
    """Return (m, m) where any type was drawn on a photo."""
    masks = list(anomalies.masks(index).values())
    return on_grid(np.any(masks, axis=0), side) if masks else np.zeros((side, side), np.bool_)

"""Which cells the supervised family learns from: a bounded, seeded sample with its folds (arrow 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.dataset import Dataset
from services.trainer.families.cell_classifier import CellClassifier, Cells
from services.trainer.families.projection import concatenated
from services.trainer.families.protocol import FitData
from services.trainer.features import Tap

_FOLDS = 5
# Cells that are of a type, and cells that are of none: half of these in good photos, half in anomalous ones.
_MARKED_CELLS, _OTHER_CELLS = 6000, 6000
# Cells of good photos that a first network takes for anomalous; a second one learns that they are not.
_HARD_CELLS, _HARD_PHOTOS = 3000, 200
# Without masks: photos whose cells are kept (500 KB each), and the share of each that is suspected.
_SUSPECTED_PHOTOS, _SUSPECTED_RATIO = 200, 0.02


@dataclass(frozen=True, slots=True)
class Lesson:
    """What cells are drawn from.

    Attributes:
        data: the photos.
        taps: of the backbone, in the order of the descriptors' channels.
        grid: cells along a side.
        types: classes 1 to T; class 0 is any anomaly.
        fold_of: see `folds_of`.
        seed: of every random choice.
    """

    data: FitData
    taps: tuple[Tap, ...]
    grid: int
    types: tuple[str, ...]
    fold_of: Mapping[int, int]
    seed: int

    def photos(self, photos: Dataset) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (index of a photo, (g * g, C) descriptors), in order."""
        names = [tap.name for tap in self.taps]
        for start, features in self.data.extractor.stream(photos):
            for offset, patches in enumerate(concatenated(features, names, self.grid)):
                yield start + offset, patches

    def is_seen(self, groups: NDArray[np.int32], fold: int | None) -> NDArray[np.bool_]:
        """Return (n,): which groups the network of a fold learns from; None: all."""
        return np.array([fold is None or self.fold_of.get(int(one)) != fold for one in groups], np.bool_)

    def cells(
        self,
        patches: NDArray[np.float32],
        group: int,
        targets: NDArray[np.float32] | None = None,
        is_known: NDArray[np.bool_] | None = None,
    ) -> Cells:
        """Return (n, C) patches of one photo as cells, without targets as cells of nothing."""
        shape = (len(patches), 1 + len(self.types))
        return Cells(
            patches=patches,
            targets=np.zeros(shape, np.float32) if targets is None else targets,
            is_known=np.ones(shape, np.bool_) if is_known is None else is_known,
            groups=np.full(len(patches), group, np.int32),
        )


def folds_of(data: FitData, seed: int) -> dict[int, int]:
    """Return the fold of every group; twins among anomalies share one, and so do, evenly, types.

    Of fewer than two objects nothing can be left out.
    """
    rng = np.random.default_rng(seed)
    twins = data.anomalies.groups()
    objects = rng.permutation(np.unique(twins)).tolist()
    first = {int(one): int(np.flatnonzero(twins == one)[0]) for one in objects}
    objects.sort(key=lambda one: data.anomalies.images[first[one]].all_types)
    normal = rng.permutation(np.unique(data.groups)).tolist()
    if len(objects) < 2 or len(normal) < 2:
        return {}
    count = min(_FOLDS, len(objects))
    fold_of_object = {one: place % count for place, one in enumerate(objects)}
    found = {int(group): place % count for place, group in enumerate(normal)}
    for group, twin in zip(data.anomaly_groups, twins, strict=True):
        found[int(group)] = fold_of_object[int(twin)]
    return found


def draw_cells(lesson: Lesson) -> Cells:
    """Return cells of photos with masks, evenly from all of them, and of good photos.

    Where a type was named but not drawn, nobody knows which cells are of it.
    """
    data, rng = lesson.data, np.random.default_rng(lesson.seed)
    masked = [index for index, one in enumerate(data.anomalies.images) if one.masks]
    marked_quota, other_quota = _MARKED_CELLS // len(masked) + 1, _OTHER_CELLS // 2 // len(masked) + 1
    parts = []
    wanted = set(masked)
    for index, patches in lesson.photos(data.anomalies):
        if index not in wanted:
            continue
        targets, is_known = _targets(lesson, index)
        is_marked = targets[:, 0] > 0
        chosen = np.concatenate(
            [
                _some(np.flatnonzero(is_marked), marked_quota, rng),
                _some(np.flatnonzero(~is_marked), other_quota, rng),
            ]
        )
        group = int(data.anomaly_groups[index])
        parts.append(lesson.cells(patches[chosen], group, targets[chosen], is_known[chosen]))
    return _joined([*parts, *_of_normals(lesson, rng)])


def suspected(lesson: Lesson) -> Cells:
    """Return the cells of anomalous photos that are least like good ones, and cells of good photos.

    Least alike is by the Mahalanobis distance to the cells of good photos: no anomalous photo has a say in
    which cells of another are taken.
    """
    data, rng = lesson.data, np.random.default_rng(lesson.seed)
    normals = _joined(list(_of_normals(lesson, rng)))
    mean = normals.patches.mean(axis=0)
    covariance = np.cov(normals.patches.T) + 1e-3 * normals.patches.var(axis=0).mean() * np.eye(len(mean))
    whitening = np.linalg.cholesky(np.linalg.inv(covariance)).astype(np.float32)
    count = max(1, round(_SUSPECTED_RATIO * lesson.grid**2))
    parts = []
    taught = set(_some(np.arange(len(data.anomalies)), _SUSPECTED_PHOTOS, rng).tolist())
    for index, patches in lesson.photos(data.anomalies):
        if index in taught:
            far = np.square((patches - mean) @ whitening).sum(axis=1)
            chosen = np.argsort(-far, kind="stable")[:count]
            ones = np.ones((count, 1 + len(lesson.types)), np.float32)
            parts.append(lesson.cells(patches[chosen], int(data.anomaly_groups[index]), ones))
    return _joined([*parts, normals])


def hardest_normals(lesson: Lesson, networks: Mapping[int | None, CellClassifier]) -> dict[int | None, Cells]:
    """Return per fold the cells of good photos, of those that its network sees, that look most anomalous."""
    data, rng = lesson.data, np.random.default_rng(lesson.seed)
    names = {one.name: index for index, one in enumerate(data.normals.images)}
    taught = {data.normals.images[index].name for index in _some(np.arange(len(names)), _HARD_PHOTOS, rng)}
    part = data.normals.where(lambda one: one.name in taught)
    quota = min(_HARD_CELLS // len(part) + 1, lesson.grid**2)
    parts: dict[int | None, list[Cells]] = {fold: [] for fold in networks}
    for index, patches in lesson.photos(part):
        group = int(data.groups[names[part.images[index].name]])
        for fold, network in networks.items():
            if fold is None or lesson.fold_of.get(group) != fold:
                highest = network.logits(patches).max(axis=1)
                hard = np.argsort(-highest, kind="stable")[:quota]
                parts[fold].append(lesson.cells(patches[hard], group))
    return {fold: _joined(found) for fold, found in parts.items()}


def _of_normals(lesson: Lesson, rng: np.random.Generator) -> Iterator[Cells]:
    """Yield cells of good photos, evenly from all of them."""
    quota = _OTHER_CELLS // 2 // len(lesson.data.normals) + 1
    for index, patches in lesson.photos(lesson.data.normals):
        chosen = _some(np.arange(len(patches)), quota, rng)
        yield lesson.cells(patches[chosen], int(lesson.data.groups[index]))


def _targets(lesson: Lesson, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return (g * g, 1 + T) shares that are marked in an anomalous photo, and what is known."""
    image = lesson.data.anomalies.images[index]
    masks = lesson.data.anomalies.masks(index)
    cells = lesson.grid**2
    targets = np.zeros((cells, 1 + len(lesson.types)), np.float32)
    is_known = np.ones(targets.shape, np.bool_)
    any_mask = np.any(list(masks.values()), axis=0)
    targets[:, 0] = _shares(any_mask, lesson.grid)
    undrawn = set(image.types) - set(masks)
    if undrawn:
        is_known[:, 0] = targets[:, 0] > 0
    for place, name in enumerate(lesson.types, start=1):
        if name in masks:
            targets[:, place] = _shares(masks[name], lesson.grid)
        is_known[:, place] = name not in undrawn
    return targets, is_known


def _shares(mask: NDArray[np.bool_], grid: int) -> NDArray[np.float32]:
    """Return (g * g,) share of each cell that is marked in an (S, S) mask."""
    side = len(mask) // grid
    return np.asarray(mask.reshape(grid, side, grid, side).mean(axis=(1, 3), dtype=np.float32).ravel())


def _some(places: NDArray[np.integer], quota: int, rng: np.random.Generator) -> NDArray[np.integer]:
    """Return at most `quota` of the places, in order."""
    if len(places) <= quota:
        return places
    return np.sort(rng.choice(places, quota, replace=False))


def _joined(parts: list[Cells]) -> Cells:
    return Cells(
        np.concatenate([one.patches for one in parts]),
        np.concatenate([one.targets for one in parts]),
        np.concatenate([one.is_known for one in parts]),
        np.concatenate([one.groups for one in parts]),
    )

"""The supervised family: learns drawn anomaly types, and one "any anomaly", cell by cell (arrow 6).

With masks, cells of each type against all others. Without any masks (a project of verdicts only) the cells
of anomalous photos that are least like good ones stand for the anomaly, and only "any anomaly" is learnt.
Every photo is measured by a network that saw neither it nor its twins, one of five; the network that is
drawn saw all. Boxes and types that were only named teach nothing about cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit

from services.trainer.families.cell_classifier import CellClassifier, train
from services.trainer.families.cell_sample import Lesson, draw_cells, folds_of, hardest_normals, suspected
from services.trainer.families.projection import usable_taps
from services.trainer.families.protocol import (
    MAP_STRIDE_PX,
    SCORE_STRIDE_PX,
    Budget,
    Candidate,
    FitData,
    Head,
    StageProgress,
)
from services.trainer.features import Features, Tap
from services.trainer.graph_builder import GraphBuilder
from services.trainer.resizing import draw_resized, resized

# Fewer masks say too little of a type: with one left out in each fold, three would remain of four.
_FEWEST_MASKED = 4
# The same for photos without masks.
_FEWEST_ANOMALIES = 4
# The first networks only say which cells of good photos are hard.
_FIRST_STEPS = 25
# Logits of good cells lie between -8 and 0; shifted by as much, and cut softly at 0, they are distances
# whose spread is that of the logits, not the heavy tail that probabilities have.
_SHIFT = 8.0
# A cell is believed as far as its surroundings bear it out: at most 1.5 times the highest mean of 3 x 3
# cells within two cells of it. 1 would dim real specks, 2 lets single cells of good photos through.
_BORNE_OUT, _AROUND, _WITHIN = 1.5, 3, 5


@dataclass(frozen=True, slots=True)
class Learnt:
    """Networks of one kind.

    Attributes:
        taps: of the backbone, in the order of the descriptors' channels.
        grid: cells along a side.
        whole: saw all photos.
        folds: each saw all but a fifth of the groups.
        fold_of: which of them did not see a group; groups that none saw are not in it.
    """

    taps: tuple[Tap, ...]
    grid: int
    whole: CellClassifier
    folds: tuple[CellClassifier, ...]
    fold_of: Mapping[int, int]

    def planes(self, features: Features, left_out: Sequence[int] | None) -> NDArray[np.float32]:
        """Return (N, K, g, g) logits; see `Head.distances`."""
        if left_out is None:
            return self.whole.planes(features, self.taps, self.grid)
        parts = []
        for index, group in enumerate(left_out):
            fold = self.fold_of.get(int(group))
            network = self.whole if fold is None else self.folds[fold]
            one = {tap.name: features[tap.name][index : index + 1] for tap in self.taps}
            parts.append(network.planes(one, self.taps, self.grid))
        return np.concatenate(parts)

    def of_classes(self, wanted: slice) -> Learnt:
        """Return the same networks with some of their outputs."""
        folds = tuple(one.of_classes(wanted) for one in self.folds)
        return Learnt(self.taps, self.grid, self.whole.of_classes(wanted), folds, self.fold_of)


@dataclass(frozen=True, slots=True)
class AnyAnomalyHead:
    """How likely a cell is of any anomaly, as a distance.

    Attributes:
        learnt: networks with one output.
    """

    learnt: Learnt

    @property
    def name(self) -> str:
        """See `Head.name`."""
        return "any"

    @property
    def grid(self) -> int:
        """See `Head.grid`."""
        return self.learnt.grid

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32: softplus(logit + 8); see `Head.distances`."""
        logits = self.learnt.planes(features, left_out)[:, 0]
        return np.asarray(np.logaddexp(0, logits + np.float32(_SHIFT)), np.float32)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """See `Head.draw`."""
        logits = self.learnt.whole.draw(draw, taps, self.learnt.taps, self.grid)
        plane = draw.add("Squeeze", logits, draw.constant(np.array([1]), "axis"))
        return draw.add("Softplus", draw.add("Add", plane, draw.scalar(_SHIFT)))


@dataclass(frozen=True, slots=True)
class SupervisedTypes:
    """Finds the types that were drawn.

    Attributes:
        types: see `TypeHead.types`.
        learnt: networks with an output per type.
        map_grid: cells along a side of the map.
    """

    types: tuple[str, ...]
    learnt: Learnt
    map_grid: int

    def probabilities(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, T, m, m); see `TypeHead.probabilities`."""
        alone = expit(resized(self.learnt.planes(features, left_out), self.map_grid))
        return np.asarray(np.minimum(alone, _BORNE_OUT * _surroundings(alone)), np.float32)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """See `TypeHead.draw`."""
        logits = self.learnt.whole.draw(draw, taps, self.learnt.taps, self.learnt.grid)
        alone = draw.add("Sigmoid", draw_resized(draw, logits, self.learnt.grid, self.map_grid))
        means = draw.add(
            "AveragePool", alone, kernel_shape=[_AROUND] * 2, pads=[_AROUND // 2] * 4, count_include_pad=0
        )
        highest = draw.add("MaxPool", means, kernel_shape=[_WITHIN] * 2, pads=[_WITHIN // 2] * 4)
        return draw.add("Min", alone, draw.add("Mul", highest, draw.scalar(_BORNE_OUT)))


class SupervisedFamily:
    """Fits one network for all types together, and five more for cross-fitting."""

    name = "supervised"

    @property
    def is_slow(self) -> bool:
        """It takes seconds."""
        return False

    def why_not(self, data: FitData) -> str | None:
        """See `Family.why_not`."""
        objects = data.anomalies.groups()
        masked = {int(group) for group, one in zip(objects, data.anomalies.images, strict=True) if one.masks}
        distinct = set(objects.tolist())
        enough = len(masked) >= _FEWEST_MASKED or (not masked and len(distinct) >= _FEWEST_ANOMALIES)
        if enough and len(set(data.groups.tolist())) > 1:
            return None
        return (
            f"It needs good photos of two parts or more, and {_FEWEST_MASKED} different anomalous photos "
            f"with masks, or without any masks {_FEWEST_ANOMALIES}; there are {len(distinct)}, "
            f"{len(masked)} with masks."
        )

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:  # noqa: ARG002
        """Fit the networks on a seeded sample of cells; see `Family.fit`."""
        types = types_of(data)
        is_drawn = any(one.masks for one in data.anomalies.images)
        taps = usable_taps(data.extractor)
        map_grid = data.extractor.input_px // MAP_STRIDE_PX
        grid = min(map_grid if is_drawn else data.extractor.input_px // SCORE_STRIDE_PX, taps[0].grid)
        lesson = Lesson(data, taps, grid, types, folds_of(data, seed), seed)
        cells = draw_cells(lesson) if is_drawn else suspected(lesson)
        progress(0.3)
        folds: list[int | None] = [None, *sorted(set(lesson.fold_of.values()))]
        seen = {fold: cells.where(lesson.is_seen(cells.groups, fold)) for fold in folds}
        first = {fold: train(seen[fold], seed, _FIRST_STEPS) for fold in folds}
        progress(0.6)
        hard = hardest_normals(lesson, first)
        whole, *others = (train(seen[fold].joined(hard[fold]), seed) for fold in folds)
        progress(1.0)
        learnt = Learnt(taps, grid, whole, tuple(others), lesson.fold_of)
        heads: tuple[Head, ...] = (AnyAnomalyHead(learnt.of_classes(slice(0, 1))),)
        type_head = SupervisedTypes(types, learnt.of_classes(slice(1, None)), map_grid) if types else None
        return Candidate(self.name, heads, type_head)


def types_of(data: FitData) -> tuple[str, ...]:
    """Return the types that enough masks were drawn of, sorted."""
    drawn = Counter(name for one in data.anomalies.images for name in one.masks)
    return tuple(sorted(name for name, count in drawn.items() if count >= _FEWEST_MASKED))


def _surroundings(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, T, m, m): the highest mean of 3 x 3 cells within two cells, the border being no cells."""
    size = (1, 1, _AROUND, _AROUND)
    inside = ndimage.uniform_filter(np.ones_like(planes[:1, :1]), size, mode="constant")
    means = ndimage.uniform_filter(planes, size, mode="constant") / inside
    return np.asarray(ndimage.maximum_filter(means, (1, 1, _WITHIN, _WITHIN), mode="nearest"), np.float32)

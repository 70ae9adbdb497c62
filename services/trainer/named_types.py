"""Named anomaly types: their colours, and from which probability on a pixel is of a type (arrow 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.domain.model_version import AnomalyType
from services.trainer.families.protocol import MAP_STRIDE_PX, FitData, TypeHead
from services.vision.masks import on_grid

# Well apart for most eyes: Okabe and Ito's palette (2008) without black.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_THRESHOLDS = np.arange(0.1, 0.95, 0.05)


@dataclass(slots=True)
class _Tally:
    """What each threshold would make of one type.

    Attributes:
        overlaps: intersections over unions of photos with a mask of it.
        hits: photos that have it and show it.
        misses: photos that have it and do not.
        false_alarms: photos that show it and do not have it.
    """

    overlaps: list[NDArray[np.float64]] = field(default_factory=list)
    hits: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_THRESHOLDS), np.int64))
    misses: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_THRESHOLDS), np.int64))
    false_alarms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_THRESHOLDS), np.int64))

    def add(self, plane: NDArray[np.float32], mask: NDArray[np.bool_] | None, *, has_it: bool) -> None:
        """Count a photo's (m, m) plane, and (m, m) mask where one was drawn."""
        marked = plane >= _THRESHOLDS[:, None, None]
        is_shown = marked.any(axis=(1, 2))
        if not has_it:
            self.false_alarms += is_shown
            return
        self.hits += is_shown
        self.misses += ~is_shown
        if mask is not None:
            both, either = (marked & mask).sum(axis=(1, 2)), (marked | mask).sum(axis=(1, 2))
            self.overlaps.append(both / either)

    def threshold(self) -> float:
        """Return the best threshold; of a type without masks one half.

        Best marks well and names the right photos: the mean overlap alone would let single cells of good
        photos through, which costs it nothing.
        """
        if not self.overlaps:
            return 0.5
        f1 = 2 * self.hits / (2 * self.hits + self.misses + self.false_alarms)
        return round(float(_THRESHOLDS[int((np.mean(self.overlaps, axis=0) + f1).argmax())]), 2)


def named_types(head: TypeHead | None, data: FitData) -> tuple[AnomalyType, ...]:
    """Return the types of a head with the thresholds that mark masks and name photos best, cross-fitted."""
    if head is None:
        return ()
    tallies = {name: _Tally() for name in head.types}
    side = data.extractor.input_px // MAP_STRIDE_PX
    for index, planes in _probabilities(head, data, of_normals=False):
        image, masks = data.anomalies.images[index], data.anomalies.masks(index)
        for plane, (name, tally) in zip(planes, tallies.items(), strict=True):
            mask = on_grid(masks[name], side) if name in masks else None
            tally.add(plane, mask, has_it=name in image.all_types)
    for _, planes in _probabilities(head, data, of_normals=True):
        for plane, tally in zip(planes, tallies.values(), strict=True):
            tally.add(plane, None, has_it=False)
    return tuple(
        AnomalyType(name, _COLOURS[place % len(_COLOURS)], tally.threshold())
        for place, (name, tally) in enumerate(tallies.items())
    )


def _probabilities(
    head: TypeHead, data: FitData, *, of_normals: bool
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (index of a photo, (T, m, m)), each by what did not see it."""
    photos, groups = (data.normals, data.groups) if of_normals else (data.anomalies, data.anomaly_groups)
    for start, features in data.extractor.stream(photos):
        left_out = groups[start : start + len(features["pixels"])].tolist()
        for offset, planes in enumerate(head.probabilities(features, left_out)):
            yield start + offset, planes

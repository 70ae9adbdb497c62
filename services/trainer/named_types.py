"""Named anomaly types: their colours, and from which probability on a pixel is of a type (arrow 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.domain.model_version import AnomalyType
from services.trainer.families.protocol import MAP_STRIDE_PX, FitData, TypeHead
from services.vision.masks import on_grid

# Well apart for most eyes: Okabe and Ito's palette (2008) without black.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
_THRESHOLDS = np.arange(0.1, 0.95, 0.05)


def named_types(head: TypeHead | None, data: FitData) -> tuple[AnomalyType, ...]:
    """Return the types of a head with the thresholds that mark drawn masks best, cross-fitted."""
    if head is None:
        return ()
    overlaps: dict[str, list[NDArray[np.float64]]] = {name: [] for name in head.types}
    side = data.extractor.input_px // MAP_STRIDE_PX
    for start, features in data.extractor.stream(data.anomalies):
        groups = data.anomaly_groups[start : start + len(features["pixels"])]
        probabilities = head.probabilities(features, groups.tolist())  # (N, T, m, m)
        for offset, planes in enumerate(probabilities):
            for name, mask in data.anomalies.masks(start + offset).items():
                if name in overlaps and mask.any():
                    plane = planes[head.types.index(name)]
                    overlaps[name].append(_overlap_by_threshold(plane, on_grid(mask, side)))
    return tuple(
        AnomalyType(name, _COLOURS[place % len(_COLOURS)], _best_threshold(found))
        for place, (name, found) in enumerate(overlaps.items())
    )


def _overlap_by_threshold(plane: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return intersection over union of a (m, m) plane and mask at each threshold."""
    marked = plane >= _THRESHOLDS[:, None, None]
    return np.asarray((marked & mask).sum(axis=(1, 2)) / (marked | mask).sum(axis=(1, 2)), np.float64)


def _best_threshold(overlaps: list[NDArray[np.float64]]) -> float:
    """Return the threshold of the highest mean overlap; of a type without masks one half."""
    if not overlaps:
        return 0.5
    return round(float(_THRESHOLDS[int(np.mean(overlaps, axis=0).argmax())]), 2)

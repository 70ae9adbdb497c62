"""How well named anomaly types are found, image by image and pixel by pixel (arrow 6).

Image-wise, a photo has a type if somebody named it or drew its mask, and was found to have it if the model
says so. **Mean IoU is over the photos that have the type in truth and a drawn mask of it**: photos without
it would count 1 or 0 by the mere presence of a pixel. Anomalous photos whose type nobody said count neither
for nor against a type. Pixel-wise figures are over all photos whose pixels
are known: normal ones, and anomalous ones with any mask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from services.trainer.evaluation.image import f1_of, precision_of, recall_of
from services.trainer.evaluation.outcome import Outcome

# What a photo was called that was found anomalous, but of no type, and one found normal.
UNNAMED, NORMAL = "unnamed", "normal"


@dataclass(frozen=True, slots=True)
class TypeMasks:
    """Masks by anomaly type, drawn and found.

    Attributes:
        types: T names, in the order of the planes.
        drawn: (n, T, h, w) bool; all False where nothing was drawn.
        found: (n, T, h, w) bool.
    """

    types: tuple[str, ...]
    drawn: NDArray[np.bool_]
    found: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One anomaly type; what is not defined or not known is None.

    Attributes:
        images: photos that have the type in truth.
        missed: those of them that were judged normal.
        named_as: what the photos that have the type were called; several names of one photo all count.
        mean_iou: see the module.
    """

    name: str
    images: int
    missed: int
    named_as: Mapping[str, int] = field(default_factory=dict)
    precision_ratio: float | None = None
    recall_ratio: float | None = None
    f1: float | None = None
    mean_iou: float | None = None
    pixel_precision_ratio: float | None = None
    pixel_recall_ratio: float | None = None
    pixel_f1: float | None = None


def rows_by_type(outcomes: Sequence[Outcome], masks: TypeMasks | None = None) -> tuple[TypeRow, ...]:
    """Return one row per type that is in truth or was found, by name.

    Args:
        outcomes: of n photos.
        masks: of the same photos, where the model draws them.
    """
    drawn = {name for one in outcomes for name in (*one.types, *one.found_types)}
    names = sorted(drawn | set(masks.types if masks else ()))
    has_types = masks is not None or any(one.found_types for one in outcomes)
    return tuple(_row(name, outcomes, masks, has_types=has_types) for name in names)


def type_ious(masks: TypeMasks, name: str) -> NDArray[np.float64]:
    """Return (n,) intersection over union of each photo, NaN where no mask of the type was drawn."""
    plane = masks.types.index(name)
    drawn, found = masks.drawn[:, plane], masks.found[:, plane]
    both = (drawn & found).sum(axis=(1, 2))
    either = (drawn | found).sum(axis=(1, 2))
    return np.where(drawn.any(axis=(1, 2)), both / np.maximum(either, 1), np.nan)


def _row(name: str, outcomes: Sequence[Outcome], masks: TypeMasks | None, *, has_types: bool) -> TypeRow:
    those = [one for one in outcomes if name in one.types]
    row = TypeRow(
        name=name,
        images=len(those),
        missed=sum(not one.is_found_anomalous for one in those),
        named_as=dict(Counter(called for one in those for called in _called(one))),
    )
    if not has_types:  # a model that names nothing is not wrong about names
        return row
    hits = sum(name in one.found_types for one in those)
    # Where somebody said "anomaly" and not which, a type that is found is neither right nor wrong.
    told = [one for one in outcomes if one.types or not one.is_anomalous]
    false_alarms = sum(name in one.found_types for one in told) - hits
    misses = len(those) - hits
    row = replace(
        row,
        precision_ratio=precision_of(hits, false_alarms),
        recall_ratio=recall_of(hits, misses),
        f1=f1_of(hits, false_alarms, misses),
    )
    return _with_pixels(row, outcomes, masks) if masks and name in masks.types else row


def _called(outcome: Outcome) -> tuple[str, ...]:
    if not outcome.is_found_anomalous:
        return (NORMAL,)
    return outcome.found_types or (UNNAMED,)


def _with_pixels(row: TypeRow, outcomes: Sequence[Outcome], masks: TypeMasks) -> TypeRow:
    plane = masks.types.index(row.name)
    is_normal = np.array([not one.is_anomalous for one in outcomes])
    is_known = is_normal | masks.drawn.any(axis=(1, 2, 3))
    drawn, found = masks.drawn[is_known, plane], masks.found[is_known, plane]
    hits = int((drawn & found).sum())
    false_alarms, misses = int(found.sum()) - hits, int(drawn.sum()) - hits
    ious = type_ious(masks, row.name)
    return replace(
        row,
        mean_iou=None if np.isnan(ious).all() else float(np.nanmean(ious)),
        pixel_precision_ratio=precision_of(hits, false_alarms),
        pixel_recall_ratio=recall_of(hits, misses),
        pixel_f1=f1_of(hits, false_alarms, misses),
    )

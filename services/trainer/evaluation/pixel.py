"""How well anomaly maps show where the anomaly is: pixel AUROC and AUPRO (arrow 6).

Maps are counted into histograms, one photo at a time, so memory grows with photos times bins, not with
pixels, and a bootstrap only adds up histograms again. Knows no anomaly types (`by_type`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.evaluation.image import area
from services.vision.regions import label_components

# AUPRO looks at false-positive rates up to here (Bergmann et al., "The MVTec Anomaly Detection Dataset",
# IJCV 2021) and is divided by it, so that 1 is perfect.
MAX_FALSE_POSITIVE_RATE = 0.3
# Shares of normal pixels between two bins: fine at the few false positives where AUPRO is decided. The
# areas are wrong by at most half of the widest step, 0.0005, and in practice by far less.
_FALSE_POSITIVE_RATES = np.concatenate(
    [np.geomspace(1e-6, MAX_FALSE_POSITIVE_RATE, 1248), np.linspace(MAX_FALSE_POSITIVE_RATE, 1, 800)[1:]]
)
# Pixels from which the bins are chosen; the counts are of all pixels.
_SAMPLE_PIXELS = 2_000_000


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Histograms of maps, bins from the highest value to the lowest.

    Attributes:
        normal: (n, k) float32, normal pixels of each photo in each bin.
        anomalous: (n, k) float32, anomalous pixels.
        regions: (n, k) float32, anomalous pixels, each worth 1 / (pixels of its region).
        region_count: (n,) float64.
    """

    normal: NDArray[np.float32]
    anomalous: NDArray[np.float32]
    regions: NDArray[np.float32]
    region_count: NDArray[np.float64]

    def auroc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,) areas under the ROC curve of pixels for (B, n) weights of photos."""
        false_positive_rate = _rates(weights @ self.normal)
        return area(false_positive_rate, _rates(weights @ self.anomalous))

    def aupro(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (B,): mean share of a region that is found, over false-positive rates up to 0.3.

        A region is 8-connected; each counts the same, whatever its size.
        """
        false_positive_rate = _rates(weights @ self.normal)
        overlap = np.cumsum(weights @ self.regions, axis=1) / (weights @ self.region_count)[:, None]
        return _area_up_to(false_positive_rate, overlap, MAX_FALSE_POSITIVE_RATE)


def pixel_auroc(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return the chance that an anomalous pixel's value is above a normal one's; ties count half.

    Args:
        maps: (n, h, w) float32, higher is more anomalous.
        masks: (n, h, w) bool, True where anomalous; both kinds of pixels must be there.
    """
    return float(count_pixels(maps, masks).auroc(np.ones((1, len(maps))))[0])


def aupro(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """Return AUPRO up to 30 % false positives (0-1); see `PixelCounts.aupro` and `pixel_auroc`."""
    return float(count_pixels(maps, masks).aupro(np.ones((1, len(maps))))[0])


def count_pixels(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> PixelCounts:
    """Count (n, h, w) maps behind (n, h, w) masks; exact up to 2,047 distinct values, else finely binned."""
    edges = _edges(maps, masks)
    bins = len(edges) + 1
    normal, anomalous, regions = (np.zeros((len(maps), bins), np.float32) for _ in range(3))
    region_count = np.zeros(len(maps))
    for index, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        # (h, w): 0 for the highest values
        where = bins - 1 - np.searchsorted(edges, values, side="right")
        normal[index] = np.bincount(where[~mask], minlength=bins)
        if not mask.any():
            continue
        labels, count = label_components(mask)
        numbers = labels[mask]
        areas = np.bincount(numbers, minlength=count + 1)
        anomalous[index] = np.bincount(where[mask], minlength=bins)
        regions[index] = np.bincount(where[mask], weights=1 / areas[numbers], minlength=bins)
        region_count[index] = count
    return PixelCounts(normal, anomalous, regions, region_count)


def _edges(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return ascending lower borders of all bins but the lowest."""
    # An odd stride, so that it does not fall on the same columns of every row.
    stride = max(1, maps.size // _SAMPLE_PIXELS) | 1
    values, is_marked = maps.reshape(-1)[::stride], masks.reshape(-1)[::stride]
    distinct = np.unique(values)
    if len(distinct) < len(_FALSE_POSITIVE_RATES):
        return np.asarray(distinct, np.float32)
    normal = np.sort(values[~is_marked]) if not is_marked.all() else distinct
    places = ((1 - _FALSE_POSITIVE_RATES) * (len(normal) - 1)).round().astype(np.int64)
    return np.unique(normal[places])


def _rates(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (B, k) shares at or above each bin."""
    summed = np.cumsum(counts, axis=1)
    return summed / summed[:, -1:]


def _area_up_to(across: NDArray[np.float64], up: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
    """Return (B,) areas under (B, k) curves from (0, 0) to `limit`, cut there by a line, over `limit`."""
    areas = np.empty(len(across))
    for index, (x, y) in enumerate(zip(across, up, strict=True)):
        last = int(np.searchsorted(x, limit, side="right"))  # the first corner beyond the limit
        x_before, y_before = np.append(0.0, x[:last]), np.append(0.0, y[:last])
        end = y_before[-1]
        if last < len(x):
            end += (y[last] - end) * (limit - x_before[-1]) / (x[last] - x_before[-1])
        areas[index] = np.trapezoid(np.append(y_before, end), np.append(x_before, limit)) / limit
    return areas

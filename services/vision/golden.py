"""Whether a model computes the numbers that it computed when it was trained (arrows 2, 6).

The same comparison before a version is promoted and whenever a replica loads one. Runs no model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The same graph in fp32 on another machine sums in another order; scores are of the order 1 to 50.
_SCORE_TOLERANCE = 1e-3
_MAP_TOLERANCE = 1e-2


def is_as_trained(
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
    golden_scores: NDArray[np.float32],
    golden_maps: NDArray[np.float32],
) -> bool:
    """Tell whether (N,) scores and (N, h, w) maps are those that were stored; NaN never is."""
    return _agree(scores, golden_scores, _SCORE_TOLERANCE) and _agree(maps, golden_maps, _MAP_TOLERANCE)


def _agree(found: NDArray[np.float32], wanted: NDArray[np.float32], tolerance: float) -> bool:
    """Tell whether all numbers agree, relative above 1 and absolute below; NaN never does."""
    if found.shape != wanted.shape:
        return False
    return bool(np.all(np.abs(found - wanted) <= tolerance * np.maximum(np.abs(wanted), 1)))

"""How well scores tell anomalous from normal: numbers for the manifest and the card.

Anomalies only test here; nothing is chosen by these numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = Sequence[float] | NDArray[np.floating]


def image_auroc(normal: Scores, anomalous: Scores) -> float:
    """Return the chance that an anomalous photo scores higher than a normal one; ties count half.

    Both must hold at least one score.

    >>> image_auroc([0.0, 1.0], [1.0, 2.0])
    0.875
    """
    below = np.sort(np.asarray(normal, np.float64))
    above = np.asarray(anomalous, np.float64)
    lower = np.searchsorted(below, above, side="left")
    not_higher = np.searchsorted(below, above, side="right")
    return float((lower + not_higher).sum() / (2 * len(below) * len(above)))


def share_from(scores: Scores, threshold: float) -> float:
    """Return the share of scores that reach the threshold (0-1)."""
    return float(np.mean(np.asarray(scores) >= threshold))

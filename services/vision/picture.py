"""What a picture is like, apart from defects, and how that lies to the training photos (arrow 2).

The input of a model is looked at, as the model sees it: drift that decoding takes away harms nothing. Judges
no part; the numbers ride in the inspection, and the results service watches them per camera.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.domain.model_version import Quantiles

EXPOSURE, FOCUS, EMBEDDING, SCORE = "exposure", "focus", "embedding", "score"
# Rec. 601: grey as people see it.
_GREY = np.array([0.299, 0.587, 0.114], np.float32)
# A place beyond this says no more than "quite different"; a spread of nearly 0 would give millions.
_FARTHEST = 100.0
# Least spread between the median and the 5 or 95 %, of the median: numbers of equal photos have none.
_LEAST_SPREAD_RATIO = 0.01


def exposure_of(pixels: NDArray[np.uint8]) -> float:
    """Return the mean grey level (0-255) of (H, W, 3) uint8 RGB pixels."""
    return float(pixels.reshape(-1, 3).mean(axis=0, dtype=np.float32) @ _GREY)


def focus_of(pixels: NDArray[np.uint8]) -> float:
    """Return ln(1 + variance of the Laplacian) of (H, W, 3) uint8 RGB pixels; a blur lowers it.

    LAPV of Pertuz et al. 2013 after Pech-Pacheco et al. 2000; the logarithm makes halving and doubling alike.
    """
    return float(np.log1p(laplacian_variance(pixels @ _GREY)))


def laplacian_variance(grey: NDArray[np.float32] | NDArray[np.int16]) -> float:
    """Return the variance of the Laplacian of (H, W) grey levels: LAPV, see `focus_of`; 0 below 3 pixels."""
    if min(grey.shape) < 3:
        return 0.0
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(around - 4 * grey[1:-1, 1:-1], dtype=np.float32))


def quantiles_of(values: ArrayLike) -> Quantiles:
    """Return the quantiles of (n,) numbers, n >= 1."""
    return Quantiles(*np.quantile(np.asarray(values, np.float64), (0.01, 0.05, 0.5, 0.95, 0.99)).tolist())


def place(value: float, among: Quantiles) -> float:
    """Return where a number lies among the training photos': 0 at the median, -1 and 1 at the 5 and 95 %.

    >>> place(12.0, Quantiles(0, 2, 8, 10, 11))
    2.0
    >>> place(5.0, Quantiles(0, 2, 8, 10, 11))
    -0.5
    """
    least = max(abs(among.p50) * _LEAST_SPREAD_RATIO, 1e-6)
    spread = among.p95 - among.p50 if value >= among.p50 else among.p50 - among.p5
    return float(np.clip((value - among.p50) / max(spread, least), -_FARTHEST, _FARTHEST))


def picture_of(
    pixels: NDArray[np.uint8], score: float, embedding: float | None, reference: Mapping[str, Quantiles]
) -> dict[str, float]:
    """Return the places of one picture; see `Inspection.picture`.

    Args:
        pixels: (H, W, 3) uint8 RGB, the model's input.
        score: the graph's score.
        embedding: the graph's embedding distance; None where it gives none.
        reference: of the model version; what it does not hold is not told.
    """
    values: dict[str, float] = {SCORE: score}
    if EXPOSURE in reference:
        values[EXPOSURE] = exposure_of(pixels)
    if FOCUS in reference:
        values[FOCUS] = focus_of(pixels)
    if embedding is not None:
        values[EMBEDDING] = embedding
    return {name: place(value, reference[name]) for name, value in values.items() if name in reference}

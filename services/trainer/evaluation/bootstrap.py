"""95 % intervals of metrics by the bootstrap: photos are drawn again, with replacement (arrow 6).

Normal and anomalous photos are drawn apart, so each resample has as many of each as there were. Where
every photo is right, every resample is, too, and the interval has no width: it says nothing of photos
that nobody took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
# Weights of 100 resamples of 20,000 photos are 16 MB.
_RESAMPLES_AT_ONCE = 100

# (B, n) weights of photos -> (B,) values by name; NaN where a value is not defined.
Measure = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]


def intervals(
    measure: Measure, is_anomalous: NDArray[np.bool_], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float]]:
    """Return the 2.5 % and 97.5 % quantiles of every value over the resamples.

    Args:
        measure: what is measured; see `Measure`.
        is_anomalous: (n,), which photos are drawn together.
        seed: the same seed gives the same intervals.
        resamples: how many are drawn.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {}
    for weights in _resampled(is_anomalous, seed, resamples):
        for name, values in measure(weights).items():
            parts.setdefault(name, []).append(values)
    found = {}
    for name, each in parts.items():
        values = np.concatenate(each)
        values = values[~np.isnan(values)]
        if len(values):
            low, high = np.quantile(values, [0.025, 0.975]).tolist()
            found[name] = (low, high)
    return found


def _resampled(is_anomalous: NDArray[np.bool_], seed: int, resamples: int) -> Iterator[NDArray[np.float64]]:
    """Yield (B, n): how often each photo was drawn."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        count = min(_RESAMPLES_AT_ONCE, resamples - start)
        weights = np.zeros((count, len(is_anomalous)))
        for members in (np.flatnonzero(is_anomalous), np.flatnonzero(~is_anomalous)):
            if len(members):
                even = np.full(len(members), 1 / len(members))
                weights[:, members] = rng.multinomial(len(members), even, size=count)
        yield weights

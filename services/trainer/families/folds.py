"""Which photos are left out together when a head is fitted again for cross-fitting (arrow 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Four fifths of the photos know nearly as much as all of them.
_FOLDS = 5


def folds_of(groups: NDArray[np.int32], seed: int) -> dict[int, int]:
    """Return the fold of every group, the same for all heads; of a single group nothing can be left out."""
    distinct = np.random.default_rng([seed, _FOLDS]).permutation(np.unique(groups))
    if len(distinct) < 2:
        return {}
    return {int(group): at % _FOLDS for at, group in enumerate(distinct)}

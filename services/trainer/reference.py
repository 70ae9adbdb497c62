"""What the training photos are like, so that cameras can be held against them (arrow 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from services.domain.model_version import Quantiles
from services.trainer.dataset import Dataset
from services.vision.picture import EMBEDDING, EXPOSURE, FOCUS, SCORE, exposure_of, focus_of, quantiles_of

# More photos move no quantile by what a camera's drift is measured in.
_MOST_PHOTOS = 500


def reference_of(
    normals: Dataset, scores: NDArray[np.float32], embeddings: NDArray[np.float32] | None
) -> Mapping[str, Quantiles]:
    """Return the quantiles that `services.vision.picture.picture_of` reads.

    Args:
        normals: the photos of good parts, at least one.
        scores: (n,) their cross-fitted scores.
        embeddings: (n,) their embedding distances; None where the graph gives none.
    """
    spread = np.linspace(0, len(normals) - 1, min(len(normals), _MOST_PHOTOS)).astype(int)
    looked_at = [normals.pixels(index) for index in np.unique(spread).tolist()]
    told = {
        EXPOSURE: quantiles_of([exposure_of(pixels) for pixels in looked_at]),
        FOCUS: quantiles_of([focus_of(pixels) for pixels in looked_at]),
        SCORE: quantiles_of(scores),
    }
    return told if embeddings is None else {**told, EMBEDDING: quantiles_of(embeddings)}

"""What a fused graph says of a batch, whoever ran it (arrow 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SCORE, MAP, TYPES, EMBEDDING = "score", "map", "types", "embedding"


@dataclass(frozen=True, slots=True)
class GraphOutputs:
    """Outputs for N images; the manifest says which of the later ones a version has.

    Attributes:
        scores: (N,) float32, higher is more anomalous.
        maps: (N, h, w) float32, higher is more anomalous.
        types: (N, T, h, w) float32, probability (0-1) that a cell is of each named type; None without types.
        embeddings: (N,) float32, how far the whole picture lies from the training photos (0 upwards),
            defects or not; None where the version does not tell.
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    types: NDArray[np.float32] | None = None
    embeddings: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.scores)

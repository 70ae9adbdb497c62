"""How far a whole picture lies from the training photos, defects or not: for drift (arrow 6).

The mean of the backbone's coarsest tap over all positions, channel by channel in standard deviations of
the normal training photos; the root mean square of that, so about 1 for them. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.trainer.features import FeatureExtractor, Features
from services.trainer.graph_builder import GraphBuilder
from services.vision.outputs import EMBEDDING

# Least spread of a channel as a share of its size: what never varied in the photos may vary a little.
_LEAST_SPREAD_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class Embedding:
    """Where the normal photos lie.

    Attributes:
        tap: name of the backbone's output.
        mean: (C,) float32.
        sd: (C,) float32.
    """

    tap: str
    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    def distances(self, features: Features) -> NDArray[np.float32]:
        """Return (N,) float32, 0 upwards."""
        return self.of_means(pooled(features, self.tap))

    def of_means(self, means: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N,) float32 of (N, C) `pooled` values."""
        z = (means - self.mean) / self.sd
        return np.asarray(np.sqrt(np.square(z).mean(axis=1)), np.float32)

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> None:
        """Draw the output `embedding` (N,) behind the backbone's taps."""
        means = draw.add("ReduceMean", taps[self.tap], axes=[2, 3], keepdims=0)  # (N, C)
        off = draw.add("Sub", means, draw.constant(self.mean, "embedding_mean"))
        z = draw.add("Div", off, draw.constant(self.sd, "embedding_sd"))
        squares = draw.add("ReduceMean", draw.add("Mul", z, z), axes=[1], keepdims=0)
        draw.add("Sqrt", squares, name=EMBEDDING)


def coarsest_tap(extractor: FeatureExtractor) -> str:
    """Return the name of the tap with the fewest cells."""
    return min(extractor.taps.values(), key=lambda tap: tap.grid).name


def pooled(features: Features, tap: str) -> NDArray[np.float32]:
    """Return (N, C): the tap's mean over all positions."""
    return np.asarray(features[tap].mean(axis=(2, 3)), np.float32)


def embedding_of(tap: str, means: NDArray[np.float32]) -> Embedding:
    """Return where n normal photos lie, from their (n, C) `pooled` values."""
    mean = means.mean(axis=0)
    least = _LEAST_SPREAD_RATIO * np.abs(mean).mean() + 1e-6
    return Embedding(tap, mean, np.maximum(means.std(axis=0), least).astype(np.float32))

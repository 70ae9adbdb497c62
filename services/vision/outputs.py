"""What a fused graph says of a batch, whoever ran it (arrow 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE, MAP, TYPES, EMBEDDING = "score", "map", "types", "embedding"


@dataclass(frozen=True, slots=True)
class ImageOutputs:
    """What a graph says of one image; see `GraphOutputs`."""

    score: float
    anomaly_map: NDArray[np.float32]
    types: NDArray[np.float32] | None = None
    embedding: float | None = None


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

    @classmethod
    def of(cls, by_name: Mapping[str, NDArray[Any]]) -> GraphOutputs:
        """Return the outputs of a graph by their names; those without a meaning here are left out."""
        found = {name: np.asarray(value, np.float32) for name, value in by_name.items()}
        return cls(found[SCORE], found[MAP], found.get(TYPES), found.get(EMBEDDING))

    @property
    def by_name(self) -> Mapping[str, NDArray[np.float32]]:
        """The outputs there are, under their names in the graph."""
        named = {SCORE: self.scores, MAP: self.maps, TYPES: self.types, EMBEDDING: self.embeddings}
        return {name: value for name, value in named.items() if value is not None}

    def first(self, count: int) -> GraphOutputs:
        """Return the outputs of the first `count` images."""
        return GraphOutputs.of({name: value[:count] for name, value in self.by_name.items()})

    def __len__(self) -> int:
        """Return N."""
        return len(self.scores)

    def __iter__(self) -> Iterator[ImageOutputs]:
        """Yield the outputs of one image after the other."""
        for at, score in enumerate(self.scores.tolist()):
            yield ImageOutputs(
                score,
                self.maps[at],
                None if self.types is None else self.types[at],
                None if self.embeddings is None else float(self.embeddings[at]),
            )

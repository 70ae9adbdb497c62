"""The interface that every detector family and every head of one keeps (arrow 6).

A family fits heads; a head turns features into a distance map, once in numpy for the trainer and
once drawn into the graph; both give the same numbers. What becomes of the maps (score, threshold)
is the same for all families.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.trainer.dataset import Dataset
from services.trainer.features import FeatureExtractor, Features
from services.trainer.graph_builder import GraphBuilder

# Heads of all families meet on this grid, where scores are computed: 8 model pixels a cell.
GRID = 28

# Called with the share done (0-1) of one stage.
StageProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a fit may spend; it fixes latency and memory before the data is seen.

    Attributes:
        bank_patches: most patches a memory keeps; latency grows with it.
        sample_patches: patches drawn from all photos to choose them from.
    """

    bank_patches: int = 1000
    sample_patches: int = 12_000


class Head(Protocol):
    """One fitted way to measure how far each cell is from normal."""

    @property
    def name(self) -> str:
        """Short name, for example `m8`."""

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, 28, 28) float32 distances, 0 upwards.

        Args:
            features: of N photos.
            left_out: N group numbers; each photo is measured without what its group taught.
        """

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw `distances` behind the backbone's taps; return the tensor's name, (N, 28, 28)."""


class Family(Protocol):
    """A recipe for heads."""

    @property
    def name(self) -> str:
        """Goes into the manifest."""

    def fit(
        self,
        dataset: Dataset,
        extractor: FeatureExtractor,
        groups: NDArray[np.int32],
        budget: Budget,
        seed: int,
        progress: StageProgress,
    ) -> Sequence[Head]:
        """Fit heads to normal photos; the same arguments give the same heads.

        Args:
            dataset: normal photos, at least 2.
            extractor: the backbone.
            groups: (n,) group of each photo, see `Dataset.groups`.
            budget: what it may spend.
            seed: of every random choice.
            progress: told the share done.
        """

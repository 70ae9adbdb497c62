"""The interface that every detector family and every head of one keeps (arrow 6).

A family fits heads; a head turns features into a distance map, once in numpy for the trainer and
once drawn into the graph; both give the same numbers. What becomes of the maps (score, threshold,
choice among families) is the same for all.
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

# Stride of the grid on which image scores are computed, in model pixels, and of that of the map.
SCORE_STRIDE_PX, MAP_STRIDE_PX = 8, 4

# Called with the share done (0-1) of one stage.
StageProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a fit may spend; it fixes latency and memory before the data is seen.

    Attributes:
        bank_patches: most patches a memory keeps; latency grows with it.
        sample_patches: patches drawn from all photos to choose them from.
        train_s: seconds that a family which trains a network may take.
        threads: CPU threads.
    """

    bank_patches: int = 1000
    sample_patches: int = 12_000
    train_s: float = 100.0
    threads: int = 2


@dataclass(frozen=True, slots=True)
class FitData:
    """What a family learns from.

    Attributes:
        normals: at least 2 photos.
        groups: (n,) int32 group of each normal, see `Dataset.groups`; those of one group are
            left out together.
        anomalies: labelled photos with their types and masks; may be empty. Groups of anomalies count on
            from `groups.max() + 1`, one each, in order: see `anomaly_groups`.
        extractor: the backbone.
    """

    normals: Dataset
    groups: NDArray[np.int32]
    anomalies: Dataset
    extractor: FeatureExtractor

    @property
    def anomaly_groups(self) -> NDArray[np.int32]:
        """(a,) int32 group of each anomalous photo."""
        first = int(self.groups.max()) + 1
        return np.arange(first, first + len(self.anomalies), dtype=np.int32)


class Head(Protocol):
    """One fitted way to measure how far each cell is from normal."""

    @property
    def name(self) -> str:
        """Short name, for example `m8`."""

    @property
    def grid(self) -> int:
        """Cells along each side of `distances`."""

    def distances(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, g, g) float32 distances, 0 upwards, with g = `grid`.

        Args:
            features: of N photos.
            left_out: N group numbers; each photo is measured without what its group taught.
        """

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw `distances` behind the taps (the backbone's, and `pixels`); return its name, (N, g, g)."""


class TypeHead(Protocol):
    """Finds named anomaly types."""

    @property
    def types(self) -> tuple[str, ...]:
        """Names, in the order of the planes."""

    def probabilities(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return (N, T, m, m) float32 (0-1) on the grid of the map, m = input / 4; see `Head.distances`."""

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:
        """Draw `probabilities`; return its name, (N, T, m, m)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a family made of the photos.

    Attributes:
        family: its name.
        heads: at least one, or none where only types were learnt.
        type_head: of a family that learns named types.
    """

    family: str
    heads: tuple[Head, ...]
    type_head: TypeHead | None = None


class Family(Protocol):
    """A recipe for heads."""

    @property
    def name(self) -> str:
        """Goes into the manifest."""

    @property
    def is_slow(self) -> bool:
        """Tell whether it trains a network, for minutes; such a family is only tried when asked for."""

    def why_not(self, data: FitData) -> str | None:
        """Return a sentence why it cannot learn from these photos, None where it can."""

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:
        """Fit heads; the same arguments give the same heads.

        Args:
            data: what to learn from.
            budget: what it may spend.
            seed: of every random choice.
            progress: told the share done.
        """

"""Pixels -> backbone features, batch by batch, with ONNX Runtime (arrow 6).

Features are kept by tap name so that a backbone with other taps needs no other code here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.trainer.dataset import Dataset
from services.vision.runtime import open_session

# By tap name: (N, C, H, W) float32.
Features = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Tap:
    """One output of the backbone: (N, channels, grid, grid)."""

    name: str
    channels: int
    grid: int


class FeatureExtractor:
    """A backbone that runs in this process.

    Attributes:
        taps: its outputs by name.
    """

    def __init__(self, backbone: Path, *, threads: int = 2) -> None:
        """Open the backbone's ONNX file."""
        self._session = open_session(backbone, threads)
        self._input = self._session.get_inputs()[0].name
        outputs = self._session.get_outputs()
        self.taps = {one.name: Tap(one.name, one.shape[1], one.shape[2]) for one in outputs}

    def extract(self, pixels: NDArray[np.uint8]) -> Features:
        """Return the features of (N, 224, 224, 3) uint8 RGB pixels."""
        names = list(self.taps)
        outputs = self._session.run(names, {self._input: pixels})
        return {name: np.asarray(value, np.float32) for name, value in zip(names, outputs, strict=True)}

    def stream(self, dataset: Dataset) -> Iterator[tuple[int, Features]]:
        """Yield (index of the first photo, features of up to 8 photos), in order."""
        for start, pixels in dataset.batches():
            yield start, self.extract(pixels)

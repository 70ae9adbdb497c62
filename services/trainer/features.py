"""Pixels -> backbone features, batch by batch, with ONNX Runtime (arrow 6).

Features are kept by tap name so that a backbone with other taps needs no other code here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.trainer.dataset import Dataset
from services.vision.runtime import open_session

# By tap name `f<stride>`: (N, C, g, g) float32 with g = input / stride; and under PIXELS what was looked at:
# (N, S, S, 3) uint8 RGB.
Features = Mapping[str, NDArray[Any]]
PIXELS = "pixels"


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
        input_px: side of the square input.
    """

    def __init__(self, backbone: Path, *, threads: int = 2) -> None:
        """Open the backbone's ONNX file."""
        self._session = open_session(backbone, threads)
        only = self._session.get_inputs()[0]
        self._input, self.input_px = only.name, int(only.shape[1])
        outputs = self._session.get_outputs()
        self.taps = {one.name: Tap(one.name, one.shape[1], one.shape[2]) for one in outputs}

    def extract(self, pixels: NDArray[np.uint8]) -> Features:
        """Return the features of (N, S, S, 3) uint8 RGB pixels."""
        names = list(self.taps)
        outputs = self._session.run(names, {self._input: pixels})
        found = {name: np.asarray(value, np.float32) for name, value in zip(names, outputs, strict=True)}
        return {**found, PIXELS: pixels}

    def stream(self, dataset: Dataset) -> Iterator[tuple[int, Features]]:
        """Yield (index of the first photo, features of up to 8 photos), in order."""
        for start, pixels in dataset.batches():
            yield start, self.extract(pixels)

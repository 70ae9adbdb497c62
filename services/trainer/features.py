"""Pixels -> backbone features, batch by batch, with ONNX Runtime (arrow 6).

Features are kept by tap name so that a backbone with other taps needs no other code here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import onnx
from numpy.typing import NDArray

from services.domain.errors import CorruptModel
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.dataset import BATCH_IMAGES, Dataset
from services.trainer.tiling import PIXELS, check_tiles, draw_backbone, tiled_px
from services.vision.runtime import open_session

# By tap name `f<stride>`: (N, C, g, g) float32 with g = input / stride; and under PIXELS what was looked at:
# (N, S, S, 3) uint8 RGB.
Features = Mapping[str, NDArray[Any]]

# 200 photos on the default backbone; a fit may take 1 GB as a whole.
_MOST_KEPT_BYTES = 140_000_000


@dataclass(frozen=True, slots=True)
class Tap:
    """One output of the backbone: (N, channels, grid, grid)."""

    name: str
    channels: int
    grid: int


class FeatureExtractor:
    """A backbone that runs in this process.

    Attributes:
        backbone: what it runs.
        tiles: tiles along each side of the input, see `services.trainer.tiling`.
        taps: its outputs by name.
        input_px: side of the square input, a multiple of 16.
    """

    def __init__(self, backbone: BackboneFile, *, tiles: int = 1, threads: int = 2) -> None:
        """Open the backbone.

        Raises:
            BadRequest: the number of tiles makes no sense.
        """
        check_tiles(tiles)
        self.backbone, self.tiles = backbone, tiles
        self.input_px = tiled_px(backbone.input_px, tiles)
        outputs = onnx.load_model_from_string(backbone.model).graph.output
        self.taps = {one.name: self._tap(one) for one in outputs}
        draw, _ = draw_backbone(backbone, tiles)
        shapes = [(tap.name, ("N", tap.channels, tap.grid, tap.grid)) for tap in self.taps.values()]
        graph = draw.finish("backbone", shapes)
        self._session = open_session(graph.SerializeToString(), threads)
        self._kept: WeakKeyDictionary[Dataset, dict[int, Features]] = WeakKeyDictionary()
        self._room_bytes = _MOST_KEPT_BYTES

    def extract(self, pixels: NDArray[np.uint8]) -> Features:
        """Return the features of (N, S, S, 3) uint8 RGB pixels.

        Raises:
            CorruptModel: the backbone gives numbers that are not finite.
        """
        names = list(self.taps)
        parts = [self._session.run(names, {PIXELS: part}) for part in self._parts(pixels)]
        found = dict(zip(names, (np.concatenate(tap) for tap in zip(*parts, strict=True)), strict=True))
        for name, value in found.items():
            if not np.isfinite(value).all():
                message = f"The backbone {self.backbone.identity.name} gives NaN or infinity as {name}."
                raise CorruptModel(message, tap=name)
        return {**found, PIXELS: pixels}

    def stream(self, dataset: Dataset) -> Iterator[tuple[int, Features]]:
        """Yield (index of the first photo, features of up to 8 photos), in order.

        Features of the first photos of a dataset are kept, because families, cross-fitting and types ask
        for them again.
        """
        kept = self._kept.setdefault(dataset, {})
        for start, pixels in dataset.batches():
            features = kept.get(start) or self.extract(pixels)
            size_bytes = sum(value.nbytes for value in features.values())
            if start not in kept and self._room_bytes >= size_bytes:
                kept[start] = features
                self._room_bytes -= size_bytes
            yield start, features

    def measure_ms(self, repeats: int = 5) -> float:
        """Return the median milliseconds of one photo on this machine, heads not counted."""
        pixels = np.zeros((1, self.input_px, self.input_px, 3), np.uint8)
        self._session.run(None, {PIXELS: pixels})  # the first one allocates
        times_ms = []
        for _ in range(repeats):
            started_s = time.perf_counter()
            self._session.run(None, {PIXELS: pixels})
            times_ms.append(1000 * (time.perf_counter() - started_s))
        return float(np.median(times_ms))

    def _tap(self, output: onnx.ValueInfoProto) -> Tap:
        _, channels, grid, _ = (axis.dim_value for axis in output.type.tensor_type.shape.dim)
        return Tap(output.name, channels, grid * self.input_px // self.backbone.input_px)

    def _parts(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """Return the batch in parts of few enough tiles: memory then does not grow with them."""
        photos = max(1, BATCH_IMAGES // self.tiles**2)
        return [pixels[start : start + photos] for start in range(0, len(pixels), photos)]

"""Which part of an anomalous picture is of which named type: on a grid, and as a PNG (arrows 2, 4).

A place is of the most probable of the types whose probability reaches its threshold there. Where no type
does, it is of the untyped class "anomaly" if the smooth map reaches its threshold, except in the rim of a
typed place: the blurred map is wider than the defect, and a rim is no second defect. An anomalous picture
always shows a place: if nothing else, its highest peak. A normal one shows none, so that verdict, regions
and mask say the same.

For a mask, map and probabilities are first brought bilinearly (half-pixel centres) to the picture's own
size and compared with the thresholds there; only the rim is taken from the nearest cell of the grid.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from services.domain.model_version import Calibration, Manifest
from services.vision.outputs import ImageOutputs
from services.vision.regions import smooth_map

UNTYPED = "anomaly"
_BACKGROUND = "#ffffff"
# Colours of the untyped class, the first that no type of the version has.
_UNTYPED_COLOURS = ("#ff7f0e", "#7f7f7f")
# How much of an anomalous picture's peak its place keeps where the peak is below the map's threshold.
_PEAK_RATIO = 0.8
# Cells that the blur and the upsampling carry a defect beyond its border, apart from the blur's own 2 sigma.
_RIM_CELLS = 2
# Pixels of a mask that are computed at a time: a few MB, however large the picture.
_STRIP_PX = 1 << 20


@dataclass(frozen=True, slots=True)
class Places:
    """An anomalous picture's map and types on the region grid.

    Attributes:
        smooth: (g, g) float32.
        probabilities: (T, g, g) float32 (0-1); T may be 0.
        thresholds: (T,) float32, of the probabilities.
        level: of the smooth map; infinite where it does not count.
        explained: (g, g) bool, where the map is high because of a typed place.
    """

    smooth: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    level: float
    explained: NDArray[np.bool_]

    def classes(self) -> NDArray[np.uint8]:
        """Return (g, g): 0 nothing, 1 to T a type, T + 1 untyped."""
        return _classes(self.smooth, self.probabilities, self.thresholds, self.level, self.explained)


def names_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of classes 1 to T + 1."""
    return (*(one.name for one in manifest.types), UNTYPED)


def places_of(one: ImageOutputs, manifest: Manifest) -> Places:
    """Return where an anomalous picture is anomalous."""
    calibration, input_px = manifest.calibration, manifest.inputs[0].shape[1]
    smooth = smooth_map(one.anomaly_map, calibration.map_sigma_px, input_px)
    side = len(smooth)
    if one.types is None or not manifest.types:
        nothing = np.zeros((0, side, side), np.float32), np.zeros(0, np.float32)
        level = _level(smooth, calibration)
        return Places(smooth, *nothing, level, np.zeros((side, side), np.bool_))
    probabilities = np.stack([_resized(plane, (side, side)) for plane in one.types])
    thresholds = np.array([one.threshold for one in manifest.types], np.float32)
    typed = np.asarray((probabilities >= thresholds[:, None, None]).any(axis=0))
    if not typed.any():
        return Places(smooth, probabilities, thresholds, _level(smooth, calibration), typed)
    reach = _RIM_CELLS + int(np.ceil(2 * calibration.map_sigma_px * side / input_px))
    explained = _grown(typed, reach)
    return Places(smooth, probabilities, thresholds, calibration.map_threshold, explained)


def mask_classes(
    one: ImageOutputs, manifest: Manifest, size_px: tuple[int, int]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the classes of a picture of `size_px` (width, height) in strips from top to bottom.

    Each strip is (rows, width) uint8: 0 nothing, 1 to T a type of the manifest, T + 1 untyped.
    """
    width_px, height_px = size_px
    is_anomalous = one.score >= manifest.calibration.threshold
    places = places_of(one, manifest) if is_anomalous else None
    rows = max(1, _STRIP_PX // width_px)
    for top in range(0, height_px, rows):
        count = min(rows, height_px - top)
        if places is None:
            yield np.zeros((count, width_px), np.uint8)
        else:
            yield _strip(places, size_px, top, count)


def mask_png(one: ImageOutputs, manifest: Manifest, size_px: tuple[int, int]) -> bytes:
    """Return the mask as an RGB PNG of `size_px` (width, height): a colour a type, on white."""
    palette = [
        level for colour in (_BACKGROUND, *colours_of(manifest)) for level in ImageColor.getrgb(colour)
    ]
    image = Image.new("RGB", size_px)
    top = 0
    for classes in mask_classes(one, manifest, size_px):
        strip = Image.fromarray(classes)
        strip.putpalette(palette)
        image.paste(strip.convert("RGB"), (0, top))
        top += len(classes)
    file = io.BytesIO()
    # The least compression: flat colours shrink anyway, and a gateway's caller waits for it.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def colours_of(manifest: Manifest) -> tuple[str, ...]:
    """Return `#rrggbb` of classes 1 to T + 1; a type called as the untyped class shares its colour."""
    typed = {one.name: one.colour.lower() for one in manifest.types}
    free = next(one for one in _UNTYPED_COLOURS if one not in typed.values())
    return (*typed.values(), typed.get(UNTYPED, free))


def whole_map(one: ImageOutputs, manifest: Manifest, size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Return the smooth map at a picture's own size (width, height), as (height, width) float32."""
    smooth = smooth_map(one.anomaly_map, manifest.calibration.map_sigma_px, manifest.inputs[0].shape[1])
    return _resized(smooth, size_px)


def _level(smooth: NDArray[np.float32], calibration: Calibration) -> float:
    """Return the map's threshold, or 0.8 of the peak where nothing reaches it."""
    peak = float(smooth.max())
    threshold = calibration.map_threshold
    return threshold if peak >= threshold else peak - (1 - _PEAK_RATIO) * abs(peak)


def _classes(
    smooth: NDArray[np.float32],
    probabilities: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    level: float,
    explained: NDArray[np.bool_],
) -> NDArray[np.uint8]:
    """Return (h, w) classes of fields that all have that size; see `Places`."""
    untyped = np.uint8(len(thresholds) + 1)
    classes = ((smooth >= level) & ~explained).astype(np.uint8) * untyped
    highest = np.zeros(smooth.shape, np.float32)
    for number, (plane, threshold) in enumerate(zip(probabilities, thresholds, strict=True), start=1):
        wins = (plane >= threshold) & (plane > highest)  # of equal ones the first
        np.copyto(classes, np.uint8(number), where=wins)
        np.copyto(highest, plane, where=wins)
    return classes


def _strip(places: Places, size_px: tuple[int, int], top: int, count: int) -> NDArray[np.uint8]:
    """Return (count, width) classes of the rows from `top` of a picture of `size_px`."""
    width_px, height_px = size_px
    side = len(places.smooth)
    box = (0.0, top * side / height_px, float(side), (top + count) * side / height_px)
    size = (width_px, count)
    probabilities = [_resized(plane, size, box) for plane in places.probabilities]
    down = ((np.arange(top, top + count) + 0.5) * side / height_px).astype(np.intp)
    across = ((np.arange(width_px) + 0.5) * side / width_px).astype(np.intp)
    return _classes(
        _resized(places.smooth, size, box),
        np.stack(probabilities) if probabilities else np.zeros((0, count, width_px), np.float32),
        places.thresholds,
        places.level,
        places.explained[down][:, across],
    )


def _resized(
    plane: NDArray[np.float32], size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> NDArray[np.float32]:
    """Return (rows, width) of a (h, w) plane, bilinear with half-pixel centres; `size` is (width, rows)."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box), np.float32)


def _grown(mask: NDArray[np.bool_], reach: int) -> NDArray[np.bool_]:
    """Return (h, w) with everything True that has a True within `reach` cells, across and down."""
    padded = np.pad(mask, reach)
    height, width = mask.shape
    wide = np.logical_or.reduce([padded[:, at : at + width] for at in range(2 * reach + 1)])
    return np.asarray(np.logical_or.reduce([wide[at : at + height] for at in range(2 * reach + 1)]))

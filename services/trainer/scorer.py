"""From the heads' distance maps to one score and one map per photo (arrow 6).

Written twice with equal results: in numpy for cross-fitting, and drawn into the graph. For the score
each head is summed up by its highest cell and the means of its highest 3 and 10; each number is read in
standard deviations of cross-fitted normal photos. In the map each cell is read in standard deviations
of normal cells at its own place. Sets no threshold (`calibration`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from services.trainer.families.protocol import MAP_STRIDE_PX, SCORE_STRIDE_PX
from services.trainer.graph_builder import GraphBuilder
from services.trainer.resizing import draw_resized, resized
from services.vision.outputs import MAP, SCORE

_TOP_CELLS = 10
# (10, 3): from the ten highest cells to highest, mean of 3, mean of 10.
_SUMMARY = np.stack(
    [np.arange(_TOP_CELLS) < 1, (np.arange(_TOP_CELLS) < 3) / 3, np.full(_TOP_CELLS, 0.1)], axis=1
).astype(np.float32)
# Weight of being more normal than usual. The score is about being less normal, but with nothing
# here all good frames would tie at 0.
_BELOW_WEIGHT = 0.1
# What the spread of a statistic is before anything is seen: 6 % of its mean (3-13 % on the real
# sets), worth ten photos. Two photos, or equal ones, then have a spread too, and leaving one out
# of eight does not make the others' spread jump: recall of defects at eight photos rose from .62
# to .81 with it, at .07 instead of .06 false rejects (3 real sets, 8 draws).
_PRIOR_SPREAD_RATIO = 0.06
_PRIOR_PHOTOS = 10
# Where normal cells vary more (edges, borders, printed text), a distance says less. The spread of a place
# is read over its surroundings, four cells of the map wide, and with ten photos' worth of that of all
# places together. Dividing by it lifted AUPRO on all three real sets that have masks.
_PLACE_SIGMA_CELLS = 4
_PLACE_PRIOR_PHOTOS = 10
# Of the mean distance; where photos are all equal, rounding would be the spread.
_LEAST_SPREAD_RATIO = 0.05


# Per head (N, g, g) float32, each on its own grid.
Distances = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and spread of the statistics of normal photos: (S,) float32 each."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Places:
    """What is a normal distance, at each place of the map.

    Attributes:
        mean: of all cells.
        sd: (m, m) float32, standard deviation at each place.
    """

    mean: float
    sd: NDArray[np.float32]

    def standardised(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (N, m, m) maps in standard deviations."""
        return np.asarray((maps - np.float32(self.mean)) / self.sd, np.float32)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Fixed numbers from distances to scores and maps.

    Attributes:
        input_px: side of the model's input.
        in_map: per head, whether it enters the map; at least one does. All enter the score.
        places: per head, what is normal where.
        standard: of the statistics, head by head.
    """

    input_px: int
    in_map: tuple[bool, ...]
    places: tuple[Places, ...]
    standard: Standard

    def maps(self, distances: Distances) -> NDArray[np.float32]:
        """Return (N, m, m), m = input / 4: the mean over heads of their distances, standardised."""
        side = self.input_px // MAP_STRIDE_PX
        used = [
            place.standardised(resized(one, side))
            for one, place, is_used in zip(distances, self.places, self.in_map, strict=True)
            if is_used
        ]
        return np.asarray(np.mean(used, axis=0), np.float32)

    def scores(self, distances: Distances) -> NDArray[np.float32]:
        """Return (N,) scores of the heads' distances."""
        return scores_of(statistics_of(distances, self.input_px), self.standard)

    def draw(self, draw: GraphBuilder, distances: Sequence[tuple[str, int]]) -> None:
        """Draw `score` (N,) and `map` (N, m, m) behind the heads' (tensor, grid) distances."""
        self._draw_map(draw, distances)
        grid = self.input_px // SCORE_STRIDE_PX
        stacked = _draw_stacked(draw, distances, grid)
        shape = draw.constant(np.array([0, len(distances), grid * grid]), "shape")
        highest = draw.top_k(draw.add("Reshape", stacked, shape), _TOP_CELLS)  # (N, H, 10)
        summary = draw.add("MatMul", highest, draw.constant(_SUMMARY, "summary"))  # (N, H, 3)
        flat = draw.add("Reshape", summary, draw.constant(np.array([0, -1]), "shape"))
        above_mean = draw.add("Sub", flat, draw.constant(self.standard.mean, "mean"))
        z = draw.add("Div", above_mean, draw.constant(self.standard.sd, "sd"))
        above = _draw_root_mean_square(draw, draw.add("Relu", z))
        below = _draw_root_mean_square(draw, draw.add("Relu", draw.add("Neg", z)))
        draw.add("Sub", above, draw.add("Mul", below, draw.scalar(_BELOW_WEIGHT)), name=SCORE)

    def _draw_map(self, draw: GraphBuilder, distances: Sequence[tuple[str, int]]) -> None:
        used = [one for one, is_used in zip(distances, self.in_map, strict=True) if is_used]
        places = [one for one, is_used in zip(self.places, self.in_map, strict=True) if is_used]
        stacked = _draw_stacked(draw, used, self.input_px // MAP_STRIDE_PX)
        # The mean of (d - mean) / sd over heads as one weighted sum: a pass over the cells less.
        weight = np.stack([1 / (len(used) * place.sd) for place in places])  # (H, m, m)
        shift = sum(place.mean * one for place, one in zip(places, weight, strict=True))
        weighted = draw.add("Mul", stacked, draw.constant(weight, "place_weight"))
        total = draw.add("ReduceSum", weighted, draw.constant(np.array([1]), "axis"), keepdims=0)
        draw.add("Sub", total, draw.constant(np.asarray(shift, np.float32), "place_shift"), name=MAP)


def statistics_of(distances: Distances, input_px: int) -> NDArray[np.float32]:
    """Return (N, 3 H): per head the highest cell and the means of the highest 3 and 10."""
    stacked = np.stack([resized(one, input_px // SCORE_STRIDE_PX) for one in distances], axis=1)
    count, heads = stacked.shape[:2]
    cells = stacked.reshape(count, heads, stacked.shape[2] * stacked.shape[3])
    highest = -np.sort(-cells, axis=2)[:, :, :_TOP_CELLS]  # (N, H, 10), highest first
    return np.asarray((highest @ _SUMMARY).reshape(count, 3 * heads), np.float32)


def places_of(maps: NDArray[np.float32]) -> Places:
    """Return what (n, m, m) cross-fitted distances of normal photos say of each place, n >= 1."""
    count = len(maps)
    mean = float(maps.mean(dtype=np.float64))
    squares = np.square(maps - np.float32(mean)).mean(axis=0)  # (m, m)
    smooth = gaussian_filter(squares, _PLACE_SIGMA_CELLS, mode="nearest")
    prior = _PLACE_PRIOR_PHOTOS * float(squares.mean(dtype=np.float64))
    variance = (count * smooth + prior) / (count + _PLACE_PRIOR_PHOTOS)
    least = max(_LEAST_SPREAD_RATIO * mean, 1e-6)
    return Places(mean, np.maximum(np.sqrt(variance), least).astype(np.float32))


def standard_of(statistics: NDArray[np.float32]) -> Standard:
    """Return mean and spread of (n, S) statistics, n >= 1; see `_PRIOR_SPREAD_RATIO`."""
    mean = statistics.mean(axis=0, dtype=np.float64)
    squares = np.square(statistics - mean).sum(axis=0)
    prior = _PRIOR_PHOTOS * np.square(_PRIOR_SPREAD_RATIO * mean)
    sd = np.sqrt((squares + prior) / (len(statistics) - 1 + _PRIOR_PHOTOS))
    return Standard(mean.astype(np.float32), np.maximum(sd, 1e-6).astype(np.float32))


def scores_of(statistics: NDArray[np.float32], standard: Standard) -> NDArray[np.float32]:
    """Return (N,): root mean square of what lies above the standard, less a tenth of that below."""
    z = (statistics - standard.mean) / standard.sd
    above = np.sqrt(np.square(np.maximum(z, 0)).mean(axis=1))
    below = np.sqrt(np.square(np.minimum(z, 0)).mean(axis=1))
    return np.asarray(above - _BELOW_WEIGHT * below, np.float32)


def _draw_stacked(draw: GraphBuilder, distances: Sequence[tuple[str, int]], grid: int) -> str:
    """Draw (N, H, grid, grid) of the heads' (tensor, grid) distances."""
    axis = draw.constant(np.array([1]), "axis")
    planes = [draw_resized(draw, draw.add("Unsqueeze", one, axis), side, grid) for one, side in distances]
    return draw.add("Concat", *planes, axis=1)


def _draw_root_mean_square(draw: GraphBuilder, values: str) -> str:
    squares = draw.add("ReduceMean", draw.add("Mul", values, values), axes=[1], keepdims=0)
    return draw.add("Sqrt", squares)

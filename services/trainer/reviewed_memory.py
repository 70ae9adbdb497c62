"""The memories inside a finished graph, and how they are changed without a fit (arrow 6).

A false alarm's patches join the banks of normal ones, in place of the most redundant, so that size and
latency stay; where they are met again at the same place, the other heads are held at what is usual, too.
A missed defect's patches become examples of defects, each with a radius that no normal patch comes near: a
photo with a patch inside of it is found. Works on the graph alone; `reviewed_drawing` draws what it needs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.domain.model_version import Calibration
from services.trainer.reviewed_drawing import (
    ACCEPTED_CELLS,
    ACCEPTED_RADIUS,
    ACCEPTED_START,
    DEFECT_SCALES,
    DEFECTS,
    Bank,
    banks_of,
    constant,
    draw_reviews,
    find_constant,
    set_constant,
    tell,
    told,
)
from services.vision.outputs import GraphOutputs
from services.vision.runtime import open_session

# Most of a bank that reviewers' patches make up; more is another memory, which wants another threshold.
_MAX_ACCEPTED_RATIO = 0.25
# How near to an accepted patch another one counts as the same, in distances between neighbours of the bank:
# the farthest cells of fresh normal photos lie that far from a bank.
_ACCEPTED_SPACINGS = 1.25
# Examples of defects kept in all; the search among them is then less than a tenth of that in the bank.
_MAX_DEFECTS = 64
# Half the way to the nearest normal patch: whatever lies inside is nearer to the defect than to any normal.
_RADIUS_RATIO = 0.5
_BATCH_IMAGES = 8
# Patches that are compared at a time: 50 MB of distances to the 12,544 cells of a photo in 4 x 4 tiles.
_BATCH_PATCHES = 1024
# In the model's notes: how many patches at the end of each bank reviewers accepted.
_COUNTS = "reviewed_accepted_counts"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a graph says of photos, and their patches.

    Attributes:
        patches: per bank (N, cells, D) float32.
    """

    outputs: GraphOutputs
    patches: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What reviewers accepted.

    Attributes:
        counts: patches at the end of each bank, by its name.
        cells: (grid * grid,) where the other heads are held as well.
        radius: how near a patch of the finest bank has to be.
    """

    counts: Mapping[str, int]
    cells: NDArray[np.bool_]
    radius: float


@dataclass(frozen=True, slots=True)
class Defects:
    """Examples of defects: (J, D) float32 patches of the finest bank, and (J,) float32 radii around them."""

    patches: Floats
    radii: Floats

    def hits(self, patches: Floats) -> NDArray[np.bool_]:
        """Return (J,): which of them have one of (P, D) patches inside."""
        nearest = nearest_squared(self.patches, patches)
        return np.asarray(nearest < np.square(self.radii), np.bool_)

    def chosen(self, keep: NDArray[np.bool_]) -> Defects:
        """Return some of them."""
        return Defects(self.patches[keep], self.radii[keep])


class MemoryGraph:
    """A graph with at least one memory.

    Attributes:
        banks: its memories, the finest (most cells) first.
    """

    def __init__(self, model: onnx.ModelProto, calibration: Calibration, threads: int = 2) -> None:
        """Read a model and leave it as it is.

        Raises:
            ValueError: it has no memory that could be changed.
        """
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._calibration, self._threads = calibration, threads
        found = banks_of(self._model)
        if not found:
            raise ValueError("the graph has no memory")
        side = self._model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
        _, patches = _run(self._model, found, np.zeros((1, side, side, 3), np.uint8), threads)
        grids = {bank: math.isqrt(one.shape[1]) for bank, one in zip(found, patches, strict=True)}
        self.banks = tuple(sorted(found, key=lambda bank: -grids[bank]))
        self._grid = grids[self.banks[0]]

    @property
    def grid(self) -> int:
        """Cells along a side of the finest memory."""
        return self._grid

    def look(self, pixels: NDArray[np.uint8]) -> Seen:
        """Return what the graph says of (N, S, S, 3) uint8 RGB, and their patches."""
        outputs, patches = _run(self._model, self.banks, pixels, self._threads)
        return Seen(outputs, patches)

    def normals(self, bank: Bank) -> Floats:
        """Return the (K, D) patches of a bank."""
        return np.ascontiguousarray(constant(self._model, bank.name)[:-1].T / -2)

    def set_normals(self, bank: Bank, patches: Floats) -> None:
        """Exchange the patches of a bank; there are as many as before, so the graph costs the same."""
        keys = np.vstack([-2 * patches.T, np.square(patches).sum(axis=1)])
        set_constant(self._model, bank.name, keys)

    @property
    def accepted(self) -> Accepted:
        """What reviewers accepted so far."""
        if not self._is_drawn:
            return Accepted({}, np.zeros(self.grid**2, bool), 0)
        counts = json.loads(told(self._model, _COUNTS) or "{}")
        cells = constant(self._model, ACCEPTED_CELLS)[0] > 0
        return Accepted(counts, cells, float(constant(self._model, ACCEPTED_RADIUS)) ** 0.5)

    def accept(self, photos: Seen, cells: NDArray[np.bool_]) -> None:
        """Let the banks know the patches of false alarms, which hold other heads at (grid * grid,) cells."""
        known, counts = self.accepted, {}
        for bank, patches in zip(self.banks, photos.patches, strict=True):
            before, flat = self.normals(bank), patches.reshape(-1, patches.shape[2])
            after, counts[bank.name] = exchanged(before, flat, known.counts.get(bank.name, 0))
            self.set_normals(bank, after)
        radius = _ACCEPTED_SPACINGS * spacing_of(self.normals(self.banks[0]))
        self._set_accepted(Accepted(counts, known.cells | cells, radius))

    def _set_accepted(self, accepted: Accepted) -> None:
        self._draw()
        size = constant(self._model, self.banks[0].name).shape[1]
        count = accepted.counts.get(self.banks[0].name, 0)
        # A minimum needs something: where nothing was accepted no cell is open to the last patch.
        set_constant(self._model, ACCEPTED_START, np.array([min(size - count, size - 1)]))
        set_constant(self._model, ACCEPTED_CELLS, (accepted.cells & (count > 0))[None])
        set_constant(self._model, ACCEPTED_RADIUS, np.array(max(accepted.radius**2, 1e-6)))
        tell(self._model, _COUNTS, json.dumps(dict(accepted.counts)))

    @property
    def defects(self) -> Defects:
        """The examples of defects in the graph."""
        if not self._is_drawn:
            dims = len(constant(self._model, self.banks[0].name)) - 1
            return Defects(np.zeros((0, dims), np.float32), np.zeros(0, np.float32))
        keys, scales = constant(self._model, DEFECTS)[:-1], constant(self._model, DEFECT_SCALES)[0]
        is_one = scales > 0
        patches = (keys[:, is_one] / scales[is_one] / -2).T
        return Defects(np.ascontiguousarray(patches), np.sqrt(1 / scales[is_one]))

    def set_defects(self, defects: Defects) -> None:
        """Exchange the examples of defects."""
        self._draw()
        dims = len(constant(self._model, self.banks[0].name)) - 1
        # One that has no place and no size stands for none, since a minimum needs something.
        scales = np.append(1 / np.square(defects.radii), 0).astype(np.float32)[None]
        patches = np.vstack([defects.patches, np.zeros((1, dims), np.float32)])
        # |x|^2 s + x . (-2 a s) + (|a|^2 - r^2) s < 0 inside, with s = 1 / r^2.
        inside = np.square(patches).sum(axis=1) - np.append(np.square(defects.radii), 0)
        set_constant(self._model, DEFECTS, np.vstack([-2 * patches.T, inside]) * scales)
        set_constant(self._model, DEFECT_SCALES, scales)

    @property
    def _is_drawn(self) -> bool:
        return find_constant(self._model, DEFECTS) is not None

    def _draw(self) -> None:
        if not self._is_drawn:
            draw_reviews(self._model, self.banks, self.grid, self._calibration)

    def copy_memory_to(self, other: MemoryGraph) -> None:
        """Give another precision of the same graph this one's memories."""
        for bank in self.banks:
            other.set_normals(bank, self.normals(bank))
        if self._is_drawn:
            other.set_defects(self.defects)
            other._set_accepted(self.accepted)

    def serialised(self) -> bytes:
        """Return the checked model."""
        onnx.checker.check_model(self._model, full_check=True)
        return bytes(self._model.SerializeToString())


def exchanged(bank: Floats, patches: Floats, accepted: int) -> tuple[Floats, int]:
    """Return a bank of the same size that knows (P, D) patches, and how many at its end reviewers accepted.

    Those farthest from it join, one after the other, until the next one is as near as patches of the bank
    are to each other, or a quarter of the bank is accepted. In turn the most redundant of the others go: of
    the nearest two the one with less room.

    Args:
        bank: (K, D), of which the last `accepted` stay.
        patches: of false alarms.
        accepted: how many were accepted before.
    """
    fitted = bank[: len(bank) - accepted]
    apart = squared_distances(fitted, fitted)
    np.fill_diagonal(apart, np.inf)
    spacing = float(np.median(apart.min(axis=1)))
    nearest = nearest_squared(patches, bank)
    added: list[int] = []
    while accepted + len(added) < _MAX_ACCEPTED_RATIO * len(bank) and nearest.max() > spacing:
        farthest = int(nearest.argmax())
        added.append(farthest)
        np.minimum(nearest, squared_distances(patches, patches[farthest : farthest + 1])[:, 0], out=nearest)
    kept = np.ones(len(fitted), bool)
    for _ in added:
        first = int(apart.min(axis=1).argmin())
        second = int(apart[first].argmin())
        rooms = [float(np.partition(apart[one], 1)[1]) for one in (first, second)]
        gone = first if rooms[0] <= rooms[1] else second
        kept[gone] = False
        apart[gone], apart[:, gone] = np.inf, np.inf
    return np.concatenate([fitted[kept], bank[len(fitted) :], patches[added]]), accepted + len(added)


def spacing_of(bank: Floats) -> float:
    """Return how far the (K, D) patches of a bank are from their nearest neighbours, as a rule."""
    apart = squared_distances(bank, bank)
    np.fill_diagonal(apart, np.inf)
    return float(np.sqrt(np.median(apart.min(axis=1))))


def defects_of(patches: Floats, bank: Floats, normal_photos: Sequence[Floats], most: int) -> Defects:
    """Return which of a missed photo's patches can stand for its defect; may be none.

    Each is given a radius by the normal patches, and left out where a normal photo comes inside of the
    radius that all the others give it: what a fresh normal photo would do.

    Args:
        patches: (P, D) of the defect.
        bank: (K, D) normal patches.
        normal_photos: (cells, D) of each normal photo at hand.
        most: examples wanted; those farthest from normal.
    """
    # One column for the bank, which no photo is left out of, and one per photo.
    columns = [nearest_squared(patches, one) for one in (bank, *normal_photos)]
    to_each = np.stack(columns, axis=1)
    to_normal = to_each.min(axis=1)
    is_safe = np.ones(len(patches), bool)
    for photo in range(1, len(columns)):
        others = np.delete(to_each, photo, axis=1).min(axis=1)
        is_safe &= to_each[:, photo] > _RADIUS_RATIO**2 * others
    order = np.argsort(-to_normal)
    chosen = order[is_safe[order] & (to_normal[order] > 0)][:most]
    return Defects(patches[chosen], (_RADIUS_RATIO * np.sqrt(to_normal[chosen])).astype(np.float32))


def joined(known: Defects, new: Defects) -> Defects:
    """Return both, the newest first, as many as a graph may hold."""
    patches, radii = np.concatenate([new.patches, known.patches]), np.concatenate([new.radii, known.radii])
    return Defects(patches[:_MAX_DEFECTS], radii[:_MAX_DEFECTS])


def nearest_squared(left: Floats, right: Floats) -> Floats:
    """Return (L,) squared distances of (L, D) patches to the nearest of (R, D), some of them at a time."""
    nearest = np.empty(len(left), np.float32)
    for start in range(0, len(left), _BATCH_PATCHES):
        some = slice(start, start + _BATCH_PATCHES)
        nearest[some] = squared_distances(left[some], right).min(axis=1)
    return nearest


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Return (L, R) squared distances of (L, D) and (R, D) patches, 0 upwards."""
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * (left @ right.T), 0), np.float32)


def _run(
    model: onnx.ModelProto, banks: Sequence[Bank], pixels: NDArray[np.uint8], threads: int
) -> tuple[GraphOutputs, tuple[Floats, ...]]:
    """Return outputs and per bank the (N, cells, D) patches of (N, S, S, 3) pixels, N >= 1."""
    telling = onnx.ModelProto()
    telling.CopyFrom(model)
    wanted = [one.name for one in model.graph.output]
    inner = list(dict.fromkeys(bank.tensor for bank in banks))
    telling.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inner
    )
    session = open_session(telling.SerializeToString(), threads)
    parts = [
        session.run([*wanted, *inner], {model.graph.input[0].name: pixels[start : start + _BATCH_IMAGES]})
        for start in range(0, len(pixels), _BATCH_IMAGES)
    ]
    values = [np.concatenate(one) for one in zip(*parts, strict=True)]
    patches = dict(zip(inner, values[len(wanted) :], strict=True))
    return (
        GraphOutputs.of(dict(zip(wanted, values, strict=False))),
        tuple(np.ascontiguousarray(patches[bank.tensor][:, :, :-1]) for bank in banks),
    )

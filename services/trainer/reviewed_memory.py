"""The memories inside a finished graph, and how they are changed without a fit (arrow 6).

A false alarm's patches join the bank of normal ones, in place of the most redundant, so its size and the
latency stay. A missed defect's patches become examples of defects, each with a radius that no normal
patch comes near: a photo with a patch inside it is found. Works on the graph alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from services.domain.model_version import Calibration
from services.vision.outputs import MAP, SCORE, GraphOutputs
from services.vision.runtime import open_session

# What `services.trainer.families.memory` calls its banks: (D + 1, K) float32, -2 b above |b|^2.
_BANK = "bank_"
_DEFECTS, _SCALES = "reviewed_defects", "reviewed_scales"
# Most of a bank that is exchanged at once; more is another memory, which wants another threshold.
_MAX_EXCHANGED_RATIO = 0.25
# Examples of defects kept in all; the search among them is then less than a tenth of that in the bank.
_MAX_DEFECTS = 64
# Half the way to the nearest normal patch: whatever lies inside is nearer to the defect than to any normal.
_RADIUS_RATIO = 0.5
_BATCH_IMAGES = 8

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Bank:
    """One memory in a graph.

    Attributes:
        name: of its constant.
        tensor: what is compared with it: (N, cells, D + 1), the last number of each cell is 1.
    """

    name: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a graph says of photos, and their patches.

    Attributes:
        patches: per bank (N, cells, D) float32.
    """

    outputs: GraphOutputs
    patches: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Defects:
    """Examples of defects: (J, D) float32 patches of the finest bank, and (J,) float32 radii around them."""

    patches: Floats
    radii: Floats

    def hits(self, patches: Floats) -> NDArray[np.bool_]:
        """Return (J,): which of them have one of (P, D) patches inside."""
        nearest = squared_distances(self.patches, patches).min(axis=1)
        return np.asarray(nearest < np.square(self.radii), np.bool_)

    def chosen(self, keep: NDArray[np.bool_]) -> Defects:
        """Return some of them."""
        return Defects(self.patches[keep], self.radii[keep])


class MemoryGraph:
    """A graph with at least one memory.

    Attributes:
        banks: its memories, the finest (most cells) first.
    """

    def __init__(self, model: onnx.ModelProto, threads: int = 2) -> None:
        """Read a model and leave it as it is.

        Raises:
            ValueError: it has no memory that could be changed.
        """
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        self._threads = threads
        found = _banks_of(self._model)
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
        return np.ascontiguousarray(_constant(self._model, bank.name)[:-1].T / -2)

    def set_normals(self, bank: Bank, patches: Floats) -> None:
        """Exchange the patches of a bank; there are as many as before, so the graph costs the same."""
        keys = np.vstack([-2 * patches.T, np.square(patches).sum(axis=1)]).astype(np.float32)
        _set_constant(self._model, bank.name, keys)

    @property
    def defects(self) -> Defects:
        """The examples of defects in the graph."""
        if _find(self._model, _DEFECTS) is None:
            dims = len(_constant(self._model, self.banks[0].name)) - 1
            return Defects(np.zeros((0, dims), np.float32), np.zeros(0, np.float32))
        keys, scales = _constant(self._model, _DEFECTS)[:-1], _constant(self._model, _SCALES)[0]
        is_one = scales > 0
        patches = (keys[:, is_one] / scales[is_one] / -2).T
        return Defects(np.ascontiguousarray(patches), np.sqrt(1 / scales[is_one]))

    def set_defects(self, defects: Defects, calibration: Calibration) -> None:
        """Exchange the examples; the first time, what looks for them is drawn into the graph."""
        if _find(self._model, _DEFECTS) is None:
            if not len(defects.patches):
                return
            _draw_search(self._model, self.banks[0], self._grid, calibration)
        dims = len(_constant(self._model, self.banks[0].name)) - 1
        # One that has no place and no size stands for none, since a minimum needs something.
        scales = np.append(1 / np.square(defects.radii), 0).astype(np.float32)[None]
        patches = np.vstack([defects.patches, np.zeros((1, dims), np.float32)])
        # |x|^2 s + x . (-2 a s) + (|a|^2 - r^2) s < 0 inside, with s = 1 / r^2.
        inside = np.square(patches).sum(axis=1) - np.append(np.square(defects.radii), 0)
        keys = np.vstack([-2 * patches.T, inside]) * scales
        _set_constant(self._model, _DEFECTS, keys.astype(np.float32))
        _set_constant(self._model, _SCALES, scales)

    def copy_memory_to(self, other: MemoryGraph, calibration: Calibration) -> None:
        """Give another precision of the same graph this one's memories."""
        for bank in self.banks:
            other.set_normals(bank, self.normals(bank))
        if _find(self._model, _DEFECTS) is not None:
            other.set_defects(self.defects, calibration)

    def serialised(self) -> bytes:
        """Return the checked model."""
        onnx.checker.check_model(self._model, full_check=True)
        return bytes(self._model.SerializeToString())


def exchanged(bank: Floats, patches: Floats) -> Floats:
    """Return a bank of the same size that knows (P, D) patches: those farthest from it, one after the other.

    It stops where the next one is as near as patches of the bank are to each other, or where a quarter of
    the bank is exchanged. In turn the most redundant go: of the nearest two the one with less room.
    """
    apart = squared_distances(bank, bank)
    np.fill_diagonal(apart, np.inf)
    spacing = float(np.median(apart.min(axis=1)))
    nearest = squared_distances(patches, bank).min(axis=1)
    added: list[int] = []
    while len(added) < _MAX_EXCHANGED_RATIO * len(bank) and nearest.max() > spacing:
        farthest = int(nearest.argmax())
        added.append(farthest)
        np.minimum(nearest, squared_distances(patches, patches[farthest : farthest + 1])[:, 0], out=nearest)
    kept = np.ones(len(bank), bool)
    for _ in added:
        first = int(apart.min(axis=1).argmin())
        second = int(apart[first].argmin())
        rooms = [float(np.partition(apart[one], 1)[1]) for one in (first, second)]
        gone = first if rooms[0] <= rooms[1] else second
        kept[gone] = False
        apart[gone], apart[:, gone] = np.inf, np.inf
    return np.concatenate([bank[kept], patches[added]])


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
    columns = [squared_distances(patches, one).min(axis=1) for one in (bank, *normal_photos)]
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


def squared_distances(left: Floats, right: Floats) -> Floats:
    """Return (L, R) squared distances of (L, D) and (R, D) patches, 0 upwards."""
    squares = np.square(left).sum(axis=1)[:, None] + np.square(right).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * (left @ right.T), 0), np.float32)


def _banks_of(model: onnx.ModelProto) -> list[Bank]:
    """Return the memories whose constants are what this module takes them for."""
    banks = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1].startswith(_BANK):
            keys = _constant(model, node.input[1])
            squares = np.square(keys[:-1] / 2).sum(axis=0)
            if np.allclose(keys[-1], squares, rtol=1e-3, atol=1e-3):
                banks.append(Bank(node.input[1], node.input[0]))
    return banks


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


def _draw_search(model: onnx.ModelProto, bank: Bank, grid: int, calibration: Calibration) -> None:
    """Draw what lifts score and map where a patch lies inside of an example of a defect.

    A photo at an example gets a score that is found for certain, one at the rim its own; between them it is
    continuous, so that other roundings do not flip a verdict.
    """
    graph = model.graph
    by_heads = {name: f"{name}_of_heads" for name in (SCORE, MAP)}
    for node in graph.node:
        node.input[:] = [by_heads.get(name, name) for name in node.input]
        node.output[:] = [by_heads.get(name, name) for name in node.output]
    side = next(one for one in graph.output if one.name == MAP).type.tensor_type.shape.dim[1].dim_value
    dims = len(_constant(model, bank.name)) - 1
    band = max(calibration.uncertain_high - calibration.threshold, 1e-3)
    constants = {
        _DEFECTS: np.zeros((dims + 1, 1)), _SCALES: np.zeros((1, 1)),
        "reviewed_one": np.array(1), "reviewed_twice": np.array(-2),
        "reviewed_least": np.array(0), "reviewed_most": np.array(1),
        # Beyond the band of uncertainty, and clear of the level at which regions are cut.
        "reviewed_score": np.array(calibration.threshold + 2 * band),
        "reviewed_map": np.array(calibration.map_threshold + max(1.0, abs(calibration.map_threshold))),
        "reviewed_zoom": np.array([1, 1, side / grid, side / grid]),
    }  # fmt: skip
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()
    )
    shapes = {"reviewed_plane": [0, 1, grid, grid], "reviewed_flat": [0, side, side]}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in shapes.items()
    )
    add = _adder(graph)
    squares = add("Sub", add("ReduceSumSquare", bank.tensor, axes=[2], keepdims=1), "reviewed_one")
    rim = add("Add", add("Mul", squares, _SCALES), add("MatMul", bank.tensor, _DEFECTS))
    nearest = add("ReduceMin", rim, axes=[2], keepdims=0)  # (N, cells), -1 at an example, 0 at its rim
    near = add("Clip", add("Mul", nearest, "reviewed_twice"), "reviewed_least", "reviewed_most")
    of_photo = add("ReduceMax", near, axes=[1], keepdims=0)
    missing = add("Relu", add("Sub", "reviewed_score", by_heads[SCORE]))
    add("Add", by_heads[SCORE], add("Mul", of_photo, missing), name=SCORE)
    plane = add("Reshape", near, "reviewed_plane")
    zoomed = add("Resize", plane, "", "reviewed_zoom", mode="linear",
                 coordinate_transformation_mode="half_pixel")  # fmt: skip
    of_cell = add("Reshape", zoomed, "reviewed_flat")
    missing = add("Relu", add("Sub", "reviewed_map", by_heads[MAP]))
    add("Add", by_heads[MAP], add("Mul", of_cell, missing), name=MAP)


def _adder(graph: onnx.GraphProto) -> Callable[..., str]:
    """Return a function that appends a node and returns its output's name."""

    def add(op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"reviewed_{op.lower()}_{len(graph.node)}"
        graph.node.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    return add


def _find(model: onnx.ModelProto, name: str) -> onnx.TensorProto | None:
    return next((one for one in model.graph.initializer if one.name == name), None)


def _constant(model: onnx.ModelProto, name: str) -> Floats:
    found = _find(model, name)
    assert found is not None, f"{name} is a constant of the graph"
    return np.asarray(numpy_helper.to_array(found), np.float32)


def _set_constant(model: onnx.ModelProto, name: str, value: Floats) -> None:
    found = _find(model, name)
    assert found is not None, f"{name} is a constant of the graph"
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))

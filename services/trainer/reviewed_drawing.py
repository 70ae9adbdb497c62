"""What reviews add to a finished graph, drawn behind its memory and around its score (arrow 6).

Two searches in the finest memory's patches. Cells near to what a reviewer accepted, at such places: every
head's distance is held at what the highest cells of normal photos have. Cells inside of an example of a
defect: score and map are lifted to where the photo is found. Chooses no patches (`reviewed_memory`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.domain.model_version import Calibration
from services.vision.outputs import MAP, SCORE

# Constants that `reviewed_memory` exchanges: (D + 1, J) and (1, J); the first accepted patch of the finest
# bank, (1, cells) of 0 and 1, and a squared distance.
DEFECTS, DEFECT_SCALES = "reviewed_defects", "reviewed_defect_scales"
ACCEPTED_START = "reviewed_accepted_start"
ACCEPTED_CELLS, ACCEPTED_RADIUS = "reviewed_accepted_cells", "reviewed_accepted_radius"
# What `services.trainer.families.memory` calls its banks: (D + 1, K) float32, -2 b above |b|^2.
_BANK = "bank_"
# What `services.trainer.scorer` calls the normal photos' means of a head's highest cell, highest 3 and 10.
_MEANS = re.compile(r"mean_\d+")
_STATISTICS = 3

Floats = NDArray[np.float32]
Add = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Bank:
    """One memory in a graph.

    Attributes:
        name: of its constant.
        tensor: what is compared with it: (N, cells, D + 1), the last number of each cell is 1.
        products: of the two: (N, cells, K), squared distances less those of the patches themselves.
    """

    name: str
    tensor: str
    products: str


def banks_of(model: onnx.ModelProto) -> list[Bank]:
    """Return the memories whose constants are what this module takes them for."""
    banks = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1].startswith(_BANK):
            keys = constant(model, node.input[1])
            squares = np.square(keys[:-1] / 2).sum(axis=0)
            if np.allclose(keys[-1], squares, rtol=1e-3, atol=1e-3):
                banks.append(Bank(node.input[1], node.input[0], node.output[0]))
    return banks


def draw_reviews(model: onnx.ModelProto, banks: Sequence[Bank], grid: int, calibration: Calibration) -> None:
    """Draw both searches, for nothing yet.

    Args:
        model: changed in place.
        banks: its memories, the finest first.
        grid: cells along a side of the finest.
        calibration: of the version.
    """
    graph, finest = model.graph, banks[0]
    side = next(one for one in graph.output if one.name == MAP).type.tensor_type.shape.dim[1].dim_value
    by_heads = {name: f"{name}_of_heads" for name in (SCORE, MAP)}
    for node in graph.node:
        node.input[:] = [by_heads.get(name, name) for name in node.input]
        node.output[:] = [by_heads.get(name, name) for name in node.output]
        node.name = by_heads.get(node.name, node.name)
    _add_constants(model, banks, grid, side, calibration)
    place = next((at for at, node in enumerate(graph.node) if node.op_type == "TopK"), None)
    hold = place is not None and _hold_heads(model, place, finest, grid)
    add = _appending_to(graph)
    squares = add("Sub", add("ReduceSumSquare", finest.tensor, axes=[2], keepdims=1), "reviewed_one")
    rim = add("Add", add("Mul", squares, DEFECT_SCALES), add("MatMul", finest.tensor, DEFECTS))
    nearest = add("ReduceMin", rim, axes=[2], keepdims=0)  # (N, cells), -1 at an example, 0 at its rim
    near = add("Clip", add("Mul", nearest, "reviewed_twice"), "reviewed_least", "reviewed_most")
    of_photo = add("ReduceMax", near, axes=[1], keepdims=0)
    missing = add("Relu", add("Sub", "reviewed_score", by_heads[SCORE]))
    add("Add", by_heads[SCORE], add("Mul", of_photo, missing), name=SCORE)
    anomaly_map = by_heads[MAP]
    if hold:
        held = add("Mul", _on_map(add, _HELD), add("Relu", anomaly_map))
        anomaly_map = add("Sub", anomaly_map, held)
    missing = add("Relu", add("Sub", "reviewed_map", anomaly_map))
    add("Add", anomaly_map, add("Mul", _on_map(add, near), missing), name=MAP)


_HELD = "reviewed_held"  # (N, cells), 1 where the heads are held


def _add_constants(
    model: onnx.ModelProto, banks: Sequence[Bank], grid: int, side: int, calibration: Calibration
) -> None:
    dims, patches = constant(model, banks[0].name).shape
    band = max(calibration.uncertain_high - calibration.threshold, 1e-3)
    values = {
        DEFECTS: np.zeros((dims, 1)), DEFECT_SCALES: np.zeros((1, 1)),
        ACCEPTED_CELLS: np.zeros((1, grid * grid)), ACCEPTED_RADIUS: np.array(1.0),
        "reviewed_one": np.array(1.0), "reviewed_two": np.array(2.0), "reviewed_twice": np.array(-2.0),
        "reviewed_least": np.array(0.0), "reviewed_most": np.array(1.0),
        # Beyond the band of uncertainty, and clear of the level at which regions are cut.
        "reviewed_score": np.array(calibration.threshold + 2 * band),
        "reviewed_map": np.array(calibration.map_threshold + max(1.0, abs(calibration.map_threshold))),
        "reviewed_zoom": np.array([1, 1, side / grid, side / grid]),
    }  # fmt: skip
    whole = {
        ACCEPTED_START: [patches - 1], "reviewed_end": [patches],
        "reviewed_axis": [2], "reviewed_plane": [0, 1, grid, grid], "reviewed_flat": [0, side, side],
    }  # fmt: skip
    model.graph.initializer.extend(
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()),
            *(numpy_helper.from_array(np.array(value, np.int64), name) for name, value in whole.items()),
        ]
    )


def _hold_heads(model: onnx.ModelProto, highest: int, finest: Bank, grid: int) -> bool:
    """Draw what holds the heads, before the node at `highest` that takes their highest cells.

    Returns False, and draws nothing, where the graph is not as this module knows it.
    """
    graph = model.graph
    reshape = next((node for node in graph.node if graph.node[highest].input[0] in node.output), None)
    if reshape is None or reshape.op_type != "Reshape":
        return False
    shape = numpy_helper.to_array(_stored(model, reshape.input[1]))
    heads, cells = int(shape[1]), int(shape[2])
    named = [one for one in graph.initializer if _MEANS.fullmatch(one.name)]
    means = [one for one in named if list(one.dims) == [heads * _STATISTICS]]
    if len(means) != 1:
        return False
    usual = numpy_helper.to_array(means[0]).reshape(heads, _STATISTICS)[:, -1].reshape(1, heads, 1, 1)
    factor = cells**0.5 / grid
    graph.initializer.append(numpy_helper.from_array(usual.astype(np.float32), "reviewed_usual"))
    before, after = list(graph.node[: list(graph.node).index(reshape)]), list(graph.node)
    after = after[len(before) :]
    del graph.node[:]
    graph.node.extend(before)
    add = _appending_to(graph)
    squares = add("Sub", add("ReduceSumSquare", finest.tensor, axes=[2], keepdims=0), "reviewed_one")
    accepted = add("Slice", finest.products, ACCEPTED_START, "reviewed_end", "reviewed_axis")
    distance = add("Add", squares, add("ReduceMin", accepted, axes=[2], keepdims=0))  # squared
    share = add("Div", distance, ACCEPTED_RADIUS)
    near = add("Clip", add("Sub", "reviewed_two", share), "reviewed_least", "reviewed_most")
    add("Mul", near, ACCEPTED_CELLS, name=_HELD)
    plane = add("Reshape", _HELD, "reviewed_plane")
    if factor != 1:
        scales = np.array([1, 1, factor, factor], np.float32)
        graph.initializer.append(numpy_helper.from_array(scales, "reviewed_to_heads"))
        plane = _zoomed(add, plane, "reviewed_to_heads")
    stacked = reshape.input[0]
    above = add("Relu", add("Sub", stacked, "reviewed_usual"))
    after[0].input[0] = add("Sub", stacked, add("Mul", plane, above))
    graph.node.extend(after)
    return True


def _on_map(add: Add, cells: str) -> str:
    """Draw (N, cells) on the map's grid."""
    return add(
        "Reshape", _zoomed(add, add("Reshape", cells, "reviewed_plane"), "reviewed_zoom"), "reviewed_flat"
    )


def _zoomed(add: Add, plane: str, scales: str) -> str:
    return add("Resize", plane, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")


def _appending_to(graph: onnx.GraphProto) -> Add:
    """Return a function that appends a node and returns its output's name."""

    def add(op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        output = name or f"reviewed_{op.lower()}_{len(graph.node)}"
        graph.node.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    return add


def told(model: onnx.ModelProto, key: str) -> str:
    """Return what is noted in a model under a key, empty where nothing is."""
    return next((one.value for one in model.metadata_props if one.key == key), "")


def tell(model: onnx.ModelProto, key: str, value: str) -> None:
    """Note something in a model that its graph has no use for."""
    for one in model.metadata_props:
        if one.key == key:
            one.value = value
            return
    model.metadata_props.add(key=key, value=value)


def find_constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto | None:
    """Return a constant as it is stored, None where there is none of that name."""
    return next((one for one in model.graph.initializer if one.name == name), None)


def constant(model: onnx.ModelProto, name: str) -> Floats:
    """Return a constant as float32."""
    return np.asarray(numpy_helper.to_array(_stored(model, name)), np.float32)


def set_constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> None:
    """Exchange a constant for one of the same type."""
    found = _stored(model, name)
    dtype = numpy_helper.to_array(found).dtype
    found.CopyFrom(numpy_helper.from_array(np.array(value, dtype, order="C"), name))


def _stored(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    found = find_constant(model, name)
    assert found is not None, f"{name} is a constant of the graph"
    return found

"""A network of whatever shape -> a backbone graph: uint8 pixels in, taps out, any batch (arrow 6).

Cut down to the feature maps that heads can use, brought to the graph's opset, its fixed batch freed,
normalisation put in front; and proved: the result has to give the numbers that the file itself gives.
Reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, inliner

from services.domain.errors import BadRequest, CorruptModel
from services.trainer.backbones.opset import at_opset
from services.trainer.graph_builder import OPSET_VERSION, GraphBuilder

# A side that the network leaves open; the same as the default backbone's.
_FREE_INPUT_PX = 224
# Maps and scores are made on grids of strides 4 to 16, and scores need a handful of cells.
_SIDE_UNIT_PX, _LEAST_SIDE_PX = 16, 64
_STRIDES_PX = (4, 8, 16, 32)
_COARSEST_PX = 16  # of those used beside finer ones
_INPUT_TYPES = {
    "tensor(float)": (TensorProto.FLOAT, np.float32),
    "tensor(float16)": (TensorProto.FLOAT16, np.float16),
    "tensor(double)": (TensorProto.DOUBLE, np.float64),
    "tensor(uint8)": (TensorProto.UINT8, np.uint8),
}
# float32 sums in another order, through some hundred layers.
_TOLERANCE = 1e-3
_PREFIX = "backbone/"


@dataclass(frozen=True, slots=True)
class Scale:
    """Normalisation of pixels 0-255: (x - mean) / std, per channel in RGB order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Input:
    """What the network takes.

    Attributes:
        dtype: see `_INPUT_TYPES`.
        batch: photos at a time, 1 where free.
        is_channels_last: NHWC.
    """

    name: str
    dtype: str
    side_px: int
    batch: int
    is_channels_last: bool

    def of(self, pixels: NDArray[np.uint8], scale: Scale) -> NDArray[Any]:
        """Return (1, S, S, 3) pixels as the network takes them, as often as its batch is large."""
        values: NDArray[Any] = pixels
        if self.dtype != "tensor(uint8)":
            values = (pixels - np.array(scale.mean, np.float32)) / np.array(scale.std, np.float32)
        if not self.is_channels_last:
            values = values.transpose(0, 3, 1, 2)
        return np.repeat(values, self.batch, axis=0).astype(_INPUT_TYPES[self.dtype][1])


@dataclass(frozen=True, slots=True)
class _Tap:
    """An output that becomes `f<stride>`."""

    output: str
    stride_px: int
    channels: int
    is_channels_last: bool


def wrapped(model: onnx.ModelProto, scale: Scale, name: str) -> tuple[bytes, int]:
    """Return the model as a serialised backbone graph, and the side of its input.

    Args:
        model: with all weights inside.
        scale: for float inputs; networks that take uint8 normalise themselves.
        name: for sentences.

    Raises:
        BadRequest: it cannot be used; says why.
        CorruptModel: its features are not finite.
    """
    model = _pruned(inliner.inline_local_functions(model), [output.name for output in model.graph.output])
    session = _open(model, name)
    taken = _input_of(session, name)
    photos = _photos(taken.side_px)
    found = [_run(session, taken, photo, scale, name) for photo in photos]
    taps = _taps(found[0], taken, name)
    try:
        network = _drawn(model, taken, taps, scale)
        session = _session(network)
    except Exception as error:
        message = f"The backbone {name} cannot be built into a detector: {_reason(error)}"
        raise BadRequest(message, backbone=name) from error
    try:
        given = session.run([f"f{tap.stride_px}" for tap in taps], {"pixels": photos[:, 0]})
    except Exception as error:
        message = f"The backbone {name} takes one photo at a time only; export it with a free batch."
        raise BadRequest(message, backbone=name) from error
    for tap, features in zip(taps, given, strict=True):
        expected = np.stack([_channels_first(one[tap.output][0], tap) for one in found])
        if not np.isfinite(expected).all():
            message = f"The backbone {name} gives NaN or infinity as {tap.output}."
            raise CorruptModel(message, backbone=name, output=tap.output)
        gap = float(np.abs(expected - features).max() / max(float(np.abs(expected).max()), 1e-6))
        if not gap <= _TOLERANCE:
            message = (
                f"The backbone {name} gives other features for several photos at a time than for one, or at "
                f"opset {OPSET_VERSION} than at its own (by {gap:.2g}); export it with a free batch and that "
                "opset."
            )
            raise BadRequest(message, backbone=name, gap=gap)
    return network, taken.side_px


def _open(model: onnx.ModelProto, name: str) -> Any:
    """Return a session of the network as it is.

    Raises:
        BadRequest: ONNX Runtime does not take it.
    """
    try:
        return _session(model.SerializeToString())
    except Exception as error:
        reason = _reason(error)
        opset = max((entry.version for entry in model.opset_import), default=0)
        lacking = re.search(
            r"No Op registered for (\S+)|([\w.:]+)\(\S+\) is not a registered|implementation for (\S+)",
            reason,
        )
        if lacking:
            operator = next(filter(None, lacking.groups()))
            message = f"The backbone {name} needs an operator that ONNX Runtime lacks: {operator}."
        elif "opset" in reason.lower() and "guarantees" in reason:
            message = f"The backbone {name} is written in opset {opset}, which ONNX Runtime does not know."
        else:
            message = f"ONNX Runtime cannot load the backbone {name}: {reason}"
        raise BadRequest(message, backbone=name, opset=opset) from error


def _input_of(session: Any, name: str) -> _Input:
    """Return what the network takes.

    Raises:
        BadRequest: anything but one square RGB picture of a usable size.
    """
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shapes = ", ".join(f"{one.name} {_shape(one.shape)}" for one in inputs)
        message = (
            f"The backbone {name} has to take one picture (N, 3, H, W) or (N, H, W, 3); it takes {shapes}."
        )
        raise BadRequest(message, backbone=name)
    only = inputs[0]
    if only.type not in _INPUT_TYPES:
        message = f"The backbone {name} takes {only.type}; it has to be float or uint8."
        raise BadRequest(message, backbone=name)
    batch, *axes = only.shape
    is_channels_last = axes[2] == 3 and axes[0] != 3
    channels, sides = (axes[2], axes[:2]) if is_channels_last else (axes[0], axes[1:])
    if isinstance(channels, int) and channels != 3:
        message = f"The backbone {name} takes {_shape(only.shape)}; it has to take 3 channels, RGB."
        raise BadRequest(message, backbone=name)
    fixed_px = {side for side in sides if isinstance(side, int)} or {_FREE_INPUT_PX}
    side_px = fixed_px.pop()
    if fixed_px or side_px % _SIDE_UNIT_PX or side_px < _LEAST_SIDE_PX:
        message = (
            f"The backbone {name} takes pictures of {_shape(sides)} pixels; they have to be square, with a "
            f"side of at least {_LEAST_SIDE_PX} that is a multiple of {_SIDE_UNIT_PX}."
        )
        raise BadRequest(message, backbone=name)
    return _Input(only.name, only.type, side_px, batch if isinstance(batch, int) else 1, is_channels_last)


def _photos(side_px: int) -> NDArray[np.uint8]:
    """Return (2, 1, S, S, 3): two different seeded pictures, blurred noise over a ramp of light."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 192, (2, 1, side_px // 16, side_px // 16, 3))
    ramp = np.linspace(0, 32, side_px)[:, None, None]
    fine = rng.integers(0, 32, (2, 1, side_px, side_px, 3))
    return np.asarray(coarse.repeat(16, axis=2).repeat(16, axis=3) + ramp + fine, np.uint8)


def _run(
    session: Any, taken: _Input, photo: NDArray[np.uint8], scale: Scale, name: str
) -> dict[str, NDArray[Any]]:
    """Return what the network itself gives for (1, S, S, 3) pixels, by output."""
    names = [output.name for output in session.get_outputs()]
    try:
        values = session.run(names, {taken.name: taken.of(photo, scale)})
    except Exception as error:
        message = f"The backbone {name} fails on a picture of {taken.side_px} pixels: {_reason(error)}"
        raise BadRequest(message, backbone=name) from error
    return dict(zip(names, values, strict=True))


def _taps(found: Mapping[str, NDArray[Any]], taken: _Input, name: str) -> list[_Tap]:
    """Return the outputs that heads can use, finest first: per stride the last.

    Raises:
        BadRequest: there are none.
    """
    by_stride: dict[int, _Tap] = {}
    for output, value in found.items():
        if value.ndim != 4 or len(value) != taken.batch or value.dtype.kind != "f":
            continue
        _, first, middle, last = value.shape
        # (g, g, C) rather than (C, g, g); where all three are equal, as the input is.
        is_channels_last = first == middle and (middle != last or taken.is_channels_last)
        grid, other, channels = (first, middle, last) if is_channels_last else (middle, last, first)
        if grid == other and any(grid * stride == taken.side_px for stride in _STRIDES_PX):
            stride_px = taken.side_px // grid
            by_stride[stride_px] = _Tap(output, stride_px, channels, is_channels_last)
    finest = min(by_stride, default=0)
    taps = [tap for stride, tap in sorted(by_stride.items()) if stride <= max(_COARSEST_PX, finest)]
    if not taps:
        shapes = ", ".join(f"{output} {_shape(value.shape)}" for output, value in found.items())
        message = (
            f"The backbone {name} gives no feature maps (N, C, g, g) of stride 4, 8, 16 or 32; for a picture "
            f"of {taken.side_px} pixels it gives {shapes}. Export the network with its inner feature maps as "
            "outputs."
        )
        raise BadRequest(message, backbone=name)
    return taps


def _drawn(model: onnx.ModelProto, taken: _Input, taps: Iterable[_Tap], scale: Scale) -> bytes:
    """Return the backbone graph: normalisation, the network, taps by their names."""
    taps = list(taps)
    outputs = [tap.output for tap in taps]
    network = _pruned(at_opset(_with_free_batch(_pruned(model, outputs))), outputs)
    network = compose.add_prefix(network, _PREFIX)
    draw = GraphBuilder()
    pixels = draw.input("pixels", TensorProto.UINT8, ["N", taken.side_px, taken.side_px, 3])
    x = pixels
    if not taken.is_channels_last:
        x = draw.add("Transpose", x, perm=[0, 3, 1, 2])
    if taken.dtype != "tensor(uint8)":
        per_channel = (3,) if taken.is_channels_last else (3, 1, 1)
        x = draw.add("Cast", x, to=TensorProto.FLOAT)
        x = draw.add("Sub", x, draw.constant(np.array(scale.mean, np.float32).reshape(per_channel), "mean"))
        x = draw.add("Div", x, draw.constant(np.array(scale.std, np.float32).reshape(per_channel), "std"))
        if taken.dtype != "tensor(float)":
            x = draw.add("Cast", x, to=_INPUT_TYPES[taken.dtype][0])
    draw.add("Identity", x, name=_PREFIX + taken.name)
    draw.include(network)
    shapes: list[tuple[str, tuple[int | str, ...]]] = []
    for tap in taps:
        tensor = draw.add("Cast", _PREFIX + tap.output, to=TensorProto.FLOAT)
        if tap.is_channels_last:
            tensor = draw.add("Transpose", tensor, perm=[0, 3, 1, 2])
        grid = taken.side_px // tap.stride_px
        shapes.append(
            (draw.add("Identity", tensor, name=f"f{tap.stride_px}"), ("N", tap.channels, grid, grid))
        )
    return draw.finish("backbone", shapes).SerializeToString()


def _channels_first(features: NDArray[Any], tap: _Tap) -> NDArray[np.float32]:
    return np.asarray(features.transpose(2, 0, 1) if tap.is_channels_last else features, np.float32)


def _pruned(model: onnx.ModelProto, outputs: list[str]) -> onnx.ModelProto:
    """Return the model with only what the outputs need."""
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(_reads(node))
    pruned = onnx.ModelProto()
    pruned.CopyFrom(model)
    graph = pruned.graph
    weights = [one for one in graph.initializer if one.name in needed]
    names = {one.name for one in weights}
    # Before IR version 4 weights stood among the inputs, too.
    inputs = [one for one in graph.input if one.name not in names]
    kept = [one for one in graph.output if one.name in outputs]
    _replace(graph.node, nodes[::-1])
    _replace(graph.initializer, weights)
    _replace(graph.input, inputs)
    _replace(graph.output, kept)
    graph.ClearField("value_info")  # shapes of the fixed batch
    return pruned


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Put values, some of them its own, in the place of a repeated field's."""
    copies = [deepcopy(one) for one in values]
    del field[:]
    field.extend(copies)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the tensors that a node reads, graphs inside of it included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                names |= _reads(inner)
    return names


def _with_free_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a free first axis, as far as its nodes let it."""
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    for value in freed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    for value in freed.graph.output:
        value.type.tensor_type.ClearField("shape")
    return freed


def _session(model: bytes) -> Any:
    """Return a session that logs nothing: what goes wrong becomes a sentence."""
    import onnxruntime  # as in `services.vision.runtime`: only where a model is really run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _shape(axes: Iterable[int | str | None]) -> str:
    """Return a shape as people write it: `N x 3 x 224 x 224`."""
    return " x ".join(str(axis or "?") for axis in axes)


def _reason(error: Exception) -> str:
    """Return an error's first line, without ONNX Runtime's own number and name of it."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (This is an invalid model\. )?", "", line)

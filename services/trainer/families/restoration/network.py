"""The restoring U-Net: its layers as arrays, drawn into a graph (arrow 6).

It sees the whole picture. FAIR (Liu et al., 2023) withholds the low frequencies; measured here, a network
of this size then makes up the colours of a scene that lies a little otherwise, and good photos stand out.
Fully convolutional: any side that 16 divides. Is trained in `training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from services.trainer.families.protocol import MAP_STRIDE_PX
from services.trainer.graph_builder import GraphBuilder
from services.trainer.tiling import PIXELS

# The side has to be a multiple of this: the stride of the deepest of four levels.
SIDE_MULTIPLE_PX = 16
GREY_LEVELS = 255.0
DISTANCE = "distance"

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution with its batch norm folded in.

    Attributes:
        kernel: (out, in, k, k) float32.
        bias: (out,) float32.
        stride: in pixels of its input.
    """

    kernel: Array
    bias: Array
    stride: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the network: half of that above it.

    Attributes:
        down: strided, from the level above; of the first level, from the picture.
        keep: behind it.
        lift: 1 x 1, from the level below; None at the deepest level.
        join: after the lifted is added to the kept; None at the deepest level.
    """

    down: Layer
    keep: Layer
    lift: Layer | None = None
    join: Layer | None = None


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network.

    Attributes:
        levels: finest (half of the picture's resolution) first.
        out: to 12 channels, which are 3 channels at twice the resolution.
    """

    levels: tuple[Level, ...]
    out: Layer

    def draw(self, draw: GraphBuilder, pixels: str) -> str:
        """Draw the distance behind (N, S, S, 3) uint8 pixels; return its name, (N, S / 4, S / 4), 0-255."""
        picture = _draw_picture(draw, pixels)
        difference = draw.add("Sub", picture, self._draw_restored(draw, picture))
        # Half fine, pixel by pixel, and half rough, means over a cell: noise and edges that are off by
        # half a pixel weigh less than blemishes, which keep their sign over a cell.
        fine = _draw_means(draw, draw.add("Abs", difference), MAP_STRIDE_PX)
        rough = draw.add("Abs", _draw_means(draw, difference, MAP_STRIDE_PX))
        channels = draw.add("Add", fine, rough)
        mean = draw.add("ReduceMean", channels, axes=[1], keepdims=0)
        return draw.add("Mul", mean, draw.scalar(GREY_LEVELS / 2))

    def model(self, side_px: int) -> onnx.ModelProto:
        """Return the distance as a graph of its own, from `pixels` (N, S, S, 3) to (N, S / 4, S / 4)."""
        draw = GraphBuilder()
        pixels = draw.input(PIXELS, TensorProto.UINT8, ["N", side_px, side_px, 3])
        # A name that is known from outside.
        draw.add("Identity", self.draw(draw, pixels), name=DISTANCE)
        grid = side_px // MAP_STRIDE_PX
        return draw.finish("restoration", [(DISTANCE, ["N", grid, grid])])

    def _draw_restored(self, draw: GraphBuilder, picture: str) -> str:
        """Draw the restored picture, (N, 3, S, S)."""
        tensor = picture
        kept = []
        for level in self.levels:
            tensor = _draw_relu(draw, tensor, level.down)
            tensor = _draw_relu(draw, tensor, level.keep)
            kept.append(tensor)
        for level, tensor_kept in zip(self.levels[-2::-1], kept[-2::-1], strict=True):
            assert level.lift is not None
            assert level.join is not None
            lifted = _draw_doubled(draw, _draw_layer(draw, tensor, level.lift))
            tensor = _draw_relu(draw, draw.add("Add", tensor_kept, lifted), level.join)
        return draw.add("DepthToSpace", _draw_layer(draw, tensor, self.out), blocksize=2, mode="CRD")


def network_of(arrays: Mapping[str, Array], level_count: int) -> Network:
    """Return the network of folded kernels `<level>.<part>.kernel` and biases, see `training`."""

    def layer(name: str, stride: int = 1) -> Layer:
        return Layer(arrays[f"{name}.kernel"], arrays[f"{name}.bias"], stride)

    levels = []
    for number in range(level_count):
        down, keep = layer(f"{number}.down", 2), layer(f"{number}.keep")
        if number < level_count - 1:
            levels.append(Level(down, keep, layer(f"{number}.lift"), layer(f"{number}.join")))
        else:
            levels.append(Level(down, keep))
    return Network(tuple(levels), layer("out"))


def _draw_picture(draw: GraphBuilder, pixels: str) -> str:
    """Draw (N, S, S, 3) uint8 -> (N, 3, S, S) float32, -0.5 to 0.5."""
    planes = draw.add("Transpose", draw.add("Cast", pixels, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    return draw.add("Sub", draw.add("Mul", planes, draw.scalar(1 / GREY_LEVELS)), draw.scalar(0.5))


def _draw_layer(draw: GraphBuilder, tensor: str, layer: Layer) -> str:
    """Draw a convolution that keeps the side, or divides it by the stride."""
    pad = (layer.kernel.shape[-1] - 1) // 2
    return draw.add(
        "Conv",
        tensor,
        draw.constant(layer.kernel, "kernel"),
        draw.constant(layer.bias, "bias"),
        strides=[layer.stride] * 2,
        pads=[pad] * 4,
    )


def _draw_relu(draw: GraphBuilder, tensor: str, layer: Layer) -> str:
    return draw.add("Relu", _draw_layer(draw, tensor, layer))


def _draw_means(draw: GraphBuilder, tensor: str, block_px: int) -> str:
    return draw.add("AveragePool", tensor, kernel_shape=[block_px] * 2, strides=[block_px] * 2)


def _draw_doubled(draw: GraphBuilder, tensor: str) -> str:
    """Draw twice the side: each value four times."""
    scales = draw.constant(np.array([1, 1, 2, 2], np.float32), "scales")
    return draw.add(
        "Resize",
        tensor,
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )

"""A feature extractor without any trained weights: an orthogonal random ResNet-18 (arrow 6).

Kernels are drawn orthogonal from a seed; batch-norm statistics come from photos of good parts, all layers
in one pass of ONNX Runtime over a graph that normalises by its own batch and tells its statistics. Cut
after stride 16. The network: He et al., CVPR 2016; orthogonal kernels: Saxe et al., ICLR 2014. Needs no
file and no torch, and finds less than trained weights.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from services.domain.model_version import Backbone
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.graph_builder import GraphBuilder
from services.vision.runtime import open_session

INPUT_PX = 224
LICENCE = "none needed: random weights"

# Added to variances. Pixels come in as (x - 127) / 128, so a channel of flat photos (variance 0) is
# amplified at most thirtyfold instead of turning rounding into features.
_EPSILON = 1e-3
# Output channels and stride of the first convolution of each stage after the stem's pooling (stride 4).
_STAGES = (("f4", 64, 1), ("f8", 128, 2), ("f16", 256, 2))
_BLOCKS = 2

# Draws the number-th convolution and its normalisation behind a tensor: (tensor, number, stride) -> tensor.
_Layer = Callable[[str, int, int], str]


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Mean and variance, (C,) float32, of what each convolution gives, in the order they are drawn."""

    means: tuple[NDArray[np.float32], ...]
    variances: tuple[NDArray[np.float32], ...]


def random_resnet(
    seed: int, *, photos: NDArray[np.uint8] | None = None, warnings: tuple[str, ...] = ()
) -> BackboneFile:
    """Return the network of a seed; the same arguments give the same bytes.

    Args:
        seed: of the kernels.
        photos: (N, 224, 224, 3) uint8 RGB of good parts, to take statistics from; None: taken from noise,
            good for looking at the network only.
        warnings: for the manifest.
    """
    kernels = _kernels(seed)
    if photos is None:
        rng = np.random.default_rng(seed)
        photos = rng.integers(0, 256, (1, INPUT_PX, INPUT_PX, 3), np.uint8)
    model = _draw_folded(kernels, _statistics(kernels, photos))
    identity = Backbone(f"random-resnet18-seed{seed}", hashlib.sha256(model).hexdigest(), LICENCE)
    return BackboneFile(model, identity, INPUT_PX, warnings, seed)


@lru_cache(maxsize=1)  # opening and calibrating a backbone both need them
def _kernels(seed: int) -> tuple[NDArray[np.float32], ...]:
    """Return the kernels (O, I, k, k) in the order they are drawn; see `_draw_network`."""
    shapes = [(64, 3, 7, 7)]
    channels = 64
    for _, out, stride in _STAGES:
        for block in range(_BLOCKS):
            shapes += [(out, channels, 3, 3), (out, out, 3, 3)]
            if block == 0 and stride > 1:
                shapes.append((out, channels, 1, 1))
            channels = out
    rng = np.random.default_rng(seed)
    return tuple(_orthogonal(rng, shape) for shape in shapes)


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a random kernel whose rows, or columns where there are fewer, are orthonormal."""
    rows, columns = shape[0], int(np.prod(shape[1:]))
    matrix = rng.standard_normal((min(rows, columns), max(rows, columns)))
    # Gram-Schmidt by hand, not LAPACK's: the same bits everywhere, and BLAS's threads wait for one another
    # on a machine that has other work (7 s instead of 0.4 s for all kernels).
    for place, row in enumerate(matrix):
        row /= np.sqrt(np.square(row).sum())
        later = matrix[place + 1 :]
        later -= np.vecdot(later, row)[:, None] * row
    return np.asarray((matrix.T if rows > columns else matrix).reshape(shape), np.float32)


def _statistics(kernels: Sequence[NDArray[np.float32]], photos: NDArray[np.uint8]) -> _Statistics:
    """Run the network over the photos, each layer normalised by what it gives for them."""
    draw = GraphBuilder()
    names: list[str] = []

    def by_batch(tensor: str, number: int, stride: int) -> str:
        tensor = _draw_conv(draw, tensor, stride, kernels[number])
        mean = draw.add("ReduceMean", tensor, name=f"mean_of_{number}", axes=[0, 2, 3], keepdims=1)
        apart = draw.add("Sub", tensor, mean)
        squares = draw.add("Mul", apart, apart)
        variance = draw.add("ReduceMean", squares, name=f"variance_of_{number}", axes=[0, 2, 3], keepdims=1)
        names.extend((mean, variance))
        sd = draw.add("Sqrt", draw.add("Add", variance, draw.scalar(_EPSILON)))
        return draw.add("Div", apart, sd)

    _draw_network(draw, by_batch)
    outputs = [(name, [1, len(kernels[place // 2]), 1, 1]) for place, name in enumerate(names)]
    session = open_session(draw.finish("statistics", outputs).SerializeToString(), threads=2)
    values = [np.asarray(one, np.float32).ravel() for one in session.run(names, {"pixels": photos})]
    return _Statistics(tuple(values[::2]), tuple(values[1::2]))


def _draw_folded(kernels: Sequence[NDArray[np.float32]], statistics: _Statistics) -> bytes:
    """Return the network with fixed statistics folded into its kernels."""
    draw = GraphBuilder()

    def by_constants(tensor: str, number: int, stride: int) -> str:
        scale = 1 / np.sqrt(statistics.variances[number] + np.float32(_EPSILON))
        kernel = kernels[number] * scale[:, None, None, None]
        return _draw_conv(draw, tensor, stride, kernel, -statistics.means[number] * scale)

    _draw_network(draw, by_constants)
    grids = [INPUT_PX // int(name[1:]) for name, _, _ in _STAGES]
    shapes = [(name, ("N", out, grid, grid)) for (name, out, _), grid in zip(_STAGES, grids, strict=True)]
    return draw.finish("random-resnet18", shapes).SerializeToString()


def _draw_network(draw: GraphBuilder, layer: _Layer) -> None:
    """Draw the network from uint8 pixels to its taps, whose tensors are called by their names."""
    numbers = itertools.count()
    pixels = draw.input("pixels", TensorProto.UINT8, ["N", INPUT_PX, INPUT_PX, 3])
    floats = draw.add("Cast", draw.add("Transpose", pixels, perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = draw.add("Mul", draw.add("Sub", floats, draw.scalar(127)), draw.scalar(1 / 128))
    x = draw.add("Relu", layer(x, next(numbers), 2))
    x = draw.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for name, _, first_stride in _STAGES:
        for block in range(_BLOCKS):
            stride = first_stride if block == 0 else 1
            inner = draw.add("Relu", layer(x, next(numbers), stride))
            inner = layer(inner, next(numbers), 1)
            past = layer(x, next(numbers), stride) if stride > 1 else x
            is_tap = block == _BLOCKS - 1
            x = draw.add("Relu", draw.add("Add", inner, past), name=name if is_tap else None)


def _draw_conv(
    draw: GraphBuilder,
    tensor: str,
    stride: int,
    kernel: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
) -> str:
    """Draw a convolution that keeps the side, or halves it at stride 2."""
    constants = [draw.constant(kernel, "weight")]
    if bias is not None:
        constants.append(draw.constant(bias, "bias"))
    pad = kernel.shape[-1] // 2
    return draw.add("Conv", tensor, *constants, pads=[pad] * 4, strides=[stride, stride])

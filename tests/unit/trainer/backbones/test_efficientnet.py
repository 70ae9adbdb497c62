"""The backbone graph against the network written out in numpy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy

import numpy as np
import onnx
import pytest

from services.domain.errors import MissingPart
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.efficientnet import WEIGHTS_SHA256, build_graph, load_backbone
from services.trainer.features import FeatureExtractor
from services.vision.runtime import open_session


def random_weights(seed: int = 0) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return weights of the network's shapes: (kernel, expansion, channels) of each block."""
    rng = np.random.default_rng(seed)
    weights = {}

    def convolution(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = np.prod(shape[1:])
        weights[f"{conv}.weight"] = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        for part in ("weight", "running_var"):
            weights[f"{norm}.{part}"] = rng.uniform(0.5, 2, shape[0]).astype(np.float32)
        for part in ("bias", "running_mean"):
            weights[f"{norm}.{part}"] = rng.standard_normal(shape[0]).astype(np.float32)

    blocks = [(3, 1, 16), (3, 6, 24), (3, 6, 24), (5, 6, 40), (5, 6, 40)]
    blocks += [(3, 6, 80)] * 3 + [(5, 6, 112)] * 3
    convolution("_conv_stem", "_bn0", (32, 3, 3, 3))
    channels = 32
    for index, (kernel, expansion, out) in enumerate(blocks):
        prefix, inner = f"_blocks.{index}", channels * expansion
        if expansion > 1:
            convolution(f"{prefix}._expand_conv", f"{prefix}._bn0", (inner, channels, 1, 1))
        convolution(f"{prefix}._depthwise_conv", f"{prefix}._bn1", (inner, 1, kernel, kernel))
        convolution(f"{prefix}._project_conv", f"{prefix}._bn2", (out, inner, 1, 1))
        channels = out
    return weights


def reference_conv(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    kernel: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    stride: int,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Convolve (C, H, W) with TensorFlow's SAME padding, written out tap by tap."""
    size = kernel.shape[-1]
    total = max((-(-x.shape[1] // stride) - 1) * stride + size - x.shape[1], 0)
    padded = np.pad(x, ((0, 0), (total // 2, total - total // 2), (total // 2, total - total // 2)))
    out = -(-x.shape[1] // stride)
    is_depthwise = kernel.shape[1] == 1 and kernel.shape[0] == len(x)
    result = np.zeros((kernel.shape[0], out, out))
    for row in range(size):
        for column in range(size):
            view = padded[:, row : row + out * stride : stride, column : column + out * stride : stride]
            if is_depthwise:
                result += view * kernel[:, 0, row, column, None, None]
            else:
                result += np.tensordot(kernel[:, :, row, column], view, axes=1)
    return result


def test_graph_agrees_with_the_network_written_out() -> None:
    weights = random_weights()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3)).astype(np.uint8)

    def normed(
        x: np.ndarray[tuple[int, ...], np.dtype[np.float64]], norm: str
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        mean, variance, scale, bias = (
            weights[f"{norm}.{part}"][:, None, None].astype(np.float64)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * scale + bias

    x = (pixels[0].transpose(2, 0, 1).astype(np.float64) - 127) / 128
    x = np.clip(normed(reference_conv(x, weights["_conv_stem.weight"], 2), "_bn0"), 0, 6)
    expected = {}
    for index in range(11):
        prefix, y = f"_blocks.{index}", x
        if f"{prefix}._expand_conv.weight" in weights:
            y = reference_conv(y, weights[f"{prefix}._expand_conv.weight"], 1)
            y = np.clip(normed(y, f"{prefix}._bn0"), 0, 6)
        stride = 2 if index in {1, 3, 5} else 1
        y = reference_conv(y, weights[f"{prefix}._depthwise_conv.weight"], stride)
        y = np.clip(normed(y, f"{prefix}._bn1"), 0, 6)
        y = normed(reference_conv(y, weights[f"{prefix}._project_conv.weight"], 1), f"{prefix}._bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
        expected[index] = x

    session = open_session(build_graph(weights).SerializeToString(), threads=1)
    outputs = session.run(["f4", "f8", "f16"], {"pixels": pixels})
    for index, output in zip((2, 4, 10), outputs, strict=True):
        scale = np.abs(expected[index]).max()
        np.testing.assert_allclose(output[0] / scale, expected[index] / scale, atol=1e-4)


def test_prepared_backbone_has_its_taps_and_licence(backbone: BackboneFile, backbone_path: Path) -> None:
    taps = FeatureExtractor(backbone).taps
    assert {name: (tap.channels, tap.grid) for name, tap in taps.items()} == {
        "f4": (24, 56),
        "f8": (40, 28),
        "f16": (112, 14),
    }
    record = json.loads(backbone_path.with_suffix(".json").read_text())
    assert record["weights_sha256"] == WEIGHTS_SHA256
    assert "Apache" in record["licence_text"]
    assert backbone.identity.licence.startswith("Apache-2.0")


def test_graph_needs_no_pad_nodes(backbone: BackboneFile) -> None:
    operators = {node.op_type for node in onnx.load_model_from_string(backbone.model).graph.node}
    assert operators == {"Transpose", "Cast", "Sub", "Conv", "Clip", "Add"}


def test_absent_backbone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="loupe setup"):
        load_backbone(tmp_path / "efficientnet-lite0.onnx")


def test_changed_backbone_is_refused(backbone_path: Path, tmp_path: Path) -> None:
    path = tmp_path / backbone_path.name
    copy(backbone_path.with_suffix(".json"), tmp_path)
    path.write_bytes(backbone_path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(MissingPart, match="changed"):
        load_backbone(path)


def test_fitting_and_inspecting_import_no_torch() -> None:
    code = (
        "import sys, services.trainer.fit, services.vision.runtime; "
        "sys.exit('torch' in sys.modules or 'onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

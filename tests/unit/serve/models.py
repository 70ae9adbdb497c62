"""A tiny model for tests of serving: its score is the brightness of the picture, 0 to 10."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from services.domain.model_version import Backbone, Calibration, Manifest, TensorSpec, Variant
from services.trainer.model_folder import write_folder
from services.vision.golden import Golden, variant_golden_file
from services.vision.outputs import GraphOutputs

SIDE_PX = 16
THRESHOLD = 5.0


def picture(brightness: int, side_px: int = 40) -> bytes:
    """Return a PNG whose score is brightness / 25.5."""
    buffer = io.BytesIO()
    Image.new("RGB", (side_px, side_px), (brightness,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def graph(gain: float = 10 / 255) -> bytes:
    """Return an ONNX model: pixels (N, 16, 16, 3) uint8 -> score (N,) and map (N, 16, 16)."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "gain"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "channel"], ["map"], keepdims=0),
        helper.make_node("ReduceMean", ["map", "plane"], ["score"], keepdims=0),
    ]
    constants = [
        helper.make_tensor("gain", TensorProto.FLOAT, [1], [gain]),
        helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
        helper.make_tensor("plane", TensorProto.INT64, [2], [1, 2]),
    ]
    made = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", SIDE_PX, SIDE_PX, 3])],
        [
            helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", SIDE_PX, SIDE_PX]),
        ],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_version(
    parent: Path,
    version: str = "v1",
    *,
    project: str = "plates",
    lie: float = 0.0,
    faster_gain: float | None = None,
) -> Path:
    """Write a model folder; its golden scores are wrong by `lie`.

    With `faster_gain` a variant `int8` serves, whose scores are `faster_gain` times those that were golden.
    """
    inputs: NDArray[np.uint8] = np.stack(
        [np.full((SIDE_PX, SIDE_PX, 3), value, np.uint8) for value in (20, 120, 220)]
    )
    maps = (inputs.astype(np.float32) * np.float32(10 / 255)).mean(axis=3)
    golden = Golden(inputs, GraphOutputs(maps.mean(axis=(1, 2)) + np.float32(lie), maps))
    manifest = Manifest(
        project=project,
        version=version,
        created_at=datetime(2026, 3, 1, tzinfo=UTC),
        family="brightness",
        inputs=(TensorSpec("pixels", "uint8", (-1, SIDE_PX, SIDE_PX, 3)),),
        outputs=(
            TensorSpec("score", "float32", (-1,)),
            TensorSpec("map", "float32", (-1, SIDE_PX, SIDE_PX)),
        ),
        calibration=Calibration(THRESHOLD, 1.0, 1.0, 30, 0.02, 4.5, 5.5, 5.0, 0.0),
        backbone=Backbone("none", "0" * 64, "Apache-2.0"),
        data_digest="0" * 64,
        train_images=30,
        files={},
    )
    variants: dict[str, bytes] = {}
    if faster_gain is not None:
        fp32 = Variant("fp32", "onnxruntime", "model.onnx", "", 5.0)
        int8 = Variant("int8", "onnxruntime", "variants/int8.onnx", "", 3.0, golden="golden/int8.npz")
        manifest = replace(manifest, variants=(fp32, int8), serving="int8")
        faster = graph(10 / 255 * faster_gain)
        variants = {int8.file: faster, int8.golden: variant_golden_file(golden.outputs)}
    folder, _ = write_folder(parent, manifest, model=graph(), golden=golden, card="<p>", variants=variants)
    return folder

"""Tiny networks as ONNX files, of the many shapes that people bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16, UINT8, DOUBLE = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.UINT8,
    TensorProto.DOUBLE,
)


@dataclass(frozen=True, slots=True)
class Network:
    """Three convolutions of stride 4, 2 and 2: outputs `a` (4 channels), `b` (6), `c` (8).

    Attributes:
        extra: name of a second input, if any.
        shape: of the input, NCHW or NHWC; a string is a free axis.
        outputs: names, in order; `a_again` is twice `a`, `flat` is not a map.
        nodes: appended to the graph.
    """

    shape: Sequence[int | str] = ("N", 3, "H", "W")
    dtype: int = FLOAT
    outputs: Sequence[str] = ("a", "b", "c")
    opset: int = 17
    is_channels_last: bool = False
    name: str = "photo"
    pads: int = 1
    nodes: Sequence[onnx.NodeProto] = ()
    constants: Sequence[onnx.TensorProto] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    weight_scale: float = 1.0
    extra: str = ""

    def model(self) -> onnx.ModelProto:
        """Return it, unchecked."""
        rng = np.random.default_rng(0)
        inner = FLOAT16 if self.dtype == FLOAT16 else FLOAT
        constants = list(self.constants)
        nodes = []
        x = self.name
        if self.is_channels_last:
            nodes.append(helper.make_node("Transpose", [x], ["nchw"], perm=[0, 3, 1, 2]))
            x = "nchw"
        if self.dtype in (UINT8, DOUBLE):
            nodes.append(helper.make_node("Cast", [x], ["floats"], to=FLOAT))
            x = "floats"
        channels = 3
        for output, out, stride in (("a", 4, 4), ("b", 6, 2), ("c", 8, 2)):
            kernel = rng.standard_normal((out, channels, 3, 3)) * self.weight_scale
            constants.append(
                numpy_helper.from_array(kernel.astype(helper.tensor_dtype_to_np_dtype(inner)), f"w_{output}")
            )
            raw = f"{output}_raw" if self.is_channels_last else output
            nodes.append(
                helper.make_node(
                    "Conv", [x, f"w_{output}"], [raw], strides=[stride] * 2, pads=[self.pads] * 4
                )
            )
            if self.is_channels_last:
                nodes.append(helper.make_node("Transpose", [raw], [output], perm=[0, 2, 3, 1]))
            x, channels = raw, out
        nodes.append(helper.make_node("Add", ["a", "a"], ["a_again"]))
        nodes.append(helper.make_node("GlobalAveragePool", ["c"], ["pooled"]))
        nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
        nodes.extend(self.nodes)
        inputs = [helper.make_tensor_value_info(self.name, self.dtype, self.shape)]
        if self.extra:
            inputs.append(helper.make_tensor_value_info(self.extra, FLOAT, (1,)))
        graph = helper.make_graph(
            nodes,
            "tiny",
            inputs,
            [helper.make_tensor_value_info(one, inner, None) for one in self.outputs],
            constants,
        )
        opsets = [("", self.opset), *{(node.domain, 1) for node in self.nodes if node.domain}]
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid(*pair) for pair in opsets], ir_version=8
        )
        for key, value in self.metadata.items():
            model.metadata_props.add(key=key, value=value)
        return model

    def write(self, folder: Path, name: str = "tiny.onnx") -> Path:
        """Write it into `folder` and return the file."""
        path = folder / name
        onnx.save_model(self.model(), path)
        return path

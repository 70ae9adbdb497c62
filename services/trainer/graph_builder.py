"""A thin pen for ONNX graphs: names nodes, keeps constants, checks the result (arrow 6).

The backbone and every head draw with it, so that all of them end up in one fused graph.
Does not know what the graph computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

# Opset 17 and IR 8 are read by every ONNX Runtime since 1.12 and by Triton's backends since 22.09.
OPSET_VERSION = 17
IR_VERSION = 8


class GraphBuilder:
    """Collects nodes and constants; every method returns the name of the tensor it made."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._opsets = {"": OPSET_VERSION}

    @classmethod
    def continuing(cls, model: onnx.ModelProto) -> GraphBuilder:
        """Return a builder that already holds a finished model's nodes, constants and inputs."""
        builder = cls()
        builder._inputs.extend(model.graph.input)
        builder.include(model)
        return builder

    def include(self, model: onnx.ModelProto) -> None:
        """Append a finished model's nodes and constants; tensors of its inputs' names must exist."""
        self._nodes.extend(model.graph.node)
        self._constants.extend(model.graph.initializer)
        self._opsets |= {entry.domain: entry.version for entry in model.opset_import if entry.domain}

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare a graph input; a string in `shape` is a free axis."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, array: NDArray[Any], hint: str = "constant") -> str:
        """Keep `array` as an initializer."""
        name = f"{hint}_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def scalar(self, value: float) -> str:
        """Keep one float32 number."""
        return self.constant(np.array(value, np.float32), "scalar")

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node with one output, called `name` if given."""
        output = name or f"{op.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def top_k(self, values: str, k: int) -> str:
        """Return the `k` largest along the last axis, largest first."""
        output = f"top{k}_{len(self._nodes)}"
        indices = f"{output}_indices"
        count = self.constant(np.array([k], np.int64), "k")
        self._nodes.append(helper.make_node("TopK", [values, count], [output, indices], name=output, axis=-1))
        return output

    def finish(self, name: str, outputs: Sequence[tuple[str, Sequence[int | str]]]) -> onnx.ModelProto:
        """Return the checked model; `outputs` are (name, shape) of float32 tensors."""
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, shape) for tensor, shape in outputs],
            self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in self._opsets.items()],
            ir_version=IR_VERSION,
            producer_name="loupe",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

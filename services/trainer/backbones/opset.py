"""A network of another opset -> the opset of the graphs that are drawn here (arrow 6).

Promises nothing: `wrapping` compares the result with the network as it was.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import onnx
from onnx import TensorProto, defs, helper, inliner, numpy_helper, version_converter

from services.trainer.graph_builder import OPSET_VERSION

_ONNX_DOMAINS = ("", "ai.onnx")
_SPELT = "spelt"


def at_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model at the opset of the graphs that are drawn here.

    Older ones are converted. Newer ones get the number; operators that came later are spelt out, and
    reductions get their axes as an attribute again, the one change since 17 that networks of convolutions
    meet. Whether that was right the proof tells.
    """
    version = next((entry.version for entry in model.opset_import if entry.domain in _ONNX_DOMAINS), 0)
    if version == OPSET_VERSION:
        return model
    if version < OPSET_VERSION:
        return version_converter.convert_version(model, OPSET_VERSION)
    model = _spelt_out(model, version)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and len(node.input) == 2:
            axes = constants[node.input[1]].tolist()
            del node.input[1]
            node.attribute.append(helper.make_attribute("axes", axes))
    for entry in model.opset_import:
        if entry.domain in _ONNX_DOMAINS:
            entry.version = OPSET_VERSION
    return model


def _spelt_out(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Return the model of an opset with later operators (Gelu, Mish, ...) as what ONNX defines them by."""
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None).SerializeToString()
    for number, node in enumerate(model.graph.node):
        if node.domain not in _ONNX_DOMAINS or _is_operator(node.op_type, OPSET_VERSION):
            continue
        schema: Any = defs.get_schema(node.op_type, version, "")
        if schema.has_context_dependent_function:
            types = [floats] * len(node.input)
            body = schema.get_context_dependent_function(node.SerializeToString(), types)
            function = onnx.FunctionProto.FromString(body)
        elif schema.has_function:
            function = deepcopy(schema.function_body)
        else:
            continue
        function.name, function.domain = f"{node.op_type}_{number}", _SPELT
        del function.opset_import[:]
        function.opset_import.append(helper.make_opsetid("", version))
        node.op_type, node.domain = function.name, _SPELT
        model.functions.append(function)
    if model.functions:
        model.opset_import.append(helper.make_opsetid(_SPELT, 1))
    return inliner.inline_local_functions(model)


def _is_operator(name: str, version: int) -> bool:
    try:
        defs.get_schema(name, version, "")
    except defs.SchemaError:
        return False
    return True

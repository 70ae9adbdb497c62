"""Backbone + heads + scorer -> one fused ONNX graph (arrow 6).

From uint8 pixels to `score` (N,) and `map` (N, 28, 28), any batch size, no pre- or
post-processing left outside but decoding and the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from services.domain.model_version import TensorSpec
from services.trainer.family import GRID, Head
from services.trainer.graph_builder import GraphBuilder
from services.trainer.scorer import Scorer
from services.vision.decode import MODEL_INPUT_PX

_FREE = -1  # batch axis
INPUTS = (TensorSpec("pixels", "uint8", (_FREE, MODEL_INPUT_PX[1], MODEL_INPUT_PX[0], 3)),)
OUTPUTS = (TensorSpec("score", "float32", (_FREE,)), TensorSpec("map", "float32", (_FREE, GRID, GRID)))


def fuse(backbone: Path, heads: Sequence[Head], scorer: Scorer) -> bytes:
    """Return the serialised graph of a calibrated candidate."""
    model = onnx.load(backbone)
    taps = {output.name: output.name for output in model.graph.output}
    draw = GraphBuilder.continuing(model.graph)
    scorer.draw(draw, [head.draw(draw, taps) for head in heads])
    outputs = [(spec.name, ["N" if n == _FREE else n for n in spec.shape]) for spec in OUTPUTS]
    return draw.finish("loupe", outputs).SerializeToString()

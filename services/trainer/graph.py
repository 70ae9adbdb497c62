"""Backbone + heads + scorer -> one fused ONNX graph (arrow 6).

From uint8 pixels to `score` (N,) and `map` (N, m, m), m = input / 4, any batch size, no pre- or
post-processing left outside but decoding and the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from services.domain.model_version import TensorSpec
from services.trainer.families.protocol import MAP_STRIDE_PX, Head
from services.trainer.features import PIXELS
from services.trainer.graph_builder import GraphBuilder
from services.trainer.scorer import Scorer
from services.vision.outputs import MAP, SCORE

_FREE = -1  # batch axis


def inputs_of(input_px: int) -> tuple[TensorSpec, ...]:
    """Return the graph's input: square RGB pixels."""
    return (TensorSpec(PIXELS, "uint8", (_FREE, input_px, input_px, 3)),)


def outputs_of(input_px: int) -> tuple[TensorSpec, ...]:
    """Return the graph's outputs."""
    grid = input_px // MAP_STRIDE_PX
    return (TensorSpec(SCORE, "float32", (_FREE,)), TensorSpec(MAP, "float32", (_FREE, grid, grid)))


def fuse(backbone: Path, heads: Sequence[Head], scorer: Scorer) -> bytes:
    """Return the serialised graph of a calibrated candidate."""
    model = onnx.load(backbone)
    taps = {output.name: output.name for output in model.graph.output} | {PIXELS: PIXELS}
    draw = GraphBuilder.continuing(model.graph)
    scorer.draw(draw, [(head.draw(draw, taps), head.grid) for head in heads])
    outputs = [
        (spec.name, ["N" if n == _FREE else n for n in spec.shape]) for spec in outputs_of(scorer.input_px)
    ]
    return draw.finish("loupe", outputs).SerializeToString()

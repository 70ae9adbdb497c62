"""Backbone + heads + scorer -> one fused ONNX graph (arrow 6).

From uint8 pixels to `score` (N,) and `map` (N, m, m), m = input / 4, any batch size, no pre- or
post-processing left outside but decoding and the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.domain.model_version import TensorSpec
from services.trainer.families.protocol import MAP_STRIDE_PX, Head
from services.trainer.features import FeatureExtractor
from services.trainer.scorer import Scorer
from services.trainer.tiling import PIXELS, draw_backbone
from services.vision.outputs import MAP, SCORE

_FREE = -1  # batch axis


def inputs_of(input_px: int) -> tuple[TensorSpec, ...]:
    """Return the graph's input: square RGB pixels."""
    return (TensorSpec(PIXELS, "uint8", (_FREE, input_px, input_px, 3)),)


def outputs_of(input_px: int) -> tuple[TensorSpec, ...]:
    """Return the graph's outputs."""
    grid = input_px // MAP_STRIDE_PX
    return (TensorSpec(SCORE, "float32", (_FREE,)), TensorSpec(MAP, "float32", (_FREE, grid, grid)))


def fuse(extractor: FeatureExtractor, heads: Sequence[Head], scorer: Scorer) -> bytes:
    """Return the serialised graph of a calibrated candidate on the extractor's backbone and tiles."""
    draw, taps = draw_backbone(extractor.backbone, extractor.tiles)
    scorer.draw(draw, [(head.draw(draw, taps), head.grid) for head in heads])
    outputs = [
        (spec.name, ["N" if n == _FREE else n for n in spec.shape]) for spec in outputs_of(scorer.input_px)
    ]
    return draw.finish("loupe", outputs).SerializeToString()

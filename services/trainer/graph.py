"""Backbone + heads + scorer -> one fused ONNX graph (arrow 6).

From uint8 pixels to `score` (N,), `map` (N, m, m), m = input / 4, `embedding` (N,) and, where named types
were learnt, `types` (N, T, m, m); any batch size, no pre- or post-processing left outside but decoding,
the threshold and the map's blur.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.domain.model_version import TensorSpec
from services.trainer.embedding import Embedding
from services.trainer.families.protocol import MAP_STRIDE_PX, Head, TypeHead
from services.trainer.features import FeatureExtractor
from services.trainer.scorer import Scorer
from services.trainer.tiling import PIXELS, draw_backbone
from services.vision.outputs import EMBEDDING, MAP, SCORE, TYPES

_FREE = -1  # batch axis


def inputs_of(input_px: int) -> tuple[TensorSpec, ...]:
    """Return the graph's input: square RGB pixels."""
    return (TensorSpec(PIXELS, "uint8", (_FREE, input_px, input_px, 3)),)


def outputs_of(input_px: int, types: int = 0) -> tuple[TensorSpec, ...]:
    """Return the graph's outputs, with `types` planes of named anomaly types."""
    grid = input_px // MAP_STRIDE_PX
    named = (TensorSpec(TYPES, "float32", (_FREE, types, grid, grid)),) if types else ()
    return (
        TensorSpec(SCORE, "float32", (_FREE,)),
        TensorSpec(MAP, "float32", (_FREE, grid, grid)),
        *named,
        TensorSpec(EMBEDDING, "float32", (_FREE,)),
    )


def fuse(
    extractor: FeatureExtractor,
    heads: Sequence[Head],
    scorer: Scorer,
    embedding: Embedding,
    type_head: TypeHead | None = None,
) -> bytes:
    """Return the serialised graph of calibrated heads on the extractor's backbone and tiles."""
    draw, taps = draw_backbone(extractor.backbone, extractor.tiles)
    scorer.draw(draw, [(head.draw(draw, taps), head.grid) for head in heads])
    embedding.draw(draw, taps)
    if type_head is not None:
        draw.add("Identity", type_head.draw(draw, taps), name=TYPES)
    specs = outputs_of(scorer.input_px, 0 if type_head is None else len(type_head.types))
    outputs = [(spec.name, ["N" if n == _FREE else n for n in spec.shape]) for spec in specs]
    return draw.finish("loupe", outputs).SerializeToString()

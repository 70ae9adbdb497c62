"""A feature extractor as every part of the trainer sees it, wherever it came from (arrow 6)."""

from __future__ import annotations

from dataclasses import dataclass

from services.domain.model_version import Backbone


@dataclass(frozen=True, slots=True)
class BackboneFile:
    """A backbone that can be fused with heads.

    Attributes:
        model: serialised ONNX; input `pixels` uint8 (N, S, S, 3) RGB with S = `input_px`, outputs
            float32 (N, C, g, g) named `f<stride>` with g = S / stride, sizes but N fixed.
        identity: name, SHA-256 and licence; goes into every manifest.
        input_px: side of the input, a multiple of 16.
        warnings: plain sentences for the manifest.
        seed: of the one with random weights, whose statistics are still to be taken from photos
            (`services.trainer.backbones.opening.calibrated`); None for all others.
    """

    model: bytes
    identity: Backbone
    input_px: int = 224
    warnings: tuple[str, ...] = ()
    seed: int | None = None

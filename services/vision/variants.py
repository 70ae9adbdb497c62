"""Which graphs of a model folder there are to serve, and in which order to try them (arrows 2, 6)."""

from __future__ import annotations

from services.domain.model_version import Manifest, Variant

FP32 = "fp32"
ONNX_RUNTIME = "onnxruntime"
MODEL_FILE = "model.onnx"


def fp32_of(manifest: Manifest) -> Variant:
    """Return the fp32 graph; folders of the first release have it without saying so."""
    plain = Variant(FP32, ONNX_RUNTIME, MODEL_FILE, "", manifest.metrics.get("ms", 0.0))
    return next((one for one in manifest.variants if one.name == FP32), plain)


def to_serve(manifest: Manifest) -> tuple[Variant, ...]:
    """Return the variant that serves and, unless it is fp32 itself, fp32 to fall back to.

    A faster variant computes in fewer bits and may give other numbers on another processor; fp32
    may not.
    """
    fp32 = fp32_of(manifest)
    chosen = (one for one in manifest.variants if one.name == manifest.serving and one.name != FP32)
    return (*chosen, fp32)

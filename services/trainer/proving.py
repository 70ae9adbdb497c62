"""Whether a fitted version computes its golden outputs where it would serve (arrow 6).

In a tritonserver of its own, where one is installed; else with ONNX Runtime in this process, and the
sentence says so. As in serving, a faster precision that proves wrong here leaves the version in fp32.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from services.adapters.triton import ModelServer
from services.adapters.triton.repository import write_model
from services.domain.errors import CorruptModel, LoupeError, MissingPart, ModelUnavailable
from services.domain.model_version import Manifest, Variant
from services.trainer.scratch_triton import ScratchTriton, TritonParts
from services.vision.golden import check_golden, read_golden
from services.vision.outputs import GraphOutputs
from services.vision.runtime import OnnxModel
from services.vision.variants import to_serve

logger = logging.getLogger(__name__)

# Judging the golden images takes well under a second; a machine that is busy with a fit gets this long.
_INFER_TIMEOUT_S = 30.0
_MODEL = "candidate"
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a version may be trusted to compute what it computed when it was trained.

    Attributes:
        sentence: by what that was found; where it failed, why.
    """

    is_proved: bool
    sentence: str


class Prover(Protocol):
    """Proves model folders."""

    def prove(self, folder: Path, manifest: Manifest) -> Proof:
        """Compare with the golden outputs; blocks for some seconds, never raises for a bad model."""
        ...


class InProcessProver:
    """Proves with ONNX Runtime in this process."""

    def __init__(self, why: str) -> None:
        """`why` says why not in tritonserver, as a clause."""
        self._why = why

    def prove(self, folder: Path, manifest: Manifest) -> Proof:
        """See `Prover.prove`."""
        try:
            model = OnnxModel(folder, threads=_THREADS)
        except LoupeError as error:
            return Proof(False, error.message)
        where = f"ONNX Runtime in the trainer's process; {self._why}"
        return Proof(True, _sentence(manifest, model.variant, where))


class ScratchProver:
    """Proves in a tritonserver that is started for this, on loopback, and ended after it."""

    def __init__(self, parts: TritonParts) -> None:
        """Start servers from `parts`."""
        self._parts = parts

    def prove(self, folder: Path, manifest: Manifest) -> Proof:
        """See `Prover.prove`."""
        try:
            with ScratchTriton(self._parts) as scratch:
                return self._proved_by(scratch.server, scratch.repository, folder, manifest)
        except (MissingPart, ModelUnavailable) as error:
            logger.warning("no scratch tritonserver: %s", error.message)
            return InProcessProver(error.message).prove(folder, manifest)

    def _proved_by(self, server: ModelServer, repository: Path, folder: Path, manifest: Manifest) -> Proof:
        problem = ""
        for variant in to_serve(manifest):
            try:
                server.unload(_MODEL)
                write_model(repository / _MODEL, folder, manifest, variant, _THREADS)
                server.load(_MODEL)
                golden = read_golden(folder, variant)
                found = _infer(server, manifest, golden.inputs)
                check_golden(found, golden.outputs, variant, manifest.version)
            except (CorruptModel, ModelUnavailable) as error:
                problem = error.message
            else:
                return Proof(True, _sentence(manifest, variant, "a tritonserver of its own."))
        return Proof(False, problem)


def prover_of(parts: TritonParts | None) -> Prover:
    """Return a prover by tritonserver where one is installed, else one in this process."""
    if parts is None:
        return InProcessProver("no tritonserver is installed here.")
    return ScratchProver(parts)


def _infer(server: ModelServer, manifest: Manifest, inputs: NDArray[np.uint8]) -> GraphOutputs:
    names = [spec.name for spec in manifest.outputs]
    values = server.infer(
        _MODEL, input_name=manifest.inputs[0].name, batch=inputs, outputs=names, timeout_s=_INFER_TIMEOUT_S
    )
    return GraphOutputs.of(dict(zip(names, values, strict=True)))


def _sentence(manifest: Manifest, variant: Variant, where: str) -> str:
    chosen = to_serve(manifest)[0]
    wrong = "" if variant == chosen else f", not in {chosen.name}"
    return f"Its golden outputs come out in {variant.name}{wrong}, by {where}"

"""A model folder run in this process with ONNX Runtime, for `loupe inspect` without a stack.

Verifies the folder against its manifest and the graph by its golden photos first. Serving does the
same through Triton; both give the same numbers. ONNX Runtime is imported when a model is opened, not
before.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import CorruptModel
from services.domain.model_version import Manifest, Variant
from services.vision.golden import check_golden, read_golden
from services.vision.outputs import GraphOutputs
from services.vision.variants import MODEL_FILE, to_serve
from services.wire.manifest import decode_manifest

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"


def verify_folder(folder: Path) -> Manifest:
    """Return the folder's manifest after checking that every file has the hash it names.

    Raises:
        CorruptModel: a file is missing or differs, or the manifest cannot be read.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        message = f"{folder} is not a model folder: it has no {MANIFEST_FILE}."
        raise CorruptModel(message, folder=str(folder))
    manifest = decode_manifest(path.read_bytes())
    named = [file for one in manifest.variants for file in (one.file, one.golden) if file]
    for name, sha256 in {MODEL_FILE: "", **dict.fromkeys(named, ""), **manifest.files}.items():
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
            message = f"The model file {file} is missing or was changed since it was trained."
            raise CorruptModel(message, folder=str(folder), file=name)
    return manifest


def open_session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Return an ONNX Runtime session on the CPU with `threads` threads."""
    import onnxruntime  # 0.2 s and 50 MB: only where a model is really run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class GraphSession:
    """A fused graph in this process, from pixels to what it says of them."""

    def __init__(self, model: Path | bytes, *, threads: int = 1) -> None:
        """Load an ONNX file or its bytes."""
        self._session = open_session(model, threads)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [one.name for one in self._session.get_outputs()]

    def infer(self, batch: NDArray[np.uint8]) -> GraphOutputs:
        """Run the graph on (N, H, W, 3) uint8 RGB, as `decode` gives; several threads may call at once."""
        values = self._session.run(self._outputs, {self._input: batch})
        return GraphOutputs.of(dict(zip(self._outputs, values, strict=True)))


class OnnxModel:
    """One verified model version in this process.

    Attributes:
        manifest: of the folder.
        variant: the precision that runs.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Verify and load the model in `folder`: what serves, or fp32 where that proves wrong here.

        Raises:
            CorruptModel: see `verify_folder`; or the graph cannot be loaded, or computes other numbers
                than when it was trained.
        """
        self.manifest = verify_folder(folder)
        variants = to_serve(self.manifest)
        for variant in variants[:-1]:
            try:
                self._session, self.variant = _open_proved(folder, variant, threads), variant
            except CorruptModel as error:
                logger.warning("fp32 serves instead: %s", error.message)
            else:
                return
        self._session, self.variant = _open_proved(folder, variants[-1], threads), variants[-1]

    def infer(self, batch: NDArray[np.uint8]) -> GraphOutputs:
        """Return what the model says of (N, H, W, 3) pixels; see `GraphSession`."""
        return self._session.infer(batch)


def _open_proved(folder: Path, variant: Variant, threads: int) -> GraphSession:
    """Load a graph and prove it by the golden photos.

    Raises:
        CorruptModel: it cannot be loaded, or computes other numbers.
    """
    try:
        session = GraphSession(folder / variant.file, threads=threads)
    except Exception as error:
        message = f"ONNX Runtime cannot load {folder / variant.file}: {error}."
        raise CorruptModel(message, folder=str(folder)) from error
    golden = read_golden(folder, variant)
    check_golden(session.infer(golden.inputs), golden.outputs, variant, str(folder))
    return session

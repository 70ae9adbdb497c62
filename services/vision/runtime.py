"""A model folder run in this process with ONNX Runtime, for `loupe inspect` without a stack.

Verifies the folder against its manifest first. Serving does the same through Triton; both give
the same numbers. ONNX Runtime is imported when a model is opened, not before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import CorruptModel
from services.domain.model_version import Manifest
from services.wire.manifest import decode_manifest

if TYPE_CHECKING:
    import onnxruntime

MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"


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
    for name, sha256 in {MODEL_FILE: "", **manifest.files}.items():
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
    """A fused graph in this process, from pixels to scores and maps."""

    def __init__(self, model: Path | bytes, *, threads: int = 1) -> None:
        """Load an ONNX file or its bytes."""
        self._session = open_session(model, threads)

    def infer(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the graph; may be called from several threads at once.

        Args:
            batch: (N, 224, 224, 3) uint8 RGB, as `decode` gives.

        Returns:
            scores (N,) float32, higher is more anomalous, and maps (N, h, w) float32.
        """
        scores, maps = self._session.run(["score", "map"], {"pixels": batch})
        return np.asarray(scores, np.float32), np.asarray(maps, np.float32)


class OnnxModel:
    """One verified model version in this process.

    Attributes:
        manifest: of the folder.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Verify and load the model in `folder`.

        Raises:
            CorruptModel: see `verify_folder`; or ONNX Runtime cannot load the graph.
        """
        self.manifest = verify_folder(folder)
        try:
            self._session = GraphSession(folder / MODEL_FILE, threads=threads)
        except Exception as error:
            message = f"ONNX Runtime cannot load {folder / MODEL_FILE}: {error}."
            raise CorruptModel(message, folder=str(folder)) from error

    def infer(self, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return scores (N,) and maps (N, h, w) of (N, 224, 224, 3) pixels; see `GraphSession`."""
        return self._session.infer(batch)

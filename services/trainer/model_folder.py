"""A model version as a folder: written whole or not at all (arrow 6).

`model.onnx`, `golden/{inputs,scores,maps}.npy`, `card.html`, and `manifest.json` with the SHA-256
of all of them. The golden photos let a server prove that it computes the same numbers.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, CorruptModel
from services.domain.model_version import Manifest
from services.vision.runtime import MANIFEST_FILE, MODEL_FILE
from services.wire.manifest import encode_manifest

CARD_FILE = "card.html"
GOLDEN_INPUTS = "golden/inputs.npy"
GOLDEN_SCORES = "golden/scores.npy"
GOLDEN_MAPS = "golden/maps.npy"


@dataclass(frozen=True, slots=True)
class Golden:
    """A few photos and what the graph says of them.

    Attributes:
        inputs: (G, 224, 224, 3) uint8 RGB.
        scores: (G,) float32.
        maps: (G, h, w) float32.
    """

    inputs: NDArray[np.uint8]
    scores: NDArray[np.float32]
    maps: NDArray[np.float32]


def write_folder(
    parent: Path, manifest: Manifest, *, model: bytes, golden: Golden, card: str
) -> tuple[Path, Manifest]:
    """Write `<parent>/<version>` and return it with the manifest, completed with hashes and size.

    The folder appears by one rename, so a reader sees all of it or nothing.

    Raises:
        BadRequest: that version exists; versions never change.
    """
    folder = parent / manifest.version
    contents = {
        MODEL_FILE: model,
        GOLDEN_INPUTS: _npy(golden.inputs),
        GOLDEN_SCORES: _npy(golden.scores),
        GOLDEN_MAPS: _npy(golden.maps),
        CARD_FILE: card.encode(),
    }
    complete = replace(
        manifest,
        files={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        metrics={**manifest.metrics, "file_bytes": float(len(model))},
    )
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{manifest.version}.", dir=parent))
    try:
        _write_all(temporary, {**contents, MANIFEST_FILE: encode_manifest(complete)})
        temporary.chmod(0o755)  # mkdtemp keeps others out; servers run as other users
        temporary.rename(folder)
    except FileExistsError as error:
        raise version_exists(folder) from error
    except OSError as error:
        if folder.exists():
            raise version_exists(folder) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(temporary)
    return folder, complete


def read_golden(folder: Path) -> Golden:
    """Return the golden photos of a model folder.

    Raises:
        CorruptModel: they are missing or are not plain arrays.
    """
    try:
        arrays = [
            np.load(folder / name, allow_pickle=False) for name in (GOLDEN_INPUTS, GOLDEN_SCORES, GOLDEN_MAPS)
        ]
    except (OSError, ValueError) as error:
        message = f"The golden images in {folder} cannot be read: {error}."
        raise CorruptModel(message, folder=str(folder)) from error
    return Golden(*arrays)


def version_exists(folder: Path) -> BadRequest:
    """Return the error that says so."""
    message = f"{folder} exists already; a model version never changes. Choose another version."
    return BadRequest(message, folder=str(folder))


def _write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


def _npy(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

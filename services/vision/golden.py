"""Golden photos: whether a graph computes the numbers that it computed when it was trained (arrows 2, 6).

They lie in the model folder: fp32's photos and outputs as `golden/{inputs,scores,maps,types,embeddings}.npy`,
a faster variant's outputs in a file of its own. The same comparison before a version is promoted, whenever a
replica loads one, and without a stack. Runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import CorruptModel
from services.domain.model_version import Variant
from services.vision.outputs import EMBEDDING, MAP, SCORE, TYPES, GraphOutputs
from services.vision.variants import FP32

GOLDEN_INPUTS = "golden/inputs.npy"
_FILES = {
    SCORE: "golden/scores.npy",
    MAP: "golden/maps.npy",
    TYPES: "golden/types.npy",
    EMBEDDING: "golden/embeddings.npy",
}
# What one number may differ by, relative above 1 and absolute below. fp32 only sums in another order on
# another machine; scores are of the order of 1 to 50.
_FP32_TOLERANCES = {SCORE: 1e-3, MAP: 1e-2, TYPES: 1e-2, EMBEDDING: 1e-2}
# A step of eight bits is 1/256 of a layer's range, and another processor may round differently: with the same
# int8 graph in emulated instead of integer arithmetic, scores of 40 cookies moved by .011 at most, cells of
# their maps by .17, embeddings by .008.
_REDUCED_TOLERANCES = {SCORE: 5e-2, MAP: 0.3, TYPES: 0.1, EMBEDDING: 5e-2}


@dataclass(frozen=True, slots=True)
class Golden:
    """Photos and what the graph says of them.

    Attributes:
        inputs: (G, H, W, 3) uint8 RGB, G >= 1.
        outputs: of the G photos.
    """

    inputs: NDArray[np.uint8]
    outputs: GraphOutputs


def golden_files(golden: Golden) -> Mapping[str, bytes]:
    """Return the files of a folder's golden photos, by their places in it."""
    outputs = {_FILES[name]: _npy(value) for name, value in golden.outputs.by_name.items()}
    return {GOLDEN_INPUTS: _npy(golden.inputs), **outputs}


def variant_golden_file(outputs: GraphOutputs) -> bytes:
    """Return what a variant says of the golden photos as one `.npz` file."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(outputs.by_name))
    return buffer.getvalue()


def read_golden(folder: Path, variant: Variant | None = None) -> Golden:
    """Return the golden photos of a model folder, with the outputs of `variant` (None: fp32).

    Raises:
        CorruptModel: they are missing, are no plain arrays, or do not belong together.
    """
    try:
        inputs = np.load(folder / GOLDEN_INPUTS, allow_pickle=False)
        outputs = GraphOutputs.of(_arrays(folder, "" if variant is None else variant.golden))
    except (OSError, ValueError, KeyError) as error:
        message = f"The golden images in {folder} cannot be read: {error}."
        raise CorruptModel(message, folder=str(folder)) from error
    if not len(inputs) or any(len(value) != len(inputs) for value in outputs.by_name.values()):
        message = f"The golden images in {folder} prove nothing: there are none, or some have no outputs."
        raise CorruptModel(message, folder=str(folder))
    return Golden(inputs, outputs)


def check_golden(found: GraphOutputs, wanted: GraphOutputs, variant: Variant, what: str) -> None:
    """Prove a graph by what it says of golden photos.

    Args:
        found: what it says now.
        wanted: what it said when it was trained; outputs that were not kept then are not compared.
        variant: says how exact it has to be.
        what: names the model in the error.

    Raises:
        CorruptModel: it computes other numbers.
    """
    tolerances = _FP32_TOLERANCES if variant.name == FP32 else _REDUCED_TOLERANCES
    named = found.by_name
    for name, expected in wanted.by_name.items():
        if name not in named or not _agree(named[name], expected, tolerances[name]):
            message = (
                f"{what} in {variant.name} computes other numbers than when it was trained: scores "
                f"{np.round(found.scores, 4).tolist()} instead of {np.round(wanted.scores, 4).tolist()}; "
                f"the output {name} differs."
            )
            raise CorruptModel(message, variant=variant.name, output=name)


def _agree(found: NDArray[np.float32], wanted: NDArray[np.float32], tolerance: float) -> bool:
    """Tell whether all numbers agree, relative above 1 and absolute below; NaN never does."""
    if found.shape != wanted.shape:
        return False
    return bool(np.all(np.abs(found - wanted) <= tolerance * np.maximum(np.abs(wanted), 1)))


def _arrays(folder: Path, file: str) -> dict[str, NDArray[Any]]:
    """Return golden outputs by name; `file` is a variant's own, empty for those of fp32."""
    if file:
        with np.load(folder / file, allow_pickle=False) as stored:
            return dict(stored)
    kept = {name: folder / place for name, place in _FILES.items() if (folder / place).is_file()}
    return {name: np.load(path, allow_pickle=False) for name, path in kept.items()}


def _npy(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()

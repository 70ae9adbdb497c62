"""A feature extractor of the user's own: any ONNX network with feature maps among its outputs (arrow 6).

Reads the file and what is said of it, in its metadata or in a JSON file beside it: `{"name", "licence",
"mean", "std"}`, mean and standard deviation of pixels on the scale 0-255, one number or one per channel.
`wrapping` makes it a backbone. Everything that can be wrong with the file is one sentence.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_model, uses_external_data

from services.domain.errors import BadRequest
from services.domain.model_version import Backbone
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.wrapping import Scale, wrapped

UNKNOWN_LICENCE = "unknown"
# Pixels 0-255 to -1 to 1, what most networks for photos are trained on.
_DEFAULT_SCALE = Scale((127.5,) * 3, (127.5,) * 3)
# A protobuf message, so a fused graph, cannot be larger.
_MAX_BYTES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Notes:
    """What is said of a network."""

    name: str
    licence: str
    scale: Scale


def read_onnx_file(path: Path, licence: str = "") -> BackboneFile:
    """Return the network in a file as a backbone.

    Args:
        path: ONNX file with one picture as input: NCHW or NHWC, float or uint8, batch and size fixed or free
            (then 224); of its outputs those count that are maps of stride 4, 8, 16 or 32.
        licence: of the weights; goes before what the file says.

    Raises:
        BadRequest: it cannot be read, or is no network that can be used.
        CorruptModel: its features are not finite.
    """
    model, sha256 = _read(path)
    notes = _notes(path, model, sha256)
    network, side_px = wrapped(model, notes.scale, path.name)
    identity = Backbone(notes.name, sha256, licence or notes.licence or UNKNOWN_LICENCE)
    warnings: tuple[str, ...] = ()
    if identity.licence == UNKNOWN_LICENCE:
        warnings = (
            f"Nobody says under which licence the weights of the backbone {path.name} may be used; name it "
            "with --backbone-licence.",
        )
    return BackboneFile(network, identity, side_px, warnings)


def _read(path: Path) -> tuple[onnx.ModelProto, str]:
    """Return the model with all of its weights, and the SHA-256 of its bytes, other files' included."""
    if not path.is_file():
        message = f"The backbone {path} is not a file; give an ONNX file, or `random`."
        raise BadRequest(message, path=str(path))
    data = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        model.Clear()
    if not model.graph.node or not model.ir_version:
        message = f"The backbone {path} is not an ONNX file."
        raise BadRequest(message, path=str(path))
    digest = hashlib.sha256(data)
    outside = _outside_files(model)
    for name in outside:
        if not (path.parent / name).is_file():
            message = f"The backbone {path} keeps weights in a file {name} beside it, which is missing."
            raise BadRequest(message, path=str(path), missing=name)
    try:
        load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        message = f"The weights of the backbone {path} cannot be read: {_first_line(error)}"
        raise BadRequest(message, path=str(path)) from error
    for name in outside:
        digest.update((path.parent / name).read_bytes())
    if model.ByteSize() > _MAX_BYTES:
        message = f"The backbone {path} has {model.ByteSize() / 2**30:.1f} GiB; at most 2 GiB can be used."
        raise BadRequest(message, path=str(path), size_bytes=model.ByteSize())
    return model, digest.hexdigest()


def _outside_files(model: onnx.ModelProto) -> list[str]:
    """Return the names of the files that hold weights, in alphabetical order."""
    weights = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
    return sorted({ExternalDataInfo(tensor).location for tensor in weights})


def _notes(path: Path, model: onnx.ModelProto, sha256: str) -> _Notes:
    """Return what the file beside the model says, and what it leaves open as the metadata say it."""
    said: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props}
    beside = path.with_suffix(".json")
    if beside.is_file():
        said |= _read_json(beside)
    if said.get("sha256", sha256) != sha256:
        message = f"The backbone {path} was changed since {beside.name} was written for it."
        raise BadRequest(message, path=str(path), sha256=sha256)
    mean, std = (
        _per_channel(said[key], key, path) if key in said else default
        for key, default in (("mean", _DEFAULT_SCALE.mean), ("std", _DEFAULT_SCALE.std))
    )
    if min(std) <= 0:
        message = f"The standard deviation of the backbone {path} has to be more than 0."
        raise BadRequest(message, path=str(path))
    licence = str(said.get("licence") or said.get("license") or "")
    return _Notes(str(said.get("name") or path.stem), licence, Scale(mean, std))


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        message = f"{path}, which describes the backbone, is not JSON."
        raise BadRequest(message, path=str(path)) from error
    if not isinstance(said, dict):
        message = (
            f"{path}, which describes the backbone, has to hold an object with name, licence, mean and std."
        )
        raise BadRequest(message, path=str(path))
    return said


def _per_channel(value: Any, key: str, path: Path) -> tuple[float, float, float]:
    """Return three numbers of one or three, given as numbers or, in metadata, as text."""
    try:
        texts = re.findall(r"[^\s,\[\]]+", value) if isinstance(value, str) else value
        numbers = [float(one) for one in (texts if isinstance(texts, list) else [texts])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(abs(one) < 1e6 for one in numbers):
        message = f"The {key} of the backbone {path} has to be one number or three, on the scale 0-255."
        raise BadRequest(message, path=str(path), key=key)
    return numbers[0], numbers[1], numbers[2]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

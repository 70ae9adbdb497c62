"""Manifest of a model folder <-> JSON bytes (arrow 6).

JSON rather than protobuf, so that a person can read what stands beside the model. Does not touch
files; `services.vision.runtime` verifies a folder's hashes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from services.domain.errors import CorruptModel
from services.domain.model_version import (
    AnomalyType,
    Backbone,
    Calibration,
    CandidateReport,
    Manifest,
    Quantiles,
    Task,
    TensorSpec,
    Variant,
)

FORMAT_VERSION = 1
T = TypeVar("T")
_READ: Mapping[str, Callable[[Any], object]] = {"str": str, "int": int, "float": float, "bool": bool}


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON with sorted keys: equal manifests, equal bytes."""
    document = asdict(manifest)
    document["created_at"] = manifest.created_at.astimezone(UTC).isoformat()
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def decode_manifest(data: bytes) -> Manifest:
    """Read what `encode_manifest` wrote; unknown keys of later writers are ignored.

    Raises:
        CorruptModel: not a manifest, or of a format this release does not know.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        if document["format_version"] != FORMAT_VERSION:
            message = (
                f"The manifest has format {document['format_version']}; this release reads {FORMAT_VERSION}."
            )
            raise CorruptModel(message, format_version=document["format_version"])
        return _manifest(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"The manifest cannot be read: {type(error).__name__} {error}."
        raise CorruptModel(message) from error


def _manifest(document: dict[str, Any]) -> Manifest:
    return Manifest(
        project=str(document["project"]),
        version=str(document["version"]),
        created_at=datetime.fromisoformat(document["created_at"]),
        family=str(document["family"]),
        inputs=tuple(_tensor(one) for one in document["inputs"]),
        outputs=tuple(_tensor(one) for one in document["outputs"]),
        calibration=_plain(Calibration, document["calibration"]),
        backbone=_plain(Backbone, document["backbone"]),
        data_digest=str(document["data_digest"]),
        train_images=int(document["train_images"]),
        files={str(path): str(sha256) for path, sha256 in document["files"].items()},
        task=Task(document["task"]),
        metrics={str(name): float(value) for name, value in document["metrics"].items()},
        warnings=tuple(str(one) for one in document["warnings"]),
        seed=int(document["seed"]),
        **_later_fields(document),
    )


def _later_fields(document: dict[str, Any]) -> dict[str, Any]:
    """Return what manifests of the first release do not have, with its defaults."""
    intervals = {str(name): (float(low), float(high)) for name, (low, high) in _of(document, "intervals")}
    reference = {str(name): _plain(Quantiles, one) for name, one in _of(document, "reference")}
    return {
        "intervals": intervals,
        "types": tuple(_plain(AnomalyType, one) for one in document.get("types", ())),
        "variants": tuple(_plain(Variant, one) for one in document.get("variants", ())),
        "serving": str(document.get("serving", "fp32")),
        "candidates": tuple(_plain(CandidateReport, one) for one in document.get("candidates", ())),
        "tiles": int(document.get("tiles", 1)),
        "reference": reference,
        "parent": str(document.get("parent", "")),
    }


def _of(document: dict[str, Any], key: str) -> list[tuple[str, Any]]:
    return list(document.get(key, {}).items())


def _plain(kind: type[T], document: dict[str, Any]) -> T:
    """Return a dataclass of words and numbers only; keys that it does not have are ignored."""
    # Annotations are strings where they are postponed, as in every module of ours.
    return kind(**{one.name: _READ[str(one.type)](document[one.name]) for one in fields(kind)})  # type: ignore[arg-type]  # a dataclass


def _tensor(document: dict[str, Any]) -> TensorSpec:
    shape = tuple(int(length) for length in document["shape"])
    return TensorSpec(str(document["name"]), str(document["dtype"]), shape)

"""JSON-lines manifests of labelled images, as SageMaker and Lookout for Vision write them (arrow 5).

One line is one image: `source-ref`, a label attribute, and optionally a mask attribute whose colour map says
which colour is which anomaly type. Opens no image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from services.domain.errors import BadRequest, Rejected
from services.domain.label import Verdict
from services.trainer.labelling import MaskFile, Statement
from services.vision.masks import checked_colour
from services.wire.headers import read_time

_CLASSIFICATION = "groundtruth/image-classification"
_SEGMENTATION = "groundtruth/semantic-segmentation"
_METADATA = "-metadata"
_BACKGROUND = "background"


def read_manifest(path: Path) -> Iterator[tuple[str, Statement | Rejected]]:
    """Yield (name of the line, what it says or why it says nothing), in order; reads line by line.

    Raises:
        BadRequest: the file cannot be read, or is no text.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _statement_of(line, f"line {number}", path.parent)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", file=str(path)) from error
    except UnicodeDecodeError as error:
        message = f"{path} is not text, so it is no manifest; give that, or a folder with photos."
        raise BadRequest(message, file=str(path)) from error


def _statement_of(line: str, name: str, folder: Path) -> tuple[str, Statement | Rejected]:
    try:
        content = json.loads(line)
        if not isinstance(content, dict) or not isinstance(content.get("source-ref"), str):
            raise BadRequest("It is not an object with a source-ref.")
        name = f"{name}, {content['source-ref']}"
        verdict, said_at = _verdict_of(content)
        masks = _masks_of(content, folder) if verdict is Verdict.ANOMALY else ()
        return name, Statement(_place(content["source-ref"], folder), verdict, (), masks, said_at)
    except json.JSONDecodeError as error:
        return name, BadRequest(f"It is not JSON: {error}.")
    except Rejected as error:
        return name, error


def _verdict_of(content: dict[str, Any]) -> tuple[Verdict, datetime | None]:
    """Return what `class-name` says; the label's number is ignored, as those services do."""
    metadata = _attribute_of(content, _CLASSIFICATION)
    if metadata is None:
        raise BadRequest(f"No attribute has metadata of the type {_CLASSIFICATION}.")
    name = metadata[1].get("class-name")
    if name not in set(Verdict):
        raise BadRequest(f"Its class-name is {str(name)[:80]!r}, not normal or anomaly, so it is unlabelled.")
    when = metadata[1].get("creation-date")
    return Verdict(name), read_time(when) if isinstance(when, str) else None


def _masks_of(content: dict[str, Any], folder: Path) -> tuple[MaskFile, ...]:
    found = _attribute_of(content, _SEGMENTATION)
    if found is None:
        return ()
    attribute, metadata = found
    where, colours = content.get(attribute), metadata.get("internal-color-map")
    if not isinstance(where, str) or not isinstance(colours, dict):
        raise BadRequest(f"{attribute} needs the address of a mask and an internal-color-map.")
    place = _place(where, folder)
    return tuple(
        MaskFile(name, place, colour)
        for name, colour in map(_named_colour, colours.values())
        if name.lower() != _BACKGROUND
    )


def _named_colour(entry: Any) -> tuple[str, str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("class-name"), str):
        raise BadRequest("Each entry of the internal-color-map needs a class-name and a hex-color.")
    return entry["class-name"], checked_colour(str(entry.get("hex-color")))


def _attribute_of(content: dict[str, Any], kind: str) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the metadata of the attribute of a kind; its name may be any."""
    for key, value in content.items():
        if key.endswith(_METADATA) and isinstance(value, dict) and value.get("type") == kind:
            return key.removesuffix(_METADATA), value
    return None


def _place(where: str, folder: Path) -> str:
    return where if where.startswith("s3://") else str(folder / where)

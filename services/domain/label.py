"""A label: what a person (or another system) says of an image (arrow 5).

A label is any of verdict, classes, boxes and masks, so that projects of other tasks than anomaly
detection use the same type.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from services.domain.frame import FRAME_NAMESPACE, ImageReference


class Verdict(StrEnum):
    """What a person says of the whole image."""

    NORMAL = "normal"
    ANOMALY = "anomaly"


class Split(StrEnum):
    """What an image is for."""

    TRAIN = "train"
    TEST = "test"


class Origin(StrEnum):
    """Where a label comes from; what reviewers said of a model's verdicts is replayed before promotion."""

    LABEL = "label"
    REVIEW = "review"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with a class; shares of the image's width and height (0-1)."""

    left_ratio: float
    top_ratio: float
    width_ratio: float
    height_ratio: float
    name: str


@dataclass(frozen=True, slots=True)
class Mask:
    """Pixels of one class, a PNG in the object store."""

    name: str
    image: ImageReference


@dataclass(frozen=True, slots=True)
class Label:
    """One statement about one image.

    Attributes:
        entry_id: dataset entry; see `entry_id_of`. A later label of the same entry replaces it.
        image: pixels the label speaks of; None when only `frame_id` is known.
        frame_id: the frame it was, if it came from a camera.
        author: who said so.
        split: None: as a fit splits.
    """

    entry_id: UUID
    project: str
    labelled_at: datetime
    image: ImageReference | None = None
    frame_id: UUID | None = None
    verdict: Verdict | None = None
    classes: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    masks: tuple[Mask, ...] = ()
    author: str = ""
    split: Split | None = None
    origin: Origin = Origin.LABEL


def entry_id_of(project: str, *, frame_id: UUID | None, sha256: str | None) -> UUID:
    """Return the id of the dataset entry a label belongs to: by frame if known, else by pixels.

    Raises:
        ValueError: neither is given.
    """
    if frame_id is None and not sha256:
        raise ValueError("a label needs a frame id or the SHA-256 of its image")
    what = f"frame\x1f{frame_id}" if frame_id is not None else f"image\x1f{sha256}"
    return uuid5(FRAME_NAMESPACE, f"entry\x1f{project}\x1f{what}")

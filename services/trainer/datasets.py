"""What people said of images, as dataset entries (arrow 5).

Pixels are verified by hash and copied under their SHA-256 into a bucket of their own, so that the
retention of frames cannot take them away from a later training. A later label of an entry replaces
an earlier one, in whatever order they arrive. Does not read Kafka, and does not say what a training
takes of it (`dataset_versions`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any
from uuid import UUID

from PIL import Image, ImageChops
from sqlalchemy import Connection, Engine, Row, Select, func, select, update

from services.adapters.clock import Clock, SystemClock
from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import dataset_entries, inspections, quarantine
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore, image_reference
from services.domain.errors import BadRequest, ImageTooLarge, Rejected
from services.domain.frame import ImageReference
from services.domain.label import Box, Label, Mask, Origin, Split, Verdict
from services.domain.project import checked_project_name
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.trainer.registry import ensure_project
from services.vision.decode import Decoded, decode
from services.vision.masks import read_mask


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """An image that somebody labelled, with pixels of our own.

    Attributes:
        verdict: None when the label only names classes, boxes or masks.
        pixels_sha256: of the decoded picture, see `pixels_digest`; None where it cannot be decoded.
        types: anomaly types that were named, with or without a mask.
        masks: black-and-white PNGs of the picture's size, one per type at most.
        split: None: as a fit splits.
    """

    entry_id: UUID
    image: ImageReference
    verdict: Verdict | None
    labelled_at: datetime
    pixels_sha256: str | None = None
    types: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    boxes: tuple[Box, ...] = ()
    split: Split | None = None
    origin: Origin = Origin.LABEL

    @property
    def truth(self) -> Verdict | None:
        """What people say of the picture: what they named or drew is an anomaly; None: they do not say."""
        return self.verdict or (Verdict.ANOMALY if self.types else None)


@dataclass(frozen=True, slots=True)
class Changes:
    """New and changed labels of a project.

    Attributes:
        last_at: when the last of them was stored; None where there are none.
        first_at: when the first of them was.
    """

    count: int
    last_at: datetime | None
    first_at: datetime | None = None


@dataclass(slots=True)
class LabelCounts:
    """How many images of a project have which label.

    Attributes:
        verdicts: images per verdict; `none` where a label only names classes, boxes or masks.
        types: images per anomaly type.
        masks: drawn masks.
    """

    project: str
    verdicts: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    masks: int = 0


class Datasets:
    """The labelled images of all projects; the only writer of `dataset_entries`."""

    def __init__(self, engine: Engine, store: ObjectStore, clock: Clock | None = None) -> None:
        """Use a migrated database and an object store; `clock` tells when a label was stored."""
        self._engine = engine
        self._store = store
        self._clock = clock or SystemClock()

    def store(self, label: Label) -> bool:
        """Keep a label; return False if the same or a later one is known already.

        Raises:
            Rejected: the frame is unknown, its pixels are not kept or not those named, a mask does not fit
                them, or the entry is another project's.
            StoreUnavailable: nothing was kept; try again.
            DatabaseUnavailable: no row was written; try again.
        """
        checked_project_name(label.project)
        wanted = label.image or image_of_frame(self._engine, label.frame_id)
        pixels = self._read(wanted)
        seen = _decoded(pixels, is_needed=bool(label.masks))
        masks = self._masks_of(label, seen)
        image = self._own_copy(wanted, pixels)
        values = {
            **_row_of(label, image, masks),
            "pixels_sha256": None if seen is None else pixels_digest(seen),
        }
        with writing(self._engine) as connection:
            ensure_project(connection, label.project, label.labelled_at)
            # Now that nobody else writes: a training that began to read meanwhile has not seen it.
            return _upsert(connection, {**values, "stored_at": self._clock.now()})

    def entries(self, project: str) -> tuple[DatasetEntry, ...]:
        """Return a project's entries, in order of their ids: the same data, the same order.

        One per picture: a frame may have been labelled by its id and once more as a file, and a camera that
        stands still sends equal pictures. Of labels of equal bytes the latest counts.
        """
        latest = {entry.image.sha256: entry for entry in self.all_entries(project)}
        return tuple(sorted(latest.values(), key=lambda entry: str(entry.entry_id)))

    def all_entries(self, project: str) -> tuple[DatasetEntry, ...]:
        """Return a project's entries, also several of one picture, in the order of their labels' times."""
        query = (
            select(dataset_entries)
            .where(dataset_entries.c.project == project)
            .order_by(dataset_entries.c.labelled_at, dataset_entries.c.entry_id)
        )
        with reading(self._engine) as connection:
            return tuple(_entry(row) for row in connection.execute(query))

    def changes(self, project: str, since: datetime | None) -> Changes:
        """Return what was stored since a moment; None: ever."""
        table = dataset_entries.c
        query = select(func.count(), func.max(table.stored_at), func.min(table.stored_at)).where(
            table.project == project
        )
        if since is not None:
            query = query.where(table.stored_at > since)
        with reading(self._engine) as connection:
            count, last_at, first_at = connection.execute(query).one()
        return Changes(count, last_at, first_at)

    def image(self, entry: DatasetEntry) -> bytes:
        """Return an entry's encoded image, verified.

        Raises:
            HashMismatch: what is stored is not what was labelled.
            UnknownObject: it is gone.
            StoreUnavailable: the store did not answer.
        """
        return self._store.get_image(entry.image)

    def mask(self, mask: Mask) -> bytes:
        """Return an entry's mask, verified; see `image`."""
        return self._store.get_image(mask.image)

    def _masks_of(self, label: Label, seen: Decoded | None) -> list[Mask]:
        """Return a label's masks as our own black-and-white PNGs of the picture's size."""
        if seen is None:
            return []
        size_px = (seen.width_px, seen.height_px)
        drawn: dict[str, bytes] = {}
        for mask in label.masks:
            data = read_mask(self._read(mask.image), size_px)
            drawn[mask.name] = _both(drawn[mask.name], data) if mask.name in drawn else data
        return [Mask(name, self._store.put_image(DATASETS_BUCKET, data)) for name, data in drawn.items()]

    def _read(self, image: ImageReference) -> bytes:
        """Read what a label refers to; anyone may refer to anything, so its size is asked for first."""
        size_bytes = self._store.entry(image.uri).size_bytes
        if size_bytes > CLAIM_LIMIT_BYTES:
            message = f"{image.uri} has {size_bytes} bytes; at most {CLAIM_LIMIT_BYTES} are read."
            raise ImageTooLarge(message, size_bytes=size_bytes, limit_bytes=CLAIM_LIMIT_BYTES)
        return self._store.get_image(image)

    def _own_copy(self, image: ImageReference, pixels: bytes) -> ImageReference:
        ours = image_reference(DATASETS_BUCKET, pixels)
        if image.uri != ours.uri:
            self._store.put(ours.uri, pixels)
        return ours


def pixels_digest(seen: Decoded) -> str:
    """Return the SHA-256 of a picture's pixels as `Dataset` tells copies: equal to a model, whatever file."""
    return hashlib.sha256(seen.pixels.tobytes()).hexdigest()


def _decoded(pixels: bytes, *, is_needed: bool) -> Decoded | None:
    """Return the decoded picture; one that cannot be decoded is a fit's to name, unless it is needed."""
    if is_needed:
        return decode(pixels)
    with suppress(Rejected):
        return decode(pixels)
    return None


def _both(first: bytes, second: bytes) -> bytes:
    """Return the mask of what either of two masks of one size marks."""
    with Image.open(BytesIO(first)) as one, Image.open(BytesIO(second)) as other:
        marked = ImageChops.lighter(one, other)
    file = BytesIO()
    # What is opaque is marked, however much of the picture that is.
    Image.merge("LA", (marked, marked)).save(file, "PNG")
    return read_mask(file.getvalue(), marked.size)


def image_of_frame(engine: Engine, frame_id: UUID | None) -> ImageReference:
    """Return the pixels that were kept of a frame when it was judged.

    Raises:
        Rejected: the frame is unknown, was not judged, or its pixels are not kept (any more); the sentence
            says what to do.
        DatabaseUnavailable: try again.
    """
    kept = inspections.c.image_uri.is_not(None)
    columns = (
        inspections.c.image_uri,
        inspections.c.image_sha256,
        inspections.c.image_bytes,
        inspections.c.image_deleted_at,
    )
    # Whoever judged it, live, canary or shadow, kept the same pixels.
    judged = (
        select(*columns)
        .where(inspections.c.frame_id == str(frame_id))
        .order_by(kept.desc(), inspections.c.image_deleted_at.is_not(None))
    )
    with reading(engine) as connection:
        row = connection.execute(judged).first()
        cause = None if row is not None else connection.execute(_quarantined(frame_id)).scalar()
    if row is not None and row.image_uri is not None and row.image_deleted_at is None:
        return ImageReference(row.image_uri, row.image_sha256, row.image_bytes)
    raise Rejected(_why_no_image(frame_id, row, cause), frame_id=str(frame_id))


def _quarantined(frame_id: UUID | None) -> Select[str]:
    return select(quarantine.c.cause).where(quarantine.c.frame_id == str(frame_id))


def _why_no_image(frame_id: UUID | None, row: Any, cause: str | None) -> str:
    if cause is not None:
        return (
            f"Frame {frame_id} was not judged ({cause}). Save its bytes with `loupe dlq show {frame_id} "
            "--save FILE`; if they are a picture, label the file."
        )
    if row is None:
        return (
            f"No verdict on frame {frame_id} is recorded, so there is no image to label. A frame that was "
            "captured just now is judged in a moment; else send the image with the label."
        )
    if row.image_uri is None:
        return (
            f"The pixels of frame {frame_id} were not kept (its route's archive policy); "
            "send the image with the label."
        )
    return (
        f"The pixels of frame {frame_id} were kept and then deleted on {row.image_deleted_at:%Y-%m-%d} (its "
        "route's retention); send the image with the label."
    )


def _upsert(connection: Connection, values: dict[str, Any]) -> bool:
    """Insert, or replace an earlier label; tell whether anything changed."""
    held_by = connection.execute(
        select(dataset_entries.c.project).where(dataset_entries.c.entry_id == values["entry_id"])
    ).scalar()
    if held_by not in (None, values["project"]):
        message = (
            f"The dataset entry {values['entry_id']} belongs to another project than {values['project']}."
        )
        raise BadRequest(message, entry_id=values["entry_id"], project=values["project"])
    # PostgreSQL's driver does not count inserted rows, so the row itself is the answer.
    insert = insert_or_ignore(connection, dataset_entries).returning(dataset_entries.c.entry_id)
    if connection.execute(insert, values).first() is not None:
        return True
    replaced = connection.execute(
        update(dataset_entries)
        .where(
            dataset_entries.c.entry_id == values["entry_id"],
            dataset_entries.c.labelled_at < values["labelled_at"],
        )
        .values(values)
    )
    return replaced.rowcount == 1


def count_labels(engine: Engine, project: str | None = None) -> tuple[LabelCounts, ...]:
    """Return what the datasets hold, by project.

    Raises:
        DatabaseUnavailable: try again.
    """
    columns = (dataset_entries.c.project, dataset_entries.c.verdict, dataset_entries.c.classes,
               dataset_entries.c.masks)  # fmt: skip
    query = select(*columns).order_by(dataset_entries.c.project)
    if project is not None:
        query = query.where(dataset_entries.c.project == project)
    counts: dict[str, LabelCounts] = {}
    with reading(engine) as connection:
        for row in connection.execution_options(yield_per=1000).execute(query):
            one = counts.setdefault(row.project, LabelCounts(row.project))
            one.verdicts[row.verdict or "none"] += 1
            one.types.update(set(row.classes) | {mask["name"] for mask in row.masks})
            one.masks += len(row.masks)
    return tuple(counts.values())


def _row_of(label: Label, image: ImageReference, masks: Sequence[Mask]) -> dict[str, Any]:
    return {
        "entry_id": str(label.entry_id),
        "project": label.project,
        "frame_id": str(label.frame_id) if label.frame_id else None,
        "image_uri": image.uri,
        "image_sha256": image.sha256,
        "image_bytes": image.size_bytes,
        "verdict": label.verdict.value if label.verdict else None,
        "classes": list(label.classes),
        "boxes": [asdict(box) for box in label.boxes],
        "masks": [asdict(mask) for mask in masks],
        "author": label.author,
        "labelled_at": label.labelled_at,
        "split": label.split.value if label.split else None,
        "origin": label.origin.value,
    }


def _entry(row: Row[Any]) -> DatasetEntry:
    return DatasetEntry(
        entry_id=UUID(row.entry_id),
        image=ImageReference(row.image_uri, row.image_sha256, row.image_bytes),
        verdict=Verdict(row.verdict) if row.verdict else None,
        labelled_at=row.labelled_at,
        pixels_sha256=row.pixels_sha256,
        types=tuple(sorted({*row.classes, *(one["name"] for one in row.masks)})),
        masks=tuple(Mask(one["name"], ImageReference(**one["image"])) for one in row.masks),
        boxes=tuple(Box(**one) for one in row.boxes),
        split=Split(row.split) if row.split else None,
        origin=Origin(row.origin),
    )

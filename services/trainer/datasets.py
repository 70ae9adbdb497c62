"""What people said of images, as dataset entries (arrow 5).

Pixels are verified by hash and copied under their SHA-256 into a bucket of their own, so that the
retention of frames cannot take them away from a later training. A later label of an entry replaces
an earlier one, in whatever order they arrive. Does not read Kafka.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, select, update

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import dataset_entries, inspections
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore
from services.domain.errors import Rejected
from services.domain.frame import ImageReference
from services.domain.inspection import Role
from services.domain.label import Label, Mask, Verdict
from services.domain.project import checked_project_name
from services.trainer.registry import ensure_project


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """An image that somebody labelled, with pixels of our own.

    Attributes:
        verdict: None when the label only names classes, boxes or masks.
    """

    entry_id: UUID
    image: ImageReference
    verdict: Verdict | None
    labelled_at: datetime


class Datasets:
    """The labelled images of all projects; the only writer of `dataset_entries`."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        """Use a migrated database and an object store."""
        self._engine = engine
        self._store = store

    def store(self, label: Label) -> bool:
        """Keep a label; return False if the same or a later one is known already.

        Raises:
            Rejected: the frame is unknown, its pixels were not kept, or they are not those named.
            StoreUnavailable: nothing was kept; try again.
            DatabaseUnavailable: no row was written; try again.
        """
        checked_project_name(label.project)
        image = self._own_copy(label.image or self._image_of_frame(label.frame_id))
        masks = [Mask(mask.name, self._own_copy(mask.image)) for mask in label.masks]
        values = _row_of(label, image, masks)
        with writing(self._engine) as connection:
            ensure_project(connection, label.project, label.labelled_at)
            return _upsert(connection, values)

    def entries(self, project: str) -> tuple[DatasetEntry, ...]:
        """Return a project's entries, in order of their ids: the same data, the same order."""
        query = (
            select(dataset_entries)
            .where(dataset_entries.c.project == project)
            .order_by(dataset_entries.c.entry_id)
        )
        with reading(self._engine) as connection:
            return tuple(_entry(row) for row in connection.execute(query))

    def image(self, entry: DatasetEntry) -> bytes:
        """Return an entry's encoded image, verified.

        Raises:
            HashMismatch: what is stored is not what was labelled.
            UnknownObject: it is gone.
            StoreUnavailable: the store did not answer.
        """
        return self._store.get_image(entry.image)

    def _own_copy(self, image: ImageReference) -> ImageReference:
        return self._store.put_image(DATASETS_BUCKET, self._store.get_image(image))

    def _image_of_frame(self, frame_id: UUID | None) -> ImageReference:
        """Return the pixels that were kept of a frame when it was judged."""
        columns = (inspections.c.image_uri, inspections.c.image_sha256, inspections.c.image_bytes)
        query = (
            select(*columns)
            .where(inspections.c.frame_id == str(frame_id), inspections.c.role == Role.LIVE.value)
            .order_by(inspections.c.image_uri.is_(None))
        )
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        if row is None:
            message = f"No verdict on frame {frame_id} is recorded, so there is no image to label."
            raise Rejected(message, frame_id=str(frame_id))
        if row.image_uri is None:
            message = (
                f"The pixels of frame {frame_id} were not kept (its route's archive policy); "
                "send the image with the label."
            )
            raise Rejected(message, frame_id=str(frame_id))
        return ImageReference(row.image_uri, row.image_sha256, row.image_bytes)


def _upsert(connection: Connection, values: dict[str, Any]) -> bool:
    """Insert, or replace an earlier label; tell whether anything changed."""
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
    }


def _entry(row: Row[Any]) -> DatasetEntry:
    return DatasetEntry(
        entry_id=UUID(row.entry_id),
        image=ImageReference(row.image_uri, row.image_sha256, row.image_bytes),
        verdict=Verdict(row.verdict) if row.verdict else None,
        labelled_at=row.labelled_at,
    )

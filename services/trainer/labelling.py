"""What a person says of pictures -> labels on `loupe.labels` (arrow 5), for `loupe label`.

The pixels come first: they are read, checked and put into the datasets bucket under their hash, so a label
that was published never speaks of pixels that are not there. Stores no label; `pipeline.LabelStep` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

from services.adapters.broker import Producer
from services.adapters.broker.protocol import Delivery
from services.adapters.object_store import ObjectStore
from services.adapters.object_store.store import DATASETS_BUCKET
from services.domain.errors import BadRequest
from services.domain.frame import ImageReference
from services.domain.label import Label, Mask, Origin, Split, Verdict, entry_id_of
from services.domain.project import checked_project_name
from services.vision.masks import read_mask, size_of
from services.wire.label import LONGEST_AUTHOR, encode_label

# As long as the producer itself tries; then the label was not taken.
_ACKNOWLEDGE_TIMEOUT_S = 40.0


@dataclass(frozen=True, slots=True)
class MaskFile:
    """Where the pixels of one anomaly type are drawn.

    Attributes:
        name: anomaly type.
        where: a file or `s3://bucket/key`.
        colour: `#rrggbb` of the type in a mask with a colour per type; None: white.
    """

    name: str
    where: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What is said of one picture.

    Attributes:
        where: a file, `s3://bucket/key` or the id of a frame.
        types: anomaly types, in any order.
        said_at: None: now.
        split: what it is for; None: as a fit splits.
    """

    where: str | UUID
    verdict: Verdict
    types: tuple[str, ...] = ()
    masks: tuple[MaskFile, ...] = ()
    said_at: datetime | None = None
    split: Split | None = None


class Labeller:
    """Publishes labels of one author for one project; for one thread."""

    def __init__(
        self,
        project: str,
        author: str,
        *,
        store: ObjectStore,
        producer: Producer,
        frame_image: Callable[[UUID], ImageReference],
        now: Callable[[], datetime],
        origin: Origin = Origin.LABEL,
    ) -> None:
        """Use `frame_image` to find a frame's kept pixels; it raises as `datasets.image_of_frame`.

        With `Origin.REVIEW` everything said corrects what a model said.

        Raises:
            BadRequest: no project, or no author, can have that name.
        """
        if len(author) > LONGEST_AUTHOR or not author.isprintable():
            raise BadRequest(f"An author is at most {LONGEST_AUTHOR} printable characters.")
        self._project = checked_project_name(project)
        self._author = author
        self._store = store
        self._producer = producer
        self._frame_image = frame_image
        self._now = now
        self._origin = origin
        self._deliveries: list[Delivery] = []

    def say(self, said: Statement) -> Label:
        """Store the pixels and hand the label to Kafka; `wait` tells when it is there.

        Raises:
            Rejected: the picture or a mask is not there, is none, or they do not fit each other.
            RetryLater: the object store, the database or Kafka did not answer.
        """
        if said.verdict is Verdict.NORMAL and (said.types or said.masks):
            raise BadRequest("A normal picture has no anomaly types and no masks.")
        data, frame_id = self._picture(said.where)
        # Also the check that it is a picture at all, before anything is stored.
        size_px = size_of(data)
        drawn = [(one.name, read_mask(self._read(one.where), size_px, one.colour)) for one in said.masks]
        image = self._store.put_image(DATASETS_BUCKET, data)
        label = Label(
            entry_id=entry_id_of(self._project, frame_id=frame_id, sha256=image.sha256),
            project=self._project,
            labelled_at=said.said_at or self._now(),
            image=image,
            frame_id=frame_id,
            verdict=said.verdict,
            classes=tuple(dict.fromkeys([*said.types, *(one.name for one in said.masks)])),
            masks=tuple(Mask(name, self._store.put_image(DATASETS_BUCKET, mask)) for name, mask in drawn),
            author=self._author,
            split=said.split,
            origin=self._origin,
        )
        self._deliveries.append(self._producer.send(encode_label(label)))
        return label

    def wait(self) -> None:
        """Return when Kafka has acknowledged every label. Blocks.

        Raises:
            BrokerUnavailable: it has not.
        """
        for delivery in self._deliveries:
            delivery.result(_ACKNOWLEDGE_TIMEOUT_S)
        self._deliveries.clear()

    def _picture(self, where: str | UUID) -> tuple[bytes, UUID | None]:
        if isinstance(where, UUID):
            return self._store.get_image(self._frame_image(where)), where
        return self._read(where), None

    def _read(self, where: str) -> bytes:
        if where.startswith("s3://"):
            return self._store.get(where)
        try:
            return Path(where).read_bytes()
        except OSError as error:
            raise BadRequest(f"{where} cannot be read: {error.strerror}.", file=where) from error

"""A frame: one image that one camera took at one moment (arrow 1).

Does not decode pixels (`services.vision`) and does not know Kafka (`services.wire`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from uuid import UUID, uuid5

# Namespace of all frame ids; a constant of the wire contract, never to change.
FRAME_NAMESPACE = UUID("6f6b3c0e-0f0a-5b0e-9d6f-6c6f75706531")
_SEPARATOR = "\x1f"
# Files that are taken for images by their names, wherever a person names a folder; decoding trusts no name.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)


@dataclass(frozen=True, slots=True)
class RecordPosition:
    """Where a record stands in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ImageReference:
    """Pixels kept in the object store.

    Attributes:
        uri: `s3://bucket/key`.
        sha256: hex digest of the encoded bytes.
        size_bytes: length of the encoded bytes.
    """

    uri: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured image on its way to a verdict.

    Attributes:
        frame_id: see `frame_id_of`.
        camera: camera id, also the Kafka key, so order is kept per camera.
        captured_at: aware UTC time of capture; the record's own time when the producer gave none.
        image: encoded image bytes; empty when `dataref` is set and not yet fetched.
        content_type: media type the producer claimed; never trusted for decoding.
        subject: what the frame shows, by name: file name or position in a film.
        epoch: start of the ingester's run; None for foreign producers.
        sequence: dense number per camera and epoch, from 0; None for foreign producers.
        project: project the producer asked for; None lets routes decide.
        part_id: id of the part in the picture.
        lot_id: id of the lot the part belongs to.
        traceparent: W3C trace context.
        dataref: claim check; pixels are in the object store.
        original: the whole picture, where the camera cropped or scaled it down and kept the original.
        area: what of the original is published: left, top, width, height as shares (0-1), by comma.
        position: where the record stands; None before it is published.
    """

    frame_id: UUID
    camera: str
    captured_at: datetime
    image: bytes
    content_type: str = "image/jpeg"
    subject: str = ""
    epoch: str | None = None
    sequence: int | None = None
    project: str | None = None
    part_id: str | None = None
    lot_id: str | None = None
    traceparent: str | None = None
    dataref: ImageReference | None = None
    original: ImageReference | None = None
    area: str | None = None
    position: RecordPosition | None = None


def frame_id_of(
    *,
    source: str | None,
    event_id: str | None,
    camera: str,
    epoch: str | None,
    sequence: int | None,
    position: RecordPosition | None,
) -> UUID:
    """Return the deterministic id of a frame: UUIDv5, never of the content.

    In this order: (CloudEvents source, id), else (camera, epoch, sequence), else the record's
    place in Kafka. A camera that stands still sends equal bytes, so content says nothing.

    Raises:
        ValueError: none of the three is known.
    """
    if event_id:
        parts: tuple[str, ...] = ("event", source or camera, event_id)
    elif epoch is not None and sequence is not None:
        parts = ("sequence", camera, epoch, str(sequence))
    elif position is not None:
        parts = ("record", position.topic, str(position.partition), str(position.offset))
    else:
        raise ValueError("a frame needs an event id, an epoch with a sequence, or a record position")
    return uuid5(FRAME_NAMESPACE, _SEPARATOR.join(parts))


def ingester_event_id(epoch: str, sequence: int) -> str:
    """Return the CloudEvents id that Loupe's own ingesters give to frame `sequence` of a run."""
    return f"{epoch}/{sequence}"


def ingester_frame_id(camera: str, epoch: str, sequence: int) -> UUID:
    """Return the id of a frame that Loupe's own ingester sent, from what the ledger knows."""
    return frame_id_of(
        source=camera,
        event_id=ingester_event_id(epoch, sequence),
        camera=camera,
        epoch=epoch,
        sequence=sequence,
        position=None,
    )


def ingester_frame_ids(camera: str, epoch: str, sequences: Iterable[int]) -> Iterator[UUID]:
    """Yield `ingester_frame_id` of each sequence, several times faster than one by one."""
    for digest in _digests(camera, epoch, sequences):
        yield UUID(bytes=digest[:16], version=5)


def sequences_among(
    frame_ids: Collection[UUID], camera: str, epoch: str, sequences: Sequence[int]
) -> Iterator[int]:
    """Yield those sequences whose frames have one of these ids, in order; fast for millions of sequences."""
    # A UUID's first six bytes are its digest's; only where they agree is the whole id worth its making.
    beginnings = {frame_id.bytes[:6] for frame_id in frame_ids}
    for sequence, digest in zip(sequences, _digests(camera, epoch, sequences), strict=True):
        if digest[:6] in beginnings and UUID(bytes=digest[:16], version=5) in frame_ids:
            yield sequence


def _digests(camera: str, epoch: str, sequences: Iterable[int]) -> Iterator[bytes]:
    # The id is a hash of a name that ends with the sequence: what comes before it is hashed once.
    name = _SEPARATOR.join(("event", camera, ingester_event_id(epoch, 0)[:-1]))
    before = sha1(FRAME_NAMESPACE.bytes + name.encode(), usedforsecurity=False)
    for sequence in sequences:
        one = before.copy()
        one.update(b"%d" % sequence)
        yield one.digest()

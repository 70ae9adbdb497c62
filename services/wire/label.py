"""Label <-> protobuf or JSON and Kafka record (arrow 5)."""

from __future__ import annotations

from services.domain.errors import MalformedRecord
from services.domain.label import Box, Label, Mask, Origin, Split, Verdict, entry_id_of
from services.domain.topics import LABELS
from services.wire.frame import from_reference, to_reference
from services.wire.gen.loupe.v1 import label_pb2
from services.wire.headers import write_headers
from services.wire.inspection import PROTOBUF
from services.wire.json_or_protobuf import parse
from services.wire.record import OutRecord, Record
from services.wire.times import from_timestamp, to_timestamp, to_uuid

LABEL_TYPE = "io.loupe.label.v1"
LONGEST_AUTHOR = 256


def encode_label(label: Label) -> OutRecord:
    """Return the record for `loupe.labels`."""
    message = label_pb2.Label(
        entry_id=str(label.entry_id),
        project=label.project,
        labelled_at=to_timestamp(label.labelled_at),
        frame_id=str(label.frame_id) if label.frame_id else "",
        verdict=label.verdict.value if label.verdict else "",
        classes=label.classes,
        boxes=[
            label_pb2.Box(
                left_ratio=box.left_ratio,
                top_ratio=box.top_ratio,
                width_ratio=box.width_ratio,
                height_ratio=box.height_ratio,
                name=box.name,
            )
            for box in label.boxes
        ],
        masks=[label_pb2.Mask(name=mask.name, image=to_reference(mask.image)) for mask in label.masks],
        author=label.author,
        split=label.split.value if label.split else "",
        origin="" if label.origin is Origin.LABEL else label.origin.value,
    )
    if label.image is not None:
        message.image.CopyFrom(to_reference(label.image))
    headers = write_headers(
        event_type=LABEL_TYPE,
        source=f"/projects/{label.project}",
        event_id=f"{label.entry_id}/{label.labelled_at.isoformat()}",
        time=label.labelled_at,
        content_type=PROTOBUF,
    )
    return OutRecord(LABELS.name, label.project.encode(), message.SerializeToString(), headers)


def decode_label(record: Record) -> Label:
    """Return the label of a record, protobuf or JSON.

    Raises:
        MalformedRecord: without project, without a frame id or image, with an unknown verdict, split or
            origin, or with an author that is no name.
    """
    message = parse(record, label_pb2.Label())
    if not message.project:
        raise MalformedRecord("A label needs a project.")
    if message.verdict and message.verdict not in set(Verdict):
        raise MalformedRecord(f"The verdict {message.verdict!r} is neither normal nor anomaly.")
    if message.split and message.split not in set(Split):
        raise MalformedRecord(f"The split {message.split!r} is neither train nor test.")
    if message.origin and message.origin not in set(Origin):
        raise MalformedRecord(f"The origin {message.origin!r} is neither label nor review.")
    frame_id = to_uuid(message.frame_id, "frame id") if message.frame_id else None
    image = from_reference(message.image) if message.HasField("image") else None
    if (frame_id is None and image is None) or (image is not None and not (image.uri and image.sha256)):
        raise MalformedRecord("A label needs a frame_id, or an image with uri and sha256.")
    if len(message.author) > LONGEST_AUTHOR or not message.author.isprintable():
        raise MalformedRecord(f"An author is at most {LONGEST_AUTHOR} printable characters.")
    if message.entry_id:
        entry_id = to_uuid(message.entry_id, "entry id")
    else:
        entry_id = entry_id_of(message.project, frame_id=frame_id, sha256=image.sha256 if image else None)
    has_time = message.HasField("labelled_at")
    return Label(
        entry_id=entry_id,
        project=message.project,
        labelled_at=from_timestamp(message.labelled_at) if has_time else record.recorded_at,
        image=image,
        frame_id=frame_id,
        verdict=Verdict(message.verdict) if message.verdict else None,
        classes=tuple(message.classes),
        boxes=tuple(
            Box(box.left_ratio, box.top_ratio, box.width_ratio, box.height_ratio, box.name)
            for box in message.boxes
        ),
        masks=tuple(Mask(mask.name, from_reference(mask.image)) for mask in message.masks),
        author=message.author,
        split=Split(message.split) if message.split else None,
        origin=Origin(message.origin) if message.origin else Origin.LABEL,
    )

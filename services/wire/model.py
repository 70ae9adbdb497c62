"""ModelAnnouncement <-> protobuf and Kafka record (arrow 6)."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from services.domain.errors import MalformedRecord
from services.domain.model_version import ModelAnnouncement
from services.domain.topics import MODELS
from services.wire.gen.loupe.v1 import model_pb2
from services.wire.headers import write_headers
from services.wire.inspection import PROTOBUF
from services.wire.record import OutRecord
from services.wire.times import from_timestamp, to_timestamp

MODEL_TYPE = "io.loupe.model.v1"


def encode_announcement(said: ModelAnnouncement) -> OutRecord:
    """Return the record for `loupe.models`."""
    message = model_pb2.ModelAnnouncement(
        project=said.project,
        version=said.version,
        uri=said.uri,
        manifest_sha256=said.manifest_sha256,
        created_at=to_timestamp(said.created_at),
        training_id=said.training_id,
    )
    headers = write_headers(
        event_type=MODEL_TYPE,
        source=f"/projects/{said.project}",
        event_id=f"{said.project}/{said.version}",
        time=said.created_at,
        content_type=PROTOBUF,
    )
    return OutRecord(MODELS.name, said.project.encode(), message.SerializeToString(), headers)


def decode_announcement(value: bytes) -> ModelAnnouncement:
    """Return the announcement of a record's value.

    Raises:
        MalformedRecord: not this message, or without project, version and place.
    """
    try:
        message = model_pb2.ModelAnnouncement.FromString(value)
    except DecodeError as error:
        raise MalformedRecord("The value is not a protobuf ModelAnnouncement.") from error
    if not (message.project and message.version and message.uri):
        raise MalformedRecord("A model announcement needs project, version and uri.")
    return ModelAnnouncement(
        project=message.project,
        version=message.version,
        uri=message.uri,
        manifest_sha256=message.manifest_sha256,
        created_at=from_timestamp(message.created_at),
        training_id=message.training_id,
    )

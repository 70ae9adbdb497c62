"""Inspection <-> protobuf and Kafka record (arrow 3)."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from services.domain.errors import MalformedRecord
from services.domain.inspection import Inspection, Region, Role, inspection_id_of
from services.domain.topics import INSPECTIONS
from services.wire.frame import from_position, from_reference, to_position, to_reference
from services.wire.gen.loupe.v1 import inspection_pb2
from services.wire.headers import write_headers
from services.wire.record import OutRecord
from services.wire.times import from_timestamp, to_timestamp, to_uuid

INSPECTION_TYPE = "io.loupe.inspection.v1"
PROTOBUF = "application/protobuf"


def encode_inspection(inspection: Inspection) -> OutRecord:
    """Return the record for `loupe.inspections`."""
    headers = write_headers(
        event_type=INSPECTION_TYPE,
        source=f"/projects/{inspection.project}",
        event_id=str(inspection_id_of(inspection.frame_id, inspection.role, inspection.run)),
        time=inspection.judged_at,
        content_type=PROTOBUF,
        extensions={"traceparent": inspection.traceparent},
    )
    value = to_message(inspection).SerializeToString()
    return OutRecord(INSPECTIONS.name, inspection.camera.encode(), value, headers)


def decode_inspection(value: bytes) -> Inspection:
    """Return the inspection of a record's value.

    Raises:
        MalformedRecord: not this message, or without a frame id, camera, project or version.
    """
    try:
        message = inspection_pb2.Inspection.FromString(value)
    except DecodeError as error:
        raise MalformedRecord("The value is not a protobuf Inspection.") from error
    return from_message(message)


def to_message(inspection: Inspection) -> inspection_pb2.Inspection:
    """Return the protobuf form."""
    message = inspection_pb2.Inspection(
        frame_id=str(inspection.frame_id),
        camera=inspection.camera,
        project=inspection.project,
        model_version=inspection.model_version,
        captured_at=to_timestamp(inspection.captured_at),
        judged_at=to_timestamp(inspection.judged_at),
        is_anomalous=inspection.is_anomalous,
        confidence=inspection.confidence,
        score=inspection.score,
        threshold=inspection.threshold,
        is_uncertain=inspection.is_uncertain,
        role=inspection.role.value,
        run=inspection.run,
        subject=inspection.subject,
        epoch=inspection.epoch or "",
        sequence=inspection.sequence,
        part_id=inspection.part_id or "",
        lot_id=inspection.lot_id or "",
        traceparent=inspection.traceparent or "",
        regions=[_to_region(region) for region in inspection.regions],
        width_px=inspection.width_px,
        height_px=inspection.height_px,
        stage_ms=dict(inspection.stage_ms),
        unit=inspection.unit,
        picture=dict(inspection.picture),
        retention=inspection.retention,
        area=inspection.area or "",
    )
    if inspection.original is not None:
        message.original.CopyFrom(to_reference(inspection.original))
    if inspection.image is not None:
        message.image.CopyFrom(to_reference(inspection.image))
    if inspection.position is not None:
        message.position.CopyFrom(to_position(inspection.position))
    return message


def from_message(message: inspection_pb2.Inspection) -> Inspection:
    """Return the domain form.

    Raises:
        MalformedRecord: an id, a role or a name is missing or wrong.
    """
    if not (message.camera and message.project and message.model_version):
        raise MalformedRecord("An inspection needs a camera, a project and a model version.")
    if message.role not in set(Role):
        raise MalformedRecord(f"The role {message.role!r} is none of {', '.join(Role)}.")
    return Inspection(
        frame_id=to_uuid(message.frame_id, "frame id"),
        camera=message.camera,
        project=message.project,
        model_version=message.model_version,
        captured_at=from_timestamp(message.captured_at),
        judged_at=from_timestamp(message.judged_at),
        is_anomalous=message.is_anomalous,
        confidence=message.confidence,
        score=message.score,
        threshold=message.threshold,
        is_uncertain=message.is_uncertain,
        role=Role(message.role),
        run=message.run,
        subject=message.subject,
        epoch=message.epoch or None,
        sequence=message.sequence if message.HasField("sequence") else None,
        part_id=message.part_id or None,
        lot_id=message.lot_id or None,
        traceparent=message.traceparent or None,
        regions=tuple(_from_region(region) for region in message.regions),
        image=from_reference(message.image) if message.HasField("image") else None,
        retention=message.retention,
        original=from_reference(message.original) if message.HasField("original") else None,
        area=message.area or None,
        width_px=message.width_px,
        height_px=message.height_px,
        stage_ms=dict(message.stage_ms),
        unit=message.unit,
        picture=dict(message.picture),
        position=from_position(message.position) if message.HasField("position") else None,
    )


def _to_region(region: Region) -> inspection_pb2.Region:
    return inspection_pb2.Region(
        left_ratio=region.left_ratio,
        top_ratio=region.top_ratio,
        width_ratio=region.width_ratio,
        height_ratio=region.height_ratio,
        area_ratio=region.area_ratio,
        mean_score=region.mean_score,
        anomaly_type=region.anomaly_type,
    )


def _from_region(message: inspection_pb2.Region) -> Region:
    return Region(
        left_ratio=message.left_ratio,
        top_ratio=message.top_ratio,
        width_ratio=message.width_ratio,
        height_ratio=message.height_ratio,
        area_ratio=message.area_ratio,
        mean_score=message.mean_score,
        anomaly_type=message.anomaly_type,
    )

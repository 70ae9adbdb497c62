"""JSON Schema of what travels: of protobuf messages by their descriptors and comments, of events by hand.

For the AsyncAPI document (`asyncapi`). Decodes nothing; readers stay lenient where these say exactly.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.domain.camera import CameraState
from services.domain.hosting import RetentionClass
from services.domain.inspection import Role
from services.domain.label import Verdict
from services.domain.ledger import EntryKind, ShedReason
from services.wire.camera_event import CAMERA_TYPE
from services.wire.event import ANOMALY_TYPE, VERDICT_TYPE
from services.wire.gen.comments import COMMENTS
from services.wire.gen.loupe.v1 import inspection_pb2, label_pb2, ledger_pb2, model_pb2, training_pb2
from services.wire.trigger import LONGEST_ID

Schema = dict[str, Any]

MESSAGES: tuple[Descriptor, ...] = (
    inspection_pb2.Inspection.DESCRIPTOR,
    label_pb2.Label.DESCRIPTOR,
    training_pb2.TrainingRequest.DESCRIPTOR,
    model_pb2.ModelAnnouncement.DESCRIPTOR,
    ledger_pb2.LedgerEntry.DESCRIPTOR,
)

_TIMESTAMP = "google.protobuf.Timestamp"
_BY_KIND: dict[int, Schema] = {
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    # JSON's numbers are exact to 2^53 only, so protobuf writes text and reads both.
    FieldDescriptor.TYPE_INT64: {"type": ["integer", "string"], "format": "int64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
# Words that a field is one of; the empty one says nothing.
_WORDS: dict[str, list[str]] = {
    "Label.verdict": ["", *(one.value for one in Verdict)],
    "Inspection.role": [one.value for one in Role],
    "Inspection.retention": ["", *(one.value for one in RetentionClass)],
    "LedgerEntry.kind": [one.value for one in EntryKind],
    "LedgerEntry.reason": ["", *(one.value for one in ShedReason)],
}
# What a reader refuses a message for when it is absent.
_REQUIRED: dict[str, Schema] = {
    "Inspection": {"required": ["frame_id", "camera", "project", "model_version", "role"]},
    "Label": {"required": ["project"], "anyOf": [{"required": ["frame_id"]}, {"required": ["image"]}]},
    "TrainingRequest": {"required": ["project"]},
    "ModelAnnouncement": {"required": ["project", "version", "uri"]},
    "LedgerEntry": {"required": ["entry_id", "camera", "kind"]},
    "ImageReference": {"required": ["uri", "sha256"]},
}


def message_schemas() -> dict[str, Schema]:
    """Return the schema of each message that stands on a topic, and of those inside them, by name."""
    found: dict[str, Schema] = {}
    waiting = list(MESSAGES)
    while waiting:
        message = waiting.pop(0)
        if message.name in found:
            continue
        found[message.name] = _of_message(message)
        waiting += [
            field.message_type
            for field in message.fields
            if field.message_type is not None
            and field.message_type.full_name != _TIMESTAMP
            and not field.message_type.GetOptions().map_entry
        ]
    return found


def _of_message(message: Descriptor) -> Schema:
    return {
        "type": "object",
        "title": message.name,
        "description": COMMENTS.get(message.name, ""),
        "x-protobuf-message": message.full_name,
        "properties": {field.name: _of_field(message, field) for field in message.fields},
        # A name that is not here is a mistake in JSON; in protobuf it is a field of a later version.
        "additionalProperties": False,
        **_REQUIRED.get(message.name, {}),
    }


def _of_field(message: Descriptor, field: FieldDescriptor) -> Schema:
    name = f"{message.name}.{field.name}"
    one = _of_value(field)
    if words := _WORDS.get(name):
        one["enum"] = words
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if field.is_repeated and not is_map:
        one = {"type": "array", "items": one}
    comment = {"description": COMMENTS[name]} if name in COMMENTS else {}
    if "$ref" in one:
        # Nothing may stand beside a reference.
        one = {"allOf": [one]}
    return {**one, **comment, "x-protobuf-field": field.number}


def _of_value(field: FieldDescriptor) -> Schema:
    message = field.message_type
    if message is None:
        return dict(_BY_KIND[field.type])
    if message.full_name == _TIMESTAMP:
        return {"type": "string", "format": "date-time"}
    if message.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _of_value(message.fields_by_name["value"])}
    return {"$ref": f"#/components/schemas/{message.name}"}


def trigger_schema() -> Schema:
    """Return what a trigger may say; an empty value asks for a picture and says nothing."""
    name = {"type": ["string", "integer"], "maxLength": LONGEST_ID}
    return {
        "type": "object",
        "title": "Trigger",
        "description": "Asks a triggered camera for one picture, of the part and lot that are named.",
        "properties": {
            "part_id": {**name, "description": "Id of the part in the picture."},
            "lot_id": {**name, "description": "Id of the lot the part belongs to."},
            "id": {**name, "description": "Names the trigger; absent: ce_id, else its place in Kafka."},
        },
    }


def event_schemas() -> dict[str, Schema]:
    """Return the schemas of the events on `loupe.events`, by name."""
    return {
        "VerdictEvent": _event("A verdict on a frame.", [ANOMALY_TYPE, VERDICT_TYPE], "VerdictData"),
        "VerdictData": _verdict_data(),
        "EventRegion": _event_region(),
        "CameraEvent": _event("A camera came into a state, or left one.", [CAMERA_TYPE], "CameraData"),
        "CameraData": _camera_data(),
    }


def _event(description: str, types: list[str], data: str) -> Schema:
    return {
        "type": "object",
        "description": f"CloudEvents 1.0, structured JSON. {description}",
        "required": ["specversion", "id", "source", "type", "time", "data"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "description": "Equal for every redelivery: count an id once."},
            "source": {"type": "string"},
            "type": {"enum": types},
            "time": {"type": "string", "format": "date-time"},
            "subject": {"type": "string", "description": "Frame id, or camera."},
            "datacontenttype": {"const": "application/json"},
            "traceparent": {"type": "string", "description": "W3C trace context of the frame."},
            "data": {"$ref": f"#/components/schemas/{data}"},
        },
        "additionalProperties": False,
    }


def _exactly(properties: dict[str, Schema], description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
    }


def _verdict_data() -> Schema:
    ratio = {"type": "number", "minimum": 0, "maximum": 1}
    time = {"type": "string", "format": "date-time"}
    uuid = {"type": "string", "format": "uuid"}
    properties: dict[str, Schema] = {
        "frame_id": uuid,
        "camera": {"type": "string"},
        "source": {"type": "string", "description": "File name, or place in a film; may be empty."},
        "project": {"type": "string"},
        "model_version": {"type": "string"},
        "is_anomalous": {"type": "boolean"},
        "is_uncertain": {"type": "boolean", "description": "The score lies near the threshold."},
        "confidence": {**ratio, "description": "Trust in the verdict given."},
        "score": {"type": "number", "description": "Higher is more anomalous; of one version only."},
        "threshold": {"type": "number", "description": "Score from which on the version says anomalous."},
        "captured_at": time,
        "judged_at": time,
        "part_id": {"type": ["string", "null"]},
        "lot_id": {"type": ["string", "null"]},
        "image_uri": {"type": ["string", "null"], "description": "Kept pixels; null where none were kept."},
        "regions": {
            "type": "array",
            "description": "Where it is anomalous, largest first.",
            "items": {"$ref": "#/components/schemas/EventRegion"},
        },
        "inspection_id": uuid,
    }
    return _exactly(properties, "What was judged, by which model version, and how.")


def _event_region() -> Schema:
    ratio = {"type": "number", "minimum": 0, "maximum": 1}
    names = ("left_ratio", "top_ratio", "width_ratio", "height_ratio", "area_ratio")
    properties: dict[str, Schema] = {name: dict(ratio) for name in names}
    properties["mean_score"] = {"type": "number"}
    properties["anomaly_type"] = {"type": "string"}
    return _exactly(properties, "Shares (0-1) of the picture's width, height and area; origin top left.")


def _camera_data() -> Schema:
    states = [one.value for one in CameraState]
    properties: dict[str, Schema] = {
        "camera": {"type": "string"},
        "state": {"enum": states},
        "message": {"type": "string", "description": "A sentence for people."},
        "since": {"type": "string", "format": "date-time"},
        "previous": {"enum": states, "description": "State before."},
        "ingester": {"type": "string", "description": "Process that holds the camera."},
    }
    return _exactly(properties, "How a camera does.")

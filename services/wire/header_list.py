"""Every header that Loupe reads or writes, by topic: type, meaning, example. For people and `asyncapi`.

`frame`, `headers` and `dead_letter` read and write them; a test holds this list against what they write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Header:
    """One header of a record; values are UTF-8 text.

    Attributes:
        schema: JSON Schema of the text.
        is_required: readers refuse, or do not understand, a record without it.
    """

    name: str
    meaning: str
    example: str
    schema: dict[str, Any]
    is_required: bool = False


_TEXT: dict[str, Any] = {"type": "string", "maxLength": 1024}
_NUMBER: dict[str, Any] = {"type": "string", "pattern": "^[0-9]+$"}
_SHA256: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_KEPT = f"s3://loupe-frames/sha256/9f/{_SHA}"
_FRAME_ID: dict[str, Any] = {"type": "string", "format": "uuid"}
_TRACEPARENT = Header(
    "ce_traceparent",
    "W3C trace context; of other producers also read as `traceparent`.",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    {"type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"},
)

# All optional: a bare image is a frame. What cannot be understood counts as absent.
FRAME_HEADERS: tuple[Header, ...] = (
    Header("ce_id", "With ce_source the identity of the frame: equal ones get one verdict.", "7421", _TEXT),
    Header("ce_source", "Camera, percent-encoded; absent: the record's key.", "cam-1", _TEXT),
    Header(
        "ce_time", "When the picture was taken; absent: the record's time.", "2026-05-06T07:08:09Z", _TIME
    ),
    Header("ce_subject", "File name or place in a film, percent-encoded.", "caps/0107.jpg", _TEXT),
    Header("ce_type", "Kind of event.", "io.loupe.frame.v1", _TEXT),
    Header("ce_specversion", "Version of CloudEvents.", "1.0", _TEXT),
    Header("content-type", "What the producer holds the picture for; never trusted.", "image/jpeg", _TEXT),
    Header("ce_loupeproject", "Project that is to judge; absent: routes decide.", "caps", _TEXT),
    Header("ce_partid", "Id of the part in the picture.", "P-000123", _TEXT),
    Header("ce_lotid", "Id of the lot the part belongs to.", "L-42", _TEXT),
    Header(
        "ce_sequence",
        "Dense number per camera and epoch, from 0; the frame's id if ce_id is absent.",
        "17",
        _NUMBER,
    ),
    Header("ce_loupeepoch", "Start of the producer's run.", "2026-05-06T07:00:00.000000+00:00", _TEXT),
    _TRACEPARENT,
    Header("ce_dataref", "Claim check: where the pixels are; the value is then empty.", _KEPT, _TEXT),
    Header("ce_datarefsha256", "SHA-256 of the pixels; needed with ce_dataref.", _SHA, _SHA256),
    Header("ce_datarefsize", "Their length in bytes.", "31457280", _NUMBER),
    Header("ce_originalref", "Where the whole picture is, if this one was cut or scaled.", _KEPT, _TEXT),
    Header("ce_originalsha256", "SHA-256 of the whole picture.", _SHA, _SHA256),
    Header("ce_originalsize", "Its length in bytes.", "31457280", _NUMBER),
    Header(
        "ce_loupeframeid",
        "Written by `loupe dlq redrive`: the frame's id, whatever the other headers would make of it.",
        "8145ba11-ac9b-5046-8e0a-124e644bec4e",
        _FRAME_ID,
    ),
    Header("ce_loupetry", "Written with it: how often the frame was tried before.", "1", _NUMBER),
    Header("ce_area", "Part of it: left, top, width, height as shares, by comma.", "0.1,0.2,0.5,0.5", _TEXT),
)
# Loupe's own records on other topics, by the CloudEvents Kafka binding.
EVENT_HEADERS: tuple[Header, ...] = (
    Header("ce_id", "Equal for every redelivery.", "8145ba11-ac9b-5046-8e0a-124e644bec4e", _TEXT),
    Header("ce_source", "Who the message speaks of.", "/projects/caps", _TEXT),
    Header("ce_type", "Message and version.", "io.loupe.inspection.v1", _TEXT),
    Header("ce_time", "When it was said.", "2026-05-06T07:08:09Z", _TIME),
    Header("ce_specversion", "Version of CloudEvents.", "1.0", _TEXT),
    Header("content-type", "application/protobuf.", "application/protobuf", _TEXT),
    _TRACEPARENT,
)
# What a person's or another system's record may carry on topics that take JSON, too.
JSON_HEADERS: tuple[Header, ...] = (
    Header("content-type", "Absent: JSON if the value begins with a brace.", "application/json", _TEXT),
)
# All optional.
TRIGGER_HEADERS: tuple[Header, ...] = (
    Header("ce_id", "Names the trigger, if its value does not.", "T-991", _TEXT),
    Header("ce_source", "Who sends it; the camera is the key.", "cam-1", _TEXT),
    Header("ce_type", "Kind of event.", "io.loupe.trigger.v1", _TEXT),
    Header("ce_time", "When it was sent; the record's own time counts.", "2026-05-06T07:08:09Z", _TIME),
    Header("ce_specversion", "Version of CloudEvents.", "1.0", _TEXT),
    Header("content-type", "Kind of value.", "application/json", _TEXT),
)
STRUCTURED_HEADERS: tuple[Header, ...] = (
    Header("content-type", "CloudEvents in JSON.", "application/cloudevents+json", _TEXT, is_required=True),
)
DEAD_LETTER_HEADERS: tuple[Header, ...] = (
    Header("dlq_topic", "Topic of the original record.", "loupe.frames", _TEXT, is_required=True),
    Header("dlq_partition", "Its partition.", "2", _NUMBER, is_required=True),
    Header("dlq_offset", "Its offset.", "1234", _NUMBER, is_required=True),
    Header("dlq_timestamp_ms", "Its time, milliseconds since 1970.", "1778051289000", _NUMBER),
    Header("dlq_cause", "Name of the error.", "UnreadableImage", _TEXT),
    Header("dlq_reason", "A plain sentence.", "The image is empty (0 bytes).", _TEXT),
    Header("dlq_tries", "How often it was tried.", "1", _NUMBER),
    Header("dlq_failed_at", "When it was given up.", "2026-05-06T07:08:09+00:00", _TIME),
    Header("dlq_frame_id", "Frame, for letters of loupe.frames; else empty.", "", _TEXT),
    Header("dlq_camera", "Camera, for letters of loupe.frames; else empty.", "cam-1", _TEXT),
)


def schema_of(headers: tuple[Header, ...]) -> dict[str, Any]:
    """Return the JSON Schema of a record's headers; others may stand beside them."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {one.name: {**one.schema, "description": one.meaning} for one in headers},
    }
    if required := [one.name for one in headers if one.is_required]:
        schema["required"] = required
    return schema


def examples_of(headers: tuple[Header, ...], *names: str) -> dict[str, str]:
    """Return example values of the headers named, all if none are."""
    return {one.name: one.example for one in headers if not names or one.name in names}

"""The AsyncAPI 3.0 document of all topics, for other people's programs; made from the code, so it is true.

Topics come from `domain.topics`, headers from `header_list`, payloads from `schema`. `loupe asyncapi` prints
it, `docs/asyncapi.yaml` keeps it. Needs no server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.domain.topics import (
    CLAIM_LIMIT_BYTES,
    DEAD_LETTERS,
    EVENTS,
    FRAMES,
    INLINE_LIMIT_BYTES,
    INSPECTIONS,
    LABELS,
    LEDGER,
    MIB,
    MODELS,
    RECORD_LIMIT_BYTES,
    TOPICS,
    TRAINING,
    TRIGGERS,
    Topic,
)
from services.wire.header_list import (
    DEAD_LETTER_HEADERS,
    EVENT_HEADERS,
    FRAME_HEADERS,
    JSON_HEADERS,
    STRUCTURED_HEADERS,
    TRIGGER_HEADERS,
    Header,
    examples_of,
    schema_of,
)
from services.wire.schema import Schema, event_schemas, message_schemas, trigger_schema

# Of the wire contract, not of the release: a field more is a minor step, a changed meaning a major one.
CONTRACT_VERSION = "1.1.0"
_JSON, _PROTOBUF = "application/json", "application/protobuf"
_ANYONE = "anyone"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_UUID = "8145ba11-ac9b-5046-8e0a-124e644bec4e"
_WHEN = "2026-05-06T07:08:09Z"
_BYTES: Schema = {"type": "string", "format": "binary"}

_ABOUT = f"""Loupe judges images that anyone may write to `loupe.frames`, and tells what it saw.

A record's value on `loupe.frames` is the encoded image itself, its key the camera; every header is optional.
Images up to {INLINE_LIMIT_BYTES // MIB} MiB travel in the record, larger ones (up to
{CLAIM_LIMIT_BYTES // MIB} MiB) in the object store with `ce_dataref`. Producers and consumers need room for
records of {RECORD_LIMIT_BYTES} bytes: `max.request.size`, `max.partition.fetch.bytes`, `message.max.bytes`.

Delivery is at least once. Two frames with equal `ce_source` and `ce_id` are one and get one verdict; a frame
without id is identified by its place in Kafka, so sending it again makes a second one. Events with an equal
`id` are one event. Records of one key keep their order.

Fields are only added: readers ignore fields of protobuf messages and events that they do not know. In JSON
that Loupe reads (labels, trainings) an unknown name is refused, because it is a mistake.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One form of record on one topic.

    Attributes:
        name: key in the document.
        payload: JSON Schema.
        examples: values, as JSON.
    """

    name: str
    topic: Topic
    summary: str
    content_type: str
    headers: tuple[Header, ...]
    payload: Schema
    examples: tuple[Any, ...] = ()
    header_names: tuple[str, ...] = ()


def document() -> dict[str, Any]:
    """Return the document as JSON values."""
    messages = (*_messages(), *(_dead_letter(topic) for topic in DEAD_LETTERS))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Loupe",
            "version": CONTRACT_VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "description": "Kafka; `loupe env` prints the address as LOUPE_KAFKA_BOOTSTRAP.",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "host:port"}},
            }
        },
        "channels": {_key(topic): _channel(topic, messages) for topic in TOPICS},
        "operations": {name: one for topic in TOPICS for name, one in _operations(topic)},
        "components": {
            "messages": {one.name: _message(one) for one in messages},
            "schemas": {**message_schemas(), **event_schemas(), "Trigger": trigger_schema()},
        },
    }


def _messages() -> tuple[Message, ...]:
    label = {"project": "caps", "verdict": "anomaly", "classes": ["scratch"], "author": "ann"}
    image = {"uri": f"s3://plant-a/{_SHA}", "sha256": _SHA, "size_bytes": 204800}
    return (
        Message(
            "Frame", FRAMES, "An encoded image: JPEG, PNG, WebP, TIFF, BMP, GIF or PPM.", "image/jpeg",
            FRAME_HEADERS, {**_BYTES, "description": "The image's bytes; empty with ce_dataref."},
            header_names=("ce_id", "ce_source", "ce_time", "ce_partid"),
        ),
        Message(
            "Trigger", TRIGGERS, "Asks a triggered camera for one picture.", _JSON,
            TRIGGER_HEADERS, _reference("Trigger"), ({"part_id": "P-000123", "lot_id": "L-42"}, {}),
        ),
        _protobuf("Inspection", INSPECTIONS, "A verdict of one model version on one frame."),
        Message(
            "VerdictEvent", EVENTS, "What a frame's live verdict is.", "application/cloudevents+json",
            STRUCTURED_HEADERS, _reference("VerdictEvent"), (_verdict_event(),),
        ),
        Message(
            "CameraEvent", EVENTS, "A camera came into a state, or left one.",
            "application/cloudevents+json", STRUCTURED_HEADERS, _reference("CameraEvent"), (_camera_event(),),
        ),
        Message(
            "LabelJson", LABELS, "What a picture shows, as JSON; by frame, or by pixels in an object store.",
            _JSON, JSON_HEADERS, _reference("Label"),
            ({**label, "frame_id": _UUID}, {**label, "image": image, "labelled_at": _WHEN}),
        ),
        _protobuf("Label", LABELS, "What a picture shows."),
        Message(
            "TrainingRequestJson", TRAINING, "A wish for a new version, as JSON.", _JSON,
            JSON_HEADERS, _reference("TrainingRequest"), ({"project": "caps", "training_id": "monday"},),
        ),
        _protobuf("TrainingRequest", TRAINING, "A wish for a new version."),
        _protobuf("ModelAnnouncement", MODELS, "A new model version is uploaded and registered."),
        _protobuf("LedgerEntry", LEDGER, "Frames that were captured, or let go on purpose, and why."),
    )  # fmt: skip


def _protobuf(name: str, topic: Topic, summary: str) -> Message:
    return Message(name, topic, f"{summary} Protobuf.", _PROTOBUF, EVENT_HEADERS, _reference(name))


def _dead_letter(topic: Topic) -> Message:
    name = f"{_key(topic)[0].upper()}{_key(topic)[1:]}"
    return Message(
        name,
        topic,
        f"A record of {topic.name.removesuffix('.dlq')} that could not be handled, with its own headers.",
        "application/octet-stream",
        DEAD_LETTER_HEADERS,
        {**_BYTES, "description": "The original bytes, untouched."},
    )


def _key(topic: Topic) -> str:
    name = topic.name.removeprefix("loupe.")
    return f"{name.removesuffix('.dlq')}DeadLetters" if name.endswith(".dlq") else name


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _channel(topic: Topic, messages: tuple[Message, ...]) -> dict[str, Any]:
    days = topic.retention_s / 86400
    kept = f"{days:.0f} d" if days >= 1 else f"{topic.retention_s // 3600} h"
    return {
        "address": topic.name,
        "title": topic.value,
        "description": (
            f"Key: {topic.key}; records of one key keep their order. Kept for {kept}, "
            f"at most {topic.retention_bytes // MIB} MiB. Written by {', '.join(topic.written_in)}; "
            f"read by {', '.join(topic.read_in)}."
        ),
        "messages": {
            one.name: {"$ref": f"#/components/messages/{one.name}"} for one in messages if one.topic == topic
        },
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {
                    "retention.ms": topic.retention_s * 1000,
                    # Kafka counts bytes per partition.
                    "retention.bytes": topic.retention_bytes // topic.partitions,
                    "max.message.bytes": topic.max_message_bytes,
                },
                "bindingVersion": "0.5.0",
            }
        },
    }


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    """Return what Loupe does with a topic; what anyone may do is the other side of it."""
    key = _key(topic)
    name = f"{key[0].upper()}{key[1:]}"
    channel = {"$ref": f"#/channels/{key}"}
    by_anyone = " Anyone may write it." if topic in (FRAMES, TRIGGERS, LABELS, TRAINING) else ""
    operations: list[tuple[str, dict[str, Any]]] = []
    if topic.read_in != (_ANYONE,):
        operations.append((
            f"receive{name}",
            {"action": "receive", "channel": channel, "summary": f"Loupe reads {topic.name}.{by_anyone}"},
        ))  # fmt: skip
    if topic.written_in != (_ANYONE,):
        operations.append((
            f"send{name}",
            {"action": "send", "channel": channel, "summary": f"Loupe writes {topic.name}."},
        ))  # fmt: skip
    return operations


def _message(one: Message) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": one.name,
        "title": one.summary,
        "contentType": one.content_type,
        "headers": schema_of(one.headers),
        "payload": one.payload,
        "bindings": {
            "kafka": {"key": {"type": "string", "description": one.topic.key}, "bindingVersion": "0.5.0"}
        },
    }
    examples = [{"payload": payload} for payload in one.examples]
    if not examples and one.headers:
        examples = [{"headers": examples_of(one.headers, *one.header_names)}]
    return {**told, "examples": examples}


def _verdict_event() -> dict[str, Any]:
    region = {
        "left_ratio": 0.4, "top_ratio": 0.2, "width_ratio": 0.1, "height_ratio": 0.05, "area_ratio": 0.004,
        "mean_score": 5.1, "anomaly_type": "anomaly",
    }  # fmt: skip
    data = {
        "frame_id": _UUID, "camera": "cam-1", "source": "caps/0107.jpg", "project": "caps",
        "model_version": "v20260506-070809-a1b2", "is_anomalous": True, "is_uncertain": False,
        "confidence": 0.97, "score": 3.5, "threshold": 2.5, "captured_at": _WHEN, "judged_at": _WHEN,
        "part_id": "P-000123", "lot_id": None, "image_uri": f"s3://loupe-frames/sha256/9f/{_SHA}",
        "regions": [region], "inspection_id": _UUID,
    }  # fmt: skip
    return _event_of("io.loupe.anomaly.v1", "/projects/caps", _UUID, data)


def _camera_event() -> dict[str, Any]:
    data = {
        "camera": "cam-1", "state": "silent", "message": "No picture for 30 s.", "since": _WHEN,
        "previous": "running", "ingester": "line-1",
    }  # fmt: skip
    return _event_of("io.loupe.camera.v1", "/cameras/cam-1", "cam-1", data)


def _event_of(kind: str, source: str, subject: str, data: dict[str, Any]) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": _UUID, "source": source, "type": kind, "time": _WHEN, "subject": subject,
        "datacontenttype": _JSON, "data": data,
    }  # fmt: skip

"""The AsyncAPI document: well formed, complete, and true of what the code writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest
import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from google.protobuf import json_format
from pydantic import ValidationError
from typer.testing import CliRunner

from services.cli.asyncapi import as_text
from services.cli.main import app
from services.domain.camera import CameraState
from services.domain.errors import UnreadableImage
from services.domain.frame import Frame, ImageReference
from services.domain.topics import DEAD_LETTERS, TOPICS
from services.domain.trigger import Trigger
from services.wire.asyncapi import document
from services.wire.camera_event import CameraChange, encode_camera_event
from services.wire.dead_letter import decode_dead_letter, encode_dead_letter
from services.wire.event import encode_event
from services.wire.frame import encode_frame
from services.wire.gen.loupe.v1 import label_pb2, training_pb2
from services.wire.inspection import encode_inspection
from services.wire.inspection import to_message as inspection_message
from services.wire.record import OutRecord, Record
from services.wire.redrive import encode_redrive
from services.wire.trigger import encode_trigger
from tests.unit.wire.test_messages import inspection

ROOT = Path(__file__).parents[3]
AT = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
SHA = "9f" * 32
DOCUMENT = document()


def check(schema: dict[str, Any], value: object) -> None:
    """Validate `value`; references of the schema are those of the document."""
    whole = {"allOf": [schema], "components": DOCUMENT["components"]}
    jsonschema.Draft7Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


def message(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["messages"][name]
    return found


def texts(record: OutRecord | Record) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def parsed(document: dict[str, Any]) -> ApplicationSchema:
    """Return a document as FastStream's model of AsyncAPI 3.0.0 reads it; it asks for a server's path."""
    server = {**document["servers"]["kafka"], "pathname": "/"}
    return ApplicationSchema.model_validate({**document, "servers": {"kafka": server}})


def test_the_document_is_valid_asyncapi() -> None:
    found = parsed(DOCUMENT)
    assert set(found.channels) == set(DOCUMENT["channels"])
    assert set(found.operations) == set(DOCUMENT["operations"])


def test_a_mistake_would_be_noticed() -> None:
    wrong = {**DOCUMENT, "operations": {"x": {"action": "publish", "channel": {"$ref": "#/channels/frames"}}}}
    with pytest.raises(ValidationError, match="action"):
        parsed(wrong)


def test_the_committed_document_is_what_the_code_says() -> None:
    kept = (ROOT / "docs" / "asyncapi.yaml").read_text()
    assert kept == as_text(as_yaml=True), "run `make generate`"
    assert yaml.safe_load(kept) == DOCUMENT


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(app, ["asyncapi", "--json"])
    assert json.loads(done.output) == DOCUMENT


def test_every_topic_is_a_channel_with_its_limits() -> None:
    channels = {one["address"]: one for one in DOCUMENT["channels"].values()}
    assert set(channels) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        settings = channels[topic.name]["bindings"]["kafka"]
        assert settings["partitions"] == topic.partitions
        assert settings["topicConfiguration"]["retention.ms"] == topic.retention_s * 1000
        assert settings["topicConfiguration"]["max.message.bytes"] == topic.max_message_bytes
        assert channels[topic.name]["messages"], topic.name


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found, reference


@pytest.mark.parametrize("name", sorted(DOCUMENT["components"]["messages"]))
def test_every_example_is_what_its_schemas_say(name: str) -> None:
    told = message(name)
    assert told["examples"]
    for example in told["examples"]:
        if "payload" in example:
            check(told["payload"], example["payload"])
        check(told["headers"], example.get("headers", {"content-type": "x"}))


def test_examples_of_json_are_read_by_the_code() -> None:
    for name, empty in (
        ("LabelJson", label_pb2.Label()),
        ("TrainingRequestJson", training_pb2.TrainingRequest()),
    ):
        for example in message(name)["examples"]:
            json_format.ParseDict(example["payload"], empty)


def redriven() -> OutRecord:
    """Return a bare frame that is published again: every header is ours."""
    record = Record("loupe.frames", 1, 2, b"c", b"", (), 1_778_051_289_000)
    letter = encode_dead_letter(record, UnreadableImage("x"), tries=1, at=AT)
    return encode_redrive(decode_dead_letter(Record(letter.topic, 0, 0, b"c", b"", letter.headers)), "caps")


def full_frame() -> Frame:
    kept = ImageReference(f"s3://loupe-frames/{SHA}", SHA, 3)
    return Frame(
        UUID(int=1), "cam-1", AT, b"", "image/png", "a.png", "e", 4, "caps", "p", "l",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", kept, kept, "0.1,0.2,0.5,0.5",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("Frame", encode_frame(full_frame())),
        ("Frame", redriven()),
        ("Inspection", encode_inspection(inspection())),
        ("VerdictEvent", encode_event(inspection())),
        ("Trigger", encode_trigger(Trigger("cam-1", "T-1", AT, "P-1", "L-1"))),
        (
            "FramesDeadLetters",
            encode_dead_letter(Record("loupe.frames", 1, 2, b"c", b""), UnreadableImage("x"), tries=1, at=AT),
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_every_header_that_is_written_is_told(name: str, record: OutRecord) -> None:
    headers = message(name)["headers"]
    assert set(texts(record)) <= set(headers["properties"])
    check(headers, texts(record))


def test_a_trigger_is_what_its_schema_says() -> None:
    said = json.loads(encode_trigger(Trigger("cam-1", "T-1", AT, "P-1", "L-1")).value)
    check(message("Trigger")["payload"], said)
    assert set(said) == set(DOCUMENT["components"]["schemas"]["Trigger"]["properties"])


@pytest.mark.parametrize("is_anomalous", [True, False])
def test_a_verdict_event_is_what_its_schema_says(is_anomalous: bool) -> None:
    event = json.loads(encode_event(inspection(is_anomalous=is_anomalous)).value)
    check(message("VerdictEvent")["payload"], event)
    schemas = DOCUMENT["components"]["schemas"]
    assert set(event["data"]) == set(schemas["VerdictData"]["properties"])
    assert set(event["data"]["regions"][0]) == set(schemas["EventRegion"]["properties"])


def test_a_camera_event_is_what_its_schema_says() -> None:
    change = CameraChange("cam-1", CameraState.SILENT, "No picture.", AT, CameraState.RUNNING, "line-1")
    event = json.loads(encode_camera_event(change).value)
    check(message("CameraEvent")["payload"], event)
    assert set(event["data"]) == set(DOCUMENT["components"]["schemas"]["CameraData"]["properties"])


def test_a_protobuf_message_as_json_is_what_its_schema_says() -> None:
    said = json_format.MessageToDict(inspection_message(inspection()), preserving_proto_field_name=True)
    check(message("Inspection")["payload"], said)
    fields = DOCUMENT["components"]["schemas"]["Inspection"]["properties"]
    assert set(fields) == {field.name for field in inspection_message(inspection()).DESCRIPTOR.fields}
    assert fields["confidence"]["description"] == "0-1, trust in the verdict given."


@pytest.mark.parametrize(
    "said",
    [
        {"verdict": "normal", "frame_id": "x"},
        {"project": "caps", "verdict": "normal"},
        {"project": "caps", "frame_id": "x", "verdict": "good"},
        {"project": "caps", "frame_id": "x", "mask": []},
    ],
    ids=["no project", "no picture", "no verdict of ours", "a misspelt name"],
)
def test_a_label_that_would_be_refused_is_against_its_schema(said: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(message("LabelJson")["payload"], said)


def test_dead_letters_are_sent_by_loupe() -> None:
    senders = {one["channel"]["$ref"] for one in DOCUMENT["operations"].values() if one["action"] == "send"}
    assert {f"#/channels/{topic.name.split('.')[1]}DeadLetters" for topic in DEAD_LETTERS} <= senders

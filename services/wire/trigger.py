"""Trigger <-> Kafka record (arrow 1): anybody publishes one on `loupe.triggers` to get a picture.

The key is the camera id. The value is empty, or JSON with any of `part_id`, `lot_id` and `id`, texts or
whole numbers: `echo 'cam-1:{"part_id": "P123"}' | kcat -P -t loupe.triggers -K:` Without `id` the header
`ce_id` names the trigger, else its place in Kafka does. Its time is the record's own.
"""

from __future__ import annotations

import json
from typing import Any

from services.domain.errors import MalformedRecord
from services.domain.topics import TRIGGERS
from services.domain.trigger import Trigger
from services.wire.headers import read_headers, write_headers
from services.wire.record import OutRecord, Record

TRIGGER_TYPE = "io.loupe.trigger.v1"
JSON = "application/json"
# Ids go into headers and columns.
LONGEST_ID = 128


def encode_trigger(trigger: Trigger) -> OutRecord:
    """Return the record for `loupe.triggers`."""
    named = {"id": trigger.trigger_id, "part_id": trigger.part_id, "lot_id": trigger.lot_id}
    value = json.dumps({name: text for name, text in named.items() if text is not None}).encode()
    headers = write_headers(
        event_type=TRIGGER_TYPE,
        source=trigger.camera,
        event_id=trigger.trigger_id,
        time=trigger.triggered_at,
        content_type=JSON,
    )
    return OutRecord(TRIGGERS.name, trigger.camera.encode(), value, headers)


def decode_trigger(record: Record) -> Trigger:
    """Return the trigger of a record.

    Raises:
        MalformedRecord: without a camera as its key, or its value is no JSON object of texts.
    """
    try:
        camera = (record.key or b"").decode().strip()
    except UnicodeDecodeError as error:
        raise MalformedRecord("The key of a trigger is no UTF-8 text; it is the camera's id.") from error
    if not camera:
        raise MalformedRecord("A trigger has no key; it is the camera's id.")
    named = _object_of(record.value)
    place = f"{record.topic}-{record.partition}-{record.offset}"
    return Trigger(
        camera=camera,
        trigger_id=_id(named, "id") or read_headers(record.headers).get("id") or place,
        triggered_at=record.recorded_at,
        part_id=_id(named, "part_id"),
        lot_id=_id(named, "lot_id"),
    )


def _object_of(value: bytes) -> dict[str, Any]:
    if not value.strip():
        return {}
    try:
        named = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise MalformedRecord(f"The value of a trigger is no JSON: {error}") from error
    if not isinstance(named, dict):
        raise MalformedRecord('The value of a trigger is a JSON object, such as {"part_id": "P123"}.')
    return named


def _id(named: dict[str, Any], name: str) -> str | None:
    """Return a text of the value; PLCs write numbers, which are taken as they stand."""
    found = named.get(name)
    if found is None:
        return None
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise MalformedRecord(f"{name} of a trigger is neither text nor a whole number.")
    text = str(found).strip()
    if len(text) > LONGEST_ID or not text.isprintable():
        raise MalformedRecord(f"{name} of a trigger has at most {LONGEST_ID} printable characters.")
    return text or None

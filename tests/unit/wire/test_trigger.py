"""Triggers on the wire: what anybody may send, and what is refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.errors import MalformedRecord
from services.domain.trigger import Trigger
from services.wire.record import Record
from services.wire.trigger import decode_trigger, encode_trigger

AT = datetime(2026, 1, 1, tzinfo=UTC)
STAMP_MS = int(AT.timestamp() * 1000)


def record(value: bytes, key: bytes | None = b"cam-1", headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    return Record("loupe.triggers", 2, 7, key, value, headers, STAMP_MS)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (b"", Trigger("cam-1", "loupe.triggers-2-7", AT)),
        (b" \n", Trigger("cam-1", "loupe.triggers-2-7", AT)),
        (b"{}", Trigger("cam-1", "loupe.triggers-2-7", AT)),
        (b'{"part_id": "P1", "lot_id": "L2", "id": "t-3"}', Trigger("cam-1", "t-3", AT, "P1", "L2")),
        (
            b'{"part_id": 4711, "lot_id": null, "more": []}',
            Trigger("cam-1", "loupe.triggers-2-7", AT, "4711"),
        ),
    ],
)
def test_a_trigger_is_empty_or_json(value: bytes, wanted: Trigger) -> None:
    assert decode_trigger(record(value)) == wanted


def test_an_event_id_names_a_trigger_that_has_no_other_name() -> None:
    headers = (("ce_id", b"event-9"),)
    assert decode_trigger(record(b"", headers=headers)).trigger_id == "event-9"
    assert decode_trigger(record(b'{"id": "own"}', headers=headers)).trigger_id == "own"


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [
        (b"", None, "no key"),
        (b"", b" ", "no key"),
        (b"", b"\xff", "no UTF-8"),
        (b"{", b"cam-1", "no JSON"),
        (b"\xff\xfe\xff", b"cam-1", "no JSON"),
        (b"[]", b"cam-1", "JSON object"),
        (b"[" * 100_000, b"cam-1", "no JSON"),
        (b'{"part_id": {}}', b"cam-1", "neither text nor a whole number"),
        (b'{"part_id": true}', b"cam-1", "neither text nor a whole number"),
        (b'{"part_id": "a\\u0000b"}', b"cam-1", "printable"),
        (json.dumps({"id": "x" * 129}).encode(), b"cam-1", "at most 128"),
    ],
)
def test_what_is_no_trigger_is_refused_with_a_sentence(value: bytes, key: bytes | None, says: str) -> None:
    with pytest.raises(MalformedRecord, match=says):
        decode_trigger(record(value, key))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trigger_or_refused(value: bytes) -> None:
    with contextlib.suppress(MalformedRecord):
        assert decode_trigger(record(value)).camera == "cam-1"


def test_a_written_trigger_is_read_again() -> None:
    trigger = Trigger("cam-1", "t-1", AT, "P1", "L1")
    out = encode_trigger(trigger)
    read = decode_trigger(Record(out.topic, 0, 0, out.key, out.value, out.headers, STAMP_MS))
    assert read == trigger
    bare = encode_trigger(replace(trigger, part_id=None, lot_id=None))
    assert json.loads(bare.value) == {"id": "t-1"}

"""The wire contract, byte by byte: what was ever written is read for ever, and is written the same today."""

from __future__ import annotations

import pytest

from services.domain.topics import TOPICS
from tests.contract.golden_records import FOLDER, GOLDEN, Golden

# A field that no message has: number 2047, a varint of 1. The tag is 2047 << 3, in 7 bits a byte.
_UNKNOWN_FIELD = b"\xf8\x7f\x01"
_BROKEN = (
    "The wire contract of {name} changed. Records of the old form lie on topics and in other people's "
    "programs: add a field under a new number (proto) or name (JSON, headers) and keep this file. A form "
    "that cannot be kept compatible is a new version, with a type and a file of its own (…v2)."
)
_PROTOBUF = [
    one for one in GOLDEN if one.name.split("-")[0].split(".")[0] in {"inspection", "model", "ledger"}
]
_PROTOBUF += [one for one in GOLDEN if one.name in {"label.v1", "training.v1"}]


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda one: one.name)
def test_what_was_written_is_still_read_the_same(golden: Golden) -> None:
    assert golden.read(golden.record()) == golden.says, _BROKEN.format(name=golden.name)


@pytest.mark.parametrize("golden", [one for one in GOLDEN if one.written], ids=lambda one: one.name)
def test_what_is_written_today_is_what_was_written(golden: Golden) -> None:
    assert golden.written is not None
    sent, kept = golden.written(), golden.record()
    broken = _BROKEN.format(name=golden.name)
    assert (sent.topic, sent.key, sent.value) == (kept.topic, kept.key, kept.value), broken
    assert sorted(sent.headers) == sorted(kept.headers), broken


@pytest.mark.parametrize("golden", _PROTOBUF, ids=lambda one: one.name)
def test_a_field_of_a_later_release_is_ignored(golden: Golden) -> None:
    record = golden.record()
    later = type(record)(
        record.topic, record.partition, record.offset, record.key, record.value + _UNKNOWN_FIELD,
        record.headers, record.timestamp_ms,
    )  # fmt: skip
    assert golden.read(later) == golden.says


def test_every_topic_has_golden_bytes() -> None:
    covered = {one.record().topic for one in GOLDEN}
    # Dead letters have one form on all their topics.
    wanted = {topic.name for topic in TOPICS if not topic.name.endswith(".dlq")} | {"loupe.frames.dlq"}
    assert covered == wanted


def test_no_file_is_left_over() -> None:
    names = {path.name.removesuffix(".bin").removesuffix(".headers.json") for path in FOLDER.iterdir()}
    assert names == {one.name for one in GOLDEN}

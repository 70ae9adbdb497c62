"""What a person may write after `--since`, and what `loupe events` finds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.cli.events import events_of, parse_since
from services.domain.errors import BadRequest
from services.domain.topics import EVENTS
from services.wire.event import encode_event
from services.wire.record import OutRecord
from tests.unit.results.builders import frame, verdict

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d", NOW - timedelta(days=1)),
        ("2026-11-20T10:00:00+02:00", datetime(2026, 11, 20, 8, 0, tzinfo=UTC)),
    ],
)
def test_since_is_an_age_or_a_time(text: str, expected: datetime) -> None:
    assert parse_since(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "m", "10", "10w", "-5m", "yesterday", "١٠m", "9999999999999d"])
def test_anything_else_is_a_sentence(text: str) -> None:
    with pytest.raises(BadRequest, match="is no time"):
        parse_since(text, NOW)


def test_what_is_kept_comes_oldest_first_and_ends() -> None:
    broker = MemoryBroker()
    for number in range(20):
        broker.append(encode_event(verdict(frame(number, f"cam-{number % 5}"))))
    broker.append(OutRecord(EVENTS.name, b"cam-1", b"somebody else's"))
    found = list(events_of(MemoryTopicReader(broker), follow=False, start=None))
    assert len(found) == 20
    cameras = [told["data"]["camera"] for told in found]
    assert sorted(set(cameras)) == [f"cam-{n}" for n in range(5)]


def test_following_begins_now() -> None:
    broker = MemoryBroker()
    broker.append(encode_event(verdict(frame(1))))
    following = events_of(MemoryTopicReader(broker), follow=True, start=None)
    broker.append(encode_event(verdict(frame(2))))
    assert next(following)["data"]["frame_id"] == str(frame(2).frame_id)

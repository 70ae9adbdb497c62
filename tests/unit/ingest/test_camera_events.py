"""Cameras in trouble are told once, in order, also after Kafka was away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from threading import Event
from typing import Any

import pytest

from services.adapters.broker import Delivery
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.broker.reader import MemoryTopicReader
from services.cli.events import _line, events_of
from services.domain.camera import TROUBLED, CameraState
from services.domain.errors import BrokerUnavailable
from services.domain.topics import EVENTS
from services.ingest import camera_events
from services.ingest.camera_events import CameraEvents, is_told
from services.wire.camera_event import CAMERA_TYPE, CameraChange, encode_camera_event
from services.wire.record import OutRecord
from tests.poll import poll_until

SINCE = datetime(2026, 11, 21, 10, 0, 0, 123456, tzinfo=UTC)


def change(
    state: CameraState = CameraState.UNREACHABLE,
    previous: CameraState = CameraState.RUNNING,
    camera: str = "press-1",
) -> CameraChange:
    return CameraChange(camera, state, "No answer.", SINCE, previous, "line-1/ab")


class AwayProducer(MemoryProducer):
    """Refuses the first sends."""

    def __init__(self, broker: MemoryBroker, refusals: int) -> None:
        super().__init__(broker)
        self._refusals = refusals

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than the memory one
        if self._refusals:
            self._refusals -= 1
            raise BrokerUnavailable("Kafka is away.")
        return super().send(record)


def told(broker: MemoryBroker) -> list[dict[str, Any]]:
    return [json.loads(record.value)["data"] for record in broker.records(EVENTS.name)]


def test_an_event_says_what_happened_and_its_id_is_always_the_same() -> None:
    record = encode_camera_event(change())
    event = json.loads(record.value)
    assert (record.topic, record.key, event["type"]) == (EVENTS.name, b"press-1", CAMERA_TYPE)
    assert event["data"] == {
        "camera": "press-1", "state": "unreachable", "message": "No answer.", "since": SINCE.isoformat(),
        "previous": "running", "ingester": "line-1/ab",
    }  # fmt: skip
    assert event["id"] == json.loads(encode_camera_event(change()).value)["id"]
    assert event["id"] != json.loads(encode_camera_event(change(CameraState.DARK)).value)["id"]


@pytest.mark.parametrize("camera", ["Presse 1 / süd", "カメラ", "a%20b"])
def test_any_camera_id_makes_an_event(camera: str) -> None:
    event = json.loads(encode_camera_event(change(camera=camera)).value)
    assert event["data"]["camera"] == camera


@pytest.mark.parametrize(
    ("previous", "state", "expected"),
    [
        (CameraState.RUNNING, CameraState.DARK, True),
        (CameraState.DARK, CameraState.RUNNING, True),
        (CameraState.DARK, CameraState.FROZEN, True),
        (CameraState.DARK, CameraState.DARK, False),
        (CameraState.NEW, CameraState.STARTING, False),
        (CameraState.RUNNING, CameraState.ENDED, False),
        (CameraState.SILENT, CameraState.PAUSED, True),
    ],
)
def test_people_hear_of_trouble_only(previous: CameraState, state: CameraState, expected: bool) -> None:
    assert is_told(change(state, previous)) is expected


def test_events_wait_for_kafka_and_keep_their_order() -> None:
    broker, opened = MemoryBroker(partitions=1), []

    def open_producer() -> AwayProducer:
        opened.append(1)
        if len(opened) < 3:
            raise BrokerUnavailable("No broker answers.")
        return AwayProducer(broker, refusals=2)

    events = CameraEvents(open_producer, retry_every_s=0.01)
    troubled = sorted(TROUBLED)
    for before, state in zip([CameraState.RUNNING, *troubled], troubled, strict=False):
        events.tell(change(state, before))
    poll_until(lambda: len(told(broker)) >= len(troubled), deadline_s=10)
    events.close(5)
    assert [one["state"] for one in told(broker)] == [state.value for state in troubled]


def test_close_sends_what_waits_and_gives_up_in_time() -> None:
    broker = MemoryBroker()
    events = CameraEvents(lambda: MemoryProducer(broker))
    events.tell(change())
    events.close(5)
    assert len(told(broker)) == 1

    def away() -> MemoryProducer:
        raise BrokerUnavailable("No broker answers.")

    events = CameraEvents(away, retry_every_s=60)
    events.tell(change())
    events.close(5)


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(camera_events, "MAX_WAITING_EVENTS", 3)
    broker, may_open = MemoryBroker(partitions=1), Event()

    def open_producer() -> MemoryProducer:
        if not may_open.is_set():
            raise BrokerUnavailable("No broker answers.")
        return MemoryProducer(broker)

    events = CameraEvents(open_producer, retry_every_s=0.01)
    for number in range(5):
        events.tell(change(camera=f"cam-{number}"))
    may_open.set()
    poll_until(lambda: len(told(broker)) == 3, deadline_s=10)
    events.close(5)
    assert [one["camera"] for one in told(broker)] == ["cam-2", "cam-3", "cam-4"]
    assert "cam-0" in caplog.text


def test_loupe_events_shows_a_readable_line() -> None:
    broker = MemoryBroker()
    broker.append(encode_camera_event(change()))
    broker.append(encode_camera_event(change(CameraState.RUNNING, CameraState.UNREACHABLE)))
    broker.append(OutRecord(EVENTS.name, b"x", b'{"type": "io.loupe.camera.v1", "data": {}}'))
    found = list(events_of(MemoryTopicReader(broker), follow=False, start=None))
    lines = [_line(event).plain for event in found]
    assert len(lines) == 2
    assert "press-1" in lines[0]
    assert "unreachable No answer." in lines[0]
    assert "running" in lines[1]

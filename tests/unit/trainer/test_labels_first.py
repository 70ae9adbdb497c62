"""A training waits for the labels that were published before it was asked for, and for no others."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.broker.protocol import Partition
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import FakeClock
from services.domain.errors import RetryLater
from services.domain.topics import LABELS
from services.trainer.labels_first import PATIENCE_S, LabelsFirst
from services.wire.record import OutRecord
from tests.poll import poll_until

GROUP = "trainer"
PLACE = Partition(LABELS.name, 0)


class World:
    def __init__(self, labels: int) -> None:
        self.broker, self.clock, self.stopping = MemoryBroker(partitions=1), FakeClock(), threading.Event()
        self.first = LabelsFirst(MemoryTopicReader(self.broker), GROUP, self.clock, self.stopping)
        self.publish(labels)

    def publish(self, labels: int) -> None:
        for _ in range(labels):
            MemoryProducer(self.broker).send(OutRecord(LABELS.name, b"p", b"label"))

    def handled(self, labels: int) -> None:
        self.broker.committed[(GROUP, PLACE)] = labels


def now() -> datetime:
    return datetime.now(UTC)


def waiting(world: World, asked_at: datetime) -> threading.Thread:
    thread = threading.Thread(target=world.first.wait, args=(asked_at,), daemon=True)
    thread.start()
    return thread


def test_it_waits_until_every_earlier_label_is_handled() -> None:
    world = World(3)
    world.handled(2)
    thread = waiting(world, now())
    thread.join(0.3)
    assert thread.is_alive()
    world.handled(3)
    poll_until(lambda: not thread.is_alive(), deadline_s=5)


def test_it_does_not_wait_for_labels_that_came_later() -> None:
    world = World(3)
    world.handled(3)
    asked_at = now() - timedelta(seconds=5)
    world.publish(4)
    world.first.wait(asked_at)


def test_it_does_not_wait_where_nobody_ever_labelled() -> None:
    World(0).first.wait(now())


def test_it_goes_on_without_labels_that_nobody_handles() -> None:
    world = World(1)
    thread = waiting(world, now())
    thread.join(0.2)
    world.clock.advance(PATIENCE_S + 1)
    poll_until(lambda: not thread.is_alive(), deadline_s=5)


def test_a_stop_leaves_the_request_for_the_next_life() -> None:
    world = World(1)
    world.stopping.set()
    with pytest.raises(RetryLater):
        world.first.wait(now())

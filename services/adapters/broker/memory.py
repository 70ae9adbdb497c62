"""A broker in memory for tests: partitions by key, consumer groups with committed offsets.

Gaps against Kafka: one member per group, no rebalances, no size limits but the record limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from zlib import crc32

from services.adapters.broker.protocol import Partition
from services.domain.errors import ImageTooLarge
from services.domain.frame import RecordPosition
from services.domain.topics import RECORD_LIMIT_BYTES
from services.wire.record import OutRecord, Record


class MemoryBroker:
    """Topics and group offsets, shared by its producers and consumers; thread-safe."""

    def __init__(self, *, partitions: int = 4) -> None:
        """Create an empty broker whose topics all have `partitions` partitions."""
        self.partitions = partitions
        self.arrived = threading.Condition()
        self.committed: dict[tuple[str, Partition], int] = {}
        self._logs: dict[Partition, list[Record]] = {}

    def log(self, partition: Partition) -> list[Record]:
        """Return the records of a partition, oldest first (the live list)."""
        return self._logs.setdefault(partition, [])

    def records(self, topic: str) -> list[Record]:
        """Return all records of a topic, partition by partition."""
        with self.arrived:
            return [r for n in range(self.partitions) for r in self.log(Partition(topic, n))]

    def append(self, record: OutRecord) -> RecordPosition:
        """Store a record and wake waiting consumers."""
        with self.arrived:
            partition = Partition(record.topic, crc32(record.key or b"") % self.partitions)
            log = self.log(partition)
            stamp_ms = int(time.time() * 1000)
            offset = len(log)
            log.append(
                Record(
                    record.topic, partition.number, offset, record.key, record.value, record.headers, stamp_ms
                )
            )
            self.arrived.notify_all()
            return RecordPosition(record.topic, partition.number, offset)


class MemoryDelivery:
    """A record that has arrived."""

    def __init__(self, position: RecordPosition) -> None:
        """Remember where."""
        self._position = position

    def result(self, timeout_s: float) -> RecordPosition:  # noqa: ARG002  # the Protocol's
        """See `Delivery.result`."""
        return self._position


class MemoryProducer:
    """See `Producer`."""

    def __init__(self, broker: MemoryBroker) -> None:
        """Write to `broker`."""
        self._broker = broker

    def send(self, record: OutRecord) -> MemoryDelivery:
        """See `Producer.send`."""
        if len(record.value) > RECORD_LIMIT_BYTES:
            raise ImageTooLarge(
                f"The record has {len(record.value)} bytes, the limit is {RECORD_LIMIT_BYTES}.",
                size_bytes=len(record.value),
            )
        return MemoryDelivery(self._broker.append(record))

    def flush(self, timeout_s: float) -> None:
        """See `Producer.flush`."""

    def close(self) -> None:
        """See `Producer.close`."""


class MemoryConsumer:
    """See `Consumer`; the only member of its group."""

    def __init__(self, broker: MemoryBroker, *, topics: Collection[str], group: str) -> None:
        """Read `topics` from the group's committed offsets, else from the beginning."""
        self._broker = broker
        self._group = group
        self._paused: set[Partition] = set()
        places = [Partition(topic, number) for topic in topics for number in range(broker.partitions)]
        self._next = {place: broker.committed.get((group, place), 0) for place in places}

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """See `Consumer.poll`."""
        with self._broker.arrived:
            found = self._take(max_records)
            if not found and timeout_s > 0:
                self._broker.arrived.wait(timeout_s)
                found = self._take(max_records)
            return found

    def _take(self, max_records: int) -> list[Record]:
        found: list[Record] = []
        for place, start in self._next.items():
            if place not in self._paused:
                new = self._broker.log(place)[start : start + max_records - len(found)]
                self._next[place] = start + len(new)
                found.extend(new)
        return found

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """See `Consumer.commit`."""
        with self._broker.arrived:
            for place, offset in next_offsets.items():
                self._broker.committed[(self._group, place)] = offset

    def assignment(self) -> frozenset[Partition]:
        """See `Consumer.assignment`."""
        return frozenset(self._next)

    def pause(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.pause`."""
        self._paused.update(partitions)

    def resume(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.resume`."""
        self._paused.difference_update(partitions)

    def end_offset(self, partition: Partition) -> int | None:
        """See `Consumer.end_offset`."""
        return len(self._broker.log(partition))

    def close(self) -> None:
        """See `Consumer.close`."""

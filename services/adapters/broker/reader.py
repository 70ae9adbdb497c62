"""Looking into topics without being a consumer of them: no group, no commits, nothing is changed.

For the ledger's proof, the lag, and the reading commands. Blocking; one thread each.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from services.adapters.broker.kafka import (
    FETCH_MAX_BYTES,
    MAX_PARTITION_FETCH_BYTES,
    RECONNECT_BACKOFF_MAX_MS,
    record_of,
)
from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.protocol import Partition
from services.domain.errors import BrokerUnavailable
from services.wire.record import Record

_POLL_S = 0.25
# Polls without a record after which a log is read to its end: its last offsets are control records.
_IDLE_POLLS = 8
# A record that the broker says exists comes at once; longer means that the broker is away.
_PATIENCE_S = 15.0


class TopicReader(Protocol):
    """What `tests/contract/test_reader.py` holds both implementations to."""

    def spans(self, topic: str) -> dict[int, range]:
        """Return per partition the offsets from the oldest kept record to the next to come.

        Raises:
            BrokerUnavailable: no answer, or no such topic.
        """
        ...

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """Return per partition the next offset that a group will read; partitions without are left out.

        Raises:
            BrokerUnavailable: no answer.
        """
        ...

    def offsets_at(self, topic: str, time: datetime) -> dict[int, int]:
        """Return per partition the first offset whose record is not older than `time`, else the end.

        Raises:
            BrokerUnavailable: no answer.
        """
        ...

    def records_at(self, topic: str, partition: int, offsets: Iterable[int]) -> Iterator[Record]:
        """Yield the records at these ascending offsets; offsets without one (control records) are skipped.

        Raises:
            BrokerUnavailable: no answer in time.
        """
        ...

    def scan(self, topic: str, starts: Mapping[int, int]) -> Iterator[Record | None]:
        """Yield records from these offsets on, for ever; None whenever nothing came for a moment.

        Raises:
            BrokerUnavailable: no answer.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class KafkaTopicReader:
    """See `TopicReader`."""

    def __init__(
        self,
        bootstrap: str,
        *,
        max_fetch_bytes: int = MAX_PARTITION_FETCH_BYTES,
        connect_timeout_s: float = 10.0,
    ) -> None:
        """Connect to `bootstrap` (host:port, comma separated).

        Args:
            bootstrap: addresses of brokers.
            max_fetch_bytes: per partition and request; the broker gives one batch of records at least,
                so a small number suits who wants single records.
            connect_timeout_s: a person waits for the answer; the library's 30 s are too long.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        connecting: dict[str, Any] = {
            "bootstrap_servers": bootstrap.split(","),
            "bootstrap_timeout_ms": int(connect_timeout_s * 1000),
            # A broker that comes back is met within a second, not within the library's 30.
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        }
        try:
            self._consumer = KafkaConsumer(
                **connecting,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=max_fetch_bytes,
                fetch_max_bytes=FETCH_MAX_BYTES,
                fetch_max_wait_ms=100,
            )
            self._admin = KafkaAdminClient(**connecting)
        except KafkaError as error:
            raise BrokerUnavailable(f"No Kafka broker answers at {bootstrap}: {error}") from error

    def spans(self, topic: str) -> dict[int, range]:
        """See `TopicReader.spans`."""
        places = self._places(topic)
        try:
            firsts = self._consumer.beginning_offsets(places)
            ends = self._consumer.end_offsets(places)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka does not tell the offsets of {topic}: {error}") from error
        return {place.partition: range(firsts[place], ends[place]) for place in places}

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """See `TopicReader.committed`."""
        try:
            found = self._admin.list_group_offsets(group)[group]
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka does not tell the offsets of group {group}: {error}") from error
        return {
            place.partition: one.offset
            for place, one in found.items()
            if place.topic == topic and one.offset >= 0
        }

    def offsets_at(self, topic: str, time: datetime) -> dict[int, int]:
        """See `TopicReader.offsets_at`."""
        ends = self.spans(topic)
        wanted = {TopicPartition(topic, number): int(time.timestamp() * 1000) for number in ends}
        try:
            found = self._consumer.offsets_for_times(wanted)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka does not tell the offsets of {topic}: {error}") from error
        return {
            place.partition: one.offset if one is not None else ends[place.partition].stop
            for place, one in found.items()
        }

    def records_at(self, topic: str, partition: int, offsets: Iterable[int]) -> Iterator[Record]:
        """See `TopicReader.records_at`."""
        place = TopicPartition(topic, partition)
        self._consumer.assign([place])
        buffered: list[Record] = []
        for offset in offsets:
            if not buffered or not buffered[0].offset <= offset <= buffered[-1].offset:
                buffered = self._fetch(place, offset)
            buffered = [record for record in buffered if record.offset >= offset]
            if buffered and buffered[0].offset == offset:
                yield buffered[0]

    def _fetch(self, place: TopicPartition, offset: int) -> list[Record]:
        """Return records from `offset` on; empty when the log ends before any."""
        end: int = self._consumer.end_offsets([place])[place]
        self._consumer.seek(place, offset)
        deadline_monotonic_s = time.monotonic() + _PATIENCE_S
        while self._consumer.position(place) < end:
            if found := self._poll().get(place):
                return [record_of(one) for one in found]
            if time.monotonic() > deadline_monotonic_s:
                raise BrokerUnavailable(f"Kafka does not give record {offset} of {place.topic}.")
        return []

    def scan(self, topic: str, starts: Mapping[int, int]) -> Iterator[Record | None]:
        """See `TopicReader.scan`."""
        self._consumer.assign([TopicPartition(topic, number) for number in starts])
        for number, offset in starts.items():
            self._consumer.seek(TopicPartition(topic, number), offset)
        while True:
            found = self._poll()
            if not found:
                yield None
            for part in found.values():
                yield from (record_of(one) for one in part)

    def _poll(self) -> dict[TopicPartition, list[Any]]:
        try:
            found: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=int(_POLL_S * 1000))
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka cannot be read: {error}") from error
        return found

    def _places(self, topic: str) -> list[TopicPartition]:
        try:
            numbers = self._consumer.partitions_for_topic(topic)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka does not answer: {error}") from error
        if not numbers:
            raise BrokerUnavailable(f"Kafka has no topic {topic}.")
        return [TopicPartition(topic, number) for number in sorted(numbers)]

    def close(self) -> None:
        """See `TopicReader.close`."""
        self._consumer.close()
        self._admin.close()


class MemoryTopicReader:
    """See `TopicReader`."""

    def __init__(self, broker: MemoryBroker) -> None:
        """Read `broker`."""
        self._broker = broker

    def spans(self, topic: str) -> dict[int, range]:
        """See `TopicReader.spans`."""
        return {number: range(len(self._log(topic, number))) for number in range(self._broker.partitions)}

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """See `TopicReader.committed`."""
        return {
            place.number: offset
            for (one, place), offset in self._broker.committed.items()
            if one == group and place.topic == topic
        }

    def offsets_at(self, topic: str, time: datetime) -> dict[int, int]:
        """See `TopicReader.offsets_at`."""
        return {
            number: next(
                (record.offset for record in self._log(topic, number) if record.recorded_at >= time),
                span.stop,
            )
            for number, span in self.spans(topic).items()
        }

    def records_at(self, topic: str, partition: int, offsets: Iterable[int]) -> Iterator[Record]:
        """See `TopicReader.records_at`."""
        log = self._log(topic, partition)
        yield from (log[offset] for offset in offsets if offset < len(log))

    def scan(self, topic: str, starts: Mapping[int, int]) -> Iterator[Record | None]:
        """See `TopicReader.scan`."""
        places = dict(starts)
        while True:
            found = [record for number, at in places.items() for record in self._log(topic, number)[at:]]
            for record in found:
                places[record.partition] = record.offset + 1
                yield record
            if not found:
                with self._broker.arrived:
                    self._broker.arrived.wait(_POLL_S)
                yield None

    def _log(self, topic: str, number: int) -> list[Record]:
        return self._broker.log(Partition(topic, number))

    def close(self) -> None:
        """See `TopicReader.close`."""


def read_up_to(reader: TopicReader, topic: str, spans: Mapping[int, range]) -> Iterator[Record]:
    """Yield the records of these offsets; ends where they end, also when the last have no records.

    Raises:
        BrokerUnavailable: no answer.
    """
    waiting = {partition: span.stop for partition, span in spans.items() if span}
    idle = 0
    if not waiting:
        return
    for record in reader.scan(topic, {partition: spans[partition].start for partition in waiting}):
        idle = 0 if record else idle + 1
        if record and record.offset < waiting.get(record.partition, 0):
            yield record
        if record and record.offset + 1 >= waiting.get(record.partition, 0):
            waiting.pop(record.partition, None)
        if not waiting or idle > _IDLE_POLLS:
            return

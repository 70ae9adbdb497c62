"""Kafka by kafka-python. Settings that differ from its defaults say why."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.structs import OffsetAndMetadata

from services.adapters.broker.protocol import Partition
from services.domain.errors import BrokerUnavailable, ImageTooLarge
from services.domain.frame import RecordPosition
from services.domain.topics import MIB, RECORD_LIMIT_BYTES
from services.wire.record import OutRecord, Record

logger = logging.getLogger(__name__)

# A dead member is noticed after this; the library's 45 s would leave its frames waiting too long.
SESSION_TIMEOUT_MS = 10_000
# Three heartbeats fit into a session, the usual rule.
HEARTBEAT_INTERVAL_MS = 3_000
# A restarted broker is back within 3 s; the library's 30 s would make ten times that of it.
RECONNECT_BACKOFF_MAX_MS = 1_000
# A fetch may carry one record of the largest size and a little more per partition.
MAX_PARTITION_FETCH_BYTES = RECORD_LIMIT_BYTES + MIB
FETCH_MAX_BYTES = 50 * MIB


class KafkaDelivery:
    """A record on its way to Kafka."""

    def __init__(self, future: Any) -> None:
        """Wrap kafka-python's future."""
        self._future = future

    def result(self, timeout_s: float) -> RecordPosition:
        """See `Delivery.result`."""
        try:
            metadata = self._future.get(timeout=timeout_s)
        except MessageSizeTooLargeError as error:
            raise ImageTooLarge(f"Kafka refused the record for its size: {error}") from error
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka did not acknowledge a record: {error}") from error
        return RecordPosition(metadata.topic, metadata.partition, metadata.offset)


class KafkaBrokerProducer:
    """Idempotent producer, acks=all; thread-safe."""

    def __init__(self, bootstrap: str, *, linger_ms: int = 5, delivery_timeout_s: float = 30.0) -> None:
        """Connect to `bootstrap` (host:port, comma separated).

        Args:
            bootstrap: addresses of brokers.
            linger_ms: wait for company; small against the latency target of 100 ms.
            delivery_timeout_s: after this a record is given up and its `result` raises.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        self._bootstrap = bootstrap
        self._settings = {
            "bootstrap_servers": bootstrap.split(","),
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": linger_ms,
            "max_request_size": RECORD_LIMIT_BYTES,
            # A batch of one large image must not wait for memory that batch size reserves.
            "batch_size": 256 * 1024,
            "delivery_timeout_ms": int(delivery_timeout_s * 1000),
            "request_timeout_ms": int(min(10.0, delivery_timeout_s * 0.5) * 1000),
            "max_block_ms": int(delivery_timeout_s * 1000),
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
        }
        self._renewing = threading.Lock()
        self._gave_up = threading.Event()
        self._producer = self._open()

    def _open(self) -> KafkaProducer:
        try:
            return KafkaProducer(**self._settings)
        except KafkaError as error:
            raise BrokerUnavailable(f"No Kafka broker answers at {self._bootstrap}: {error}") from error

    def _usable(self) -> KafkaProducer:
        """Return the library's producer, a new one if the last gave a record up.

        kafka-python 3.0.12 does not ask for a new producer id after a batch that it had sent before ran
        out of time: every later send then waits for ever, also once the broker is back.
        """
        if self._gave_up.is_set():
            with self._renewing:
                if self._gave_up.is_set():
                    fresh = self._open()
                    stuck, self._producer = self._producer, fresh
                    self._gave_up.clear()
                    # What it still holds has no future: it is told so, and its sender is told again.
                    threading.Thread(target=_close, args=(stuck, 0), daemon=True).start()
        return self._producer

    def send(self, record: OutRecord) -> KafkaDelivery:
        """See `Producer.send`."""
        producer = self._usable()
        try:
            future = producer.send(
                record.topic, key=record.key, value=record.value, headers=list(record.headers)
            )
        except MessageSizeTooLargeError as error:
            raise ImageTooLarge(
                f"The record has {len(record.value)} bytes, the limit is {RECORD_LIMIT_BYTES}.",
                size_bytes=len(record.value),
            ) from error
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka takes no records: {error}") from error
        future.add_errback(self._on_failure, producer)
        return KafkaDelivery(future)

    def _on_failure(self, producer: KafkaProducer, error: BaseException) -> None:
        """Note that the library gave a record up; called from its sender thread.

        What a replaced producer still held says nothing of the one in its place.
        """
        if producer is self._producer and not isinstance(error, MessageSizeTooLargeError):
            self._gave_up.set()

    def flush(self, timeout_s: float) -> None:
        """See `Producer.flush`."""
        try:
            self._producer.flush(timeout=timeout_s)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka did not acknowledge in {timeout_s} s: {error}") from error

    def close(self) -> None:
        """See `Producer.close`."""
        _close(self._producer, timeout_s=5)


def _close(producer: KafkaProducer, timeout_s: float) -> None:
    """Close a producer; what it still holds after `timeout_s` is given up, and never sent."""
    try:
        producer.close(timeout=timeout_s)
    except KafkaError as error:
        logger.warning("the producer was closed with records unacknowledged: %s", error)
        # kafka-python 3.0.12 leaves its thread running when the flush in `close` runs out of time, and it
        # sends those records whenever the broker is back: after others that were sent in their place.
        producer._sender.force_close()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python ships no types
    """Passes rebalances on."""

    def __init__(self, on_revoked: Callable[[frozenset[Partition]], None]) -> None:
        self._on_revoked = on_revoked

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Called inside `poll` before partitions go to another member."""
        if revoked:
            self._on_revoked(frozenset(Partition(p.topic, p.partition) for p in revoked))

    def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Called inside `poll` when partitions are gone already."""
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Nothing to do: positions come from the committed offsets."""


class KafkaBrokerConsumer:
    """Dynamic member of a group, cooperative-sticky, commits by hand; for one thread."""

    def __init__(
        self,
        bootstrap: str,
        *,
        topics: Collection[str],
        group: str,
        on_revoked: Callable[[frozenset[Partition]], None] = lambda _: None,
        max_poll_interval_s: float = 300.0,
        auto_offset_reset: str = "earliest",
    ) -> None:
        """Join `group`.

        Args:
            bootstrap: addresses of brokers, comma separated.
            topics: what to read.
            group: consumer group id.
            on_revoked: called inside `poll` with partitions that go away; commit what is done.
            max_poll_interval_s: longest time between two polls.
            auto_offset_reset: `earliest`, so that images published before the first commit count.

        Raises:
            BrokerUnavailable: no broker answers.
        """
        try:
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap.split(","),
                group_id=group,
                enable_auto_commit=False,
                auto_offset_reset=auto_offset_reset,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                session_timeout_ms=SESSION_TIMEOUT_MS,
                heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
                max_poll_interval_ms=int(max_poll_interval_s * 1000),
                max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
                fetch_max_bytes=FETCH_MAX_BYTES,
                # New topics and partitions are seen within seconds, not five minutes.
                metadata_max_age_ms=10_000,
                fetch_max_wait_ms=100,
                reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
            )
            self._consumer.subscribe(list(topics), listener=_Listener(on_revoked))
        except KafkaError as error:
            raise BrokerUnavailable(f"No Kafka broker answers at {bootstrap}: {error}") from error

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """See `Consumer.poll`."""
        self._finish_joining()
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka cannot be read: {error}") from error
        return [record_of(found) for part in polled.values() for found in part]

    def _finish_joining(self) -> None:
        """Make the next poll finish a join that the last one left on its way.

        kafka-python 3.0.12 forgets it when new metadata made it join and the poll's time was up first: the
        member is then in the group, gets nothing and sends no heartbeats, for ever (1 start in 40).
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining and not coordinator.need_rejoin():
            coordinator.request_rejoin()

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """See `Consumer.commit`."""
        offsets = {
            TopicPartition(*partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in next_offsets.items()
        }
        try:
            self._consumer.commit(offsets)
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka took no commit: {error}") from error

    def assignment(self) -> frozenset[Partition]:
        """See `Consumer.assignment`."""
        return frozenset(Partition(p.topic, p.partition) for p in self._consumer.assignment())

    def pause(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.pause`."""
        self._consumer.pause(*(TopicPartition(*p) for p in partitions))

    def resume(self, partitions: Collection[Partition]) -> None:
        """See `Consumer.resume`."""
        self._consumer.resume(*(TopicPartition(*p) for p in partitions))

    def end_offset(self, partition: Partition) -> int | None:
        """See `Consumer.end_offset`."""
        end: int | None = self._consumer.highwater(TopicPartition(*partition))
        return end

    def close(self) -> None:
        """See `Consumer.close`."""
        self._consumer.close(autocommit=False, timeout_ms=3000)


def record_of(found: Any) -> Record:
    """Return a record of kafka-python or aiokafka as ours; one without value has empty bytes."""
    return Record(
        topic=found.topic,
        partition=found.partition,
        offset=found.offset,
        key=found.key,
        value=found.value or b"",
        headers=tuple((name, value or b"") for name, value in found.headers),
        timestamp_ms=found.timestamp,
    )

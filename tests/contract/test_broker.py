"""Kafka and its stand-in do the same, as producer, as consumer and for who only looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.adapters.broker import Consumer, Partition, Producer
from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.broker.lag import LagMeter
from services.adapters.broker.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from services.adapters.broker.reader import KafkaTopicReader, MemoryTopicReader, TopicReader, read_up_to
from services.domain.errors import BrokerUnavailable, ImageTooLarge
from services.domain.topics import INLINE_LIMIT_BYTES, RECORD_LIMIT_BYTES, Topic
from services.embedded.contents import create_topics
from services.wire.record import OutRecord, Record
from tests.poll import poll_until


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker's ways in, and a fresh topic of two partitions."""

    topic: str
    producer: Producer
    consumer: Callable[[str], Consumer]
    reader: TopicReader

    def send(self, *values: bytes, key: bytes = b"cam-1") -> None:
        """Publish and wait until all are there."""
        for delivery in [self.producer.send(OutRecord(self.topic, key, value)) for value in values]:
            delivery.result(10)

    def take(self, consumer: Consumer, count: int) -> list[Record]:
        """Poll until `count` records came."""
        found: list[Record] = []

        def all_came() -> bool:
            found.extend(consumer.poll(0.1, 100))
            return len(found) >= count

        poll_until(all_came, deadline_s=20, what=f"{count} records")
        assert len(found) == count
        return found


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.real)])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    topic = f"test.{uuid4().hex[:12]}"
    if request.param == "memory":
        memory = MemoryBroker(partitions=2)
        yield Broker(
            topic,
            MemoryProducer(memory),
            lambda group: MemoryConsumer(memory, topics=[topic], group=group),
            MemoryTopicReader(memory),
        )
        return
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    create_topics(bootstrap, [Topic(topic, "camera", "anything", "0", (), (), partitions=2)])
    opened: list[Consumer] = []

    def consumer(group: str) -> Consumer:
        opened.append(KafkaBrokerConsumer(bootstrap, topics=[topic], group=f"{topic}.{group}"))
        return opened[-1]

    producer, reader = KafkaBrokerProducer(bootstrap), KafkaTopicReader(bootstrap)
    yield Broker(topic, producer, consumer, reader)
    for one in opened:
        one.close()
    reader.close()
    producer.close()


def test_a_record_comes_back_whole(broker: Broker) -> None:
    headers = (("ce_id", b"1"), ("ce_id", b"twice"), ("garbage", b"\xff\xfe"), ("empty", b""))
    place = broker.producer.send(OutRecord(broker.topic, b"cam-1", b"\x00bytes", headers)).result(10)
    (record,) = broker.take(broker.consumer("a"), 1)
    assert (record.topic, record.partition, record.offset) == (
        broker.topic,
        place.partition,
        place.offset,
    )
    assert (record.key, record.value, record.headers) == (b"cam-1", b"\x00bytes", headers)
    assert abs(record.timestamp_ms / 1000 - time.time()) < 60


def test_records_without_key_or_value_are_records(broker: Broker) -> None:
    broker.producer.send(OutRecord(broker.topic, None, b"")).result(10)
    (record,) = broker.take(broker.consumer("a"), 1)
    assert record.key is None
    assert record.value == b""


def test_one_key_keeps_its_order(broker: Broker) -> None:
    broker.send(*(str(number).encode() for number in range(50)))
    records = broker.take(broker.consumer("a"), 50)
    assert [record.value for record in records] == [str(number).encode() for number in range(50)]
    assert len({record.partition for record in records}) == 1


def test_a_group_goes_on_where_it_committed(broker: Broker) -> None:
    broker.send(b"1", b"2", b"3")
    first = broker.consumer("a")
    records = broker.take(first, 3)
    first.commit({Partition(broker.topic, records[0].partition): records[1].offset})
    first.close()
    assert [record.value for record in broker.take(broker.consumer("a"), 2)] == [b"2", b"3"]
    assert [record.value for record in broker.take(broker.consumer("b"), 3)] == [b"1", b"2", b"3"]


def test_what_is_not_committed_comes_again(broker: Broker) -> None:
    broker.send(b"1", b"2")
    first = broker.consumer("a")
    broker.take(first, 2)
    first.close()
    assert len(broker.take(broker.consumer("a"), 2)) == 2


def test_a_paused_partition_gives_nothing_until_resumed(broker: Broker) -> None:
    broker.send(b"1")
    consumer = broker.consumer("a")
    (record,) = broker.take(consumer, 1)
    place = Partition(broker.topic, record.partition)
    assert place in consumer.assignment()
    consumer.pause([place])
    broker.send(b"2")
    assert all(consumer.poll(0.1, 10) == [] for _ in range(5))
    consumer.resume([place])
    assert [found.value for found in broker.take(consumer, 1)] == [b"2"]
    assert consumer.end_offset(place) == 2


def test_no_more_records_than_asked(broker: Broker) -> None:
    broker.send(b"1", b"2", b"3")
    consumer = broker.consumer("a")
    first = poll_until(lambda: consumer.poll(0.1, 2), deadline_s=20)
    assert 1 <= len(first) <= 2


def test_the_largest_inline_image_travels(broker: Broker) -> None:
    image = b"\xab" * INLINE_LIMIT_BYTES
    broker.send(image)
    (record,) = broker.take(broker.consumer("a"), 1)
    assert record.value == image


def test_a_record_above_the_limit_is_refused(broker: Broker) -> None:
    with pytest.raises(ImageTooLarge):
        broker.producer.send(OutRecord(broker.topic, b"k", b"\xab" * (RECORD_LIMIT_BYTES + 1))).result(10)


def test_a_producer_can_be_flushed_and_closed_twice(broker: Broker) -> None:
    delivery = broker.producer.send(OutRecord(broker.topic, b"k", b"1"))
    broker.producer.flush(10)
    assert delivery.result(0.1).offset == 0
    broker.producer.close()
    broker.producer.close()


def test_a_reader_knows_the_spans_and_what_a_group_committed(broker: Broker) -> None:
    broker.send(b"1", b"2")
    consumer = broker.consumer("a")
    (place,) = {Partition(broker.topic, record.partition) for record in broker.take(consumer, 2)}
    spans = broker.reader.spans(broker.topic)
    assert spans == {place.number: range(2), 1 - place.number: range(0)}
    consumer.commit({place: 1})
    group = "a" if isinstance(broker.reader, MemoryTopicReader) else f"{broker.topic}.a"
    assert broker.reader.committed(broker.topic, group) == {place.number: 1}
    assert broker.reader.committed(broker.topic, "nobody") == {}


def test_a_reader_finds_single_records(broker: Broker) -> None:
    broker.send(*(str(number).encode() for number in range(10)))
    partition = next(number for number, span in broker.reader.spans(broker.topic).items() if span)

    def values(*offsets: int) -> list[bytes]:
        return [record.value for record in broker.reader.records_at(broker.topic, partition, offsets)]

    assert values(2, 3, 7) == [b"2", b"3", b"7"]
    assert values(9, 10, 500) == [b"9"]
    assert values() == []


def test_a_reader_finds_a_time(broker: Broker) -> None:
    broker.send(b"1")
    partition = next(number for number, span in broker.reader.spans(broker.topic).items() if span)
    now = datetime.now(UTC)
    assert broker.reader.offsets_at(broker.topic, now - timedelta(hours=1))[partition] == 0
    assert broker.reader.offsets_at(broker.topic, now + timedelta(hours=1))[partition] == 1


def test_reading_up_to_an_end_ends(broker: Broker) -> None:
    broker.send(*(str(number).encode() for number in range(5)), key=b"cam-1")
    broker.send(b"a", b"b", key=b"cam-2")
    spans = broker.reader.spans(broker.topic)
    broker.send(b"later")
    values = [record.value for record in read_up_to(broker.reader, broker.topic, spans)]
    assert sorted(values) == [b"0", b"1", b"2", b"3", b"4", b"a", b"b"]
    assert list(read_up_to(broker.reader, broker.topic, {0: range(0)})) == []


def test_lag_is_in_records_and_in_the_age_of_the_oldest(broker: Broker) -> None:
    group = "a" if isinstance(broker.reader, MemoryTopicReader) else f"{broker.topic}.a"
    meter = LagMeter(broker.reader, broker.topic, group)
    assert meter.measure(datetime.now(UTC)).records == 0
    broker.send(b"1", b"2", b"3")
    later = datetime.now(UTC) + timedelta(seconds=60)
    lag = meter.measure(later)
    assert lag.records == 3
    assert 59 < lag.seconds < 70
    consumer = broker.consumer("a")
    records = broker.take(consumer, 3)
    place = Partition(broker.topic, records[0].partition)
    consumer.commit({place: 2})
    assert meter.measure(later).records == 1
    consumer.commit({place: 3})
    assert meter.measure(later) == type(lag)(0, 0.0)


def test_a_broker_that_is_gone_is_unavailable() -> None:
    with pytest.raises(BrokerUnavailable):
        KafkaTopicReader("127.0.0.1:1", connect_timeout_s=1)


def test_a_topic_that_does_not_exist_is_unavailable(kafka_bootstrap: str) -> None:
    reader = KafkaTopicReader(kafka_bootstrap)
    with pytest.raises(BrokerUnavailable, match=r"no\.such\.topic"):
        reader.spans("no.such.topic")
    reader.close()


def test_a_join_that_a_poll_left_on_its_way_is_finished(kafka_bootstrap: str) -> None:
    topic = f"test.{uuid4().hex[:12]}"
    create_topics(kafka_bootstrap, [Topic(topic, "camera", "anything", "0", (), (), partitions=2)])
    consumer = KafkaBrokerConsumer(kafka_bootstrap, topics=[topic], group=topic)
    poll_until(lambda: consumer.poll(0.1, 1) or consumer.assignment(), deadline_s=20, what="an assignment")
    # What kafka-python is left with when new metadata made it join and the poll's time was up first.
    coordinator = consumer._consumer._coordinator
    coordinator.rejoining = True
    assert not coordinator.need_rejoin()
    poll_until(lambda: not (consumer.poll(0.1, 1) or coordinator.rejoining), deadline_s=20, what="the join")
    consumer.close()

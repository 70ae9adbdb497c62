"""The size limits of a real broker, and of topics whose limit somebody lowered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.limits import check_size_limits, read_size_limits
from services.domain.errors import BrokerUnavailable, SizeLimitsDisagree
from services.domain.topics import FRAMES, INLINE_LIMIT_BYTES, RECORD_LIMIT_BYTES, Topic
from services.wire.record import OutRecord
from tests.poll import poll_until

pytestmark = pytest.mark.real


@pytest.fixture
def admin(kafka_bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    yield client
    client.close()


@pytest.fixture
def topic(admin: KafkaAdminClient) -> Iterator[Topic]:
    """A topic of this test alone."""
    made = replace(FRAMES, name=f"frames-{uuid4().hex[:8]}")
    admin.create_topics([NewTopic(made.name, 1, 1)])
    admin.wait_for_topics([made.name])
    yield made
    admin.delete_topics([made.name])


def lower(admin: KafkaAdminClient, topic: Topic, limit_bytes: int) -> None:
    configs = {"max.message.bytes": str(limit_bytes)}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, configs=configs)])


def test_the_stacks_own_broker_and_topics_take_the_largest_image(kafka_bootstrap: str) -> None:
    limits = check_size_limits(kafka_bootstrap)
    assert {number for _, number in limits.places()[:3]} == {RECORD_LIMIT_BYTES}
    # And it is true: the largest inline image passes with its headers.
    producer = KafkaBrokerProducer(kafka_bootstrap)
    try:
        record = OutRecord(FRAMES.name, b"limits", bytes(INLINE_LIMIT_BYTES), (("h", b"x" * 2000),))
        assert producer.send(record).result(30).offset >= 0
    finally:
        producer.close()


def test_a_topic_whose_limit_was_lowered_is_refused_with_the_numbers(
    kafka_bootstrap: str, admin: KafkaAdminClient, topic: Topic
) -> None:
    lower(admin, topic, 1_000_000)
    poll_until(lambda: read_size_limits(kafka_bootstrap, [topic]).topic_bytes == 1_000_000, deadline_s=10)
    with pytest.raises(SizeLimitsDisagree) as caught:
        check_size_limits(kafka_bootstrap, [FRAMES, topic])
    assert caught.value.details["topic"] == topic.name
    wanted = f"max.message.bytes of the topic {topic.name} to at least {RECORD_LIMIT_BYTES}"
    assert wanted in caught.value.message
    assert "1000000" in caught.value.message


def test_a_topic_that_is_not_there_yet_is_warned_of(
    kafka_bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = check_size_limits(kafka_bootstrap, [replace(FRAMES, name="not-there")])
    assert limits.topic_bytes is None
    assert "does not tell max.message.bytes of the topic not-there" in caplog.text


def test_no_broker_is_no_disagreement() -> None:
    with pytest.raises(BrokerUnavailable):
        check_size_limits("127.0.0.1:1")

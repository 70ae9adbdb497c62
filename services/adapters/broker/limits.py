"""Whether the largest record passes everywhere: broker, replication, topic, producer and consumer.

Checked at the start of every process that writes or reads images, because a limit that is too small shows
itself only with the first large image, in the middle of a shift. Changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)

from services.adapters.broker.kafka import MAX_PARTITION_FETCH_BYTES, RECONNECT_BACKOFF_MAX_MS
from services.domain.errors import BrokerUnavailable, SizeLimitsDisagree
from services.domain.topics import FRAMES, FRAMES_DLQ, RECORD_LIMIT_BYTES, Topic

logger = logging.getLogger(__name__)

_BROKER, _REPLICA, _TOPIC = "message.max.bytes", "replica.fetch.max.bytes", "max.message.bytes"
_CONNECT_TIMEOUT_MS = 10_000
_FORBIDDEN = (ClusterAuthorizationFailedError, TopicAuthorizationFailedError, UnsupportedVersionError)


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """The five limits of a record, in bytes; None where the broker does not tell.

    Attributes:
        broker_bytes: `message.max.bytes`, the least of all brokers.
        replica_bytes: `replica.fetch.max.bytes`, likewise.
        topic_bytes: `max.message.bytes`, the least of the topics asked for.
        topic: the topic that has it.
        producer_bytes: `max_request_size` of ours.
        consumer_bytes: `max_partition_fetch_bytes` of ours.
    """

    broker_bytes: int | None
    replica_bytes: int | None
    topic_bytes: int | None
    topic: str
    producer_bytes: int = RECORD_LIMIT_BYTES
    consumer_bytes: int = MAX_PARTITION_FETCH_BYTES

    def places(self) -> tuple[tuple[str, int | None], ...]:
        """Return each place with its setting, as people know it, and its limit."""
        return (
            (f"the broker's {_BROKER}", self.broker_bytes),
            (f"the broker's {_REPLICA}", self.replica_bytes),
            (f"{_TOPIC} of the topic {self.topic}", self.topic_bytes),
            ("the producer's max_request_size", self.producer_bytes),
            ("the consumer's max_partition_fetch_bytes", self.consumer_bytes),
        )


def check_size_limits(bootstrap: str, topics: Sequence[Topic] = (FRAMES, FRAMES_DLQ)) -> SizeLimits:
    """Return the limits of a cluster, if the largest record passes all of them. Blocks.

    Where the broker forbids to look, or has no such topic yet, it is warned of and not refused.

    Raises:
        SizeLimitsDisagree: it does not; the message names all five and the setting to change.
        BrokerUnavailable: no answer.
    """
    limits = read_size_limits(bootstrap, topics)
    refuse_too_small(limits)
    unknown = [place for place, limit_bytes in limits.places() if limit_bytes is None]
    if unknown:
        logger.warning(
            "Kafka does not tell %s, so nobody knows whether images of %d bytes pass.",
            ", ".join(unknown), RECORD_LIMIT_BYTES,
        )  # fmt: skip
    return limits


def refuse_too_small(limits: SizeLimits, needed_bytes: int = RECORD_LIMIT_BYTES) -> None:
    """Do nothing if all known limits let `needed_bytes` pass.

    Raises:
        SizeLimitsDisagree: one does not.
    """
    too_small = [place for place, found in limits.places() if found is not None and found < needed_bytes]
    if not too_small:
        return
    numbers = ", ".join(f"{place} {'unknown' if n is None else n}" for place, n in limits.places())
    message = (
        f"Images of up to {needed_bytes} bytes with their headers would not pass: raise "
        f"{' and '.join(too_small)} to at least {needed_bytes}. The five limits are: {numbers}."
    )
    raise SizeLimitsDisagree(message, needed_bytes=needed_bytes, too_small=tuple(too_small), **asdict(limits))


def read_size_limits(bootstrap: str, topics: Sequence[Topic]) -> SizeLimits:
    """Return the limits of a cluster, of our producer and of our consumer.

    Raises:
        BrokerUnavailable: no answer.
    """
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=bootstrap.split(","),
            bootstrap_timeout_ms=_CONNECT_TIMEOUT_MS,
            reconnect_backoff_max_ms=RECONNECT_BACKOFF_MAX_MS,
        )
    except KafkaError as error:
        raise BrokerUnavailable(f"No Kafka broker answers at {bootstrap}: {error}") from error
    try:
        brokers = [str(one["broker_id"]) for one in admin.describe_cluster()["brokers"]]
        of_brokers = _described(admin, ConfigResourceType.BROKER, brokers)
        of_topics = _described(admin, ConfigResourceType.TOPIC, [topic.name for topic in topics])
    except KafkaError as error:
        raise BrokerUnavailable(f"Kafka does not tell its limits: {error}") from error
    finally:
        admin.close()
    sizes = {name: size for name in of_topics if (size := _number(of_topics[name], _TOPIC)) is not None}
    least = min(sizes, key=lambda name: sizes[name], default=topics[0].name)
    return SizeLimits(
        broker_bytes=_least(of_brokers, _BROKER),
        replica_bytes=_least(of_brokers, _REPLICA),
        topic_bytes=sizes.get(least),
        topic=least,
    )


def _described(admin: KafkaAdminClient, kind: ConfigResourceType, names: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of brokers or topics by name; empty where it is forbidden to look."""
    try:
        found = admin.describe_configs([ConfigResource(kind, name) for name in names], config_filter="all")
    except _FORBIDDEN as error:
        logger.info("Kafka forbids to look at its settings: %s", error)
        return {}
    described: dict[str, Any] = {name: entry for part in found.values() for name, entry in part.items()}
    return described


def _least(described: dict[str, Any], setting: str) -> int | None:
    numbers = (_number(entry, setting) for entry in described.values())
    return min((one for one in numbers if one is not None), default=None)


def _number(entry: dict[str, Any], setting: str) -> int | None:
    value = entry.get(setting, {}).get("value")
    return None if value is None else int(value)

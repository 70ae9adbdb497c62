"""A Kafka record without Kafka: what every broker adapter gives and takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from services.domain.frame import RecordPosition

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read.

    Attributes:
        timestamp_ms: broker or producer time, milliseconds since the epoch, UTC.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    timestamp_ms: int = 0

    @property
    def position(self) -> RecordPosition:
        """Where the record stands."""
        return RecordPosition(self.topic, self.partition, self.offset)

    @property
    def recorded_at(self) -> datetime:
        """The record's own time, aware UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class OutRecord:
    """A record to be written; the broker chooses the partition from the key."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()

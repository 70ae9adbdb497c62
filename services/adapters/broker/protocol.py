"""What a broker has to do; `tests/contract/test_broker.py` holds both implementations to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

from services.domain.frame import RecordPosition
from services.wire.record import OutRecord, Record


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    number: int


class Delivery(Protocol):
    """A record on its way."""

    def result(self, timeout_s: float) -> RecordPosition:
        """Block until the broker acknowledged.

        Raises:
            BrokerUnavailable: not within `timeout_s`, or given up.
        """
        ...


class Producer(Protocol):
    """Writes records, acknowledged by all in-sync replicas, in the order sent per key."""

    def send(self, record: OutRecord) -> Delivery:
        """Hand over a record; blocks only while the send buffer is full.

        Raises:
            BrokerUnavailable: the buffer stayed full.
            ImageTooLarge: the record is above the size limit; it was not sent.
        """
        ...

    def flush(self, timeout_s: float) -> None:
        """Block until all that was sent is acknowledged or given up (then its `result` raises).

        Raises:
            BrokerUnavailable: not within `timeout_s`.
        """
        ...

    def close(self) -> None:
        """Flush briefly and let go of connections; harmless twice."""
        ...


class Consumer(Protocol):
    """A member of a consumer group; used by one thread. Offsets are only committed by `commit`."""

    def poll(self, timeout_s: float, max_records: int) -> list[Record]:
        """Return new records of the assigned, unpaused partitions, in order per partition.

        Raises:
            BrokerUnavailable: the broker refuses; try again.
        """
        ...

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Commit the next offset to read (last done + 1) per partition, and wait for it.

        Raises:
            BrokerUnavailable: not committed; also when a partition was taken away meanwhile.
        """
        ...

    def assignment(self) -> frozenset[Partition]:
        """Return what is assigned now; changes only inside `poll`."""
        ...

    def pause(self, partitions: Collection[Partition]) -> None:
        """Stop returning records of these; membership goes on while `poll` is called."""
        ...

    def resume(self, partitions: Collection[Partition]) -> None:
        """Undo `pause`."""
        ...

    def end_offset(self, partition: Partition) -> int | None:
        """Return the offset the next record will get, as last heard; never blocks."""
        ...

    def close(self) -> None:
        """Leave the group at once, without committing."""
        ...

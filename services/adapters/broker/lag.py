"""How far a consumer group is behind, in records and in seconds: what people and autoscalers look at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.adapters.broker.reader import TopicReader


@dataclass(frozen=True, slots=True)
class Lag:
    """Distance between what was written and what was committed.

    Attributes:
        records: not yet committed.
        seconds: age of the oldest of them; 0 when there is none.
    """

    records: int
    seconds: float


class LagMeter:
    """Measures the lag of one group on one topic.

    Asks for the time of a record only when the oldest uncommitted one has changed, since the record
    comes with its image.
    """

    def __init__(self, reader: TopicReader, topic: str, group: str) -> None:
        """Measure through `reader`, which must not be used by another thread."""
        self._reader = reader
        self._topic = topic
        self._group = group
        self._oldest: dict[int, tuple[int, datetime]] = {}

    def measure(self, now: datetime) -> Lag:
        """Return the lag; a group that never committed has everything before it.

        Raises:
            BrokerUnavailable: no answer.
        """
        committed = self._reader.committed(self._topic, self._group)
        records, seconds = 0, 0.0
        for partition, span in self._reader.spans(self._topic).items():
            first = max(span.start, committed.get(partition, span.start))
            if first >= span.stop:
                continue
            records += span.stop - first
            if (written_at := self._written_at(partition, range(first, span.stop))) is not None:
                seconds = max(seconds, (now - written_at).total_seconds())
        return Lag(records, seconds)

    def _written_at(self, partition: int, behind: range) -> datetime | None:
        known = self._oldest.get(partition)
        if known is None or known[0] != behind.start:
            record = next(self._reader.records_at(self._topic, partition, behind[:1]), None)
            if record is None:
                return None
            known = self._oldest[partition] = (behind.start, record.recorded_at)
        return known[1]

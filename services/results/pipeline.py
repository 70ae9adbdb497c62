"""Arrows 4 and 8: one batch of records becomes rows, then events, then counts, then the live view.

Read `Pipeline` from the top: each method is what is done with a batch of one topic, and returns only
when all of it is done, so that the caller may commit (`subscriptions`). Every step can be repeated, so
a process that dies between two of them loses nothing and doubles nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from services.adapters.broker import Producer
from services.adapters.broker.patience import Patience, PoisonGuard
from services.adapters.cache.live import LiveView
from services.adapters.clock import Clock
from services.domain.errors import ImageTooLarge, MalformedRecord
from services.domain.inspection import COUNTING_ROLES, Inspection
from services.domain.topics import FRAMES_DLQ
from services.results.batch import (
    Read,
    Refused,
    place_of,
    read_dead_letter,
    read_inspection,
    read_ledger_entry,
    sort_out,
)
from services.results.store import Store
from services.results.tally import Tally
from services.wire.dead_letter import encode_dead_letter, fitting_letter
from services.wire.event import data_of, encode_event
from services.wire.record import OutRecord, Record

logger = logging.getLogger(__name__)
T = TypeVar("T")
Added = TypeVar("Added")

_PRODUCE_TIMEOUT_S = 30.0


class Pipeline:
    """What is done with one batch of each topic. Methods block; each topic has one thread at a time.

    All of them raise `RetryLater` only when the process is stopping (do not commit) and
    `PoisonShareExceeded` when too much cannot be read (stop the process).
    """

    def __init__(
        self, store: Store, producer: Producer, tally: Tally, live: LiveView, clock: Clock,
        patience: Patience, *, max_poison_ratio: float,
    ) -> None:  # fmt: skip
        """Take the parts; `__main__` makes them."""
        self._store = store
        self._producer = producer
        self._tally = tally
        self._live = live
        self._clock = clock
        self._patience = patience
        self._max_poison_ratio = max_poison_ratio
        self._guards: dict[str, PoisonGuard] = {}

    def inspections(self, records: Sequence[Record]) -> None:
        """Store verdicts, tell of them, count them, show them."""
        batch = self._readable(records, read_inspection)
        for stored in self._stored(batch, self._store.add_inspections):
            every = (*(r.what for r in stored.first), *stored.known)
            told = [one for one in every if one.role in COUNTING_ROLES]
            self._publish([encode_event(one) for one in told])
            self._tally.judged(stored)
            self._tally.events(told)
            self._show([one.what for one in stored.first])

    def ledger(self, records: Sequence[Record]) -> None:
        """Store what ingesters and the stream declared captured or shed."""
        batch = self._readable(records, read_ledger_entry)
        for stored in self._stored(batch, self._store.add_declared):
            self._tally.declared(stored)

    def dead_letters(self, records: Sequence[Record]) -> None:
        """Store which frames the stream gave up, and why."""
        batch = self._readable(records, read_dead_letter)
        for stored in self._stored(batch, self._store.add_quarantined):
            self._tally.quarantined(stored)

    def _readable(self, records: Sequence[Record], read: Callable[[Record], T]) -> list[Read[T]]:
        """Return what can be read, after the rest went to its dead-letter topic."""
        good, refused = sort_out(records, read)
        if records:
            guard = self._guards.setdefault(records[0].topic, PoisonGuard(self._max_poison_ratio))
            guard.note(
                good=len(good),
                refused=len(refused),
                causes=[one.error.cause for one in refused],
                examples=[place_of(one.record) for one in refused],
            )
        self._refuse(refused)
        return good

    def _stored(self, batch: list[Read[T]], add: Callable[[Sequence[Read[T]]], Added]) -> list[Added]:
        """Store a batch in one transaction, or in halves around a record that the database cannot hold."""
        if not batch:
            return []
        try:
            return [self._patience.call(lambda: add(batch))]
        except MalformedRecord as error:
            if len(batch) == 1:
                self._refuse([Refused(batch[0].record, error)])
                return []
        middle = len(batch) // 2
        return [*self._stored(batch[:middle], add), *self._stored(batch[middle:], add)]

    def _refuse(self, refused: Sequence[Refused]) -> None:
        """Move records to their dead-letter topic; one that stands in such a topic already stays there."""
        for one in refused:
            logger.warning("refused %s: %s", place_of(one.record), one.error.message)
            if one.record.topic != FRAMES_DLQ.name:
                self._publish_letter(one)
        self._tally.refused(refused)

    def _publish_letter(self, one: Refused) -> None:
        letter = encode_dead_letter(one.record, one.error, tries=1, at=self._clock.now())
        try:
            self._publish([letter])
        except ImageTooLarge:
            # The cause in the headers took it over the limit: the original stays readable where it stands.
            self._publish([fitting_letter(letter)])

    def _publish(self, records: Sequence[OutRecord]) -> None:
        """Return when the broker has all of them."""

        def publish() -> None:
            for delivery in [self._producer.send(record) for record in records]:
                delivery.result(_PRODUCE_TIMEOUT_S)

        self._patience.call(publish)

    def _show(self, inspections: Sequence[Inspection]) -> None:
        verdicts = [data_of(one) for one in inspections if one.role in COUNTING_ROLES]
        if verdicts:
            self._live.show(verdicts, self._tally.of_cameras({str(one["camera"]) for one in verdicts}))

"""Announced model versions become the desired state (arrows 6, 7).

A hosted project gets its new version, an unhosted one gets units if there are some; `reconciler`
makes it true. The desired state is written before the offset is committed. Does not talk to Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from services.adapters.broker import Consumer, Partition, Producer
from services.adapters.broker.patience import Patience
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.errors import BrokerUnavailable, Rejected, RetryLater
from services.domain.hosting import Hosting
from services.domain.metrics import DEAD_LETTERS_TOTAL
from services.domain.model_version import ModelAnnouncement
from services.domain.project import checked_project_name
from services.hosting.store import HostedProject, HostingStore, Wish
from services.hosting.units import BY_DEFAULT, admission, shares_at_start, units_for_new
from services.wire.dead_letter import encode_dead_letter
from services.wire.model import decode_announcement
from services.wire.record import Record

logger = logging.getLogger(__name__)

GROUP = "loupe-hosting"
_POLL_S = 0.5
_PRODUCE_TIMEOUT_S = 30.0


class Host:
    """Turns model versions into wishes."""

    def __init__(self, store: HostingStore, clock: Clock, *, offered_units: int, default_units: int) -> None:
        """Share out `offered_units`; see `units_for_new`."""
        self._store = store
        self._clock = clock
        self._offered = offered_units
        self._default = default_units

    def announced(self, said: ModelAnnouncement) -> bool:
        """Host an announced version; return False if it may not serve, or one promoted after it does.

        What was promoted last counts, not what was made last: that is how an older version comes back.
        """
        promoted_at = self._store.promoted_at(said)
        if promoted_at is None:
            logger.warning("%s %s was announced, but not promoted; it stays out", said.project, said.version)
            return False
        hosted = self._store.hosted()
        known = next((one for one in hosted if one.hosting.project == said.project), None)
        if known is None:
            self._host_new(said, hosted)
            return True
        if known.model_promoted_at is not None and promoted_at <= known.model_promoted_at:
            return False
        swapped = replace(known.hosting, version=said.version, uri=said.uri)
        logger.info("%s gets version %s after %s", said.project, said.version, known.hosting.version)
        self._wish(hosted, [(swapped, known.changed_by)])
        return True

    def catch_up(self) -> None:
        """Host what was registered while nobody listened, and share out again what is offered now.

        A version counts if it was promoted after the last wish about its project, so that a wish for an
        older version is kept. New projects come newest first: those are wanted most likely.
        """
        hosted = self._store.hosted()
        by = {one.hosting.project: one.changed_by for one in hosted}
        pairs = [(one.hosting, one.changed_by) for one in hosted]
        changes = shares_at_start(pairs, offered=self._offered)
        if changes:
            self._wish(hosted, [(hosting, by[hosting.project]) for hosting in changes])
        wished_at = {one.hosting.project: one.changed_at for one in hosted}
        for model in self._store.newest_models():
            at = wished_at.get(model.announcement.project)
            if at is None or model.promoted_at > at:
                self.announced(model.announcement)

    def _host_new(self, said: ModelAnnouncement, hosted: Sequence[HostedProject]) -> None:
        pairs = [(one.hosting, one.changed_by) for one in hosted]
        units, givers = units_for_new(pairs, offered=self._offered, default_units=self._default)
        new = Hosting(said.project, said.version, said.uri, min_units=units, max_units=units)
        logger.info("%s is to be hosted: version %s, %d units", said.project, said.version, units)
        self._wish(hosted, [*((giver, BY_DEFAULT) for giver in givers), (new, BY_DEFAULT)])

    def _wish(self, hosted: Sequence[HostedProject], changes: Sequence[tuple[Hosting, str]]) -> None:
        """Write changed and new hostings, and at once which of them do not fit."""
        after = {one.hosting.project: one.hosting for one in hosted}
        after.update((hosting.project, hosting) for hosting, _ in changes)  # new ones come last
        refused = admission(list(after.values()), self._offered)
        wishes = [Wish(hosting, by, refused.get(hosting.project, "")) for hosting, by in changes]
        self._store.wish(wishes, self._clock.now())


class AnnouncementLoop:
    """`loupe.models` -> wishes, record by record, until `stop`."""

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        host: Host,
        metrics: Metrics,
        clock: Clock,
        *,
        on_wish: Callable[[], None],
    ) -> None:
        """Tell `on_wish` after every change of the desired state."""
        self._consumer = consumer
        self._producer = producer
        self._host = host
        self._metrics = metrics
        self._clock = clock
        self._on_wish = on_wish
        self._patience = Patience()

    def run(self) -> None:
        """Read until `stop`; waits out a broker or a database that is away."""
        try:
            while not self._patience.is_stopping.is_set():
                for record in self._patience.call(lambda: self._consumer.poll(_POLL_S, max_records=1)):
                    self._patience.call(partial(self.handle, record))
                    self._commit(record)
        except RetryLater:
            logger.info("stopped while a neighbour was away")
        finally:
            self._consumer.close()

    def stop(self) -> None:
        """Make `run` return within a poll."""
        self._patience.is_stopping.set()

    def _commit(self, record: Record) -> None:
        try:
            self._consumer.commit({Partition(record.topic, record.partition): record.offset + 1})
        except BrokerUnavailable as error:
            logger.warning("%s The announcement may come again, which is harmless.", error.message)

    def handle(self, record: Record) -> None:
        """Turn one announcement into a wish, or quarantine it.

        Raises:
            RetryLater: nothing was done; try again.
        """
        try:
            said = decode_announcement(record.value)
            checked_project_name(said.project)
        except Rejected as error:
            letter = encode_dead_letter(record, error, tries=1, at=self._clock.now())
            self._producer.send(letter).result(_PRODUCE_TIMEOUT_S)
            self._metrics.add(DEAD_LETTERS_TOTAL, topic=record.topic, cause=error.cause)
            logger.warning("record %s goes to %s: %s", record.position, letter.topic, error.message)
            return
        if self._host.announced(said):
            self._on_wish()

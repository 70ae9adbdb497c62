"""One Kafka record at a time: do the step, quarantine what cannot be done, acknowledge last (arrows 5, 6).

FastStream polls and keeps the heartbeat; the steps block and run in a thread. Retry, reject and
stop are the three branches of `services.domain.errors`. Does not know what the steps do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from aiokafka.errors import KafkaError
from faststream.kafka.message import KafkaMessage

from services.adapters.broker import Producer
from services.adapters.broker.faststream import records_of
from services.adapters.broker.patience import Patience, PoisonGuard
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.domain.errors import ImageTooLarge, LoupeError, Rejected, RetryLater, StopProcess
from services.domain.metrics import DEAD_LETTERS_TOTAL
from services.wire.dead_letter import encode_dead_letter, fitting_letter
from services.wire.record import OutRecord, Record

logger = logging.getLogger(__name__)

# An error that nobody foresaw is tried this often, then the record is poison (promise P3).
MAX_TRIES = 3
_PRODUCE_TIMEOUT_S = 30.0


class Step(Protocol):
    """What is done with a record of one topic."""

    def handle(self, record: Record) -> None:
        """Do it; blocks, and may be called again with the same record.

        Raises:
            RetryLater: nothing is lost; called again after a pause.
            Rejected: the record goes to the dead-letter topic.
            StopProcess: going on would do harm.
        """

    def give_up(self, record: Record, error: LoupeError) -> None:
        """Note that the record was rejected; the dead letter follows."""


class RecordHandler:
    """Handles the messages of one topic; an instance is FastStream's handler function."""

    def __init__(
        self,
        step: Step,
        producer: Producer,
        patience: Patience,
        metrics: Metrics,
        clock: Clock,
        *,
        max_poison_ratio: float,
        on_stop: Callable[[StopProcess], None],
    ) -> None:
        """Handle records by `step`; `on_stop` is told when the process has to end."""
        self._step = step
        self._producer = producer
        self._patience = patience
        self._metrics = metrics
        self._clock = clock
        self._guard = PoisonGuard(max_poison_ratio)
        self._on_stop = on_stop

    async def __call__(self, message: KafkaMessage) -> None:
        """Handle one message; it is acknowledged only when the record is done with."""
        if self._patience.is_stopping.is_set():
            return
        try:
            for record in records_of(message):
                await asyncio.to_thread(self.handle, record)
        except RetryLater:
            return  # stopping; the record comes again
        except StopProcess as error:
            self._patience.is_stopping.set()
            self._on_stop(error)
            return
        try:
            await message.ack()
        except KafkaError as error:
            logger.warning("offset not committed, the record comes again: %s", error)

    def handle(self, record: Record) -> None:
        """Do the step until it is done or refused; blocks.

        Raises:
            RetryLater: the process is stopping.
            StopProcess: going on would do harm.
        """
        try:
            self._attempt(record)
        except Rejected as error:
            self._quarantine(record, error)
            place = f"{record.topic}:{record.partition}:{record.offset}"
            self._guard.note(good=0, refused=1, causes=[error.cause], examples=[place])
        else:
            self._guard.note(good=1, refused=0)

    def _attempt(self, record: Record) -> None:
        for attempt in range(1, MAX_TRIES + 1):
            try:
                self._patience.call(lambda: self._step.handle(record))
            except LoupeError:
                raise
            except Exception as error:  # poison must not stop the partition
                logger.exception("record %s failed, try %d", record.position, attempt)
                if attempt == MAX_TRIES:
                    raise Rejected(f"Unforeseen {type(error).__name__}: {error}", tries=attempt) from error
            else:
                return

    def _quarantine(self, record: Record, error: Rejected) -> None:
        tries = error.details.get("tries", 1)
        letter = encode_dead_letter(
            record, error, tries=tries if isinstance(tries, int) else 1, at=self._clock.now()
        )
        self._patience.call(lambda: self._step.give_up(record, error))
        try:
            publish(self._patience, self._producer, letter)
        except ImageTooLarge:
            # The cause in the headers took it over the limit: the original stays readable where it stands.
            publish(self._patience, self._producer, fitting_letter(letter))
        self._metrics.add(DEAD_LETTERS_TOTAL, topic=record.topic, cause=error.cause)
        logger.warning("record %s goes to %s: %s", record.position, letter.topic, error.message)


def publish(patience: Patience, producer: Producer, record: OutRecord) -> None:
    """Publish a record and wait until the broker has it, however long it is away."""
    patience.call(lambda: producer.send(record).result(_PRODUCE_TIMEOUT_S))

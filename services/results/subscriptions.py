"""From FastStream to the pipeline: which topic goes to which method, and the commit after it.

FastStream polls and keeps the heartbeat; the pipeline blocks and runs in a thread. A batch is committed
only when its method has returned, and the next one is polled only then.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaMessage

from services.adapters.broker.faststream import leave_whole, parse_without_headers, records_of
from services.adapters.broker.kafka import (
    HEARTBEAT_INTERVAL_MS,
    MAX_PARTITION_FETCH_BYTES,
    SESSION_TIMEOUT_MS,
)
from services.domain.errors import RetryLater, StopProcess
from services.domain.topics import FRAMES_DLQ, INSPECTIONS, LEDGER, Topic
from services.results.pipeline import Pipeline
from services.results.settings import ResultsSettings
from services.wire.record import Record

logger = logging.getLogger(__name__)

GROUP = "loupe-results"
# Dead letters come with their images: this bounds a batch to about what one fetch brings.
_LETTERS_PER_BATCH = 50

Handle = Callable[[Sequence[Record]], None]


@dataclass(frozen=True, slots=True)
class Stopping:
    """How handlers end the process, and how they learn that it ends.

    Attributes:
        has_begun: no batch is handled or committed any more.
        because_of: called by a handler that met an error of the stop branch.
    """

    has_begun: threading.Event
    because_of: Callable[[StopProcess], None]


def subscribe(broker: KafkaBroker, pipeline: Pipeline, settings: ResultsSettings, stopping: Stopping) -> None:
    """Subscribe the pipeline to its topics.

    Each topic has a group of its own, so that a member that joins or leaves disturbs no other topic.
    """
    count = settings.results_batch_records
    fast_ms, slow_ms = settings.results_poll_ms, settings.results_slow_poll_ms
    for topic, group, handle, max_records, poll_ms in (
        (INSPECTIONS, GROUP, pipeline.inspections, count, fast_ms),
        (LEDGER, f"{GROUP}-ledger", pipeline.ledger, count, slow_ms),
        (FRAMES_DLQ, f"{GROUP}-dlq", pipeline.dead_letters, _LETTERS_PER_BATCH, slow_ms),
    ):
        _subscribe(broker, topic, group, on_batch_of(handle, stopping), max_records, poll_ms)


def _subscribe(
    broker: KafkaBroker,
    topic: Topic,
    group: str,
    handler: Callable[[KafkaMessage], Awaitable[None]],
    max_records: int,
    poll_ms: int,
) -> None:
    subscriber = broker.subscriber(
        topic.name,
        group_id=group,
        batch=True,
        max_records=max_records,
        batch_timeout_ms=poll_ms,
        # FastStream's defaults acknowledge first, and begin at the latest record: both lose records.
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        max_partition_fetch_bytes=MAX_PARTITION_FETCH_BYTES,
        parser=parse_without_headers,
        decoder=leave_whole,
    )
    subscriber(handler)


def on_batch_of(handle: Handle, stopping: Stopping) -> Callable[[KafkaMessage], Awaitable[None]]:
    """Return FastStream's handler. It must not raise: FastStream would go on and commit over the batch."""

    async def on_batch(message: KafkaMessage) -> None:
        if stopping.has_begun.is_set():
            return  # neither handled nor committed; the batch comes again
        try:
            await asyncio.to_thread(handle, records_of(message))
        except RetryLater:
            return  # only while stopping
        except StopProcess as error:
            stopping.because_of(error)
            return
        except Exception as error:
            logger.exception("a batch failed for a reason that nobody foresaw")
            stopping.because_of(StopProcess(f"Unforeseen {type(error).__name__}: {error}"))
            return
        try:
            await message.ack()
        except KafkaError as error:
            logger.warning("offsets not committed, the batch may come again: %s", error)

    return on_batch

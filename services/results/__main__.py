"""The results process: makes the clients, starts the subscriptions, serves /metrics and /healthz."""

from __future__ import annotations

import asyncio
import logging
import sys

from aiokafka.errors import KafkaError
from faststream import FastStream
from faststream.kafka import KafkaBroker
from sqlalchemy import Engine, text

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.lag import LagMeter
from services.adapters.broker.limits import check_size_limits
from services.adapters.broker.patience import Patience
from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.cache.live import LiveView
from services.adapters.cache.memory import MemoryCache
from services.adapters.cache.redis import RedisCache
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine, reading
from services.adapters.logs import configure_logging
from services.adapters.metrics import Metrics, serve_metrics
from services.domain.errors import BrokerUnavailable, LoupeError, RetryLater, StopProcess
from services.domain.topics import FRAMES, FRAMES_DLQ
from services.results.gauges import STREAM_GROUP, GapFinder, Gauges
from services.results.pipeline import Pipeline
from services.results.retention import Retention, RetentionThread
from services.results.settings import ResultsSettings
from services.results.store import Store
from services.results.subscriptions import GROUP, Stopping, subscribe
from services.results.tally import Tally

logger = logging.getLogger("services.results")

# After SIGTERM a batch in hand may be finished for this long; the supervisor kills after 5 s.
_GRACE_S = 3.0
_PING_S = 1.0
# The broker gives one batch of records at least: the gauges want single records, not 11 MiB of images.
_GAUGE_FETCH_BYTES = 64 * 1024


class ResultsProcess:
    """The process's parts, wired."""

    def __init__(self, settings: ResultsSettings) -> None:
        """Connect; nothing is read yet.

        Raises:
            BrokerUnavailable: no broker answers.
            SizeLimitsDisagree: a dead letter with its image does not pass.
            DatabaseUnavailable: the database does not answer.
        """
        self.stopped_by: StopProcess | None = None
        self.metrics = Metrics()
        self._patience = Patience()
        self._engine = open_engine(settings.database_url)
        clock, store, tally = SystemClock(), Store(self._engine, SystemClock()), Tally(self.metrics)
        tally.start_from(self._engine)
        check_size_limits(settings.kafka_bootstrap, [FRAMES, FRAMES_DLQ])
        self._producer = KafkaBrokerProducer(settings.kafka_bootstrap, linger_ms=1)
        self._reader = KafkaTopicReader(settings.kafka_bootstrap, max_fetch_bytes=_GAUGE_FETCH_BYTES)
        self._gauges = Gauges(
            GapFinder(self._engine, store, self._reader),
            LagMeter(self._reader, FRAMES.name, STREAM_GROUP),
            self.metrics,
            clock,
            every_s=settings.results_gauges_every_s,
        )
        self._retention = RetentionThread(
            Retention(self._engine, settings.object_store(), clock),
            self.metrics,
            every_s=settings.retention_every_s,
        )
        cache = RedisCache(settings.redis_url) if settings.redis_url else MemoryCache()
        pipeline = Pipeline(
            store, self._producer, tally, LiveView(cache, clock), clock, self._patience,
            max_poison_ratio=settings.results_max_poison_ratio,
        )  # fmt: skip
        # It warns at every start that it makes no topics, which is what we want of it.
        faststream_logger = logging.getLogger("services.results.faststream")
        faststream_logger.setLevel(logging.ERROR)
        self.broker = KafkaBroker(
            settings.kafka_bootstrap.split(","),
            apply_types=False,
            logger=faststream_logger,
            graceful_timeout=_GRACE_S,
            # Topics are made by whoever installs the stack, with their retention.
            allow_auto_create_topics=False,
            metadata_max_age_ms=10_000,
            client_id=GROUP,
        )
        subscribe(
            self.broker, pipeline, settings, Stopping(self._patience.is_stopping, self._stop_because_of)
        )
        self._app = FastStream(
            self.broker,
            logger=None,
            after_startup=[self._gauges.start, self._retention.start],
            on_shutdown=[self._begin_to_stop],
        )

    async def run(self) -> None:
        """Run until SIGTERM or until something has to stop the process.

        Raises:
            BrokerUnavailable: no broker answers at the start.
        """
        try:
            await self._app.run()
        except KafkaError as error:
            raise BrokerUnavailable(f"Kafka does not answer: {error}") from error
        finally:
            self._begin_to_stop()
            self._producer.close()

    def _stop_because_of(self, error: StopProcess) -> None:
        logger.error("stopping: %s", error.message)
        self.stopped_by = error
        self._patience.is_stopping.set()
        self._app.exit()

    def _begin_to_stop(self) -> None:
        self._patience.is_stopping.set()
        self._gauges.stop()
        self._retention.stop()

    def is_healthy(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether all runs, and broker and database answer; called by the page's thread."""
        threads = (self._gauges, self._retention)
        is_running = all(one.is_alive() for one in threads) and not self._patience.is_stopping.is_set()
        if not (is_running and database_answers(self._engine)):
            return False
        asked = asyncio.run_coroutine_threadsafe(self.broker.ping(_PING_S), loop)
        try:
            return asked.result(2 * _PING_S)
        except TimeoutError:
            return False


def database_answers(engine: Engine) -> bool:
    """Tell whether the database can be read."""
    try:
        with reading(engine) as connection:
            connection.execute(text("SELECT 1 FROM inspections LIMIT 1"))
    except RetryLater:
        return False
    return True


async def serve(settings: ResultsSettings) -> int:
    """Run the process and its page; return the exit status."""
    process = ResultsProcess(settings)
    loop = asyncio.get_running_loop()
    page = serve_metrics(
        process.metrics, settings.results_port, lambda: process.is_healthy(loop), settings.results_host
    )
    try:
        await process.run()
    finally:
        page.shutdown()
    return 0 if process.stopped_by is None else 1


def main() -> None:
    """Start the process."""
    configure_logging("results")
    try:
        settings = ResultsSettings()
        migrate(settings.database_url)
        status = asyncio.run(serve(settings))
    except LoupeError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - a sentence for people; the trace says no more
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()

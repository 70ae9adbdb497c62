"""The trainer process: creates the clients, subscribes, serves /metrics and /healthz, ends on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker

from services.adapters.broker import Producer
from services.adapters.broker.faststream import leave_whole, parse_without_headers
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.patience import Patience
from services.adapters.broker.reader import KafkaTopicReader, TopicReader
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine
from services.adapters.logs import configure_logging
from services.adapters.metrics import Metrics, serve_metrics
from services.adapters.object_store.store import ObjectStore
from services.domain.errors import LoupeError, StopProcess
from services.domain.topics import LABELS, RECORD_LIMIT_BYTES, TRAINING, Topic
from services.trainer.dataset_versions import DatasetVersions
from services.trainer.datasets import Datasets
from services.trainer.fit_input import Bringer
from services.trainer.fit_process import FitProcess
from services.trainer.fit_ray import RayFit
from services.trainer.handling import RecordHandler, Step
from services.trainer.jobs import Jobs
from services.trainer.labels_first import LabelsFirst
from services.trainer.pipeline import GROUP, LABELS_GROUP, LabelStep, Makers, TrainingStep
from services.trainer.policies import Policies, PolicyWatch
from services.trainer.promotion import Promotion
from services.trainer.proving import prover_of
from services.trainer.registry import Registry
from services.trainer.reviews import ReviewWatch
from services.trainer.settings import FitPlace, TrainerSettings
from services.trainer.update import QuickUpdate

logger = logging.getLogger("services.trainer")

# A fit may take its whole time-out, and a neighbour may be away meanwhile, before the next poll.
_POLL_MARGIN_S = 600.0
# After SIGTERM: kill the fit and let the step notice; well inside the supervisor's 5 s.
_GRACE_S = 3.0


class Trainer:
    """The process's parts, wired."""

    def __init__(
        self,
        settings: TrainerSettings,
        broker: KafkaBroker,
        producer: Producer,
        reader: TopicReader,
        store: ObjectStore,
    ) -> None:
        """Subscribe both steps on `broker`; `app.run()` does the rest."""
        self.metrics = Metrics()
        self.stopped_by: StopProcess | None = None
        self.is_ready = False
        self._settings = settings
        self._producer = producer
        self._patience = Patience()
        self._fit = fit_of(settings)
        clock = SystemClock()
        engine = open_engine(settings.database_url)
        datasets, jobs, registry = Datasets(engine, store, clock), Jobs(engine), Registry(engine, store)
        watch = PolicyWatch(Policies(engine), datasets, jobs, producer, clock)
        reviews = ReviewWatch(engine, jobs, producer, clock)
        self._watching = [
            threading.Thread(target=run, args=(self._patience.is_stopping,), name=name, daemon=True)
            for name, run in (("policies", watch.run), ("reviews", reviews.run))
        ]
        work_folder = settings.home / "trainer"
        training = TrainingStep(
            bringer=Bringer(datasets, DatasetVersions(engine, store), self._patience, clock),
            makers=Makers(
                self._fit,
                QuickUpdate(registry, datasets, store, clock),
                Promotion(registry, datasets, prover_of(settings.triton_parts), clock, work_folder),
            ),
            jobs=jobs,
            producer=producer,
            patience=self._patience,
            metrics=self.metrics,
            clock=clock,
            work_folder=work_folder,
            labels_before=LabelsFirst(reader, LABELS_GROUP, clock, self._patience.is_stopping).wait,
        )
        self.app = FastStream(broker, logger=None, after_startup=[self._ready], on_shutdown=[self._stop])
        labels = LabelStep(datasets, self.metrics)
        self._subscribe(broker, LABELS, LABELS_GROUP, labels, settings.max_poison_ratio)
        # Who asks for trainings that cannot be done is told so each time; it is no fault upstream.
        self._subscribe(broker, TRAINING, GROUP, training, max_poison_ratio=1.0)

    def _subscribe(
        self, broker: KafkaBroker, topic: Topic, group: str, step: Step, max_poison_ratio: float
    ) -> None:
        handler = RecordHandler(
            step,
            self._producer,
            self._patience,
            self.metrics,
            SystemClock(),
            max_poison_ratio=max_poison_ratio,
            on_stop=self._stop_for,
        )
        subscriber = broker.subscriber(
            topic.name,
            group_id=group,
            # FastStream's default acknowledges first and loses records; the handler does it last.
            ack_policy=AckPolicy.MANUAL,
            auto_offset_reset="earliest",
            # A new process notices by it that it has taken over from a dead one.
            heartbeat_interval_ms=1000,
            max_poll_interval_ms=int((2 * self._settings.fit_timeout_s + _POLL_MARGIN_S) * 1000),
            max_partition_fetch_bytes=RECORD_LIMIT_BYTES,
            parser=parse_without_headers,
            decoder=leave_whole,
        )
        subscriber(handler.__call__)

    def _ready(self) -> None:
        self.is_ready = True
        for thread in self._watching:
            thread.start()

    def _stop_for(self, error: StopProcess) -> None:
        logger.error("stopping: %s", error.message)
        self.stopped_by = error
        self.app.exit()

    def _stop(self) -> None:
        self.is_ready = False
        self._patience.is_stopping.set()
        self._fit.stop()


def fit_of(settings: TrainerSettings) -> FitProcess | RayFit:
    """Return what fits, where the settings say."""
    if settings.fit_runs_on is FitPlace.RAY:
        return RayFit(address=settings.ray_address, timeout_s=settings.fit_timeout_s)
    return FitProcess(timeout_s=settings.fit_timeout_s, memory_bytes=settings.fit_memory_bytes)


async def run(settings: TrainerSettings) -> int:
    """Run until SIGTERM or an error of the stop branch; return the exit status."""
    broker = KafkaBroker(
        settings.kafka_bootstrap.split(","),
        apply_types=False,
        logger=None,
        graceful_timeout=_GRACE_S,
        # Topics are made by whoever installs the stack, with their retention.
        allow_auto_create_topics=False,
        client_id=GROUP,
    )
    producer = KafkaBrokerProducer(settings.kafka_bootstrap)
    reader = KafkaTopicReader(settings.kafka_bootstrap)
    store = settings.object_store()
    trainer = Trainer(settings, broker, producer, reader, store)
    page = serve_metrics(trainer.metrics, settings.trainer_port, lambda: trainer.is_ready)
    try:
        await trainer.app.run()
    finally:
        page.shutdown()
        producer.close()
        reader.close()
    return 0 if trainer.stopped_by is None else 1


def main() -> None:
    """Start the process."""
    configure_logging("trainer")
    settings = TrainerSettings()
    try:
        migrate(settings.database_url)
        status = asyncio.run(run(settings))
    except LoupeError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - a sentence for people; the trace says no more
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()

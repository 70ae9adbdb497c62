"""Wiring of the ingest process: spool, sender, supervisor of the cameras, HTTP door; SIGTERM ends it.

Exit code 0 when a stop was asked, whatever still waits in the spool: the next start sends it.
"""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from uuid import uuid4

from services.adapters.broker import Consumer, Producer
from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.broker.limits import check_size_limits
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine
from services.adapters.logs import configure_logging
from services.adapters.metrics import Metrics
from services.domain.errors import LoupeError, StopProcess
from services.domain.topics import FRAMES, TRIGGERS
from services.ingest.camera_events import CameraEvents
from services.ingest.camera_rows import StoredCamera
from services.ingest.camera_runner import CameraRunner
from services.ingest.camera_store import CameraStore
from services.ingest.door import Door, DoorServer, Rooms
from services.ingest.in_flight import Limits
from services.ingest.settings import IngestSettings, secret_of
from services.ingest.sources.triggers import TriggerFeed
from services.ingest.spool import Sender, Spool
from services.ingest.supervisor import Scope, Supervisor

logger = logging.getLogger("services.ingest")

# Broker, database and logs on the same disk need room too.
_DISK_RESERVE_BYTES = 1 << 30
_LEAST_SPOOL_BYTES = 64 << 20
# Looks come every second; a database that does not answer makes one take ten.
_LOOKS_WITHIN_S = 60.0


class IngestProcess:
    """The process's parts, wired. `run` blocks until `stop` is set."""

    def __init__(self, settings: IngestSettings, parts: ExitStack) -> None:
        """Open the spool and the door; nothing runs yet.

        Raises:
            BadSettings: another process uses the spool, or the port is taken.
            StorageFull: the disk takes nothing.
        """
        self._settings, clock, metrics = settings, SystemClock(), Metrics()
        self._are_limits_known = False
        self._stopped_by: StopProcess | None = None
        folder = settings.spool_path
        spool = Spool(folder, clock=clock, max_bytes=spool_bytes(folder, settings.spool_max_bytes))
        parts.callback(spool.close)
        for left in spool.leftovers:
            logger.info("camera %s: %d frames of before are sent", left.camera, left.frames)
        self._events = CameraEvents(self._open_producer)
        self._sender = Sender(
            spool, self._open_checked, clock, metrics=metrics,
            replay_bytes_per_s=settings.spool_replay_bytes_per_s,
        )  # fmt: skip
        engine = open_engine(settings.database_url)
        parts.callback(engine.dispose)
        self._store = CameraStore(engine)
        self._feed = TriggerFeed(self._join_triggers, clock)
        parts.callback(self._feed.close)
        self._runner = CameraRunner(
            spool, clock, self._feed, open_store=settings.object_store, secret_of=secret_of
        )
        scope = Scope(ingester_id(folder), settings.ingest_max_cameras, settings.camera_patterns)
        self._supervisor = Supervisor(self._store, scope, self._runner.run, self._events.tell, clock, metrics)
        rooms = Rooms(
            camera=self._camera,
            source=lambda name: self._runner.pushed_to(name) if self._supervisor.runs(name) else None,
            page=self._page,
            is_healthy=lambda: time.monotonic() - self._supervisor.looked_s < _LOOKS_WITHIN_S,
        )
        self._door = DoorServer(Door(rooms, metrics), settings.ingest_host, settings.ingest_port)
        logger.info("ingester %s, at most %d cameras", scope.ingester, scope.max_cameras)

    def run(self, stop: Event) -> None:
        """Run the cameras; then stop within the time that the settings give.

        Raises:
            SizeLimitsDisagree: the largest frame does not pass Kafka; known once that answers.
            BadSettings: the spool is damaged.
        """

        def end(error: StopProcess) -> None:
            self._stopped_by = error
            stop.set()

        self._sender.start(end)
        try:
            self._supervisor.run(stop)
        finally:
            self._shut(time.monotonic() + self._settings.ingest_stop_s)
        if self._stopped_by:
            raise self._stopped_by

    def _shut(self, end_s: float) -> None:
        """Stop in the order of the flow; what comes later leaves itself a little time."""

        def left_s(for_others_s: float) -> float:
            return max(0.5, end_s - time.monotonic() - for_others_s)

        self._door.shutdown()
        self._supervisor.close(left_s(for_others_s=7.0))
        if not self._sender.flush(left_s(for_others_s=6.0)):
            logger.warning("Kafka does not have all frames; the rest waits in %s", self._settings.spool_path)
        self._events.close(left_s(for_others_s=5.5))
        # Up to 5 s while the library looks for a broker.
        self._sender.stop()

    def _open_producer(self) -> Producer:
        return KafkaBrokerProducer(
            self._settings.kafka_bootstrap, delivery_timeout_s=Limits().delivery_timeout_s
        )

    def _open_checked(self) -> Producer:
        """Open the sender's producer, once it is known that the largest frame passes."""
        if not self._are_limits_known:
            check_size_limits(self._settings.kafka_bootstrap, [FRAMES])
            self._are_limits_known = True
        return self._open_producer()

    def _join_triggers(self) -> Consumer:
        # A group of its own, from now on: a trigger is for whoever runs its camera, and stale soon.
        group = f"loupe-ingest-{uuid4().hex[:12]}"
        return KafkaBrokerConsumer(
            self._settings.kafka_bootstrap, topics=[TRIGGERS.name], group=group, auto_offset_reset="latest"
        )

    def _camera(self, name: str) -> StoredCamera | None:
        """Return a camera as the last look read it, else as the database has it."""
        return self._supervisor.configured.get(name) or self._store.cameras(name).get(name)

    def _page(self) -> str:
        reports = self._supervisor.reports()
        lines = [f"{name:<32} {one.state:<16} {one.message}" for name, one in list(reports.items())[:1000]]
        return f"{len(reports)} cameras run here or are tried here.\n" + "\n".join([*lines, ""])


def spool_bytes(folder: Path, wanted_bytes: int) -> int:
    """Return how large the spool may grow: as wished, less where the disk has less."""
    folder.mkdir(parents=True, exist_ok=True)
    used_bytes = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    free_bytes = shutil.disk_usage(folder).free + used_bytes - _DISK_RESERVE_BYTES
    if free_bytes < wanted_bytes:
        logger.warning("the spool gets %.1f GB, because the disk has no more", free_bytes / 1e9)
    return max(_LEAST_SPOOL_BYTES, min(wanted_bytes, free_bytes))


def ingester_id(folder: Path) -> str:
    """Return the id of the ingester that owns a spool: of this machine, the same after every restart."""
    file = folder / "ingester"
    if not file.exists():
        file.write_text(uuid4().hex[:8])
    return f"{socket.gethostname()}/{file.read_text().strip()}"


def stop_on_signals() -> Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = Event()
    ask: Callable[[int, object], None] = lambda *_: stop.set()  # noqa: E731 - two signals, one answer
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    return stop


def main() -> int:
    """Run until a signal comes."""
    configure_logging("ingest")
    stop = stop_on_signals()
    try:
        settings = IngestSettings()
        migrate(settings.database_url)
        with ExitStack() as parts:
            IngestProcess(settings, parts).run(stop)
    except LoupeError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - a sentence for people; the trace says no more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The hosting process: creates the clients, runs both loops, serves its page, ends on SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable

from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine
from services.adapters.logs import configure_logging
from services.adapters.metrics import Metrics, serve_metrics
from services.domain.errors import LoupeError
from services.domain.topics import MODELS
from services.hosting.pipeline import GROUP, AnnouncementLoop, Host
from services.hosting.reconciler import Reconciler
from services.hosting.route_store import RouteStore
from services.hosting.serve_api import RestServeApi
from services.hosting.settings import HostingSettings
from services.hosting.store import HostingStore

logger = logging.getLogger("services.hosting")

# A turn of the reconciler that waits for Serve's first start may take a minute; longer is a fault,
# but ending the process would not mend it, so it is not waited for.
_STOP_WAIT_S = 3.0


class _Loops:
    """Runs loops in threads; one that ends by an error ends the process."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.has_failed = False
        self._threads: list[threading.Thread] = []

    def start(self, name: str, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guarded, args=(name, run), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def are_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    def join(self, timeout_s: float) -> None:
        for thread in self._threads:
            thread.join(timeout_s)

    def _guarded(self, name: str, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException:
            logger.exception("the loop %s ended by an error", name)
            self.has_failed = True
            raise
        finally:
            self.is_over.set()


def run(settings: HostingSettings) -> int:
    """Run until SIGTERM or an error; return the exit status."""
    metrics, clock = Metrics(), SystemClock()
    migrate(settings.database_url)
    engine = open_engine(settings.database_url)
    store = HostingStore(engine)
    host = Host(store, clock, offered_units=settings.inference_units, default_units=settings.default_units)
    host.catch_up()
    serve = RestServeApi(settings.ray_dashboard_url, settings.ray_token_path)
    reconciler = Reconciler(store, RouteStore(engine), serve, settings, metrics)
    loops = _Loops()
    loops.start("reconciler", reconciler.run)
    producer = KafkaBrokerProducer(settings.kafka_bootstrap)
    consumer = KafkaBrokerConsumer(settings.kafka_bootstrap, topics=[MODELS.name], group=GROUP)
    announcements = AnnouncementLoop(consumer, producer, host, metrics, clock, on_wish=reconciler.wake)
    loops.start("announcements", announcements.run)
    page = serve_metrics(metrics, settings.hosting_port, loops.are_alive)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loops.is_over.set())
    loops.is_over.wait()
    announcements.stop()
    reconciler.stop()
    loops.join(_STOP_WAIT_S)
    page.shutdown()
    producer.close()
    return 1 if loops.has_failed else 0


def main() -> None:
    """Start the process."""
    configure_logging("hosting")
    # It tells of every request, one a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        status = run(HostingSettings())
    except LoupeError as error:
        logger.error("%s", error.message)  # noqa: TRY400 - a sentence for people; the trace says no more
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()

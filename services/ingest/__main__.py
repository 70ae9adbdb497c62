"""Wiring of the ingest process: one camera as the environment names it; SIGTERM ends it gracefully.

Exit code 0 when the source ended or a stop was asked and every frame is declared, else 1.
"""

from __future__ import annotations

import logging
import signal
import sys
from threading import Event

from services.adapters.logs import configure_logging
from services.adapters.metrics import Metrics, serve_metrics
from services.adapters.object_store.store import s3_store
from services.domain.errors import LoupeError
from services.ingest.pipeline import CameraSpec, run_cameras
from services.ingest.settings import IngestSettings
from services.ingest.sources import open_source

logger = logging.getLogger("services.ingest")


def main() -> int:
    """Run the camera until its source ends or a signal comes."""
    configure_logging("ingest")
    settings = IngestSettings()  # type: ignore[call-arg]  # fields come from the environment
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    page = serve_metrics(
        Metrics(), settings.ingest_port, is_healthy=lambda: not stop.is_set(), host=settings.ingest_host
    )
    try:
        source = open_source(settings.source, loop=settings.source_loop, watch=settings.source_watch)
        spec = CameraSpec(settings.camera, source, settings.camera_fps, settings.project)
        store = s3_store(settings.s3_endpoint, settings.s3_key, settings.s3_secret, settings.s3_region)
        (ended,) = run_cameras([spec], settings.kafka_bootstrap, stop, store=store)
    except LoupeError:
        logger.exception("the camera cannot run")
        return 1
    finally:
        page.shutdown()
    logger.info(
        "camera %s: %d captured, %d acknowledged, %d shed",
        ended.camera, ended.captured, ended.acknowledged, ended.shed,
    )  # fmt: skip
    return 0 if ended.is_declared else 1


if __name__ == "__main__":
    sys.exit(main())

"""Threads of the trainer that look for trainings that are due, and ask for them like anyone else (arrow 6).

Knows neither what makes a training due (`policies`, `reviews`) nor how one is done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from services.adapters.broker import Producer
from services.domain.errors import LoupeError
from services.domain.model_version import TrainingRequest
from services.trainer.jobs import Jobs
from services.wire.training import encode_training_request

logger = logging.getLogger(__name__)

_PRODUCE_TIMEOUT_S = 30.0


def ask(request: TrainingRequest, producer: Producer, jobs: Jobs) -> None:
    """Publish a request and make its job.

    Raises:
        RetryLater: the broker or the database is away; asking again does no harm.
    """
    # Kafka first: a job without a record would wait for ever, a record without a job makes one.
    producer.send(encode_training_request(request)).result(_PRODUCE_TIMEOUT_S)
    jobs.queue(request)
    logger.info("training %s of %s is due", request.training_id, request.project)


def keep_looking(look: Callable[[], object], name: str, every_s: float, stopping: threading.Event) -> None:
    """Call `look` every `every_s` until told to stop; `name` is for the log."""
    while not stopping.wait(every_s):
        try:
            look()
        except LoupeError as error:
            logger.warning("%s: %s", name, error.message)
        except Exception:  # one bad moment must not end all looking
            logger.exception("%s", name)

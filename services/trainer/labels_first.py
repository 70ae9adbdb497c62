"""A training waits for the labels that were published before it was asked for (arrows 5, 6).

Labels and requests travel on two topics, which are read side by side: who publishes twelve labels and then
a request means to train on twelve. Does not read labels; it only sees how far their consumer is.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from services.adapters.broker.reader import TopicReader
from services.adapters.clock import Clock
from services.domain.errors import RetryLater
from services.domain.topics import LABELS

logger = logging.getLogger(__name__)

# Labels are stored in milliseconds each; a consumer further behind than this has a trouble of its own,
# and a training on what is there is better than none.
PATIENCE_S = 120.0
_LOOK_EVERY_S = 0.1


class LabelsFirst:
    """Knows when a group has handled all labels up to a moment; for one thread at a time."""

    def __init__(self, reader: TopicReader, group: str, clock: Clock, stopping: threading.Event) -> None:
        """Look through `reader` at `group`."""
        self._reader, self._group, self._clock, self._stopping = reader, group, clock, stopping

    def wait(self, asked_at: datetime) -> None:
        """Return when all labels up to `asked_at` are handled, or after `PATIENCE_S`. Blocks.

        Raises:
            RetryLater: the process is stopping, or the broker does not answer.
        """
        # Kafka tells the first offset that is not older, and times are whole milliseconds.
        wanted = self._reader.offsets_at(LABELS.name, asked_at + timedelta(milliseconds=1))
        firsts = {number: span.start for number, span in self._reader.spans(LABELS.name).items()}
        give_up_monotonic_s = self._clock.monotonic_s() + PATIENCE_S
        while True:
            done = self._reader.committed(LABELS.name, self._group)
            behind = sum(max(0, end - done.get(part, firsts[part])) for part, end in wanted.items())
            if behind <= 0:
                return
            if self._clock.monotonic_s() > give_up_monotonic_s:
                logger.warning("training goes on without %d labels that are not handled yet", behind)
                return
            if self._stopping.wait(_LOOK_EVERY_S):
                raise RetryLater("The trainer is stopping.")

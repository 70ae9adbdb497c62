"""What every consumer does when it cannot go on: wait for a neighbour, or stop at a flood of poison.

Knows neither Kafka nor what the work is.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_exponential,
)

from services.domain.errors import PoisonShareExceeded, RetryLater

logger = logging.getLogger(__name__)
T = TypeVar("T")

# From a pause that a lock between two processes needs to one that costs nothing and still heals soon.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
# How many records the share of poison is taken of, and from how many on it says something.
POISON_WINDOW_RECORDS, POISON_MIN_RECORDS = 200, 20
_UNKNOWN = "unknown"


class Patience:
    """Calls again what fails for want of a neighbour, with growing pauses, until it is told to stop."""

    def __init__(self) -> None:
        """Begin patient."""
        self.is_stopping = threading.Event()

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, however long its neighbours are away; blocks.

        Raises:
            RetryLater: the last one, once `is_stopping` is set.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(RetryLater),
            wait=wait_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S),
            stop=stop_when_event_set(self.is_stopping),
            sleep=sleep_using_event(self.is_stopping),
            before_sleep=_tell,
            reraise=True,
        )
        return retrying(work)


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("%s Again in %.1f s.", error, state.upcoming_sleep)


class PoisonGuard:
    """Watches the share of refused records: a flood of them is a fault upstream, not poison."""

    def __init__(self, max_ratio: float) -> None:
        """Allow a share of `max_ratio` (0-1) of the latest records."""
        self._max_ratio = max_ratio
        # The cause of each refused record; empty for the good ones.
        self._latest: deque[str] = deque(maxlen=POISON_WINDOW_RECORDS)
        self._examples: dict[str, str] = {}

    def note(
        self, *, good: int, refused: int, causes: Sequence[str] = (), examples: Sequence[str] = ()
    ) -> None:
        """Count the records of a batch.

        Args:
            good: how many could be handled.
            refused: how many could not.
            causes: names of errors of the refused, in order, where they are known.
            examples: where these records stand, parallel to `causes`.

        Raises:
            PoisonShareExceeded: too many of the latest were refused; names the most frequent cause.
        """
        known = [*causes, *[_UNKNOWN] * (refused - len(causes))]
        self._examples.update(zip(causes, examples, strict=False))
        self._latest.extend([*[""] * good, *known])
        count, poison = len(self._latest), sum(map(bool, self._latest))
        if refused and count >= POISON_MIN_RECORDS and poison > self._max_ratio * count:
            ((cause, times),) = Counter(filter(None, self._latest)).most_common(1)
            message = f"{poison} of the latest {count} records were refused; what writes them is at fault."
            if cause != _UNKNOWN:
                example = f", for example {self._examples[cause]}" if cause in self._examples else ""
                message += f" Most often: {cause} ({times}){example}."
            raise PoisonShareExceeded(message, records=count, refused=poison, cause=cause)

"""The live view: last verdict and counts per camera, and the latest verdicts of all.

The results service writes it after the database has the truth; screens read it. All numbers are
absolute, so that an emptied cache is right again with the next verdict of each camera.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from services.adapters.cache.protocol import Cache, PushRecent, SetFields
from services.adapters.clock import Clock
from services.domain.errors import CacheUnavailable

logger = logging.getLogger(__name__)

LAST_KEY = "loupe:live:last"
COUNTS_KEY = "loupe:live:counts"
RECENT_KEY = "loupe:live:recent"
# More than a screen shows.
KEPT_RECENT = 200
# While Redis is away it is asked this often, so that its time-out does not slow every batch.
_ASK_AGAIN_S = 5.0

Verdict = Mapping[str, object]


class LiveView:
    """Writes and reads the live view; writing never fails and never waits long."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        """Keep it in `cache`."""
        self._cache = cache
        self._clock = clock
        self._away_until_monotonic_s: float | None = None

    def show(self, verdicts: Sequence[Verdict], counts: Mapping[str, Mapping[str, int]]) -> None:
        """Show new verdicts (oldest first, each with a `camera`) and counts per camera.

        Warns once when the cache is away; says once when it is back.
        """
        away_until = self._away_until_monotonic_s
        if away_until is not None and self._clock.monotonic_s() < away_until:
            return
        texts = [json.dumps(verdict) for verdict in verdicts]
        last = {str(verdict["camera"]): text for verdict, text in zip(verdicts, texts, strict=True)}
        try:
            self._cache.write(
                [
                    SetFields(LAST_KEY, last),
                    SetFields(COUNTS_KEY, {camera: json.dumps(one) for camera, one in counts.items()}),
                    PushRecent(RECENT_KEY, texts[-KEPT_RECENT:], KEPT_RECENT),
                ]
            )
        except CacheUnavailable as error:
            if away_until is None:
                logger.warning("no live view until Redis is back: %s", error.message)
            self._away_until_monotonic_s = self._clock.monotonic_s() + _ASK_AGAIN_S
            return
        if away_until is not None:
            logger.info("Redis is back")
        self._away_until_monotonic_s = None

    def last(self) -> dict[str, dict[str, Any]]:
        """Return the last verdict of each camera.

        Raises:
            CacheUnavailable: no answer.
        """
        return {camera: json.loads(text) for camera, text in self._cache.fields(LAST_KEY).items()}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of each camera: captured, judged, anomalous, quarantined, shed.

        Raises:
            CacheUnavailable: no answer.
        """
        return {camera: json.loads(text) for camera, text in self._cache.fields(COUNTS_KEY).items()}

    def recent(self, limit: int = KEPT_RECENT) -> list[dict[str, Any]]:
        """Return the latest verdicts of all cameras, newest first.

        Raises:
            CacheUnavailable: no answer.
        """
        return [json.loads(text) for text in self._cache.recent(RECENT_KEY, limit)]

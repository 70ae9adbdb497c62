"""Signatures only, for those who build on them; the working version follows."""

from __future__ import annotations

from collections.abc import Callable

from services.adapters.broker import Producer
from services.adapters.clock import Clock
from services.adapters.metrics import Metrics
from services.ingest.in_flight import Limits
from services.ingest.spool.spool import Spool


class Sender:
    """Sends what a spool holds, in order per camera; one thread, one a process."""

    def __init__(
        self,
        spool: Spool,
        open_producer: Callable[[], Producer],
        clock: Clock,
        *,
        limits: Limits | None = None,
        replay_bytes_per_s: float = 50e6,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare; `open_producer` may raise BrokerUnavailable and is tried again."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin to send."""
        raise NotImplementedError

    def flush(self, timeout_s: float) -> bool:
        """Block until the spool is empty and all is declared; False if not within `timeout_s`."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the thread; what is not acknowledged stays in the spool."""
        raise NotImplementedError

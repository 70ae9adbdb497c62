"""A clock that turns when somebody waits, and producers that fail: what ingest's tests play with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Event

from services.adapters.broker import Delivery
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.domain.errors import BrokerUnavailable
from services.domain.frame import RecordPosition
from services.ingest.sources import Shot, Unreadable
from services.wire.record import OutRecord


class TurningStop(Event):
    """A stop event whose waits turn the clock instead of taking time.

    `before_turning` lets other threads finish what the old time asked of them.
    """

    def __init__(self, clock: FakeClock, before_turning: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._clock, self._before_turning = clock, before_turning

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._before_turning()
            self._clock.advance(timeout or 0.0)
        return self.is_set()


class ListSource:
    """Shots from a list; sets `stop` after `stop_after` of them, if told."""

    def __init__(self, shots: Sequence[Shot | Unreadable | None], stop_after: int | None = None) -> None:
        self._shots, self._stop_after = shots, stop_after

    def shots(self, stop: Event) -> Iterator[Shot | Unreadable | None]:
        for number, shot in enumerate(self._shots):
            if number == self._stop_after:
                stop.set()
            yield shot


class FailedDelivery:
    """A record that the producer gave up."""

    def result(self, timeout_s: float) -> RecordPosition:
        raise BrokerUnavailable(f"given up, not only after {timeout_s} s")


class FlakyProducer(MemoryProducer):
    """Gives up the records whose number of sending is in `fails`, and refuses those in `refuses`."""

    def __init__(self, broker: MemoryBroker, fails: set[int], refuses: set[int] | None = None) -> None:
        super().__init__(broker)
        self._fails, self._refuses, self._sent = fails, refuses or set(), -1

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than the memory one
        self._sent += 1
        if self._sent in self._refuses:
            raise BrokerUnavailable("no room")
        return FailedDelivery() if self._sent in self._fails else super().send(record)


def shot(number: int) -> Shot:
    return Shot(f"image {number}".encode(), "image/jpeg", f"{number}.jpg")

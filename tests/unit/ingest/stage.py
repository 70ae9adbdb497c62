"""A clock that turns when somebody waits, producers that fail, a whole way from source to topic by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from types import TracebackType

from services.adapters.broker import Delivery, Producer
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.adapters.object_store.store import ObjectStore
from services.domain.errors import BrokerUnavailable
from services.domain.frame import Frame, RecordPosition
from services.domain.ledger import EntryKind, LedgerEntry
from services.domain.topics import FRAMES, LEDGER
from services.ingest.in_flight import Limits
from services.ingest.pipeline import CameraSpec, Ingester, Progress, ProgressCallback
from services.ingest.sources import Shot, Taken
from services.ingest.spool import Sender, Spool
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from services.wire.record import OutRecord

PLENTY_BYTES = 1 << 30


class TurningStop(Event):
    """A stop event whose waits turn the clock instead of taking time.

    `before_turning` lets others finish what the old time asked of them.
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

    def __init__(self, shots: Sequence[Taken | None], stop_after: int | None = None) -> None:
        self._shots, self._stop_after = shots, stop_after

    def shots(self, stop: Event) -> Iterator[Taken | None]:
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


class Line:
    """A spool in a folder, its sender driven by hand, and a broker in memory."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: FakeClock | None = None,
        broker: MemoryBroker | None = None,
        producer: Producer | None = None,
        max_bytes: int = PLENTY_BYTES,
    ) -> None:
        self.clock, self.broker = clock or FakeClock(), broker or MemoryBroker()
        self.spool = Spool(folder, clock=self.clock, max_bytes=max_bytes, reserve_bytes=0)
        out = producer or MemoryProducer(self.broker)
        self.sender = Sender(self.spool, lambda: out, self.clock, limits=Limits(max_in_flight_frames=8))

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sender.stop()
        self.spool.close()

    def send(self) -> None:
        """Send what is due, and wait until it is acknowledged or given up."""
        while self.sender.step():
            pass
        assert self.sender._in_flight.wait_until_empty(5)

    def drain(self, limit: int = 200) -> None:
        """Send everything, however long that takes on the clock."""
        for _ in range(limit):
            self.send()
            if self.spool.is_settled:
                return
            self.clock.advance(1.0)
        raise AssertionError("the spool did not become empty")

    def film(
        self,
        spec: CameraSpec,
        on_progress: ProgressCallback = lambda _: None,
        store: ObjectStore | None = None,
    ) -> Progress:
        """Run a camera, send what it gave, and return how far it then is."""
        ingester = Ingester(spec, self.spool, self.clock, store=store)
        ingester.run(TurningStop(self.clock, self.send), on_progress)
        self.drain()
        return ingester.progress()

    def frames(self) -> list[Frame]:
        """Return the frames on the topic, by camera in the order of arrival."""
        return [decode_frame(record) for record in self.broker.records(FRAMES.name)]

    def entries(self, kind: EntryKind) -> list[LedgerEntry]:
        """Return the entries on the ledger."""
        entries = [decode_ledger_entry(record.value) for record in self.broker.records(LEDGER.name)]
        return [entry for entry in entries if entry.kind is kind]


def declared(entries: Sequence[LedgerEntry]) -> list[int]:
    """Return the sequences that entries declare."""
    return [n for e in entries for span in e.ranges for n in range(span.first, span.last + 1)]


def shot(number: int, receipt: str | None = None) -> Shot:
    return Shot(f"image {number}".encode(), "image/jpeg", f"{number}.jpg", receipt=receipt)

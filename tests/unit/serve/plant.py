"""A stream and its neighbours in memory, for tests of the whole path."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from serve.stream import GROUP, Outside, StreamCore, StreamLimits
from serve.units import Units
from services.adapters.broker import Partition
from services.adapters.broker.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from services.adapters.clock import SystemClock
from services.adapters.object_store import ObjectStore, memory_store
from services.domain.hosting import Route, RouteTable
from services.domain.inspection import Inspection
from services.domain.topics import FRAMES, FRAMES_DLQ, INSPECTIONS, LEDGER
from services.wire.dead_letter import decode_dead_letter
from services.wire.frame import decode_frame
from services.wire.inspection import decode_inspection
from services.wire.ledger import decode_ledger_entry
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.unit.serve.fakes import FakeUnits

ROUTING = RouteTable([Route("*", "plates")], ["plates"])


@dataclass
class Plant:
    """A broker, units and a store that outlive the stream."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    units: FakeUnits = field(default_factory=FakeUnits)
    store: ObjectStore = field(default_factory=memory_store)

    def publish(self, *images: bytes, camera: str = "cam-1", project: str | None = None) -> list[UUID]:
        """Publish frames of a camera; return their ids."""
        producer, ids = MemoryProducer(self.broker), []
        for image in images:
            sequence = len(self.broker.records(FRAMES.name))
            headers = [("ce_source", camera.encode()), ("ce_id", str(sequence).encode())]
            headers += [("ce_sequence", str(sequence).encode()), ("ce_loupeepoch", b"e")]
            headers += [("ce_loupeproject", project.encode())] if project else []
            at = producer.send(OutRecord(FRAMES.name, camera.encode(), image, tuple(headers))).result(1)
            record = self.broker.log(Partition(at.topic, at.partition))[at.offset]
            ids.append(decode_frame(record).frame_id)
        return ids

    def core(self, limits: StreamLimits | None = None, units: Units | None = None) -> StreamCore:
        outside = Outside(
            open_consumer=lambda _: MemoryConsumer(self.broker, topics=[FRAMES.name], group=GROUP),
            open_producer=lambda: MemoryProducer(self.broker),
            units=units or self.units,
            store=self.store,
            clock=SystemClock(),
        )
        return StreamCore(outside, limits or StreamLimits(commit_interval_s=0.01))

    @contextmanager
    def running(self, core: StreamCore | None = None, routing: RouteTable = ROUTING) -> Iterator[StreamCore]:
        core = core or self.core()
        core.follow(routing)
        thread = threading.Thread(target=core.run, daemon=True)
        thread.start()
        try:
            yield core
        finally:
            core.stop()
            thread.join(20)
            assert not thread.is_alive()

    def inspections(self) -> list[Inspection]:
        return [decode_inspection(record.value) for record in self.broker.records(INSPECTIONS.name)]

    def judged(self) -> list[UUID]:
        """Return whose end a verdict is; `run` is set where it is none."""
        return [one.frame_id for one in self.inspections() if not one.run]

    def quarantined(self) -> list[UUID]:
        records = self.broker.records(FRAMES_DLQ.name)
        return [UUID(decode_dead_letter(record).frame_id) for record in records]

    def shed(self) -> list[UUID]:
        entries = (decode_ledger_entry(record.value) for record in self.broker.records(LEDGER.name))
        return [frame_id for entry in entries for frame_id in entry.frame_ids]

    def ended(self) -> set[UUID]:
        return {*self.judged(), *self.quarantined(), *self.shed()}

    def uncommitted(self) -> int:
        """How many records the group would read again."""
        logs = {Partition(FRAMES.name, n): 0 for n in range(self.broker.partitions)}
        return sum(len(self.broker.log(p)) - self.broker.committed.get((GROUP, p), 0) for p in logs)

    def wait_for_all(self, ids: Sequence[UUID]) -> None:
        poll_until(lambda: self.ended() >= set(ids) and self.uncommitted() == 0, deadline_s=20)

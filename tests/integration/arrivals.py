"""What arrives on the topics of ingest, gathered as long as somebody asks."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID, uuid4

from services.adapters.broker.kafka import KafkaBrokerConsumer
from services.domain.frame import Frame
from services.domain.ledger import EntryKind, LedgerEntry, ids_of_ranges
from services.domain.topics import FRAMES, LEDGER
from services.wire.frame import decode_frame
from services.wire.ledger import decode_ledger_entry
from services.wire.record import Record
from tests.poll import poll_until


class Arrivals:
    """A reader of `loupe.frames` and `loupe.ledger` from their beginning."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = KafkaBrokerConsumer(
            bootstrap, topics=[FRAMES.name, LEDGER.name], group=f"test-{uuid4()}"
        )
        self._records: list[Record] = []

    def poll(self) -> None:
        """Gather what is new."""
        self._records += self._consumer.poll(0.2, 500)

    def frames(self, camera: str) -> list[Frame]:
        """Return a camera's frames so far, in the order of arrival."""
        self.poll()
        found = (decode_frame(record) for record in self._records if record.topic == FRAMES.name)
        return [frame for frame in found if frame.camera == camera]

    def wait_for(self, camera: str, count: int) -> list[Frame]:
        """Return a camera's frames once there are so many different ones."""
        poll_until(
            lambda: len({frame.frame_id for frame in self.frames(camera)}) >= count,
            deadline_s=30, what=f"{count} frames",
        )  # fmt: skip
        return self.frames(camera)

    def entries(self, camera: str, kind: EntryKind) -> list[LedgerEntry]:
        """Return a camera's ledger entries so far, each once however often it was sent."""
        self.poll()
        found = (decode_ledger_entry(r.value) for r in self._records if r.topic == LEDGER.name)
        by_id = {entry.entry_id: entry for entry in found if (entry.camera, entry.kind) == (camera, kind)}
        return list(by_id.values())

    def declared(self, camera: str, kind: EntryKind) -> list[UUID]:
        """Return the frame ids that a camera declared so far, as often as different entries name them."""
        return [
            frame_id
            for entry in self.entries(camera, kind)
            for frame_id in sorted(ids_of_ranges(camera, entry.epoch, entry.ranges))
        ]

    def wait_until_balanced(self, camera: str, count: int) -> tuple[list[Frame], list[UUID]]:
        """Return frames and shed ids once `count` frames are declared and each is here or shed, once.

        Raises:
            AssertionError: not within 30 s, or something is declared twice.
        """

        def is_balanced() -> bool:
            captured = self.declared(camera, EntryKind.CAPTURED)
            shed = self.declared(camera, EntryKind.SHED)
            assert_once(captured)
            assert_once(shed)
            arrived = {frame.frame_id for frame in self.frames(camera)}
            return len(captured) >= count and set(captured) == arrived | set(shed)

        poll_until(is_balanced, deadline_s=30, what=f"{camera}: captured = arrived + shed")
        return self.frames(camera), self.declared(camera, EntryKind.SHED)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


def assert_once(ids: Iterable[UUID]) -> None:
    """Fail when an id is there twice."""
    found = list(ids)
    assert len(found) == len(set(found))


def in_order(frames: Iterable[Frame]) -> bool:
    """Tell whether frames came in the order of their numbers, those that came again after their last time."""
    last = {(frame.epoch or "", frame.sequence or 0): at for at, frame in enumerate(frames)}
    return sorted(last, key=lambda number: last[number]) == sorted(last)

"""Members of the stream join, leave, die and pause under load, and the broker pauses: nothing is lost.

Doubles may stand on the topic, for delivery is at least once; the store knows them (promises P1, P2, P8).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import func, select

from serve.stream import GROUP
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.protocol import Delivery
from services.adapters.broker.reader import KafkaTopicReader, read_up_to
from services.adapters.clock import SystemClock
from services.adapters.database import migrate, open_engine, reading
from services.adapters.database.tables import inspections
from services.domain.frame import ingester_event_id, ingester_frame_id
from services.domain.topics import FRAMES, FRAMES_DLQ, INSPECTIONS, LEDGER
from services.results.batch import Read
from services.results.store import Store
from services.wire.inspection import decode_inspection
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.servers import Servers

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
EPOCH = "2026-01-01T00:00:00.000000+00:00"
CAMERAS = 8
FRAMES_PER_S = 160
_PAUSE = threading.Event()


class Load(threading.Thread):
    """Cameras that publish small frames at a steady rate until told to stop."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self._producer = KafkaBrokerProducer(bootstrap)
        self._stop_asked = threading.Event()
        self._sent: list[Delivery] = []
        self.ids: set[UUID] = set()

    def run(self) -> None:
        sequence = 0
        while not self._stop_asked.wait(CAMERAS / FRAMES_PER_S):
            for number in range(CAMERAS):
                camera = f"cam-{number}"
                headers = (
                    ("ce_source", camera.encode()),
                    ("ce_id", ingester_event_id(EPOCH, sequence).encode()),
                    ("ce_sequence", str(sequence).encode()),
                    ("ce_loupeepoch", EPOCH.encode()),
                )
                record = OutRecord(FRAMES.name, camera.encode(), b"good", headers)
                self._sent.append(self._producer.send(record))
                self.ids.add(ingester_frame_id(camera, EPOCH, sequence))
            sequence += 1

    def stop(self) -> set[UUID]:
        """End, and return the ids of all frames, each acknowledged by the broker."""
        self._stop_asked.set()
        self.join(60)
        self._producer.flush(60)
        for one in self._sent:
            one.result(0)
        self._producer.close()
        return self.ids


class Group:
    """The members, by name, and what they have done so far."""

    def __init__(self, bootstrap: str) -> None:
        self.reader = KafkaTopicReader(bootstrap)
        self._bootstrap = bootstrap
        self._members: dict[str, subprocess.Popen[bytes]] = {}

    def join(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.integration.stream_member", self._bootstrap]
        self._members[name] = subprocess.Popen(command, cwd=ROOT)

    def signal(self, name: str, number: signal.Signals) -> None:
        self._members[name].send_signal(number)

    def ends(self, name: str, status: int) -> None:
        assert self._members.pop(name).wait(40) == status

    @contextmanager
    def paused(self, name: str, seconds: float) -> Iterator[None]:
        """Stop a member's clock, as a machine that swaps or a debugger does."""
        self.signal(name, signal.SIGSTOP)
        try:
            yield
            _PAUSE.wait(seconds)
        finally:
            self.signal(name, signal.SIGCONT)

    def close(self) -> None:
        for member in self._members.values():
            member.send_signal(signal.SIGCONT)
            member.kill()
            member.wait(10)
        self.reader.close()

    def verdicts(self) -> int:
        return sum(len(span) for span in self.reader.spans(INSPECTIONS.name).values())

    def goes_on(self, frames: int = 200) -> None:
        """Return once so many more verdicts are out."""
        wanted = self.verdicts() + frames
        poll_until(lambda: self.verdicts() >= wanted, deadline_s=90, every_s=0.3, what="verdicts go on")

    def wait_until_all_committed(self) -> None:
        def is_done() -> bool:
            committed = self.reader.committed(FRAMES.name, GROUP)
            spans = self.reader.spans(FRAMES.name)
            return all(committed.get(n, 0) == span.stop for n, span in spans.items() if span)

        poll_until(is_done, deadline_s=90, every_s=0.3, what="all offsets committed")


@pytest.fixture
def group(own_servers: Servers) -> Iterator[Group]:
    with own_servers.running("kafka"):
        made = Group(own_servers.addresses.kafka_bootstrap)
        try:
            yield made
        finally:
            made.close()


def prove(group: Group, ids: set[UUID], folder: Path) -> int:
    """Check that each frame has one verdict in the store and no other end; return the doubles before it."""
    spans = group.reader.spans(INSPECTIONS.name)
    batch = [
        Read(decode_inspection(record.value), record)
        for record in read_up_to(group.reader, INSPECTIONS.name, spans)
    ]
    judged = Counter(one.what.frame_id for one in batch)
    assert set(judged) == ids
    for topic in (FRAMES_DLQ.name, LEDGER.name):
        assert sum(len(span) for span in group.reader.spans(topic).values()) == 0, topic
    url = f"sqlite:///{folder / 'loupe.db'}"
    migrate(url)
    engine = open_engine(url)
    store = Store(engine, SystemClock())
    for start in range(0, len(batch), 500):
        store.add_inspections(batch[start : start + 500])
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(inspections)).scalar() == len(ids)
    engine.dispose()
    return judged.total() - len(judged)


def test_members_that_join_leave_die_and_pause_lose_nothing(
    group: Group, own_servers: Servers, tmp_path: Path
) -> None:
    load = Load(own_servers.addresses.kafka_bootstrap)
    group.join("one")
    load.start()
    group.goes_on()
    group.join("two")
    group.join("three")
    group.goes_on(600)
    with group.paused("one", 5):  # within its session of 10 s: it stays a member
        pass
    group.goes_on()
    group.signal("two", signal.SIGTERM)
    group.ends("two", 0)
    group.goes_on()
    group.signal("three", signal.SIGKILL)
    group.ends("three", -signal.SIGKILL)
    group.join("four")
    group.goes_on(400)
    with group.paused(
        "one", 13
    ):  # beyond its session: others get its partitions, it wakes up and joins again
        group.goes_on(100)
    group.goes_on(400)
    ids = load.stop()
    group.wait_until_all_committed()
    for name in ("one", "four"):
        group.signal(name, signal.SIGTERM)
        group.ends(name, 0)
    doubles = prove(group, ids, tmp_path)
    # Each of three interruptions may repeat what was in flight and not committed: bounded, not everything.
    assert doubles < len(ids) / 2


def test_a_broker_that_pauses_ten_seconds_under_load_loses_nothing(
    own_servers: Servers, tmp_path: Path
) -> None:
    with own_servers.running("kafka") as broker:
        group = Group(own_servers.addresses.kafka_bootstrap)
        try:
            load = Load(own_servers.addresses.kafka_bootstrap)
            group.join("one")
            group.join("two")
            load.start()
            group.goes_on()
            os.kill(broker.pid, signal.SIGSTOP)
            try:
                _PAUSE.wait(10)
            finally:
                os.kill(broker.pid, signal.SIGCONT)
            group.goes_on(600)
            ids = load.stop()
            group.wait_until_all_committed()
            prove(group, ids, tmp_path)
        finally:
            group.close()

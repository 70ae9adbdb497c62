"""Announcements become wishes; wishes survive what comes twice, late or not at all."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import Engine

from services.adapters.broker.memory import MemoryBroker, MemoryConsumer, MemoryProducer
from services.adapters.broker.protocol import Partition
from services.adapters.clock import FakeClock
from services.adapters.metrics import Metrics
from services.domain.errors import DatabaseUnavailable
from services.domain.hosting import HostingStatus
from services.domain.model_version import ModelAnnouncement
from services.domain.topics import MODELS
from services.hosting.pipeline import GROUP, AnnouncementLoop, Host
from services.hosting.store import HostedProject, HostingStore, Wish
from services.wire.dead_letter import decode_dead_letter
from services.wire.model import encode_announcement
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.unit.hosting.models import announcement, registered


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.advance(60)  # a minute after the models of these tests were made
    return clock


@pytest.fixture
def host(store: HostingStore, clock: FakeClock) -> Host:
    return Host(store, clock, offered_units=2, default_units=1)


def hosted(store: HostingStore) -> dict[str, HostedProject]:
    return {one.hosting.project: one for one in store.hosted()}


def test_the_first_project_is_hosted_with_all_units(engine: Engine, store: HostingStore, host: Host) -> None:
    assert host.announced(registered(engine, "cookies", "v1"))
    one = hosted(store)["cookies"]
    assert (one.hosting.version, one.hosting.min_units, one.hosting.max_units) == ("v1", 2, 2)
    assert one.status is HostingStatus.STARTING_HOSTING


def test_the_second_shares_and_the_third_is_refused_with_numbers(
    engine: Engine, store: HostingStore, host: Host, clock: FakeClock
) -> None:
    for project in ("cookies", "plates", "bottles"):
        host.announced(registered(engine, project, "v1"))
        clock.advance(1)
    found = hosted(store)
    assert {name: one.hosting.max_units for name, one in found.items()} == dict.fromkeys(found, 1)
    assert found["bottles"].status is HostingStatus.HOSTING_FAILED
    assert found["bottles"].message == (
        "Needs 1 inference units; 0 of the 2 that the cluster offers are free."
    )
    assert found["cookies"].status is found["plates"].status is HostingStatus.STARTING_HOSTING


def test_a_new_version_swaps_and_leaves_the_units(engine: Engine, store: HostingStore, host: Host) -> None:
    host.announced(registered(engine, "cookies", "v1", age_s=9))
    (first,) = store.hosted()
    store.wish([Wish(replace(first.hosting, min_units=1, max_units=1), by="ada")], first.changed_at)
    assert host.announced(registered(engine, "cookies", "v2"))
    one = hosted(store)["cookies"]
    assert (one.hosting.version, one.hosting.max_units, one.changed_by) == ("v2", 1, "ada")


def test_a_version_that_comes_again_or_late_changes_nothing(
    engine: Engine, store: HostingStore, host: Host
) -> None:
    old = registered(engine, "cookies", "v1", age_s=9)
    new = registered(engine, "cookies", "v2")
    assert host.announced(new)
    before = store.hosted()
    assert not host.announced(new)
    assert not host.announced(old)
    assert store.hosted() == before


def test_a_swap_does_not_let_a_waiting_project_overtake(
    engine: Engine, store: HostingStore, host: Host, clock: FakeClock
) -> None:
    for project in ("cookies", "plates", "bottles"):
        host.announced(registered(engine, project, "v1", age_s=9))
        clock.advance(1)
    host.announced(registered(engine, "cookies", "v2"))
    assert [one.hosting.project for one in store.hosted()] == ["plates", "cookies", "bottles"]


def test_what_was_registered_while_nobody_listened_is_hosted_newest_first(
    engine: Engine, store: HostingStore, host: Host
) -> None:
    for project, version, age_s in (("old", "v1", 99), ("new", "v1", 9), ("new", "v2", 5), ("mid", "v1", 50)):
        registered(engine, project, version, age_s=age_s)
    host.catch_up()
    found = hosted(store)
    assert found["new"].hosting.version == "v2"
    # Two units: the newest project and the next have one each, the oldest waits.
    assert {name for name, one in found.items() if one.status is HostingStatus.HOSTING_FAILED} == {"old"}


def test_a_version_made_after_the_last_wish_is_caught_up(
    engine: Engine, store: HostingStore, host: Host, clock: FakeClock
) -> None:
    host.announced(registered(engine, "cookies", "v1", age_s=9))
    registered(engine, "cookies", "v2", age_s=-120)  # a minute after the wish
    clock.advance(120)
    host.catch_up()
    assert hosted(store)["cookies"].hosting.version == "v2"


def test_a_wish_for_an_older_version_is_kept(engine: Engine, store: HostingStore, host: Host) -> None:
    old = registered(engine, "cookies", "v1", age_s=9)
    host.announced(registered(engine, "cookies", "v2"))
    (one,) = store.hosted()
    rolled_back = replace(one.hosting, version=old.version, uri=old.uri)
    store.wish([Wish(rolled_back, by="ada")], one.changed_at)
    host.catch_up()
    assert hosted(store)["cookies"].hosting.version == "v1"


def test_a_smaller_machine_gets_smaller_hostings(
    engine: Engine, store: HostingStore, host: Host, clock: FakeClock
) -> None:
    host.announced(registered(engine, "cookies", "v1"))
    Host(store, clock, offered_units=1, default_units=1).catch_up()
    assert hosted(store)["cookies"].hosting.max_units == 1


class Rig:
    """The loop on a broker in memory."""

    def __init__(self, host: Host) -> None:
        self.broker = MemoryBroker(partitions=1)
        self.wishes = 0
        consumer = MemoryConsumer(self.broker, topics=[MODELS.name], group=GROUP)
        self.loop = AnnouncementLoop(
            consumer, MemoryProducer(self.broker), host, Metrics(), FakeClock(), on_wish=self._count
        )
        self._thread = threading.Thread(target=self.loop.run)

    def _count(self) -> None:
        self.wishes += 1

    def committed(self) -> int:
        return self.broker.committed.get((GROUP, Partition(MODELS.name, 0)), 0)

    def run_until_committed(self, offset: int) -> None:
        self._thread.start()
        poll_until(lambda: self.committed() == offset, deadline_s=10)
        self.loop.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


def test_announcements_are_read_in_order_and_nonsense_is_quarantined(
    engine: Engine, store: HostingStore, host: Host
) -> None:
    rig = Rig(host)
    send = MemoryProducer(rig.broker).send
    send(encode_announcement(registered(engine, "cookies", "v1", age_s=9)))
    send(OutRecord(MODELS.name, b"x", b"\xff nonsense"))
    send(encode_announcement(announcement("../x", "v1")))
    send(encode_announcement(registered(engine, "cookies", "v2")))
    rig.run_until_committed(4)
    assert hosted(store)["cookies"].hosting.version == "v2"
    assert rig.wishes == 2
    letters = [decode_dead_letter(record) for record in rig.broker.records("loupe.models.dlq")]
    assert [letter.cause for letter in letters] == ["MalformedRecord", "BadRequest"]


class ForgetfulHost(Host):
    """Its database is away the first two times."""

    away = 2

    def announced(self, said: ModelAnnouncement) -> bool:
        if self.away:
            self.away -= 1
            raise DatabaseUnavailable("away")
        return super().announced(said)


def test_a_database_that_is_away_is_waited_for(engine: Engine, store: HostingStore, clock: FakeClock) -> None:
    rig = Rig(ForgetfulHost(store, clock, offered_units=2, default_units=1))
    MemoryProducer(rig.broker).send(encode_announcement(registered(engine, "cookies", "v1")))
    rig.run_until_committed(1)
    assert hosted(store)["cookies"].hosting.version == "v1"
    assert rig.broker.records("loupe.models.dlq") == []

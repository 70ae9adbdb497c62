"""Shadows look on: recorded, told apart, and never in the way of the verdict that counts."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from serve.archive import Archive
from serve.judging import Item, Judge
from serve.lanes import Bounds
from serve.publishing import Publisher
from serve.shadows import PATIENCE_S, Shadows
from services.adapters.broker.memory import MemoryProducer
from services.adapters.clock import FakeClock
from services.domain.errors import ModelUnavailable
from services.domain.frame import Frame
from services.domain.hosting import ArchivePolicy, Route, RouteMode, RouteTable
from services.domain.inspection import Role
from services.wire.frame import decode_frame
from tests.poll import poll_until
from tests.unit.serve.fakes import ANOMALOUS, BAD, CRASHES, FakeUnits, frame_record
from tests.unit.serve.plant import Plant

LIVE = Route("*", "plates")
NEW, OTHER = Route("*", "new", RouteMode.SHADOW), Route("*", "other", RouteMode.SHADOW)
SHADOWED = RouteTable([LIVE, NEW], ["new", "plates"])


def test_a_shadow_judges_every_frame_as_well() -> None:
    plant = Plant()
    routes = RouteTable([LIVE, NEW, OTHER], ["new", "other", "plates"])
    with plant.running(routing=routes):
        ids = plant.publish(*[b"good"] * 40)
        plant.wait_for_all(ids)
    found = Counter((one.role, one.run, one.project) for one in plant.inspections())
    assert found == {
        (Role.LIVE, "", "plates"): 40,
        (Role.SHADOW, "new", "new"): 40,
        (Role.SHADOW, "other", "other"): 40,
    }
    assert {one.position for one in plant.inspections() if one.role is Role.SHADOW} == {None}


def test_a_canary_judges_its_share_instead() -> None:
    plant = Plant()
    canary = Route("*", "new", RouteMode.CANARY, share_ratio=0.5)
    with plant.running(routing=RouteTable([LIVE, canary], ["new", "plates"])):
        ids = plant.publish(*[b"good"] * 200)
        plant.wait_for_all(ids)
    assert Counter(plant.judged()) == Counter(ids)
    roles = Counter((one.role, one.project) for one in plant.inspections())
    assert set(roles) == {(Role.LIVE, "plates"), (Role.CANARY, "new")}
    # Binomial(200, 0.5): 100 +- 7; five deviations.
    assert abs(roles[Role.CANARY, "new"] - 100) <= 35


def test_a_shadow_that_is_away_refuses_or_crashes_is_skipped_and_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def away(project: str, frames: Sequence[Frame]) -> None:
        if project == "new":
            raise ModelUnavailable("No unit of new answered.")

    plant = Plant(units=FakeUnits(away))
    with plant.running(routing=SHADOWED), caplog.at_level(logging.WARNING, "serve.shadows"):
        ids = plant.publish(*[b"good"] * 20)
        plant.wait_for_all(ids)
    assert Counter(plant.judged()) == Counter(ids)
    assert {one.role for one in plant.inspections()} == {Role.LIVE}
    assert "the shadow new: No unit of new answered." in caplog.text


def test_frames_without_a_verdict_are_not_shown_to_shadows() -> None:
    plant = Plant()
    with plant.running(routing=SHADOWED):
        ids = plant.publish(BAD, CRASHES)
        plant.wait_for_all(ids)
    assert sorted(plant.quarantined()) == sorted(ids)
    assert {project for project, _ in plant.units.calls} == {"plates"}


def test_a_slow_shadow_delays_no_verdict() -> None:
    gate = Gate()
    plant = Plant(units=gate.units)
    with plant.running(routing=SHADOWED):
        ids = plant.publish(*[b"good"] * 300)
        poll_until(lambda: len(plant.judged()) == len(ids), deadline_s=10, what="all verdicts")
        assert plant.uncommitted() > 0  # the offsets wait, within bounds
        gate.open()
        plant.wait_for_all(ids)


def test_a_shadow_keeps_pixels_by_its_own_policy() -> None:
    plant = Plant()
    keeping = replace(NEW, archive=ArchivePolicy.ALL)
    none = replace(LIVE, archive=ArchivePolicy.NONE)
    with plant.running(routing=RouteTable([none, keeping], ["new", "plates"])):
        plant.wait_for_all(plant.publish(ANOMALOUS))
    assert [(one.role, one.image is not None) for one in plant.inspections()] == [
        (Role.LIVE, False),
        (Role.SHADOW, True),
    ]


class Gate:
    """Units of one project that wait until the gate is opened."""

    def __init__(self, project: str = "new") -> None:
        self._project, self._open = project, threading.Event()
        self.units = FakeUnits(self._wait)

    def _wait(self, project: str, frames: Sequence[Frame]) -> None:  # noqa: ARG002 - what the fake calls
        if project == self._project:
            self._open.wait(20)

    def open(self) -> None:
        self._open.set()


class Bench:
    """Shadows alone, with a clock that is turned by hand."""

    def __init__(self, units: FakeUnits, bounds: Bounds = Bounds()) -> None:  # noqa: B008 - frozen
        self.plant = Plant(units=units)
        self.clock, self.done = FakeClock(), list[Item]()
        judge = Judge(units, self.plant.store, self.clock, lambda _project, _seconds: False)
        archive = Archive(self.plant.store, lambda _: False)
        self.shadows = Shadows(judge, archive, self.clock, bounds, self.done.append)
        self.publisher = Publisher(MemoryProducer(self.plant.broker), self.clock, lambda _: False)

    def add(self, count: int, *routes: Route) -> None:
        for index in range(count):
            record = frame_record(index)
            item = Item(record, decode_frame(record), LIVE, shadows=routes or (NEW,))
            self.shadows.add(item, self.publisher)


def test_an_offset_waits_for_its_shadows_no_longer_than_said() -> None:
    gate = Gate()
    bench = Bench(gate.units)
    bench.add(3)
    poll_until(lambda: gate.units.calls, deadline_s=10)
    bench.clock.advance(PATIENCE_S - 0.1)
    bench.shadows.give_up_late()
    assert bench.done == []
    bench.clock.advance(0.2)
    bench.shadows.give_up_late()
    assert len(bench.done) == 3
    gate.open()
    # What was out is still recorded, and counts no frame as done twice.
    poll_until(bench.plant.inspections, deadline_s=10)
    bench.shadows.close()
    assert len(bench.done) == 3


def test_what_waits_for_shadows_is_bounded_and_the_rest_is_skipped_at_once() -> None:
    gate = Gate()
    bench = Bench(gate.units, Bounds(frames=20))
    bench.add(50)
    assert len(bench.done) == 40
    gate.open()
    poll_until(lambda: len(bench.done) == 50, deadline_s=10)
    bench.add(1)
    poll_until(lambda: len(bench.done) == 51, deadline_s=10)
    poll_until(lambda: len(bench.plant.inspections()) == 11, deadline_s=10)


def test_a_frame_is_done_when_the_last_of_its_shadows_is() -> None:
    gate = Gate("other")
    bench = Bench(gate.units)
    bench.add(1, NEW, OTHER)
    poll_until(bench.plant.inspections, deadline_s=10)
    assert bench.done == []
    gate.open()
    poll_until(lambda: bench.done, deadline_s=10)
    assert len(bench.plant.inspections()) == 2
    assert len(bench.done) == 1


def test_after_the_end_nothing_waits() -> None:
    gate = Gate()
    bench = Bench(gate.units)
    bench.add(2)
    bench.shadows.close()
    bench.add(1)
    assert len(bench.done) == 3
    gate.open()

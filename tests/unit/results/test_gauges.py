"""The gap that the gauges show is what the ledger calls missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from services.adapters.broker import Partition
from services.adapters.broker.lag import LagMeter
from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import FakeClock
from services.adapters.database import reading
from services.adapters.database.tables import ledger_captured
from services.domain.errors import BrokerUnavailable
from services.domain.topics import FRAMES
from services.results.gauges import STREAM_GROUP, GapFinder, Gauges
from services.results.ledger import prove
from services.results.tally import CameraLabels
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.unit.results.builders import (
    captured,
    frame,
    ledger_records,
    publish,
    publish_bare,
    verdict,
    verdict_records,
)
from tests.unit.results.conftest import Bench


def finder(bench: Bench) -> GapFinder:
    return GapFinder(bench.engine, bench.store, MemoryTopicReader(bench.broker))


def commit_all(broker: MemoryBroker) -> None:
    """Let the stream have committed everything there is."""
    for number in range(broker.partitions):
        place = Partition(FRAMES.name, number)
        broker.committed[STREAM_GROUP, place] = len(broker.log(place))


def test_declared_frames_without_end_are_the_gap(bench: Bench) -> None:
    gaps = finder(bench)
    bench.pipeline.ledger(ledger_records(captured(0, 4), captured(0, 1, camera="cam-2")))
    bench.pipeline.inspections(verdict_records(verdict(frame(0)), verdict(frame(3))))
    assert gaps.gaps() == {"cam-1": 3, "cam-2": 2}
    bench.pipeline.inspections(verdict_records(*(verdict(frame(n)) for n in (1, 2, 4))))
    assert gaps.gaps() == {"cam-1": 0, "cam-2": 2}


def test_ended_ranges_are_noted(bench: Bench) -> None:
    bench.pipeline.ledger(ledger_records(captured(0, 1), captured(2, 3)))
    bench.pipeline.inspections(verdict_records(*(verdict(frame(n)) for n in range(3))))
    finder(bench).gaps()
    with reading(bench.engine) as connection:
        rows = connection.execute(select(ledger_captured.c.first, ledger_captured.c.is_ended)).all()
    assert sorted(tuple(row) for row in rows) == [(0, True), (2, False)]


def test_a_foreign_frame_that_the_stream_passed_over_is_a_gap_at_the_second_look(bench: Bench) -> None:
    gaps = finder(bench)
    judged, lost = publish_bare(bench.broker, "foreign"), publish_bare(bench.broker, "foreign")
    bench.pipeline.inspections(verdict_records(verdict(judged)))
    assert gaps.gaps() == {}  # not committed: still on its way
    commit_all(bench.broker)
    assert gaps.gaps() == {}  # committed a moment ago: its verdict may still be on its way
    assert gaps.gaps() == {"foreign": 1}
    assert prove(bench.engine, MemoryTopicReader(bench.broker))["foreign"].missing == (lost.frame_id,)
    bench.pipeline.inspections(verdict_records(verdict(lost)))
    assert gaps.gaps() == {}


def test_the_age_of_a_foreign_gap_is_that_of_its_record_whatever_its_clock_says(bench: Bench) -> None:
    gaps = finder(bench)
    bench.broker.append(
        OutRecord(FRAMES.name, b"foreign", b"pixels", (("ce_time", b"1970-01-01T00:00:00Z"),))
    )
    commit_all(bench.broker)
    gaps.gaps()
    assert gaps.gaps() == {"foreign": 1}
    assert gaps.oldest["foreign"] == bench.broker.records(FRAMES.name)[0].recorded_at


def test_a_declared_frame_that_was_passed_over_counts_once(bench: Bench) -> None:
    gaps = finder(bench)
    publish(bench.broker, frame(0))
    bench.pipeline.ledger(ledger_records(captured(0, 0)))
    commit_all(bench.broker)
    assert [gaps.gaps() for _ in range(3)] == [{"cam-1": 1}] * 3


def test_a_second_record_of_a_judged_frame_is_no_gap(bench: Bench) -> None:
    gaps = finder(bench)
    first, _ = publish(bench.broker, frame(0), frame(0))
    bench.pipeline.inspections(verdict_records(verdict(first)))
    commit_all(bench.broker)
    assert [gaps.gaps() for _ in range(3)] == [{}] * 3


def test_lag_and_gap_are_on_the_page_and_fall_back_to_zero(bench: Bench) -> None:
    reader = MemoryTopicReader(bench.broker)
    clock = FakeClock(datetime.now(UTC) + timedelta(seconds=30))
    meter = LagMeter(reader, FRAMES.name, STREAM_GROUP)
    gauges = Gauges(finder(bench), meter, bench.metrics, clock, every_s=0.01)
    (of,) = publish(bench.broker, frame(0))
    bench.pipeline.ledger(ledger_records(captured(0, 0)))
    gauges.look()
    assert bench.metric("loupe_lag_records", topic=FRAMES.name) == 1
    assert bench.metric("loupe_lag_seconds", topic=FRAMES.name) == pytest.approx(30, abs=5)
    assert bench.metric("loupe_ledger_gap_frames", camera="cam-1") == 1
    bench.pipeline.inspections(verdict_records(verdict(of)))
    commit_all(bench.broker)
    gauges.start()
    poll_until(lambda: bench.metric("loupe_ledger_gap_frames", camera="cam-1") == 0, deadline_s=10)
    gauges.stop()
    gauges.join(10)
    assert bench.metric("loupe_lag_records", topic=FRAMES.name) == 0


def test_a_neighbour_that_is_away_leaves_the_gauges_and_the_thread(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(MemoryTopicReader):
        looks = 0

        def committed(self, topic: str, group: str) -> dict[int, int]:
            self.looks += 1
            if self.looks < 3:
                raise BrokerUnavailable("Away.")
            return super().committed(topic, group)

    reader = Away(bench.broker)
    publish(bench.broker, frame(0))
    meter = LagMeter(reader, FRAMES.name, STREAM_GROUP)
    gauges = Gauges(finder(bench), meter, bench.metrics, bench.clock, every_s=0.01)
    gauges.start()
    poll_until(lambda: bench.metric("loupe_lag_records", topic=FRAMES.name) == 1, deadline_s=10)
    gauges.stop()
    gauges.join(10)
    assert "Away." in caplog.text


def test_the_age_of_a_gap_is_that_of_its_oldest_declaration(bench: Bench) -> None:
    reader = MemoryTopicReader(bench.broker)
    gauges = Gauges(
        finder(bench), LagMeter(reader, FRAMES.name, STREAM_GROUP), bench.metrics, bench.clock, every_s=9
    )
    bench.pipeline.ledger(ledger_records(captured(0, 0), captured(1, 1)))
    gauges.look()
    # Declared at second 0, looked at in second 100.
    assert bench.metric("loupe_ledger_gap_seconds", camera="cam-1") == 100
    bench.pipeline.inspections(verdict_records(verdict(frame(0)), verdict(frame(1))))
    gauges.look()
    assert bench.metric("loupe_ledger_gap_seconds", camera="cam-1") == 0


def test_what_was_named_once_is_forgotten_when_it_is_ended(bench: Bench) -> None:
    gaps = finder(bench)
    for _ in range(30):
        lost = publish_bare(bench.broker, "foreign")
        commit_all(bench.broker)
        gaps.gaps()
        gaps.gaps()
        bench.pipeline.inspections(verdict_records(verdict(lost)))
    gaps.gaps()
    assert sum(map(len, gaps._names.values())) <= 1


def test_cameras_that_anyone_invents_share_a_label() -> None:
    labels = CameraLabels(2)
    assert [labels.of(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]

"""One batch becomes rows, events, counts and a live view, whatever fails in between."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.cache.live import LiveView
from services.adapters.database.tables import (
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.errors import (
    BrokerUnavailable,
    DatabaseUnavailable,
    ImageTooLarge,
    PoisonShareExceeded,
    RetryLater,
)
from services.domain.inspection import Inspection, Role, event_id_of, inspection_id_of
from services.domain.topics import EVENTS, RECORD_LIMIT_BYTES
from services.results.batch import Read
from services.results.store import Judged, Store
from services.wire.dead_letter import decode_dead_letter
from services.wire.event import ANOMALY_TYPE, VERDICT_TYPE
from services.wire.record import OutRecord, Record
from tests.unit.adapters.test_patience import FakeTime
from tests.unit.results.builders import (
    captured,
    frame,
    ledger_records,
    letter,
    publish,
    records,
    shed_by_stream,
    shed_range,
    verdict,
    verdict_records,
)
from tests.unit.results.conftest import Bench


class Killed(BaseException):
    """The process ends here."""


def events(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in bench.broker.records(EVENTS.name)]


def dead_letters(bench: Bench, topic: str) -> list[Record]:
    return bench.broker.records(f"{topic}.dlq")


def garbage(topic: str, count: int = 1, start: int = 0) -> list[Record]:
    return [
        Record(topic, 0, start + n, b"cam-1", b"\xff garbage", (("ce_id", b"\xff"),)) for n in range(count)
    ]


def test_a_verdict_is_stored_told_counted_and_shown(bench: Bench) -> None:
    of = frame(1)
    bench.pipeline.inspections(verdict_records(verdict(of, is_anomalous=True, score=0.8)))
    assert bench.count(inspections) == 1
    (told,) = events(bench)
    assert told["type"] == ANOMALY_TYPE
    assert told["id"] == str(event_id_of(inspection_id_of(of.frame_id, Role.LIVE, ""), ANOMALY_TYPE))
    assert told["data"]["frame_id"] == str(of.frame_id)
    labels = {"project": "parts", "camera": "cam-1", "model_version": "v1", "verdict": "anomaly"}
    assert bench.metric("loupe_inspections_total", **labels) == 1
    # Captured at second 1, stored at second 100; its record was written at second 0.
    assert bench.metric("loupe_latency_seconds_sum", project="parts") == 99
    assert bench.metric("loupe_stage_seconds_sum", stage="store") == 100
    assert bench.metric("loupe_stage_seconds_sum", stage="infer") == pytest.approx(0.012)
    assert bench.metric("loupe_events_total", project="parts", type=ANOMALY_TYPE) == 1
    view = LiveView(bench.cache, bench.clock)
    assert view.last()["cam-1"]["frame_id"] == str(of.frame_id)
    assert view.counts()["cam-1"] == {"judged": 1, "anomalous": 1}
    assert [one["camera"] for one in view.recent()] == ["cam-1"]


def test_a_redelivery_adds_no_row_and_no_count_but_tells_again(bench: Bench) -> None:
    batch = verdict_records(verdict(frame(1)), verdict(frame(2)))
    bench.pipeline.inspections(batch)
    bench.pipeline.inspections(batch)
    assert bench.count(inspections) == 2
    assert bench.metric("loupe_duplicate_inspections_total", project="parts") == 2
    told = events(bench)
    assert len(told) == 4
    assert len({one["id"] for one in told}) == 2


def test_a_second_opinion_is_not_told(bench: Bench) -> None:
    """The first write wins, also in events: a redelivery judged by another version changes nothing."""
    bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    again = verdict(frame(1), is_anomalous=True, score=0.9, model_version="v2")
    bench.pipeline.inspections(verdict_records(again))
    assert {(one["type"], one["data"]["model_version"]) for one in events(bench)} == {(VERDICT_TYPE, "v1")}


def test_live_and_canary_verdicts_raise_events_and_no_others(bench: Bench) -> None:
    one, two = frame(1), frame(2)
    told = [
        verdict(one, role=Role.LIVE),
        verdict(two, role=Role.CANARY),
        verdict(one, role=Role.SHADOW, run="other"),
        verdict(one, role=Role.REJUDGE, run="r"),
    ]
    bench.pipeline.inspections(verdict_records(*told))
    assert bench.count(inspections) == 4
    assert [each["data"]["frame_id"] for each in events(bench)] == [str(one.frame_id), str(two.frame_id)]
    # The camera's frames are two, whoever looked at them; and a new process counts the same.
    for process in (bench, bench.restarted()):
        assert process.pipeline._tally.of_cameras(["cam-1"])["cam-1"]["judged"] == 2


def test_declarations_are_stored_and_counted_once(bench: Bench) -> None:
    (of,) = publish(bench.broker, frame(9))
    batch = ledger_records(captured(0, 9), shed_range(3, 4), shed_by_stream(of))
    bench.pipeline.ledger(batch)
    bench.pipeline.ledger(batch)
    tables = (ledger_captured, ledger_shed_ranges, ledger_shed)
    assert [bench.count(table) for table in tables] == [1, 1, 1]
    assert bench.metric("loupe_captured_total", camera="cam-1") == 10
    assert bench.metric("loupe_shed_total", camera="cam-1", reason="broker-unavailable") == 2
    assert bench.metric("loupe_shed_total", camera="cam-1", reason="no-route") == 1


def test_quarantined_frames_are_stored_and_counted_once(bench: Bench) -> None:
    (of,) = publish(bench.broker, frame(1))
    batch = records(letter(of))
    bench.pipeline.dead_letters(batch)
    bench.pipeline.dead_letters(batch)
    assert bench.count(quarantine) == 1
    assert bench.metric("loupe_quarantined_total", camera="cam-1", cause="UnreadableImage") == 1


def test_an_unreadable_record_goes_aside_with_its_bytes_and_the_rest_goes_on(bench: Bench) -> None:
    (bad,) = garbage("loupe.inspections", start=7)
    bench.pipeline.inspections([bad, *verdict_records(verdict(frame(1)))])
    assert bench.count(inspections) == 1
    found = decode_dead_letter(dead_letters(bench, "loupe.inspections")[0])
    assert (found.cause, found.position.offset) == ("MalformedRecord", 7)
    assert found.original.value == bad.value
    assert found.original.headers == bad.headers
    labels = {"topic": "loupe.inspections", "cause": "MalformedRecord"}
    assert bench.metric("loupe_dead_letters_total", **labels) == 1


def test_an_unreadable_dead_letter_stays_where_it_stands(bench: Bench) -> None:
    (of,) = publish(bench.broker, frame(1))
    bench.pipeline.dead_letters([*garbage("loupe.frames.dlq"), *records(letter(of), start=1)])
    assert bench.count(quarantine) == 1
    assert dead_letters(bench, "loupe.frames.dlq") == []


def test_a_ledger_entry_of_absurd_size_is_refused(bench: Bench) -> None:
    bench.pipeline.ledger(ledger_records(captured(0, 10**12)))
    assert bench.count(ledger_captured) == 0
    assert len(dead_letters(bench, "loupe.ledger")) == 1


def test_numbers_that_are_none_are_refused(bench: Bench) -> None:
    bench.pipeline.inspections(verdict_records(verdict(frame(1), score=float("nan")), verdict(frame(2))))
    assert bench.count(inspections) == 1
    assert len(dead_letters(bench, "loupe.inspections")) == 1


class Particular(Store):
    """A database that cannot hold one project's rows."""

    def add_inspections(self, batch: Sequence[Read[Inspection]]) -> Judged:
        cursed = [
            replace(one, what=replace(one.what, sequence=1 << 70)) if one.what.project == "cursed" else one
            for one in batch
        ]
        return super().add_inspections(cursed)


def test_a_record_that_cannot_be_stored_is_found_among_its_neighbours(bench: Bench) -> None:
    verdicts = [verdict(frame(n), project="cursed" if n in {3, 8} else "parts") for n in range(10)]
    store = Particular(bench.engine, bench.clock)
    bench.restarted(store=store).pipeline.inspections(verdict_records(*verdicts))
    assert bench.count(inspections) == 8
    assert {decode_dead_letter(r).position.offset for r in dead_letters(bench, "loupe.inspections")} == {3, 8}


def test_a_flood_of_poison_stops_before_it_is_moved(bench: Bench) -> None:
    with pytest.raises(PoisonShareExceeded) as caught:
        bench.pipeline.inspections(garbage("loupe.inspections", 30))
    assert caught.value.details == {"records": 30, "refused": 30, "cause": "MalformedRecord"}
    assert dead_letters(bench, "loupe.inspections") == []


def test_some_poison_is_no_flood(bench: Bench) -> None:
    for number in range(15):
        good = verdict_records(*(verdict(frame(number * 3 + n)) for n in range(2)))
        bench.pipeline.inspections([*good, *garbage("loupe.inspections")])
    assert len(dead_letters(bench, "loupe.inspections")) == 15


class Faulty(MemoryProducer):
    """A producer whose sends fail as listed, one entry per send; then it works."""

    def __init__(self, broker: MemoryBroker, *faults: BaseException | None) -> None:
        super().__init__(broker)
        self.faults = list(faults)

    def send(self, record: OutRecord) -> Any:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        return super().send(record)


def test_a_broker_that_is_away_is_waited_for(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    producer = Faulty(bench.broker, None, BrokerUnavailable("Away."))
    bench = bench.restarted(producer=producer)
    bench.pipeline.inspections(verdict_records(verdict(frame(1)), verdict(frame(2))))
    assert len({one["id"] for one in events(bench)}) == 2
    assert bench.metric("loupe_latency_seconds_count", project="parts") == 2
    assert "Away." in caplog.text


class Away(Store):
    """A database that does not answer the first times."""

    failures = 2

    def add_inspections(self, batch: Sequence[Read[Inspection]]) -> Judged:
        if self.failures:
            self.failures -= 1
            raise DatabaseUnavailable("Away.")
        return super().add_inspections(batch)


def test_a_database_that_is_away_is_waited_for(bench: Bench) -> None:
    bench = bench.restarted(store=Away(bench.engine, bench.clock))
    bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    assert bench.count(inspections) == 1
    assert len(events(bench)) == 1


def test_stopping_ends_the_waiting(bench: Bench) -> None:
    bench = bench.restarted(store=Away(bench.engine, bench.clock))
    bench.patience.is_stopping.set()
    with pytest.raises(RetryLater):
        bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    assert bench.count(inspections) == 0


def test_a_dead_letter_above_the_size_limit_goes_without_its_bytes(bench: Bench) -> None:
    bench = bench.restarted(producer=Faulty(bench.broker, ImageTooLarge("Too large.")))
    large = [replace(one, value=b"x" * RECORD_LIMIT_BYTES) for one in garbage("loupe.inspections")]
    bench.pipeline.inspections(large)
    (found,) = dead_letters(bench, "loupe.inspections")
    assert found.value == b""
    letter = decode_dead_letter(found)
    assert (letter.cause, letter.is_whole) == ("MalformedRecord", False)


def test_without_redis_nothing_is_lost_and_one_warning_is_given(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.cache.is_gone = True
    with caplog.at_level(logging.INFO):
        for number in range(3):
            bench.clock.advance(10)
            bench.pipeline.inspections(verdict_records(verdict(frame(number))))
    assert bench.count(inspections) == 3
    assert caplog.text.count("no live view") == 1
    bench.cache.is_gone = False
    bench.clock.advance(10)
    bench.pipeline.inspections(verdict_records(verdict(frame(3))))
    assert LiveView(bench.cache, bench.clock).counts()["cam-1"]["judged"] == 4


def test_an_emptied_redis_is_right_again_with_the_next_verdict(bench: Bench) -> None:
    bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    bench.cache.clear()
    bench.pipeline.inspections(verdict_records(verdict(frame(2), is_anomalous=True)))
    assert LiveView(bench.cache, bench.clock).counts()["cam-1"] == {"judged": 2, "anomalous": 1}


def test_counts_of_a_restarted_process_are_those_of_the_database(bench: Bench) -> None:
    (of,) = publish(bench.broker, frame(5))
    bench.pipeline.inspections(verdict_records(verdict(frame(1)), verdict(frame(2), is_anomalous=True)))
    bench.pipeline.ledger(ledger_records(captured(0, 9), shed_range(3, 4)))
    bench.pipeline.dead_letters(records(letter(of)))
    again = bench.restarted()
    names = ("inspections", "captured", "shed", "quarantined")
    for name in (f"loupe_{name}_total" for name in names):
        before, after = ({_key(s): s.value for s in _samples(one, name)} for one in (bench, again))
        assert before == after
        assert before


@pytest.mark.parametrize("survived_sends", [0, 1, 2])
def test_killed_while_it_tells_and_replayed_nothing_is_lost_or_doubled(
    bench: Bench, survived_sends: int
) -> None:
    batch = verdict_records(*(verdict(frame(n)) for n in range(3)))
    killed = bench.restarted(producer=Faulty(bench.broker, *[None] * survived_sends, Killed()))
    with pytest.raises(Killed):
        killed.pipeline.inspections(batch)
    again = bench.restarted()
    again.pipeline.inspections(batch)
    assert_all_told_once_counted_once(again, 3)


def test_killed_before_the_commit_and_replayed_nothing_is_lost_or_doubled(bench: Bench) -> None:
    def die(_: object) -> None:
        raise Killed

    batch = verdict_records(*(verdict(frame(n)) for n in range(3)))
    killed = bench.restarted()
    event.listen(bench.engine, "commit", die)
    with pytest.raises(Killed):
        killed.pipeline.inspections(batch)
    event.remove(bench.engine, "commit", die)
    assert bench.count(inspections) == 0
    again = bench.restarted()
    again.pipeline.inspections(batch)
    assert_all_told_once_counted_once(again, 3)


def test_killed_a_hundred_times_no_inspection_is_stored_twice(bench: Bench) -> None:
    """Promise P2: the consumer dies between publish and commit, so every batch comes again."""
    batch = verdict_records(*(verdict(frame(n)) for n in range(5)))
    for _ in range(100):
        bench.restarted().pipeline.inspections(batch)
    assert_all_told_once_counted_once(bench.restarted(), 5)


def assert_all_told_once_counted_once(bench: Bench, count: int) -> None:
    assert bench.count(inspections) == count
    assert len({one["id"] for one in events(bench)}) == count
    labels = {"project": "parts", "camera": "cam-1", "model_version": "v1", "verdict": "normal"}
    assert bench.metric("loupe_inspections_total", **labels) == count


def _samples(bench: Bench, name: str) -> list[Any]:
    return [
        sample
        for family in bench.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name
    ]


def _key(sample: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(sample.labels.items()))


def test_a_flood_of_poison_names_its_cause_and_a_record(bench: Bench) -> None:
    with pytest.raises(
        PoisonShareExceeded, match=r"MalformedRecord \(30\), for example loupe\.inspections:0:"
    ):
        bench.pipeline.inspections(garbage("loupe.inspections", 30))


def test_a_database_that_refuses_for_a_minute_is_no_hot_loop(bench: Bench) -> None:
    class Gone(Store):
        asked = 0

        def add_inspections(self, batch: Sequence[Read[Inspection]]) -> Judged:  # noqa: ARG002
            self.asked += 1
            raise DatabaseUnavailable("Away.")

    store = Gone(bench.engine, bench.clock)
    bench = bench.restarted(store=store)
    bench.patience.is_stopping = FakeTime()
    with pytest.raises(RetryLater):
        bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    assert store.asked <= 18


def test_a_broker_that_refuses_for_a_minute_is_no_hot_loop(bench: Bench) -> None:
    producer = Faulty(bench.broker, *[BrokerUnavailable("Away.")] * 1000)
    bench = bench.restarted(producer=producer)
    bench.patience.is_stopping = FakeTime()
    with pytest.raises(RetryLater):
        bench.pipeline.inspections(verdict_records(verdict(frame(1))))
    assert 1000 - len(producer.faults) <= 18

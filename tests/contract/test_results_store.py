"""What the results service writes and proves, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, Table, func, select, update

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.clock import FakeClock
from services.adapters.database import reading, writing
from services.adapters.database.tables import (
    frame_ends,
    inspections,
    ledger_captured,
    ledger_shed,
    ledger_shed_ranges,
    quarantine,
)
from services.domain.errors import MalformedRecord
from services.domain.inspection import Inspection, Role
from services.domain.ledger import LedgerEntry
from services.results.batch import Read, read_dead_letter, read_inspection, read_ledger_entry, sort_out
from services.results.ledger import offsets_without_end, prove
from services.results.rows import inspection_of
from services.results.store import Store
from tests.unit.results.builders import (
    START,
    captured,
    frame,
    ledger_records,
    letter,
    publish,
    publish_bare,
    records,
    shed_by_stream,
    shed_range,
    verdict,
    verdict_records,
)


@pytest.fixture
def store(engine: Engine) -> Store:
    return Store(engine, FakeClock(START + timedelta(seconds=100)))


def read(*verdicts: Inspection) -> list[Read[Inspection]]:
    good, refused = sort_out(verdict_records(*verdicts), read_inspection)
    assert not refused
    return good


def count(engine: Engine, table: Table) -> int:
    with reading(engine) as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


def test_an_inspection_comes_back_as_it_was(engine: Engine, store: Store) -> None:
    told = verdict(frame(1), part_id="part 7", lot_id="lot", subject="täst.jpg", is_anomalous=True)
    stored = store.add_inspections(read(told))
    assert [one.what for one in stored.first] == [told]
    with reading(engine) as connection:
        (row,) = connection.execute(select(inspections))
    found = inspection_of(row._asdict())
    # Captured at second 1, stored at second 100; produced at second 0.
    assert row.latency_ms == 99_000
    assert found == replace(told, stage_ms={**told.stage_ms, "store": 100_000.0})


def test_a_clock_in_the_future_gives_no_negative_latency(engine: Engine, store: Store) -> None:
    store.add_inspections(read(verdict(replace(frame(1), captured_at=START + timedelta(days=9)))))
    with reading(engine) as connection:
        assert connection.execute(select(inspections.c.latency_ms)).scalar() == 0


def test_a_redelivery_changes_nothing_and_tells_what_was_stored(engine: Engine, store: Store) -> None:
    first, again = verdict(frame(1)), verdict(frame(1), is_anomalous=True, score=0.9, model_version="v2")
    store.add_inspections(read(first))
    stored = store.add_inspections(read(again, verdict(frame(2))))
    assert [one.what.frame_id for one in stored.first] == [frame(2).frame_id]
    (known,) = stored.known
    assert (known.model_version, known.is_anomalous) == ("v1", False)
    assert stored.repeats == {"parts": 1}
    assert count(engine, inspections) == 2


def test_one_batch_with_a_frame_twice_stores_it_once(engine: Engine, store: Store) -> None:
    stored = store.add_inspections(read(verdict(frame(1)), verdict(frame(1), score=0.9)))
    assert [one.what.score for one in stored.first] == [0.25]
    assert stored.repeats == {"parts": 1}
    assert stored.known == ()


def test_roles_and_runs_are_inspections_of_their_own(engine: Engine, store: Store) -> None:
    of = frame(1)
    store.add_inspections(
        read(verdict(of), verdict(of, role=Role.SHADOW), verdict(of, role=Role.REJUDGE, run="r1"))
    )
    assert count(engine, inspections) == 3
    assert prove(engine, None)["cam-1"].judged == 1


def test_what_the_database_cannot_hold_is_refused_whole(engine: Engine, store: Store) -> None:
    batch = read(verdict(frame(1)), verdict(frame(2)))
    batch[1] = replace(batch[1], what=replace(batch[1].what, sequence=1 << 70))
    with pytest.raises(MalformedRecord, match="cannot hold"):
        store.add_inspections(batch)
    assert count(engine, inspections) == 0


def test_every_record_of_a_frame_is_ended(engine: Engine, store: Store) -> None:
    broker = MemoryBroker(partitions=1)
    first, double = publish(broker, frame(1), frame(1))
    store.add_inspections(read(verdict(first), verdict(double)))
    assert count(engine, frame_ends) == 2
    assert count(engine, inspections) == 1
    assert prove(engine, MemoryTopicReader(broker))["cam-1"].is_balanced


def test_quarantined_frames_are_stored_once_with_their_cause(engine: Engine, store: Store) -> None:
    (of,) = publish(MemoryBroker(partitions=1), frame(1))
    good, refused = sort_out(records(letter(of, "First."), letter(of, "Second.")), read_dead_letter)
    assert not refused
    (row,) = store.add_quarantined(good)
    assert (row["cause"], row["reason"], row["letter_offset"]) == ("UnreadableImage", "First.", 0)
    assert store.add_quarantined(good) == ()
    assert count(engine, quarantine) == 1


def test_declarations_are_stored_once(engine: Engine, store: Store) -> None:
    (of,) = publish(MemoryBroker(partitions=1), frame(7))
    entries = [captured(0, 9), captured(0, 9), shed_range(3, 4), shed_by_stream(of)]
    batch, refused = sort_out(ledger_records(*entries), read_ledger_entry)
    assert not refused
    stored = store.add_declared(batch)
    assert (len(stored.captured), len(stored.shed_ranges), len(stored.shed)) == (1, 1, 1)
    again = store.add_declared(batch)
    assert (again.captured, again.shed_ranges, again.shed) == ((), (), ())
    tables = (ledger_captured, ledger_shed_ranges, ledger_shed)
    assert [count(engine, table) for table in tables] == [1, 1, 1]
    assert count(engine, frame_ends) == 1  # only the one that stood in the topic


def test_the_ledger_names_each_missing_frame(engine: Engine, store: Store) -> None:
    broker = MemoryBroker(partitions=1)
    seen = publish(broker, *(frame(n) for n in range(6)))
    declare(store, captured(0, 7), shed_range(6, 6), shed_by_stream(seen[5]))
    store.add_inspections(read(*(verdict(one) for one in seen[:3])))
    store.add_quarantined(sort_out(records(letter(seen[3])), read_dead_letter)[0])
    balance = prove(engine, MemoryTopicReader(broker))["cam-1"]
    assert (balance.captured, balance.judged, balance.quarantined, balance.shed) == (8, 3, 1, 2)
    # 4 stands in the topic without an end, 7 was declared and never arrived.
    assert set(balance.missing) == {frame(4).frame_id, frame(7).frame_id}
    assert not balance.is_balanced


def test_frames_of_foreign_producers_are_found_by_offset(engine: Engine, store: Store) -> None:
    broker = MemoryBroker(partitions=2)
    judged, lost = publish_bare(broker, "foreign-a"), publish_bare(broker, "foreign-b")
    store.add_inspections(read(verdict(judged)))
    balances = prove(engine, MemoryTopicReader(broker))
    assert balances["foreign-a"].is_balanced
    assert balances["foreign-b"].missing == (lost.frame_id,)
    assert prove(engine, MemoryTopicReader(broker), "foreign-a").keys() == {"foreign-a"}


def test_a_second_record_of_an_ended_frame_is_not_missing(engine: Engine, store: Store) -> None:
    broker = MemoryBroker(partitions=1)
    first, _ = publish(broker, frame(1), frame(1))
    store.add_inspections(read(verdict(first)))
    assert prove(engine, MemoryTopicReader(broker))["cam-1"].is_balanced


def test_a_frame_with_several_ends_counts_once_at_its_strongest(engine: Engine, store: Store) -> None:
    one, two = publish(MemoryBroker(partitions=1), frame(1), frame(2))
    declare(store, captured(1, 2), shed_by_stream(one), shed_by_stream(two))
    store.add_quarantined(sort_out(records(letter(one), letter(two)), read_dead_letter)[0])
    store.add_inspections(read(verdict(one)))
    balance = prove(engine, None)["cam-1"]
    assert (balance.captured, balance.judged, balance.quarantined, balance.shed) == (2, 1, 1, 0)
    assert balance.is_balanced


def test_declared_twice_is_captured_once(engine: Engine, store: Store) -> None:
    declare(store, captured(0, 4), captured(2, 6, name="overlap"))
    assert prove(engine, None)["cam-1"].captured == 7


def test_a_camera_that_nobody_knows_has_captured_nothing(engine: Engine) -> None:
    assert prove(engine, None) == {}
    balance = prove(engine, None, "cam-9")["cam-9"]
    assert balance.captured == 0
    assert balance.is_balanced


def test_ended_ranges_are_not_looked_at_again(engine: Engine, store: Store) -> None:
    declare(store, captured(0, 1))
    store.add_inspections(read(verdict(frame(0)), verdict(frame(1))))
    with reading(engine) as connection:
        keys = [
            tuple(row)
            for row in connection.execute(select(ledger_captured.c.entry_id, ledger_captured.c.number))
        ]
    store.close_ranges([(str(entry), int(number)) for entry, number in keys])
    assert prove(engine, None)["cam-1"].is_balanced
    with writing(engine) as connection:
        # Were the range looked at, this frame would be missing now.
        connection.execute(update(inspections).values(run="moved"))
    assert prove(engine, None) == {}


def test_more_ranges_than_a_query_takes_parameters_are_closed(engine: Engine, store: Store) -> None:
    declare(store, captured(0, 1))
    with reading(engine) as connection:
        (key,) = connection.execute(select(ledger_captured.c.entry_id, ledger_captured.c.number))
    # SQLite takes 32,766 parameters a query, PostgreSQL 65,535; a range has two.
    store.close_ranges([*((f"other-{n}", 0) for n in range(33_000)), (str(key.entry_id), int(key.number))])
    with reading(engine) as connection:
        assert connection.execute(select(ledger_captured.c.is_ended)).scalars().all() == [True]


@pytest.mark.parametrize(
    ("ended", "span", "expected"),
    [
        ([], range(3), [range(3)]),
        ([0, 1, 2], range(3), []),
        ([1, 4], range(6), [range(1), range(2, 4), range(5, 6)]),
        ([1, 4], range(2, 4), [range(2, 4)]),
        ([1, 2], range(0), []),
        ([7, 9], range(7, 10), [range(8, 9)]),
    ],
)
def test_holes_are_the_offsets_without_end(
    engine: Engine, ended: list[int], span: range, expected: list[range]
) -> None:
    row = {"topic": "loupe.frames", "partition": 0, "frame_id": "f", "camera": "c", "end": "judged"}
    with writing(engine) as connection:
        if ended:
            connection.execute(frame_ends.insert(), [{**row, "offset": offset} for offset in ended])
    with reading(engine) as connection:
        assert list(offsets_without_end(connection, 0, span)) == expected
        assert list(offsets_without_end(connection, 1, range(2))) == [range(2)]


def declare(store: Store, *entries: LedgerEntry) -> None:
    store.add_declared(sort_out(ledger_records(*entries), read_ledger_entry)[0])


def test_a_frame_that_failed_again_tells_of_its_last_failure(engine: Engine, store: Store) -> None:
    (of,) = publish(MemoryBroker(partitions=1), frame(1))
    first = records(letter(of, "First."))[0]
    again = replace(first, offset=7, headers=(("ce_loupetry", b"1"), *letter(of, "Second.").headers))
    late = replace(again, headers=tuple((n, b"2" if n == "dlq_tries" else v) for n, v in again.headers))
    assert len(store.add_quarantined(sort_out([first], read_dead_letter)[0])) == 1
    assert store.add_quarantined(sort_out([late], read_dead_letter)[0]) == ()
    assert store.add_quarantined(sort_out([first], read_dead_letter)[0]) == ()
    with reading(engine) as connection:
        (row,) = connection.execute(select(quarantine))
    assert (row.tries, row.reason, row.letter_offset) == (2, "Second.", 7)


def test_a_quarantined_frame_remembers_the_pixels_that_it_referred_to(engine: Engine, store: Store) -> None:
    (of,) = publish(MemoryBroker(partitions=1), frame(1))
    (told,) = records(letter(of))
    image = (("ce_dataref", b"s3://loupe-frames/a"), ("ce_datarefsha256", b"ab" * 32))
    with_image = replace(told, headers=told.headers + image)
    (row,) = store.add_quarantined(sort_out([with_image], read_dead_letter)[0])
    assert (row["image_uri"], row["image_sha256"]) == ("s3://loupe-frames/a", "ab" * 32)

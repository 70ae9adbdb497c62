"""Dead letters are published again, once per frame, and counted right whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryDelivery, MemoryProducer
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.cache.memory import MemoryCache
from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.cli.dead_letters import Filters, letters, with_verdicts
from services.cli.redriving import Outcome, Redriver, as_json
from services.domain.errors import BrokerUnavailable, ImageTooLarge, UnreadableImage
from services.domain.frame import Frame
from services.domain.topics import FRAMES, FRAMES_DLQ
from services.results.ledger import prove
from services.wire.dead_letter import encode_dead_letter
from services.wire.frame import decode_frame
from services.wire.record import OutRecord, Record
from tests.unit.results.builders import START, publish_bare, verdict, verdict_records
from tests.unit.results.conftest import Bench, bench_of


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    engine = open_engine(url)
    yield bench_of(engine, MemoryBroker(), MemoryCache(), FakeClock(START))
    engine.dispose()


def quarantine(bench: Bench, *records: Record) -> None:
    """Do what the stream and the results service do with frames that cannot be judged."""
    for record in records:
        frame = decode_frame(record)
        bench.broker.append(
            encode_dead_letter(
                record,
                UnreadableImage("No."),
                tries=1,
                at=START,
                frame_id=str(frame.frame_id),
                camera=frame.camera,
            )
        )
    bench.pipeline.dead_letters(bench.broker.records(FRAMES_DLQ.name))


def redrive(bench: Bench, producer: Any = None, *, limit: int | None = None, **how: Any) -> Outcome:
    outcome, reader = Outcome(), MemoryTopicReader(bench.broker)
    asked = letters(reader, Filters(topic=FRAMES.name))
    found = with_verdicts(bench.engine, (one.without_bytes() for one in asked))
    Redriver(reader, producer or MemoryProducer(bench.broker), **how).redrive(found, outcome, limit=limit)
    return outcome


def recorded(bench: Bench) -> list[Record]:
    return bench.broker.records(FRAMES.name)


def judge(bench: Bench, frames: Sequence[Frame]) -> None:
    bench.pipeline.inspections(verdict_records(*(verdict(one) for one in frames)))


def test_a_redriven_frame_is_judged_instead_of_quarantined(bench: Bench) -> None:
    for _ in range(3):
        publish_bare(bench.broker, "foreign")
    before = recorded(bench)
    quarantine(bench, *before)
    reader = MemoryTopicReader(bench.broker)
    assert prove(bench.engine, reader)["foreign"].quarantined == 3
    assert redrive(bench).redriven == 3
    again = [decode_frame(record) for record in recorded(bench)[3:]]
    assert [one.frame_id for one in again] == [decode_frame(record).frame_id for record in before]
    judge(bench, again[:2])
    balance = prove(bench.engine, reader)["foreign"]
    assert (balance.captured, balance.judged, balance.quarantined) == (3, 2, 1)
    assert balance.is_balanced
    # Run again it publishes what has no verdict, and only that.
    outcome = redrive(bench)
    assert (outcome.redriven, outcome.judged) == (1, 2)
    assert redrive(bench, again=True).redriven == 3


def test_a_frame_that_fails_again_is_redriven_once_with_its_last_letter(bench: Bench) -> None:
    publish_bare(bench.broker, "foreign")
    quarantine(bench, recorded(bench)[0])
    redrive(bench)
    quarantine(bench, recorded(bench)[1])
    outcome = redrive(bench)
    assert (outcome.redriven, outcome.repeats) == (1, 1)
    tries = dict(recorded(bench)[2].headers)["ce_loupetry"]
    assert tries == b"2"


def test_nothing_is_published_for_a_look(bench: Bench) -> None:
    publish_bare(bench.broker, "foreign")
    quarantine(bench, recorded(bench)[0])
    outcome, reader = Outcome(), MemoryTopicReader(bench.broker)
    Redriver(reader, None).redrive(list(letters(reader)), outcome)
    assert (outcome.redriven, len(recorded(bench))) == (1, 1)


def test_limit_and_project_are_kept(bench: Bench) -> None:
    for _ in range(3):
        publish_bare(bench.broker, "foreign")
    quarantine(bench, *recorded(bench))
    assert redrive(bench, limit=2, project="other").redriven == 2
    assert {decode_frame(record).project for record in recorded(bench)[3:]} == {"other"}


class Lazy(MemoryProducer):
    """A producer whose broker goes away after some records."""

    def __init__(self, broker: MemoryBroker, survives: int) -> None:
        super().__init__(broker)
        self.survives = survives

    def send(self, record: OutRecord) -> MemoryDelivery:
        if not self.survives:
            raise BrokerUnavailable("Away.")
        self.survives -= 1
        return super().send(record)


def test_interrupted_it_is_run_again(bench: Bench) -> None:
    for _ in range(40):
        publish_bare(bench.broker, "foreign")
    quarantine(bench, *recorded(bench))
    with pytest.raises(BrokerUnavailable):
        redrive(bench, Lazy(bench.broker, 25))
    judge(bench, [decode_frame(record) for record in recorded(bench)[40:]])
    outcome = redrive(bench)
    assert (outcome.redriven, outcome.judged) == (15, 25)


def test_bytes_that_were_too_large_for_a_letter_come_from_the_original(bench: Bench) -> None:
    publish_bare(bench.broker, "foreign", b"large")
    publish_bare(bench.broker, "foreign", b"large, and gone")
    note = ("dlq_bytes", b"left out")
    for number, record in enumerate(recorded(bench)):
        frame, gone = decode_frame(record), replace(record, offset=99)
        letter = encode_dead_letter(
            gone if number else record,
            UnreadableImage("No."),
            tries=1,
            at=START,
            frame_id=str(frame.frame_id),
        )
        bench.broker.append(replace(letter, value=b"", headers=(*letter.headers, note)))
    outcome = redrive(bench)
    assert outcome.redriven == 1
    assert len(outcome.lost) == 1
    assert recorded(bench)[2].value == b"large"
    assert decode_frame(recorded(bench)[2]).frame_id == decode_frame(recorded(bench)[0]).frame_id


class Small(MemoryProducer):
    """A broker that takes no images."""

    def send(self, record: OutRecord) -> MemoryDelivery:  # noqa: ARG002
        raise ImageTooLarge("Too large.")


def test_what_the_broker_does_not_take_is_named(bench: Bench) -> None:
    publish_bare(bench.broker, "foreign")
    quarantine(bench, recorded(bench)[0])
    outcome = redrive(bench, Small(bench.broker))
    assert (outcome.redriven, len(outcome.too_large)) == (0, 1)


def test_a_rate_is_kept(bench: Bench) -> None:
    for _ in range(5):
        publish_bare(bench.broker, "foreign")
    quarantine(bench, *recorded(bench))
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    redrive(bench, rate_fps=10.0, clock_s=lambda: now[0], sleep=sleep)
    assert slept == pytest.approx([0.1] * 5)


def test_what_was_published_is_named_with_who_is_to_judge(bench: Bench) -> None:
    for _ in range(3):
        publish_bare(bench.broker, "foreign")
    quarantine(bench, *recorded(bench))
    frame_ids = [str(decode_frame(record).frame_id) for record in recorded(bench)]
    judge(bench, [decode_frame(recorded(bench)[0])])
    told = as_json(redrive(bench, project="other", limit=1), is_dry=False)
    assert told == {
        "redriven": 1,
        "skipped_judged": 1,
        "skipped_repeats": 0,
        "failed": 0,
        "dry_run": False,
        "letters": [{"position": "loupe.frames.dlq:0:1", "frame_id": frame_ids[1], "project": "other"}],
        "failed_letters": [],
    }
    quarantine(bench, recorded(bench)[3])
    # It asks for the project that it was sent to before.
    again = as_json(redrive(bench), is_dry=True)
    assert again["letters"] == [
        {"position": "loupe.frames.dlq:0:2", "frame_id": frame_ids[2], "project": None},
        {"position": "loupe.frames.dlq:0:3", "frame_id": frame_ids[1], "project": "other"},
    ]
    assert (again["dry_run"], again["skipped_repeats"]) == (True, 1)


def test_what_could_not_be_published_is_named_with_why(bench: Bench) -> None:
    publish_bare(bench.broker, "foreign")
    quarantine(bench, recorded(bench)[0])
    told = as_json(redrive(bench, Small(bench.broker)), is_dry=False)
    assert told["failed"] == 1
    assert told["failed_letters"] == [{"position": "loupe.frames.dlq:0:0", "why": "too large for the broker"}]
